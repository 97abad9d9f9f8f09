"""The CPU backend: compiled kernels behind torch's autograd. Needs no compiler and no GPU.

One picture is drawn by one thread; the pictures of a batch are shared out over a small pool, as wide as
``torch.get_num_threads()``. Kernels release the GIL, so callers may also draw from threads of their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tracker.rendering import cpu_kernels, cpu_shading_kernels, output_memory
from tracker.rendering.renderer import Renderer

_SIZES_KEPT = 4  # resolutions whose working memory a thread keeps


class RasterScratch:
    """Working memory of one thread for drawing pictures, kept between them: fresh memory costs more than drawing."""

    def __init__(self) -> None:
        self._keys: dict[tuple[int, int], np.ndarray] = {}
        self._snapped = np.empty((0, 2), np.int64)
        self._depths = np.empty(0, np.float64)

    def rasterize(self, pos: np.ndarray, tri: np.ndarray, out: np.ndarray) -> None:
        """Draw one picture.

        Args:
            pos: (V, 4) float32, clip space. tri: (F, 3) int32. out: (H, W, 4) float32, overwritten with
                (u, v, z/w, triangle + 1), row 0 at the bottom. All C-contiguous.

        Raises:
            ValueError: positions that are not finite, or triangles that name vertices which do not exist.
        """
        height, width = out.shape[:2]
        keys = self._keys.get((height, width))
        if keys is None:
            if len(self._keys) == _SIZES_KEPT:
                self._keys.clear()
            keys = np.full(height * (width + cpu_kernels.ROW_PADDING), cpu_kernels.EMPTY, np.int64)
            self._keys[height, width] = keys
        if len(self._depths) < len(pos):
            self._snapped, self._depths = np.empty((len(pos), 2), np.int64), np.empty(len(pos), np.float64)
        status = cpu_kernels.cover(pos, tri, width, height, 0, height, self._snapped, self._depths, keys)
        if status != cpu_kernels.OK:
            keys.fill(cpu_kernels.EMPTY)
            raise kernel_error("rasterize", status, pos, tri)
        cpu_kernels.resolve(keys, pos, tri, width, height, 0, height, out)


class CpuRenderer(Renderer):
    """See :class:`tracker.rendering.Renderer`."""

    name = "cpu"
    device = torch.device("cpu")

    def _rasterize(self, pos: Tensor, tri: Tensor, height: int, width: int) -> Tensor:
        return _Rasterize.apply(pos.contiguous(), tri.contiguous(), height, width)

    def _interpolate(self, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        return _Interpolate.apply(attr.contiguous(), rast.contiguous(), tri.contiguous())


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pos: Tensor, tri: Tensor, height: int, width: int) -> Tensor:
        out = output_memory.empty(pos.shape[0], height, width, 4)
        pos_array, tri_array, out_array = pos.detach().numpy(), tri.numpy(), out.numpy()
        _for_each(len(pos_array), lambda b: _thread_scratch().rasterize(pos_array[b], tri_array, out_array[b]))
        ctx.save_for_backward(pos, tri, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None, None, None]:
        pos, tri, rast = ctx.saved_tensors
        grad_pos = torch.zeros_like(pos)
        grad, rast_array, pos_array = grad_out.contiguous().numpy(), rast.detach().numpy(), pos.detach().numpy()
        tri_array, result = tri.numpy(), grad_pos.numpy()
        _for_each(
            len(grad),
            lambda b: cpu_shading_kernels.rasterize_backward(
                grad[b], rast_array[b], pos_array[b], tri_array, result[b]
            ),
        )
        return grad_pos, None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        out = output_memory.empty(*rast.shape[:3], attr.shape[2])
        attr_array, rast_array, tri_array, out_array = _per_picture(attr, rast), rast.numpy(), tri.numpy(), out.numpy()

        def draw(b: int) -> None:
            status = cpu_shading_kernels.interpolate(attr_array[b], rast_array[b], tri_array, out_array[b])
            if status != cpu_kernels.OK:
                raise kernel_error("interpolate", status, attr_array[b], tri_array)

        _for_each(len(out_array), draw)
        ctx.save_for_backward(attr, rast, tri)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        attr, rast, tri = ctx.saved_tensors
        want_attr, want_rast = ctx.needs_input_grad[:2]
        pictures = rast.shape[0]
        # pictures that share their attributes still add up apart, since they may be worked on at the same time
        grad_attr = torch.zeros(pictures, *attr.shape[1:]) if want_attr else torch.empty(pictures, 0, attr.shape[2])
        grad_rast = output_memory.empty(*rast.shape) if want_rast else torch.empty(pictures, 0, 0, 4)
        attr_array, rast_array, tri_array = _per_picture(attr, rast), rast.detach().numpy(), tri.numpy()
        grad, attr_result, rast_result = grad_out.contiguous().numpy(), grad_attr.numpy(), grad_rast.numpy()
        _for_each(
            pictures,
            lambda b: cpu_shading_kernels.interpolate_backward(
                grad[b], attr_array[b], rast_array[b], tri_array, want_attr, want_rast, attr_result[b], rast_result[b]
            ),
        )
        if attr.shape[0] != pictures:
            grad_attr = grad_attr.sum(0, keepdim=True)
        return grad_attr if want_attr else None, grad_rast if want_rast else None, None


def _per_picture(attr: Tensor, rast: Tensor) -> np.ndarray:
    return attr.detach().expand(rast.shape[0], -1, -1).numpy()


def kernel_error(where: str, status: int, values: np.ndarray, tri: np.ndarray) -> ValueError:
    """The error to raise for what a kernel returned; ``values`` are positions or attributes at vertices."""
    if status == cpu_kernels.BAD_POSITION:
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        return ValueError(f"{where}: {len(bad)} of {len(values)} positions are NaN or infinite, first vertex {bad[0]}")
    if len(tri) == 0:
        return ValueError(f"{where}: rast shows triangles, and tri has none; they belong to different meshes")
    return ValueError(
        f"{where}: there are {len(values)} vertices and {len(tri)} triangles that name vertices {tri.min()} to "
        f"{tri.max()}; tri, its vertices and rast must belong together"
    )


_local = threading.local()
_pool_lock = threading.Lock()
_pool: tuple[int, int, ThreadPoolExecutor] | None = None


def _thread_scratch() -> RasterScratch:
    if not hasattr(_local, "scratch"):
        _local.scratch = RasterScratch()
    return _local.scratch


def _for_each(count: int, work: Callable[[int], object]) -> None:
    """Call ``work`` for every picture, in threads where there are several; the first error is raised."""
    global _pool
    threads = min(count, torch.get_num_threads())
    if threads <= 1:
        for b in range(count):
            work(b)
        return
    with _pool_lock:
        # a forked child inherits the pool's object without its threads, and torch's thread count may change
        if _pool is None or _pool[:2] != (os.getpid(), torch.get_num_threads()):
            if _pool is not None and _pool[0] == os.getpid():
                _pool[2].shutdown(wait=False)
            _pool = (os.getpid(), torch.get_num_threads(), ThreadPoolExecutor(torch.get_num_threads(), "rendering"))
        # submitted under the lock, so that no other thread shuts this pool down in between
        jobs = [_pool[2].submit(work, b) for b in range(count)]
    for job in jobs:
        job.result()
