"""Which pixels show the head, guessed without a network: GrabCut from the landmarks."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8


def head_mask(crop: UInt8[np.ndarray, "s s 3"], landmarks: Float[np.ndarray, "n 2"], rounds: int = 3) -> UInt8[np.ndarray, "s s"]:
    """255 on the head and its hair, else 0 (Rother et al., *GrabCut*, SIGGRAPH 2004; OpenCV's).

    The face's hull is taken for certain, an ellipse around the head for likely, the rest for background: so hair that hangs
    beyond the ellipse is lost, and clothes within it may stay.

    Args:
        crop: RGB. landmarks: MediaPipe's, pixels of the crop.
    """
    size = crop.shape[0]
    labels = np.full((size, size), cv2.GC_BGD, np.uint8)
    low, high = landmarks.min(0), landmarks.max(0)
    centre, half = (low + high) / 2 - [0, 0.12 * (high - low)[1]], (high - low) * [0.85, 0.95]
    cv2.ellipse(labels, tuple(centre.astype(int).tolist()), tuple(half.astype(int).tolist()), 0, 0, 360, int(cv2.GC_PR_FGD), -1)
    hull = cv2.convexHull(landmarks.astype(np.int32))
    cv2.fillConvexPoly(labels, hull, int(cv2.GC_FGD))
    if (labels == cv2.GC_BGD).sum() < 16 or (labels == cv2.GC_FGD).sum() < 16:
        return np.where(labels == cv2.GC_BGD, 0, 255).astype(np.uint8)
    cv2.setRNGSeed(0)  # its colour models start from random clusters
    cv2.grabCut(np.ascontiguousarray(crop), labels, None, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    return np.where((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), 255, 0).astype(np.uint8)
