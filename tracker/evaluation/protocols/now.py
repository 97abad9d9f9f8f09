"""Shape on the NoW benchmark (Sanyal et al., *Learning to regress 3D face shape and expression from an image without 3D
supervision*, CVPR 2019): distances from a scan to the predicted neutral mesh.

The protocol: seven landmarks (outer and inner corner of the right eye, inner and outer corner of the left, base of the
nose, right and left corner of the mouth) give a first similarity. The scan is cut to a sphere: its centre lies three tenths of the
way from the base of the nose to the middle of the inner eye corners, its radius is 0.7 times the sum of that way and the outer eye corners'
distance. The similarity is refined to the least squares of the distances from scan vertices to the mesh's surface. The distances that remain are pooled
over all pictures, and their median, mean and standard deviation are reported in millimetres. The metrical challenge leaves the scale at one.
Scans are in millimetres; meshes may have any unit, except in the metrical challenge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from flame_assets.similarity import similarity
from tracker.errors import UserError
from tracker.evaluation.baselines.interface import Tracked

IBUG_LANDMARKS = (36, 39, 42, 45, 33, 48, 54)
"""The seven landmarks by their numbers among the 68 points."""

_CENTRE_SHARE, _RADIUS_FACTOR = 0.3, 0.7
_ROUNDS, _STILL = 200, 1e-7
_NEAREST = 12


@dataclass(frozen=True)
class ShapeScores:
    """Pooled distances, millimetres."""

    median: float
    mean: float
    std: float


def closest_on_mesh(
    points: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "n 3"]:
    """The nearest point of the surface to each point, among the triangles nearest by samples on them.

    Triangles get samples as dense as the mesh's median edge is long, so that large ones are not overlooked beside small ones.
    """
    corners = vertices[faces]
    samples, owner = _samples(corners)
    nearest = cKDTree(samples).query(points, k=min(_NEAREST, len(samples)))[1].reshape(len(points), -1)
    candidates = owner[nearest]
    best, found = np.full(len(points), np.inf), np.zeros_like(points)
    for column in candidates.T:
        nearest = _closest_on_triangles(points, corners[column])
        distance = ((nearest - points) ** 2).sum(1)
        better = distance < best
        best[better], found[better] = distance[better], nearest[better]
    return found


def _samples(corners: Float[np.ndarray, "f 3 3"]) -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, "m"]]:
    """Corners of triangles and points on them, and the triangles' numbers."""
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    steps = np.ceil(edges.max(1) / max(float(np.median(edges)), 1e-12)).astype(int).clip(1, 50)
    samples, owner = [corners.reshape(-1, 3)], [np.repeat(np.arange(len(corners)), 3)]
    for n in np.unique(steps):
        i, j = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
        i, j = i[i + j < n], j[i + j < n]
        weights = np.stack([i + 1 / 3, j + 1 / 3, n - i - j - 2 / 3], axis=1) / n
        rows = np.flatnonzero(steps == n)
        samples.append(np.einsum("sk,fkc->fsc", weights, corners[rows]).reshape(-1, 3))
        owner.append(np.repeat(rows, len(weights)))
    return np.concatenate(samples), np.concatenate(owner)


def _closest_on_triangles(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Nearest point of one triangle for each point: inside the face, or on the nearest of the three edges."""
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(ab, ac)
    area = (normal**2).sum(1).clip(1e-30)
    offset = points - a
    v = (np.cross(offset, ac) * normal).sum(1) / area
    w = (np.cross(ab, offset) * normal).sum(1) / area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    best = a + v[:, None] * ab + w[:, None] * ac
    distance = np.where(inside, ((best - points) ** 2).sum(1), np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, edge = corners[:, i], corners[:, j] - corners[:, i]
        t = (((points - start) * edge).sum(1) / (edge**2).sum(1).clip(1e-30)).clip(0, 1)
        on_edge = start + t[:, None] * edge
        d = ((on_edge - points) ** 2).sum(1)
        better = d < distance
        distance[better], best[better] = d[better], on_edge[better]
    return best


def face_region(scan: Float[np.ndarray, "n 3"], landmarks: Float[np.ndarray, "7 3"]) -> Bool[np.ndarray, "n"]:
    """Scan vertices that count; see above."""
    base, bridge = landmarks[4], landmarks[1:3].mean(0)
    radius = _RADIUS_FACTOR * (np.linalg.norm(landmarks[0] - landmarks[3]) + np.linalg.norm(bridge - base))
    return np.linalg.norm(scan - (base + _CENTRE_SHARE * (bridge - base)), axis=1) <= radius


def scan_distances(
    scan: Float[np.ndarray, "n 3"],
    scan_landmarks: Float[np.ndarray, "7 3"],
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    mesh_landmarks: Float[np.ndarray, "7 3"],
    metrical: bool = False,
) -> Float[np.ndarray, "m"]:
    """Distances of one scan's face to one predicted mesh after the alignment, in the scan's unit.

    Args:
        scan, scan_landmarks: of the scan, millimetres.
        vertices, faces, mesh_landmarks: of the predicted neutral mesh; landmarks in the order of :data:`IBUG_LANDMARKS`.
        metrical: keep the mesh's own scale; its unit is then millimetres too.
    """
    points = scan[face_region(scan, scan_landmarks)].astype(np.float64)
    scale, rotation, shift = similarity(mesh_landmarks.astype(np.float64), scan_landmarks.astype(np.float64), scaled=not metrical)
    moved = scale * vertices.astype(np.float64) @ rotation.T + shift
    before = np.inf
    for _ in range(_ROUNDS):
        nearest = closest_on_mesh(points, moved, faces)
        error = float(((nearest - points) ** 2).sum(1).mean())
        if before - error < _STILL * error:
            break
        before = error
        scale, rotation, shift = similarity(nearest, points, scaled=not metrical)
        moved = scale * moved @ rotation.T + shift
    return np.linalg.norm(closest_on_mesh(points, moved, faces) - points, axis=1)


def pooled(distances: Iterable[Float[np.ndarray, "m"]]) -> ShapeScores:
    """The figures that the challenge reports, from all scans' distances."""
    everything = np.concatenate(list(distances))
    return ShapeScores(float(np.median(everything)), float(everything.mean()), float(everything.std()))


def neutral_mesh(tracked: Tracked) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "7 3"]]:
    """The tracked person's neutral head, metres, and its seven landmarks."""
    head, track = tracked.head, tracked.track
    vertices = head.v_template + head.shapedirs[..., : head.n_identity] @ track.shape
    return vertices, head.landmarks["ibug68"].positions(vertices, head.faces)[list(IBUG_LANDMARKS)]


def read_landmarks(file: Path) -> Float[np.ndarray, "7 3"]:
    """Seven points from a text file as the challenge has them: three numbers a line, with commas or blanks.

    Raises:
        UserError: not such a file.
    """
    try:
        rows = [line.replace(",", " ").split() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
        points = np.array(rows, np.float64)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: no landmarks ({error})") from error
    if points.shape != (7, 3):
        raise UserError(f"{file}: expected seven points of three numbers, found {points.shape}")
    return points
