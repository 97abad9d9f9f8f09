"""Choosing a backend by name."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from tracker.errors import UserError
from tracker.rendering.renderer import Renderer

BackendName = Literal["auto", "cpu", "cuda", "pytorch3d"]

_lock = threading.Lock()
_made: dict[tuple[str, torch.device], Renderer] = {}  # a rasteriser's context on a GPU takes a second and memory to make


def available_backends() -> list[str]:
    """Names of the backends that can run here, without loading them."""
    names = ["cpu"]
    if torch.cuda.is_available() and find_spec("nvdiffrast") is not None:
        names.append("cuda")
    if find_spec("pytorch3d") is not None:
        names.append("pytorch3d")
    return names


def get_renderer(name: BackendName = "auto", device: str | torch.device | None = None) -> Renderer:
    """The renderer of a backend and a device. There is one of each: whoever asks again gets the same, from any thread.

    Args:
        name: "cpu"; "cuda" (nvdiffrast, which the user installs); "pytorch3d" (likewise, a slow reference); or "auto":
            the backend of ``device``, and without one cuda where it can run, else cpu.
        device: for the cuda and pytorch3d backends, e.g. "cuda:1".

    Raises:
        UserError: the backend cannot run here, or not on that device.
    """
    if name not in get_args(BackendName):
        raise UserError(f"renderer {name!r} is unknown; choose one of {', '.join(get_args(BackendName))}")
    wanted = None if device is None else torch.device(device)
    if name == "auto" and wanted is not None:
        name = "cuda" if wanted.type == "cuda" else "cpu"
    elif name == "auto":
        name = "cuda" if "cuda" in available_backends() else "cpu"
    where = _numbered(wanted or torch.device("cuda" if name == "cuda" else "cpu"))
    with _lock:
        if (name, where) not in _made:
            _made[name, where] = _make(name, where)
        return _made[name, where]


def _numbered(device: torch.device) -> torch.device:
    """The device as tensors name it: "cuda" means the current one, which has a number, and "cpu:0" is "cpu"."""
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu") if device.type == "cpu" else device


def _make(name: str, device: torch.device) -> Renderer:
    # each backend is imported when it is asked for: two of them need libraries that most users do not have
    if name == "cpu":
        if device.type != "cpu":
            raise UserError(f"the cpu renderer cannot work on {device}; use --device cpu, or the cuda renderer")
        from tracker.rendering.cpu_backend import CpuRenderer

        return CpuRenderer()
    if name == "cuda":
        from tracker.rendering.cuda_backend import CudaRenderer

        return CudaRenderer(device)
    from tracker.rendering.pytorch3d_backend import Pytorch3dRenderer

    return Pytorch3dRenderer(device)
