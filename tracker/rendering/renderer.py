"""What every backend offers: nvdiffrast's four primitives, with its tensors and conventions.

``docs/rendering.md`` defines the conventions with pictures. In short: positions are clip-space (x, y, z, w), row 0 of
every picture is the bottom one, pixel centres lie at normalised device coordinates (2 i + 1) / N − 1, and nothing is
culled. A backend brings :meth:`Renderer.rasterize` and :meth:`Renderer.interpolate`; :meth:`Renderer.texture` and the
edge-driven :meth:`Renderer.antialias` are the same torch code on all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from tracker.rendering.antialias import antialias_edges
from tracker.rendering.textures import Boundary, sample_texture
from tracker.rendering.topology import EdgeTopology, TopologyCache

MAX_TRIANGLES = 1 << 24
"""Triangle numbers travel in a float32 channel, which is exact up to here."""


class Renderer(ABC):
    """Four differentiable primitives on one device.

    Methods raise ``ValueError`` for tensors of the wrong shape, type or device, for positions that are not finite and
    for triangles that name vertices which do not exist.

    Attributes:
        name: the backend's name, as :func:`tracker.rendering.get_renderer` takes it.
        device: where tensors must lie, and where results do.
    """

    name: str
    device: torch.device

    def __init__(self) -> None:
        self._topologies = TopologyCache()

    def rasterize(
        self, pos: Float[Tensor, "batch verts 4"], tri: Int32[Tensor, "faces 3"], resolution: tuple[int, int]
    ) -> Float[Tensor, "batch height width 4"]:
        """Find the nearest triangle at each pixel centre.

        Args:
            pos: clip-space positions. Gradients flow to x, y and w, through u and v alone.
            tri: vertex numbers; either winding.
            resolution: (height, width), pixels.

        Returns:
            (u, v, z/w, triangle + 1), zeros where nothing is. u and v are the perspective-correct weights of vertices 0
            and 1, clamped to the triangle. The part of a triangle outside −w ≤ z ≤ w is clipped away.
        """
        height, width = resolution
        self._check("rasterize", "pos", pos, torch.float32, (None, None, 4))
        self._check("rasterize", "tri", tri, torch.int32, (None, 3))
        if height < 1 or width < 1:
            raise ValueError(f"rasterize: resolution must be at least 1×1, got {height}×{width}")
        if tri.shape[0] > MAX_TRIANGLES:
            raise ValueError(f"rasterize: at most {MAX_TRIANGLES} triangles, got {tri.shape[0]}")
        return self._rasterize(pos, tri, height, width)

    def interpolate(
        self,
        attr: Float[Tensor, "batch_or_1 verts channels"],
        rast: Float[Tensor, "batch height width 4"],
        tri: Int32[Tensor, "faces 3"],
    ) -> Float[Tensor, "batch height width channels"]:
        """Interpolate vertex attributes over the picture; zeros where nothing is.

        Args:
            attr: values at vertices; one set for all pictures or one for each. Gradients flow to them and to rast.
            rast: from :meth:`rasterize`.
            tri: triangles in the attribute's own numbering: the geometry's, or texture coordinates' own.
        """
        self._check("interpolate", "attr", attr, torch.float32, (None, None, None))
        self._check("interpolate", "rast", rast, torch.float32, (None, None, None, 4))
        self._check("interpolate", "tri", tri, torch.int32, (None, 3))
        if attr.shape[0] not in (1, rast.shape[0]):
            raise ValueError(f"interpolate: attr has batch size {attr.shape[0]}, rast has {rast.shape[0]}")
        return self._interpolate(attr, rast, tri)

    def texture(
        self,
        texture: Float[Tensor, "batch_or_1 texture_height texture_width channels"],
        uv: Float[Tensor, "batch height width 2"],
        boundary: Boundary = "wrap",
    ) -> Float[Tensor, "batch height width channels"]:
        """Bilinear samples of a texture; see :func:`tracker.rendering.textures.sample_texture`."""
        self._check("texture", "texture", texture, torch.float32, (None, None, None, None))
        self._check("texture", "uv", uv, torch.float32, (None, None, None, 2))
        return sample_texture(texture, uv, boundary)

    def antialias(
        self,
        color: Float[Tensor, "batch height width channels"],
        rast: Float[Tensor, "batch height width 4"],
        pos: Float[Tensor, "batch verts 4"],
        tri: Int32[Tensor, "faces 3"],
        topology: EdgeTopology | None = None,
        method: Literal["edge", "nvdiffrast"] = "edge",
    ) -> Float[Tensor, "batch height width channels"]:
        """Smooth the outlines of a picture, and carry gradients to the positions that shape them.

        Args:
            color: any channels, a mask included.
            rast, pos, tri: what the picture was made from. ``tri`` must be welded: a vertex split along a seam makes an
                outline where there is none.
            topology: from :func:`tracker.rendering.build_topology`; by default built from ``tri`` and remembered.
            method: "edge" is :func:`tracker.rendering.antialias.antialias_edges`; "nvdiffrast" calls that library's
                own operation, on the ``cuda`` backend only.
        """
        self._check("antialias", "color", color, torch.float32, (*rast.shape[:3], None))
        self._check("antialias", "rast", rast, torch.float32, (pos.shape[0], None, None, 4))
        self._check("antialias", "pos", pos, torch.float32, (None, None, 4))
        self._check("antialias", "tri", tri, torch.int32, (None, 3))
        if method == "nvdiffrast":
            return self._antialias_native(color, rast, pos, tri)
        if method != "edge":
            raise ValueError(f"antialias: method must be 'edge' or 'nvdiffrast', not {method!r}")
        return antialias_edges(color, rast, pos, topology or self._topologies.of(tri))

    @abstractmethod
    def _rasterize(self, pos: Tensor, tri: Tensor, height: int, width: int) -> Tensor: ...

    @abstractmethod
    def _interpolate(self, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor: ...

    def _antialias_native(self, color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor) -> Tensor:
        raise ValueError(f"antialias: method 'nvdiffrast' needs the cuda backend; this is {self.name!r}")

    def _check(self, where: str, what: str, value: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
        wanted = "[" + ", ".join("*" if n is None else str(n) for n in shape) + "]"
        if value.dtype != dtype or value.ndim != len(shape):
            raise ValueError(f"{where}: {what} must be {dtype} {wanted}, got {value.dtype} {list(value.shape)}")
        if any(n is not None and n != m for n, m in zip(shape, value.shape, strict=True)):
            raise ValueError(f"{where}: {what} must have shape {wanted}, got {list(value.shape)}")
        if value.device.type != self.device.type or (value.is_cuda and value.device != self.device):
            raise ValueError(f"{where}: {what} is on {value.device}, the {self.name!r} renderer works on {self.device}")
