"""The head's outline in a mask: how far each pixel is from it, and how well it is known."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float

FINER = 4
"""Outlines are measured on maps so many times as fine, where that is no more than :data:`FINEST` pixels on a side."""

FINEST = 256

_BAND_SHARE = 0.4  # standard deviation of a logistic transition, relative to its width at the steepest slope


def finer(shape: tuple[int, ...]) -> int:
    """How many times as fine as maps of that shape outlines are measured and drawn: :data:`FINER`, less for large maps."""
    return max(min(FINER, FINEST // max(shape)), 1)


def signed_distance(surface: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Distance of each pixel centre to the outline of ``surface`` at one half, pixels, negative inside; zeros without one.

    Measured on a finer map (:func:`finer`), so that the outline lies between pixels.
    """
    times = finer(surface.shape)
    fine = cv2.resize(surface, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR) > 0.5
    if fine.all() or not fine.any():
        return np.zeros_like(surface)
    outside = cv2.distanceTransform((~fine).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside = cv2.distanceTransform(fine.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # centres of the pixels next to an outline are half a pixel from it, not one
    signed = np.where(fine, 0.5 - inside, outside - 0.5)
    return cv2.resize(signed, surface.shape[::-1], interpolation=cv2.INTER_AREA) / times


def outline_error(surface: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """How far the outline may be off around each pixel, pixels: a mask that falls from one to zero over a wide band does not
    know where the head ends (under thick hair, say)."""
    down, right = np.gradient(surface)
    steepest = cv2.dilate(np.hypot(down, right).astype(np.float32), np.ones((5, 5), np.uint8))
    return _BAND_SHARE / np.clip(steepest, 0.03, 1)
