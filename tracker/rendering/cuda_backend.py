"""The CUDA backend: nvdiffrast, where the user has installed it under its own licence."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from tracker.errors import UserError
from tracker.rendering.renderer import Renderer

INSTALL_COMMAND = "pip install git+https://github.com/NVlabs/nvdiffrast.git --no-build-isolation"
"""nvdiffrast is not on the package registry; it compiles against the installed torch with nvcc and ninja."""


class CudaRenderer(Renderer):
    """See :class:`tracker.rendering.Renderer`. Needs nvdiffrast 0.3.3 or newer.

    Raises:
        UserError: there is no CUDA device, or no nvdiffrast.
    """

    name = "cuda"

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        if not torch.cuda.is_available() or device.type != "cuda":
            raise UserError(f"the cuda renderer needs an NVIDIA GPU and cannot work on {device}; use --device cpu")
        try:
            import nvdiffrast.torch as nvdiffrast
        except ImportError as error:
            raise UserError(
                f"the cuda renderer needs nvdiffrast ({error}); install it with: {INSTALL_COMMAND}, or use --device cpu"
            ) from error
        self.device = device
        self._nvdiffrast = nvdiffrast
        self._context = nvdiffrast.RasterizeCudaContext(device=device)
        self._lock = threading.Lock()  # the context's buffers serve one call at a time

    def _rasterize(self, pos: Tensor, tri: Tensor, height: int, width: int) -> Tensor:
        if 0 in (pos.shape[0], tri.shape[0]):
            return pos.new_zeros(pos.shape[0], height, width, 4)
        # one transfer for both checks, since each makes the CPU wait for the GPU
        bounds = torch.stack([torch.isfinite(pos).all().long(), tri.amin().long(), tri.amax().long()]).tolist()
        if not bounds[0]:
            raise ValueError("rasterize: positions are NaN or infinite")
        if bounds[1] < 0 or bounds[2] >= pos.shape[1]:
            raise ValueError(
                f"rasterize: there are {pos.shape[1]} vertices and triangles that name vertices {bounds[1]} to "
                f"{bounds[2]}; tri and its vertices must belong together"
            )
        pos, tri = pos.contiguous(), tri.contiguous()
        with self._lock:
            rast, _ = self._nvdiffrast.rasterize(self._context, pos, tri, (height, width), grad_db=False)
        return rast

    def _interpolate(self, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        if 0 in (*attr.shape, rast.shape[0], tri.shape[0]):
            return rast.new_zeros(*rast.shape[:3], attr.shape[2])
        out, _ = self._nvdiffrast.interpolate(attr.contiguous(), rast.contiguous(), tri.contiguous())
        return out

    def _antialias_native(self, color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor) -> Tensor:
        if 0 in (*color.shape, tri.shape[0]):
            return color
        return self._nvdiffrast.antialias(color.contiguous(), rast.contiguous(), pos.contiguous(), tri.contiguous())
