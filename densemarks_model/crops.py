"""Square crops around a head: what the networks look at.

Pixels are full-frame, origin at the top-left corner, pixel centres at (i + 0.5, j + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

CROP_SCALE = 1.8
"""Side of a crop in longest sides of the box around MediaPipe's landmarks: room for hair, ears and neck."""

CROP_RAISE = 0.06
"""How far the crop's centre lies above the box's centre, in crop sides; there is more head above a face than below."""


@dataclass(frozen=True)
class HeadCrop:
    """A square of the frame, possibly turned, reaching beyond the frame's borders if it must.

    Attributes:
        center: ``(2,)`` full-frame pixels.
        side: length of its sides, full-frame pixels.
        roll: radians by which its x axis is turned in the frame, clockwise as seen (x towards y); 0 is upright.
    """

    center: Float[np.ndarray, "2"]
    side: float
    roll: float = 0.0

    def __post_init__(self) -> None:
        if not (np.shape(self.center) == (2,) and np.isfinite([*self.center, self.side, self.roll]).all() and self.side > 0):
            raise ValueError(f"a crop needs a finite center (2,) and a side above zero, not {self.center}, {self.side}")

    def matrix(self, size: int) -> Float[np.ndarray, "2 3"]:
        """Affine map from pixels of the crop, resampled to ``size`` × ``size``, to full-frame pixels."""
        scale = self.side / size
        cos, sin = np.cos(self.roll) * scale, np.sin(self.roll) * scale
        linear = np.array([[cos, -sin], [sin, cos]])
        shift = np.asarray(self.center, np.float64) - linear @ np.full(2, size / 2)
        return np.concatenate([linear, shift[:, None]], axis=1)

    def to_frame(self, points: Float[np.ndarray, "*n 2"], size: int) -> Float[np.ndarray, "*n 2"]:
        """Full-frame pixels of points in the crop of ``size`` × ``size`` pixels."""
        matrix = self.matrix(size)
        return points @ matrix[:, :2].T + matrix[:, 2]

    def to_crop(self, points: Float[np.ndarray, "*n 2"], size: int) -> Float[np.ndarray, "*n 2"]:
        """Inverse of :meth:`to_frame`."""
        matrix = self.matrix(size)
        return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    def extract(self, image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
        """Resample the frame; black beyond its borders.

        A crop that shrinks is first blurred by averaging over whole pixels (a pyramid of halvings), so that it does not alias.
        """
        matrix = self.matrix(size)
        scale = self.side / size
        while scale > 2:
            image = cv2.resize(image, (max(image.shape[1] // 2, 1), max(image.shape[0] // 2, 1)), interpolation=cv2.INTER_AREA)
            matrix, scale = matrix / 2, scale / 2
        # OpenCV's pixel centres are at whole numbers, ours at halves
        shifted = matrix.copy()
        shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
        return cv2.warpAffine(image, shifted, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT)


def crop_around_landmarks(points: Float[np.ndarray, "n 2"]) -> HeadCrop:
    """The crop for a face with MediaPipe's landmarks ``points`` (full-frame pixels, 468 or 478 of them), turned with the face so
    that its forehead is up."""
    points = np.asarray(points, np.float64)
    up = points[10] - points[152]  # forehead and chin
    roll = float(np.arctan2(up[0], -up[1]))
    cos, sin = np.cos(roll), np.sin(roll)
    axes = np.array([[cos, sin], [-sin, cos]])  # rows: the crop's x and y in the frame
    local = points @ axes.T
    low, high = local.min(0), local.max(0)
    side = CROP_SCALE * float((high - low).max())
    center = ((low + high) / 2 - [0.0, CROP_RAISE * side]) @ axes
    return HeadCrop(center, side, roll)


def center_crop(width: int, height: int) -> HeadCrop:
    """The largest square in the middle of a frame, for pictures of one head without landmarks."""
    return HeadCrop(np.array([width / 2, height / 2]), float(min(width, height)))
