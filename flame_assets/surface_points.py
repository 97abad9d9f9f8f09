"""Nearest points on a triangle mesh, with their triangle and barycentrics.

Trimesh finds nearest points too, but not among the triangles that look a given way, which registration needs, and asks for
another package with a compiled library (rtree) to do it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

_SUBDIVISION = 4  # samples per triangle edge; only finds candidate triangles, the distance itself is exact
_CANDIDATES = 36
_AT_ONCE = 4096  # queries whose candidates are held in memory together


@dataclass(frozen=True)
class SurfaceHits:
    """Points on a surface: ``faces`` (N,) rows of the mesh's triangles, ``barycentrics`` (N, 3), ``points`` (N, 3)."""

    faces: np.ndarray
    barycentrics: np.ndarray
    points: np.ndarray


class Surface:
    """Some triangles of a mesh, ready for nearest-point queries.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)`` all triangles of the mesh.
        allowed: ``(F,)`` bool, the triangles that may be hit; all when None.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, allowed: np.ndarray | None = None) -> None:
        self._ids = np.arange(len(faces)) if allowed is None else np.flatnonzero(allowed)
        self._corners = vertices[faces[self._ids]].astype(np.float64)
        a, b, c = self._corners.transpose(1, 0, 2)
        normals = np.cross(b - a, c - a)
        self.normals = normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-15)
        self._place = np.full(len(faces), -1)
        self._place[self._ids] = np.arange(len(self._ids))
        self._balls = _balls(self._corners)

    @cached_property
    def _samples(self) -> tuple[cKDTree, np.ndarray]:
        """Points spread over every triangle, and whose they are."""
        grid = np.array(
            [(i, j, _SUBDIVISION - i - j) for i in range(_SUBDIVISION + 1) for j in range(_SUBDIVISION + 1 - i)]
        )
        weights = (grid + 1 / 3) / (_SUBDIVISION + 1)  # inside the triangle, so that neighbours do not share samples
        samples = np.einsum("sk,fkc->fsc", weights, self._corners)
        return cKDTree(samples.reshape(-1, 3)), np.repeat(np.arange(len(self._ids)), len(weights))

    def normal_of(self, hits: SurfaceHits) -> np.ndarray:
        """Unit normals ``(N, 3)`` of the triangles that ``hits`` lie on."""
        return self.normals[self._place[hits.faces]]

    def nearest(self, points: np.ndarray, normals: np.ndarray | None = None, cosine: float = 0.3) -> SurfaceHits:
        """Nearest point of the surface to each of ``points`` (N, 3).

        Args:
            points: query positions.
            normals: ``(N, 3)`` unit; where given, only triangles near by are candidates, and those whose normal makes a smaller
                cosine with it than ``cosine`` are passed over, unless no candidate does better.
            cosine: see ``normals``.
        """
        if normals is None:
            parts = [self._nearest(points[i : i + _AT_ONCE]) for i in range(0, max(len(points), 1), _AT_ONCE)]
            return SurfaceHits(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        tree, owner = self._samples
        candidates = owner[tree.query(points, k=min(_CANDIDATES, len(owner)))[1]]
        corners = self._corners[candidates]
        barycentrics = closest_barycentrics(points[:, None], corners)
        hits = np.einsum("nmk,nmkc->nmc", barycentrics, corners)
        distance = np.linalg.norm(hits - points[:, None], axis=-1)
        agreement = np.einsum("nmc,nc->nm", self.normals[candidates], normals)
        distance = distance + np.where(agreement < cosine, 1e3, 0.0)
        best = distance.argmin(1)
        rows = np.arange(len(points))
        return SurfaceHits(self._ids[candidates[rows, best]], barycentrics[rows, best], hits[rows, best])


    def _nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Faces, barycentrics and points, exactly: every triangle whose ball reaches to within the distance already known."""
        known = np.full(len(points), np.inf)
        for _, members, tree in self._balls:
            first = members[tree.query(points)[1]]
            corners = self._corners[first]
            hits = np.einsum("nk,nkc->nc", closest_barycentrics(points, corners), corners)
            known = np.minimum(known, np.linalg.norm(hits - points, axis=1))
        known = known * (1 + 1e-9) + 1e-15  # the nearest one itself must not be lost to rounding
        rows, candidates = [], []
        for radius, members, tree in self._balls:
            within = tree.query_ball_point(points, known + radius)
            rows.append(np.repeat(np.arange(len(points)), [len(w) for w in within]))
            candidates.append(members[np.fromiter(itertools.chain.from_iterable(within), int)])
        row, face = np.concatenate(rows), np.concatenate(candidates)
        corners = self._corners[face]
        barycentrics = closest_barycentrics(points[row], corners)
        hits = np.einsum("nk,nkc->nc", barycentrics, corners)
        order = np.lexsort((face, np.linalg.norm(hits - points[row], axis=1), row))
        best = order[np.unique(row[order], return_index=True)[1]]
        return self._ids[face[best]], barycentrics[best], hits[best]


def _balls(corners: np.ndarray) -> list[tuple[float, np.ndarray, cKDTree]]:
    """Triangles by size, so that few large ones do not widen the search among many small ones: the radius about their
    centroids that holds each, their rows, and the centroids."""
    centroids = corners.mean(1)
    radius = np.linalg.norm(corners - centroids[:, None], axis=2).max(1)
    classes = np.ceil(np.log2(radius.clip(1e-12)))
    members = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    return [(float(radius[m].max()), m, cKDTree(centroids[m])) for m in members]


def closest_barycentrics(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentrics ``(..., 3)`` of the point of each triangle ``(..., 3, 3)`` that is nearest to each of ``points``.

    The foot of the perpendicular where it lies inside, else the best point of the three edges.
    """
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    determinant = (d00 * d11 - d01 * d01).clip(1e-30)
    v, w = (d11 * d20 - d01 * d21) / determinant, (d00 * d21 - d01 * d20) / determinant
    inside = np.stack([1 - v - w, v, w], axis=-1)

    flat = d00 * d11 - d01 * d01 <= 1e-14 * d00 * d11  # has no inside
    best, best_distance = inside, np.where((inside >= 0).all(-1) & ~flat, 0.0, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        p, q = corners[..., i, :], corners[..., j, :]
        edge = q - p
        t = (((points - p) * edge).sum(-1) / (edge * edge).sum(-1).clip(1e-30)).clip(0, 1)
        distance = np.linalg.norm(p + t[..., None] * edge - points, axis=-1)
        along = np.zeros_like(inside)
        along[..., i], along[..., j] = 1 - t, t
        closer = distance < best_distance
        best = np.where(closer[..., None], along, best)
        best_distance = np.where(closer, distance, best_distance)
    return best
