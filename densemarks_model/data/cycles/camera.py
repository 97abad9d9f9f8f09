"""From a :class:`~densemarks_model.data.synthetic.views.View` to a camera of Blender, and what that camera sees of a panorama.

The studio's world is camera space (OpenGL axes, camera at the origin), so the camera only rolls, zooms and shifts; bodies
move. A panorama is equirectangular, row 0 straight up, its middle column ahead of the camera before it is turned.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from densemarks_model.crops import HeadCrop

SENSOR = 36.0
"""Width of the sensor, millimetres; any number would do."""

OPENGL_TO_BLENDER = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""From a panorama's axes as :mod:`densemarks_model.data.panoramas` has them (y up, -z ahead) to Blender's (z up, x ahead)."""


@dataclass(frozen=True)
class Lens:
    """A pinhole camera at the origin that looks along -z.

    Attributes:
        roll: radians about +z, counter-clockwise seen from behind the camera.
        focal: millimetres for a sensor :data:`SENSOR` wide. shift_x, shift_y: of the picture, in its widths, right and up.
    """

    roll: float
    focal: float
    shift_x: float
    shift_y: float


def lens_of(crop: HeadCrop) -> Lens:
    """The camera whose whole picture is ``crop`` (of the image plane at unit focal length, y down)."""
    cos, sin = np.cos(crop.roll), np.sin(crop.roll)
    x, y = crop.center
    # the crop's centre in its own axes, in sides
    right, down = (cos * x + sin * y) / crop.side, (cos * y - sin * x) / crop.side
    return Lens(-float(crop.roll), SENSOR / float(crop.side), float(right), -float(down))


def panorama_axes(up: np.ndarray) -> np.ndarray:
    """Rotation ``(3, 3)`` from camera space to Blender's panorama (x ahead, y left, z up), where ``up`` (3,) is up in camera space."""
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    ahead = np.array([0.0, 0.0, -1.0]) + up[2] * up
    if np.linalg.norm(ahead) < 1e-3:  # straight down or up: any direction is ahead
        ahead = np.array([0.0, 1.0, 0.0]) - up[1] * up
    ahead /= np.linalg.norm(ahead)
    return np.stack([ahead, np.cross(up, ahead), up])


def background(panorama: np.ndarray, axes: np.ndarray, crop: HeadCrop, size: int, blur: float) -> np.ndarray:
    """Linear RGB ``(size, size, 3)`` of what lies behind the scene in ``crop``, out of focus.

    Args:
        panorama: ``(h, w, 3)`` linear RGB. axes: of :func:`panorama_axes`. blur: standard deviation, shares of the side.
    """
    position = (np.arange(size) + 0.5).astype(np.float64)
    pixels = np.stack(np.meshgrid(position, position), -1).reshape(-1, 2)
    plane = crop.to_frame(pixels, size)
    rays = np.concatenate([plane * [1, -1], -np.ones((len(plane), 1))], 1)
    x, y, z = axes @ (rays / np.linalg.norm(rays, axis=1, keepdims=True)).T
    height, width = panorama.shape[:2]
    column = (0.5 - np.arctan2(y, x) / (2 * np.pi)) * width - 0.5
    row = (0.5 - np.arcsin(np.clip(z, -1, 1)) / np.pi) * height - 0.5
    around = np.concatenate([panorama[:, -4:], panorama, panorama[:, :4]], 1).astype(np.float32)
    maps = (column + 4).astype(np.float32).reshape(size, size), row.astype(np.float32).reshape(size, size)
    picture = cv2.remap(np.minimum(around, 20.0), *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if blur > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), blur * size)
    return np.maximum(picture, 0)
