"""What colour a face is, of which people differ more than one of them does from shot to shot."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

from tracker.landmarks.detection import Detection

# Landmarks on bare skin, away from lips, brows and beards: forehead, bridge of the nose, cheeks under the eyes and beside the nose.
_BARE = (9, 108, 151, 337, 8, 168, 6, 197, 50, 101, 118, 117, 36, 205, 280, 330, 347, 346, 266, 425)


def skin_colour(image: UInt8[np.ndarray, "h w 3"], detection: Detection | None) -> Float32[np.ndarray, "3"]:
    """Median RGB of a face's bare skin in a frame, grey levels of 255; zeros without a face."""
    if detection is None:
        return np.zeros(3, np.float32)
    height, width = image.shape[:2]
    points = detection.points[list(_BARE)]
    inside = ((points >= 0) & (points < (width, height))).all(1)
    if not inside.any():
        return np.zeros(3, np.float32)
    x, y = points[inside].astype(int).T
    return np.median(image[y, x], axis=0).astype(np.float32)
