"""Drawing without gradients: numpy arrays in, pixels out, every buffer used again for the next frame.

An overlay of a head on video frames takes well under ten milliseconds a frame this way.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from tracker.rendering import cpu_kernels, cpu_shading_kernels
from tracker.rendering.cpu_backend import RasterScratch, kernel_error


class MeshCanvas:
    """A picture to draw one mesh at a time on. Not to be shared between threads; results live until the next call."""

    def __init__(self, height: int, width: int) -> None:
        self._scratch = RasterScratch()
        self._rast = np.zeros((height, width, 4), np.float32)
        self._interpolated: dict[int, np.ndarray] = {}

    @property
    def rasterized(self) -> Float32[np.ndarray, "height width 4"]:
        """What :meth:`rasterize` drew last; row 0 at the bottom."""
        return self._rast

    def rasterize(
        self, pos: Float32[np.ndarray, "verts 4"], tri: Int32[np.ndarray, "faces 3"]
    ) -> Float32[np.ndarray, "height width 4"]:
        """As :meth:`tracker.rendering.Renderer.rasterize` for one picture; row 0 at the bottom.

        Raises:
            ValueError: positions that are not finite, or triangles that name vertices which do not exist.
        """
        self._scratch.rasterize(_floats(pos), _integers(tri), self._rast)
        return self._rast

    def interpolate(
        self, attr: Float32[np.ndarray, "verts channels"], tri: Int32[np.ndarray, "faces 3"]
    ) -> Float32[np.ndarray, "height width channels"]:
        """Attributes over what :meth:`rasterize` drew last; row 0 at the bottom."""
        attr, tri = _floats(attr), _integers(tri)
        out = self._interpolated.get(attr.shape[1])
        if out is None:
            out = self._interpolated[attr.shape[1]] = np.empty((*self._rast.shape[:2], attr.shape[1]), np.float32)
        status = cpu_shading_kernels.interpolate(attr, self._rast, tri, out)
        if status != cpu_kernels.OK:
            raise kernel_error("interpolate", status, attr, tri)
        return out

    def paint(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        colors: Float32[np.ndarray, "verts 3"],
        tri: Int32[np.ndarray, "faces 3"],
        opacity: float = 1.0,
    ) -> None:
        """Blend what :meth:`rasterize` drew last into a video frame, in place. Here row 0 is on top.

        Args:
            image: RGB, C-contiguous, writable.
            colors: RGB at vertices, 0 to 255.
            opacity: of the mesh, 0 to 1.
        """
        if image.shape != (*self._rast.shape[:2], 3) or image.dtype != np.uint8 or not image.flags.c_contiguous:
            raise ValueError(f"paint: image must be C-contiguous uint8 {(*self._rast.shape[:2], 3)}")
        colors, tri = _floats(colors), _integers(tri)
        status = cpu_shading_kernels.paint(colors, self._rast, tri, np.float32(opacity), image)
        if status != cpu_kernels.OK:
            raise kernel_error("paint", status, colors, tri)


def _floats(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _integers(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.int32)
