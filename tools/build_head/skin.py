"""Cut head and neck out of the source body.

Every vertex of the cut skin is a fixed linear combination of source vertices (mostly one vertex with weight 1), so
whatever deforms the source deforms the skin. The source's neck is a stack of closed edge loops of 42 vertices; the
lowest few are re-spaced along its 42 vertical edge lines so that the last one lies in a plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from flame_assets.asset import AssetError
from tools.build_head.loops import QuadMesh
from tools.build_head.source import Source

NECK_LOOPS = ((854, 855, 856, 857, 858, 1496, 1491, 1467), 42)
"""A vertex at the nape of each closed loop from the first that is re-spaced downwards, and the length of a loop."""
KEPT_LOOPS = 5
"""Loops below the first that the skin keeps; the last becomes the ring of the cut."""
CUT_NORMAL = np.array([0.0, 0.90, 0.436])
"""Normal of the cut's plane (along the neck's axis, which leans forward), in the head frame."""
CUT_POINT = np.array([0.0, -0.155, -0.04])
"""Point of the cut's plane at the throat, in the head frame."""


@dataclass(frozen=True)
class Skin:
    """The cut surface.

    Attributes:
        embedding: ``(n, N)`` sparse matrix, skin vertices from source vertices.
        origin: ``(n,)`` source vertex that each skin vertex was before loops were re-spaced.
        quads: ``(q, 4)`` indices into the skin's vertices. uv_quads: ``(q, 4)`` indices into the source's uv.
        ring: skin vertices of the cut, in order around the neck.
    """

    embedding: sp.csr_matrix
    origin: np.ndarray
    quads: np.ndarray
    uv_quads: np.ndarray
    ring: np.ndarray


def cut_skin(source: Source, template: np.ndarray, drop: np.ndarray) -> Skin:
    """Head and neck of the source.

    Args:
        template: ``(N, 3)`` source vertices of the mean person in the head frame, metres.
        drop: source vertices whose quads are left out (the eye sockets, which are rebuilt).
    """
    body = source.groups == "body"
    mesh = QuadMesh(source.quads[body])
    starts, length = NECK_LOOPS
    loops = [_nape_loop(mesh, start, template, length) for start in starts]
    keep_face = _above(mesh, loops[KEPT_LOOPS], template)
    keep_face &= ~np.isin(mesh.quads, drop).any(1)
    quads, uv_quads = mesh.quads[keep_face], source.uv_quads[body][keep_face]
    origin, quads = np.unique(quads, return_inverse=True)
    quads = quads.reshape(-1, 4)
    slot = {v: i for i, v in enumerate(origin)}
    rows = {v: {v: 1.0} for v in origin}
    for column in np.array(loops).T:
        rows.update(_respaced(column, template))
    entries = [(slot[v], s, w) for v in origin for s, w in rows[v].items()]
    i, j, w = zip(*entries)
    embedding = sp.csr_matrix((w, (i, j)), shape=(len(origin), len(template)))
    ring = np.array([slot[v] for v in loops[KEPT_LOOPS]])
    return Skin(embedding, origin, quads, uv_quads, ring)


def _nape_loop(mesh: QuadMesh, start: int, template: np.ndarray, length: int) -> np.ndarray:
    """The closed loop through ``start`` that leaves it towards the subject's left."""
    for neighbour in sorted(mesh.neighbours[start]):
        if template[neighbour, 0] > 1e-3:
            loop = mesh.loop(start, neighbour)
            if loop is not None and len(loop) == length:
                return loop
    raise AssetError(f"the source mesh has no closed loop of {length} vertices through {start}")


def _above(mesh: QuadMesh, ring: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Quads on the head's side of the closed loop ``ring``: those not reachable from below without crossing it."""
    wall = {frozenset(e) for e in zip(ring.tolist(), np.roll(ring, -1).tolist())}
    crown = int(template[mesh.quads].mean(1)[:, 1].argmax())
    seen, stack = np.zeros(len(mesh.quads), bool), [crown]
    seen[crown] = True
    while stack:
        face = stack.pop()
        quad = mesh.quads[face].tolist()
        for a, b in zip(quad, quad[1:] + quad[:1]):
            edge = frozenset((a, b))
            if edge in wall:
                continue
            for other in mesh.edge_faces[edge]:
                if not seen[other]:
                    seen[other] = True
                    stack.append(other)
    return seen


def _respaced(column: np.ndarray, template: np.ndarray) -> dict[int, dict[int, float]]:
    """Linear combinations that move the loops of one vertical edge line to even spacing down to the cut's plane."""
    points = template[column]
    height = (points - CUT_POINT) @ CUT_NORMAL
    below = np.flatnonzero(height <= 0)
    if not len(below):
        raise AssetError("the neck's edge lines do not reach the plane of the cut")
    k = int(below[0])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    end = arc[k - 1] + (arc[k] - arc[k - 1]) * height[k - 1] / (height[k - 1] - height[k])
    rows = {}
    for step in range(1, KEPT_LOOPS + 1):
        at = end * step / KEPT_LOOPS
        j = min(int(np.searchsorted(arc, at, side="right")) - 1, len(column) - 2)
        t = (at - arc[j]) / (arc[j + 1] - arc[j])
        rows[int(column[step])] = {int(column[j]): 1.0 - t, int(column[j + 1]): t}
    return rows


def triangulate(quads: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split each quad along its shorter diagonal in ``vertices``.

    Returns:
        corners: ``(2 * Q, 3)`` corner numbers 0-3, and quad: ``(2 * Q,)`` the quad of each triangle.
    """
    p = vertices[quads]
    first, second = np.linalg.norm(p[:, 0] - p[:, 2], axis=1), np.linalg.norm(p[:, 1] - p[:, 3], axis=1)
    swap = second < first - 1e-9
    a = np.where(swap[:, None], [[0, 1, 3]], [[0, 1, 2]])
    b = np.where(swap[:, None], [[1, 2, 3]], [[0, 2, 3]])
    return np.stack([a, b], 1).reshape(-1, 3), np.repeat(np.arange(len(quads)), 2)
