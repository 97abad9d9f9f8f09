"""What people look like, by colours: those of the face, of the hair above it, and of the clothes below it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

_REGIONS = ((0.12, 0.1, 0.88, 0.95), (-0.05, -0.5, 1.05, -0.02), (-0.5, 1.25, 1.5, 2.2))
"""Face, hair and clothes: left, top, right and bottom in a face's box, which is (0, 0, 1, 1)."""

_WEIGHTS = (2.0, 1.0, 1.0)  # of hair and clothes the regions show what is behind, too

_SIZE = 32  # of the pictures that colours are counted in
_LEAST_INSIDE = 0.4  # of a region in the frame, for it to tell anything
_BINS, _RANGES = (6, 12, 12), (0, 256, 104, 168, 104, 184)  # brightness, green to red, blue to yellow


@dataclass(frozen=True)
class Colours:
    """How often each colour is in each region, square roots of shares; and which regions the frame shows."""

    shares: Float32[np.ndarray, "3 colours"]
    shown: Bool[np.ndarray, "3"]

    @staticmethod
    def of(image: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]) -> Colours:
        """Of the person whose face fills a box (left, top, right, bottom; pixels) of an RGB frame."""
        height, width = image.shape[:2]
        low, size = np.asarray(box[:2], float), np.maximum(np.subtract(box[2:], box[:2]), 1.0)
        shares, shown = np.zeros((len(_REGIONS), int(np.prod(_BINS))), np.float32), np.zeros(len(_REGIONS), bool)
        for number, region in enumerate(_REGIONS):
            whole = np.concatenate([low + size * region[:2], low + size * region[2:]])
            left, top, right, bottom = np.clip(whole, 0, (width, height, width, height)).astype(int)
            inside = max(right - left, 0) * max(bottom - top, 0) / max(np.prod(whole[2:] - whole[:2]), 1e-9)
            if inside < _LEAST_INSIDE or right - left < 2 or bottom - top < 2:
                continue
            small = cv2.resize(image[top:bottom, left:right], (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)
            shares[number], shown[number] = _counted(small), True
        return Colours(shares, shown)

    def apart(self, other: Colours) -> float:
        """How differently the two look: 0 for the same colours, 1 for none in common; 1 where there is nothing to compare."""
        both = self.shown & other.shown
        if not both.any():
            return 1.0
        alike = (self.shares[both] * other.shares[both]).sum(1)
        return float(np.average(np.sqrt(np.maximum(1 - alike, 0)), weights=np.array(_WEIGHTS)[both]))


def _counted(image: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    for channel in (1, 2):  # what is beyond the ranges counts in their last bins
        low, high = _RANGES[2 * channel : 2 * channel + 2]
        np.clip(lab[..., channel], low, high - 1, out=lab[..., channel])
    counts = cv2.calcHist([lab], [0, 1, 2], None, list(_BINS), list(_RANGES))
    for axis in range(3):  # neighbouring colours are alike
        ends = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        counts = 0.5 * counts + 0.25 * (np.take(ends, range(2, ends.shape[axis]), axis) + np.take(ends, range(ends.shape[axis] - 2), axis))
    return np.sqrt(counts.ravel() / max(float(counts.sum()), 1e-9)).astype(np.float32)
