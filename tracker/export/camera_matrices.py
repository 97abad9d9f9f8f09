"""One camera written down in the two conventions that programs want.

OpenCV: x right, y down, looks along +z; pixels ``K [R | t] X``. OpenGL: x right, y up, looks along −z; normalised
device coordinates ``P [R | t] X``, with u = W (x_ndc + 1) / 2 and v = H (1 − y_ndc) / 2. Both give the same full-frame
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tracker.camera import CAMERA_POSITION, Camera

NEAR_M, FAR_M = 0.01, 100.0
"""Clip planes of the OpenGL projection, metres in front of the camera."""


@dataclass(frozen=True)
class CameraMatrices:
    """Attributes:
    K: intrinsics as OpenCV lays them out, pixels with centres at halves (OpenCV's are at integers: cx, cy half a pixel less).
    extrinsics_opencv: world-to-camera, OpenCV axes.
    extrinsics_opengl: world-to-camera, OpenGL axes.
    projection_opengl: camera to clip space.
    """

    K: Float[np.ndarray, "3 3"]
    extrinsics_opencv: Float[np.ndarray, "4 4"]
    extrinsics_opengl: Float[np.ndarray, "4 4"]
    projection_opengl: Float[np.ndarray, "4 4"]


def camera_matrices(camera: Camera) -> CameraMatrices:
    """The fixed camera of this project (see :mod:`tracker.camera`) as matrices."""
    opengl = np.eye(4)
    opengl[:3, 3] = -np.array(CAMERA_POSITION)
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    projection = np.zeros((4, 4))
    projection[0, 0] = 2 * camera.focal_px / camera.width
    projection[1, 1] = 2 * camera.focal_px / camera.height
    projection[0, 2] = 1 - 2 * camera.cx / camera.width
    projection[1, 2] = 2 * camera.cy / camera.height - 1
    projection[2, 2] = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M)
    projection[2, 3] = -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    projection[3, 2] = -1
    return CameraMatrices(camera.intrinsics, flip @ opengl, opengl, projection)
