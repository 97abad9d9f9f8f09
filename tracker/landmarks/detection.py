"""One face in one frame, and the interface of whatever finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class Detection:
    """MediaPipe's 478 landmarks of one face.

    Attributes:
        points: full-frame pixels, pixel centres at (i + 0.5, j + 0.5).
        depth: MediaPipe's relative depth in pixels (its unit is the frame's width); towards the camera is negative, the
            origin is arbitrary.
        blendshapes: scores in [0, 1], in the order of ``landmark_schemes.BLENDSHAPE_NAMES``.
        confidence: in [0, 1]; what it is made of is for the source to say.
        matrix: MediaPipe's facial transformation, canonical face (centimetres, x to the subject's left, y up, z out of
            the face) to its own camera (OpenGL axes, vertical field of view 63 degrees); None if the source has none.
    """

    points: Float[np.ndarray, "478 2"]
    depth: Float[np.ndarray, "478"]
    blendshapes: Float[np.ndarray, "52"]
    confidence: float
    matrix: Float[np.ndarray, "4 4"] | None = None


class LandmarkSource(Protocol):
    """Anything that finds MediaPipe's 478 landmarks frame after frame."""

    def detect(self, image: UInt8[np.ndarray, "h w 3"], timestamp: float) -> Detection | None:
        """The subject's face in an RGB frame at ``timestamp`` seconds; None when there is none."""
        ...
