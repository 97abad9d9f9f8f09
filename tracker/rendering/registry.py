"""Choosing a backend by name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

import torch

from tracker.errors import UserError
from tracker.rendering.renderer import Renderer

BackendName = Literal["auto", "cpu", "cuda", "pytorch3d"]


def available_backends() -> list[str]:
    """Names of the backends that can run here, without loading them."""
    names = ["cpu"]
    if torch.cuda.is_available() and find_spec("nvdiffrast") is not None:
        names.append("cuda")
    if find_spec("pytorch3d") is not None:
        names.append("pytorch3d")
    return names


def get_renderer(name: BackendName = "auto", device: str | torch.device | None = None) -> Renderer:
    """Make a renderer.

    Args:
        name: "cpu"; "cuda" (nvdiffrast, which the user installs); "pytorch3d" (likewise, a slow reference); or "auto":
            cuda where it can run and ``device`` does not ask for the CPU, else cpu.
        device: for the cuda and pytorch3d backends, e.g. "cuda:1".

    Raises:
        UserError: the backend cannot run here, or not on that device.
    """
    if name not in get_args(BackendName):
        raise UserError(f"renderer {name!r} is unknown; choose one of {', '.join(get_args(BackendName))}")
    wanted = None if device is None else torch.device(device)
    if name == "auto":
        name = "cuda" if "cuda" in available_backends() and (wanted is None or wanted.type == "cuda") else "cpu"
    # each backend is imported when it is asked for: two of them need libraries that most users do not have
    if name == "cpu":
        if wanted is not None and wanted.type != "cpu":
            raise UserError(f"the cpu renderer cannot work on {wanted}; use --device cpu, or the cuda renderer")
        from tracker.rendering.cpu_backend import CpuRenderer

        return CpuRenderer()
    if name == "cuda":
        from tracker.rendering.cuda_backend import CudaRenderer

        return CudaRenderer(wanted or torch.device("cuda"))
    from tracker.rendering.pytorch3d_backend import Pytorch3dRenderer

    return Pytorch3dRenderer(wanted or torch.device("cpu"))
