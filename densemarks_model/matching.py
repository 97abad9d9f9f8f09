"""Finding the same spot of a head in another picture: nearest neighbours in the canonical cube.

A network gives every pixel a location in the cube, so two pixels show the same spot when their locations agree, whoever
the people are. Maps are ``(height, width, 3)`` arrays; pixels have their centres at (i + 0.5, j + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

CONFIDENCE = 0.5
"""Pixels that a network trusts less are taken for background and are nobody's match."""

_STEPS = 2
_REACH = 1.5


@dataclass(frozen=True)
class Matches:
    """Where queries were found.

    Attributes:
        points: pixels of the searched map, between pixel centres too.
        distance: from the query to the map's value there, cube units.
    """

    points: Float[np.ndarray, "n 2"]
    distance: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class MutualMatches:
    """Pixels of two maps that are each other's nearest neighbours.

    Attributes:
        left, right: pixels of either map.
        distance: between their coordinates, cube units.
    """

    left: Float[np.ndarray, "n 2"]
    right: Float[np.ndarray, "n 2"]
    distance: Float[np.ndarray, "n"]


def sample_bilinear(values: Float[np.ndarray, "h w *c"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n *c"]:
    """Values of a map between its pixels; beyond its outermost pixel centres the nearest edge's.

    (OpenCV's ``remap`` rounds positions to 1/32 pixel, too coarse for sub-pixel matching.)
    """
    height, width = values.shape[:2]
    x = np.clip(np.asarray(points, np.float64)[:, 0] - 0.5, 0, width - 1)
    y = np.clip(np.asarray(points, np.float64)[:, 1] - 0.5, 0, height - 1)
    left, top = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    shape = (-1,) + (1,) * (values.ndim - 2)
    a, b = (x - left).reshape(shape), (y - top).reshape(shape)
    upper = values[top, left] * (1 - a) + values[top, right] * a
    lower = values[bottom, left] * (1 - a) + values[bottom, right] * a
    return upper * (1 - b) + lower * b


def resize_map(values: Float[np.ndarray, "h w *c"], size: int) -> Float[np.ndarray, "size size *c"]:
    """Bilinear; pixel areas of the two maps cover the same square."""
    if values.shape[:2] == (size, size):
        return values
    return cv2.resize(np.ascontiguousarray(values, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


class CubeIndex:
    """A coordinate map, ready to be searched for locations in the cube.

    Args:
        coordinates: cube coordinates of every pixel.
        valid: pixels that may be found; all of them where none is given or none is true.
    """

    def __init__(self, coordinates: Float[np.ndarray, "h w 3"], valid: Bool[np.ndarray, "h w"] | None = None) -> None:
        self.coordinates = np.asarray(coordinates, np.float32)
        if valid is None or not valid.any():
            valid = np.ones(self.coordinates.shape[:2], bool)
        rows, columns = np.nonzero(valid)
        self._pixels = np.stack([columns, rows], 1) + 0.5
        self._tree = cKDTree(self.coordinates[valid], balanced_tree=False, compact_nodes=False)

    def query(self, locations: Float[np.ndarray, "n 3"], refine: bool = True, workers: int = 1) -> Matches:
        """The pixel nearest to each location.

        Args:
            locations: cube coordinates.
            refine: go on between the pixels by Gauss-Newton steps on the bilinear map; a step that does not come nearer is
                not taken.
            workers: threads of the search.
        """
        locations = np.asarray(locations, np.float64)
        distance, index = self._tree.query(locations, workers=workers)
        points = self._pixels[index]
        if refine:
            points, distance = self._refined(locations, points, distance)
        return Matches(points, distance)

    def _refined(self, locations: np.ndarray, start: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = start.copy()
        for _ in range(_STEPS):
            here = sample_bilinear(self.coordinates, points)
            slopes = np.stack(
                [
                    sample_bilinear(self.coordinates, points + step) - sample_bilinear(self.coordinates, points - step)
                    for step in ([0.5, 0.0], [0.0, 0.5])
                ],
                -1,
            )  # n 3 2, cube units per pixel
            normal = np.einsum("nci,ncj->nij", slopes, slopes)
            # flat maps have no slope to follow: a little damping keeps their steps at zero
            damping = 1e-3 * np.trace(normal, axis1=1, axis2=2) + 1e-12
            normal += damping[:, None, None] * np.eye(2)
            step = np.linalg.solve(normal, np.einsum("nci,nc->ni", slopes, locations - here)[..., None])[..., 0]
            moved = start + np.clip(points + step - start, -_REACH, _REACH)
            moved_distance = np.linalg.norm(sample_bilinear(self.coordinates, moved) - locations, axis=1)
            nearer = moved_distance < distance
            points = np.where(nearer[:, None], moved, points)
            distance = np.where(nearer, moved_distance, distance)
        return points, distance


def mutual_matches(
    left: Float[np.ndarray, "h w 3"],
    left_valid: Bool[np.ndarray, "h w"],
    right: Float[np.ndarray, "k m 3"],
    right_valid: Bool[np.ndarray, "k m"],
    tolerance_px: float = 1.0,
    max_distance: float = 0.02,
) -> MutualMatches:
    """Every valid pixel of the left map with its match in the right one, if the match's own match is the pixel again.

    Args:
        left, right: cube coordinates. left_valid, right_valid: pixels that take part.
        tolerance_px: how far from the pixel the way there and back may end.
        max_distance: matches whose coordinates differ by more are dropped, cube units.
    """
    if not left_valid.any() or not right_valid.any():
        return MutualMatches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    rows, columns = np.nonzero(left_valid)
    points = np.stack([columns, rows], 1) + 0.5
    there = CubeIndex(right, right_valid).query(left[left_valid], workers=-1)
    back = CubeIndex(left, left_valid).query(sample_bilinear(np.asarray(right, np.float32), there.points), workers=-1)
    kept = (np.linalg.norm(back.points - points, axis=1) <= tolerance_px) & (there.distance <= max_distance)
    return MutualMatches(points[kept], there.points[kept], there.distance[kept])
