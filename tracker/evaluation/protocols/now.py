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

from flame_assets.similarity import similarity
from flame_assets.surface_points import Surface
from tracker.errors import UserError
from tracker.evaluation.baselines.interface import Tracked

IBUG_LANDMARKS = (36, 39, 42, 45, 33, 48, 54)
"""The seven landmarks by their numbers among the 68 points."""

_CENTRE_SHARE, _RADIUS_FACTOR = 0.3, 0.7
_ROUNDS, _STILL = 200, 1e-7


@dataclass(frozen=True)
class ShapeScores:
    """Pooled distances, millimetres."""

    median: float
    mean: float
    std: float


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
    surface, before = Surface(vertices, faces), np.inf
    for _ in range(_ROUNDS):
        # the points are brought to the mesh, not the mesh to the points, so that it is searched as it is
        nearest = surface.nearest((points - shift) @ rotation / scale).points
        distance = np.linalg.norm(scale * nearest @ rotation.T + shift - points, axis=1)
        error = float((distance**2).mean())
        if before - error < _STILL * error:
            break
        before = error
        scale, rotation, shift = similarity(nearest, points, scaled=not metrical)
    return distance


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
