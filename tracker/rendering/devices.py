"""Where a run works: decided once, before anything else, so that nobody waits for a first pass that ends in an error.

    device = resolve_device("auto", needs_renderer=True)
    device.compute    # where the fit's tensors go
    device.draw       # where heads are drawn: get_renderer("auto", device.draw)
    device.reason     # one line for the summary, e.g. "cpu: PyTorch sees no CUDA device"
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from tracker.errors import UserError
from tracker.rendering.backends import BackendName, get_renderer
from tracker.rendering.cuda_backend import INSTALL_COMMAND

_NO_CUDA = "PyTorch sees no CUDA device"
_NO_NVDIFFRAST = "nvdiffrast is not installed"


@dataclass(frozen=True)
class Device:
    """Where a run works.

    Attributes:
        compute: where tensors lie, with the number where it is a GPU.
        draw: where heads are drawn: the same, but for a GPU without nvdiffrast.
        renderer: the backend that draws.
        reason: one line that says what was chosen, and why where that is not plain.
    """

    compute: torch.device
    draw: torch.device
    renderer: BackendName
    reason: str


def resolve_device(wanted: str = "auto", needs_renderer: bool = True) -> Device:
    """Choose a device and make sure that it works: on a GPU something is computed, and drawn where that is needed.

    Args:
        wanted: "cpu"; "cuda" or "cuda:1"; or "auto": cuda where PyTorch sees a device that works and nvdiffrast is
            installed, else cpu.
        needs_renderer: something will be drawn; without that "cuda" does without nvdiffrast.

    Raises:
        UserError: an unknown name, or CUDA was asked for and cannot be had; says what to install.
    """
    if wanted == "cpu":
        return _on_cpu("cpu")
    if wanted == "auto":
        device = torch.device("cuda", 0)
        fault = _cuda_fault(device) or _renderer_fault(device, needs_renderer)
        return _on_gpu(device) if fault is None else _on_cpu(f"cpu: {fault}")
    try:
        asked = torch.device(wanted)
    except RuntimeError:
        asked = None
    if asked is None or asked.type != "cuda":
        raise UserError(f"--device {wanted}: no such device; choose auto, cpu, cuda or cuda:NUMBER")
    device = torch.device("cuda", asked.index or 0)
    fault = _cuda_fault(device)
    if fault is not None:
        hint = "install a CUDA build of torch and NVIDIA's driver" if fault == _NO_CUDA else "choose another"
        raise UserError(f"--device {wanted}: {fault}; {hint}, or use --device cpu")
    fault = _renderer_fault(device, needs_renderer)
    if fault is None:
        return _on_gpu(device)
    if needs_renderer:
        raise UserError(f"--device {wanted}: {fault}; heads are drawn with it: {INSTALL_COMMAND}, or use --device cpu")
    return Device(device, torch.device("cpu"), "cpu", f"{_name(device)}, drawing on the cpu: {fault}")


def _on_cpu(reason: str) -> Device:
    return Device(torch.device("cpu"), torch.device("cpu"), "cpu", reason)


def _on_gpu(device: torch.device) -> Device:
    return Device(device, device, "cuda", _name(device))


def _name(device: torch.device) -> str:
    return f"{device}: {torch.cuda.get_device_name(device)}"


def _cuda_fault(device: torch.device) -> str | None:
    """Why PyTorch cannot compute on a GPU, or None."""
    if not torch.cuda.is_available():
        return _NO_CUDA
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        return f"PyTorch sees {count} CUDA device{'s' if count > 1 else ''}, numbered from 0"
    try:
        # a driver that is too old, or a torch built for other cards, shows here and not before
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        return f"PyTorch cannot compute on {device} ({_first_line(error)})"
    return None


def _renderer_fault(device: torch.device, draw: bool) -> str | None:
    """Why nvdiffrast cannot draw on a GPU that works, or None. ``draw``: try it, which may compile it first."""
    if find_spec("nvdiffrast") is None:
        return _NO_NVDIFFRAST
    if not draw:
        return None
    try:
        pos = torch.tensor([[[-1.0, -1, 0, 1], [3, -1, 0, 1], [-1, 3, 0, 1]]], device=device)
        tri = torch.tensor([[0, 1, 2]], dtype=torch.int32, device=device)
        # versions before those that are supported draw only sizes that 8 divides
        shown = get_renderer("cuda", device).rasterize(pos, tri, (5, 9))[..., 3]
        return None if bool((shown == 1).all()) else f"nvdiffrast draws nothing on {device}"
    except Exception as error:  # what a broken build of it raises is anyone's guess
        return f"nvdiffrast does not work on {device} ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
