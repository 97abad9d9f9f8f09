"""Points in space from two pictures with known cameras, matched through the embedding."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from densemarks_model.errors import ModelError
from densemarks_model.evaluation.still_pictures import HeadMaps
from densemarks_model.matching import CONFIDENCE, mutual_matches


@dataclass(frozen=True)
class StereoCamera:
    """A pinhole camera, OpenCV's axes (x right, y down, z forward), pixel centres at (i + 0.5, j + 0.5).

    Attributes:
        intrinsics: K, pixels of the whole picture. extrinsics: world to camera, ``[R | t]``.
    """

    intrinsics: Float[np.ndarray, "3 3"]
    extrinsics: Float[np.ndarray, "3 4"]

    @property
    def projection(self) -> Float[np.ndarray, "3 4"]:
        """World to homogeneous pixels."""
        return self.intrinsics @ self.extrinsics

    def project(self, points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
        """Pixels, and depth along the viewing direction in the world's unit."""
        homogeneous = points @ self.projection[:, :3].T + self.projection[:, 3]
        depth = points @ self.extrinsics[2, :3] + self.extrinsics[2, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            return homogeneous[:, :2] / homogeneous[:, 2:], depth


@dataclass(frozen=True)
class StereoPoints:
    """What two views agree on.

    Attributes:
        points: world. left, right: pixels of the whole pictures. reprojection: larger of the two distances, pixels.
    """

    points: Float[np.ndarray, "n 3"]
    left: Float[np.ndarray, "n 2"]
    right: Float[np.ndarray, "n 2"]
    reprojection: Float[np.ndarray, "n"]


def read_cameras(path: Path) -> tuple[StereoCamera, StereoCamera]:
    """Cameras ``left`` and ``right`` of a JSON file, each with ``intrinsics`` (3 × 3) and ``extrinsics`` (3 × 4 or 4 × 4).

    Raises:
        ModelError: no such file, or not that.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error})") from error
    return _camera(content, "left", path), _camera(content, "right", path)


def _camera(content: object, side: str, path: Path) -> StereoCamera:
    try:
        intrinsics = np.array(content[side]["intrinsics"], np.float64)
        extrinsics = np.array(content[side]["extrinsics"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f'{path}: needs "{side}": {{"intrinsics": 3 x 3, "extrinsics": 3 x 4}} (see --help)') from error
    if intrinsics.shape != (3, 3) or extrinsics.shape not in ((3, 4), (4, 4)):
        raise ModelError(f"{path}: {side}: intrinsics are {intrinsics.shape} and extrinsics {extrinsics.shape}, not (3, 3) and (3, 4)")
    rotation = extrinsics[:3, :3]
    if not (np.isfinite(intrinsics).all() and np.isfinite(extrinsics).all()) or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
        raise ModelError(f"{path}: {side}: the first three columns of the extrinsics are not a rotation")
    return StereoCamera(intrinsics, extrinsics[:3])


def triangulate(
    left: StereoCamera, right: StereoCamera, left_pixels: Float[np.ndarray, "n 2"], right_pixels: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 3"]:
    """Points whose projections come nearest to the pixels in the algebraic sense.

    The direct linear transform (Hartley & Zisserman, *Multiple View Geometry*, 12.2), with pixels divided by the focal
    length first for conditioning.
    """
    rows = []
    for camera, pixels in ((left, left_pixels), (right, right_pixels)):
        homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], 1)
        rays = np.linalg.solve(camera.intrinsics, homogeneous.T).T
        rays = rays / rays[:, 2:]
        for axis in (0, 1):
            rows.append(rays[:, axis, None] * camera.extrinsics[2] - camera.extrinsics[axis])
    system = np.stack(rows, 1)
    _, _, basis = np.linalg.svd(system)
    solution = basis[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return solution[:, :3] / solution[:, 3:]


def reconstruct(
    left: StereoCamera,
    right: StereoCamera,
    left_maps: HeadMaps,
    right_maps: HeadMaps,
    max_reprojection: float = 2.0,
    tolerance: float = 1.0,
    max_distance: float = 0.02,
    confidence: float = CONFIDENCE,
) -> StereoPoints:
    """Match the two heads both ways, triangulate, and keep what projects back to where it came from, in front of both cameras.

    Args:
        max_reprojection: pixels of the whole pictures. tolerance: of the way there and back, pixels of the maps.
        max_distance: between matched coordinates, cube units. confidence: pixels below it are nobody's match.
    """
    matches = mutual_matches(
        left_maps.coordinates, left_maps.confidence > confidence, right_maps.coordinates, right_maps.confidence > confidence,
        tolerance, max_distance,
    )  # fmt: skip
    left_pixels = left_maps.crop.to_frame(matches.left, left_maps.size)
    right_pixels = right_maps.crop.to_frame(matches.right, right_maps.size)
    points = triangulate(left, right, left_pixels, right_pixels)
    error, kept = np.zeros(len(points)), np.isfinite(points).all(1)
    for camera, pixels in ((left, left_pixels), (right, right_pixels)):
        projected, depth = camera.project(points)
        error = np.maximum(error, np.linalg.norm(projected - pixels, axis=1))
        kept &= depth > 0
    kept &= error <= max_reprojection
    return StereoPoints(points[kept], left_pixels[kept], right_pixels[kept], error[kept])
