"""A pretended GPU: tensors whose numbers lie in the CPU's memory and that behave as if they did not.

``DEVICE`` is torch's "meta" device, of which this makes one with numbers. Under :class:`PretendDevice` every tensor that is
created on it, or computed from one that lies there, is a :class:`FarTensor`; an operation that mixes far tensors with the
CPU's is refused as CUDA refuses it (numbers without axes, indices and plain copies may come from the CPU). What a GPU would
make the program wait for is written down: numbers read, tensors sent there and fetched.

It does not catch what only a real device shows: kernels that a backend lacks, results that differ by rounding, wrong
streams and threads, operations of libraries beside torch, memory, and speed. Functions that take the device from its
*type* see a far tensor as one of CUDA (``is_cuda`` is true, ``device.type`` is "meta").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from tracker.rendering import Renderer, get_renderer

DEVICE = torch.device("meta")
_MAY_MIX = ("aten::copy_", "aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_")
_RESHAPES = ("aten::squeeze_", "aten::unsqueeze_", "aten::t_", "aten::transpose_", "aten::resize_", "aten::set_")
_READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal")


class FarTensor(Tensor):
    """A tensor that says it lies on ``DEVICE``; ``near`` are its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        far = Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=DEVICE
        )
        far.near = near
        return far

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a far tensor outside of PretendDevice")

    @property
    def is_cuda(self) -> bool:
        return True

    def numpy(self, *, force: bool = False):
        raise TypeError("can't convert a far tensor to numpy; use .cpu() first")


class _Creation(TorchFunctionMode):
    """Sends what is made of plain numbers: torch keeps nothing of it on its own "meta" device."""

    def __init__(self, reads: list[str]) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], FarTensor):
            self._reads.append("tolist")
            return args[0].near.tolist()
        if func in (torch.tensor, torch.as_tensor) and _is_far(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor and isinstance(args[0], FarTensor):
            kwargs.setdefault("dtype", args[0].dtype)
            return torch.tensor(*args[1:], **kwargs).to(DEVICE)
        if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__) and isinstance(args[0], FarTensor) and args[0].dim() == 1:
            return func(args[0][None], args[1])[0]  # torch would reshape its result in place
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], FarTensor):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            parts = tuple(torch.tensor(part).to(DEVICE) if isinstance(part, list) else part for part in parts)
            args = (args[0], parts if isinstance(args[1], tuple) else parts[0], *args[2:])
        return func(*args, **kwargs)


class PretendDevice(TorchDispatchMode):
    """Use it as a context manager.

    Attributes:
        reads: operations that a GPU makes the program wait for: numbers read, masks turned into positions.
        sent, fetched: shapes of the tensors (not single numbers) that were copied there and back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.sent: list[tuple[int, ...]] = []
        self.fetched: list[tuple[int, ...]] = []
        self._creation = _Creation(self.reads)

    def __enter__(self) -> PretendDevice:
        self._creation.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._creation.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors: list[Tensor] = []
        near_args, near_kwargs = _unwrap(args, tensors), _unwrap(kwargs, tensors)
        far = [t for t in tensors if isinstance(t, FarTensor)]
        near = [t for t in tensors if not isinstance(t, FarTensor) and t.dim() > 0]
        name = func._schema.name
        if far and near and name not in _MAY_MIX:
            shapes = [tuple(t.shape) for t in near]
            raise RuntimeError(f"expected all tensors on the same device: {name} got {shapes} on the cpu beside far ones")
        if far and name in _RESHAPES:
            raise NotImplementedError(f"{name} changes the shape of a far tensor in place, which this cannot follow")
        device = kwargs.get("device")
        goes_far = bool(far) if device is None else _is_far(device)
        self._note(name, far, near, goes_far)
        with _disable_current_modes():
            out = func(*near_args, **near_kwargs)
        return _wrap(out) if goes_far else out

    def _note(self, name: str, far: list[FarTensor], near: list[Tensor], goes_far: bool) -> None:
        if far and (name in _READS or (not goes_far and not near)):
            masks = name in _READS
            (self.reads.append(name) if masks else self.fetched.append(tuple(far[0].shape)))
        if far and any(t.dtype == torch.bool for t in far[1:]) and name == "aten::index":
            self.reads.append(name)
        if near and goes_far:
            self.sent += [tuple(t.shape) for t in near]


def _is_far(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _unwrap(value: Any, tensors: list[Tensor]) -> Any:
    """Arguments as the CPU takes them; adds the tensors among them to ``tensors``. (torch's own tree_map takes most of the time.)"""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.near if isinstance(value, FarTensor) else value
    if isinstance(value, (list, tuple)):
        return [_unwrap(v, tensors) for v in value]
    if isinstance(value, dict):
        return {name: _unwrap(v, tensors) for name, v in value.items()}
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _wrap(value: Any) -> Any:
    if isinstance(value, Tensor):
        return FarTensor(value)
    return type(value)(_wrap(v) for v in value) if isinstance(value, (list, tuple)) else value


def send(value: Any) -> Any:
    """Tensors, mappings and records of them, on the pretended device. To be called under :class:`PretendDevice`."""
    if isinstance(value, Tensor):
        return FarTensor(value.clone())
    if isinstance(value, Mapping):
        return {name: send(v) for name, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{f.name: send(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init})
    return value


def fetch(value: Any) -> Any:
    """The inverse of :func:`send`, for results; those of a real device too."""
    if isinstance(value, Tensor):
        return value.near if isinstance(value, FarTensor) else value.cpu()
    if isinstance(value, Mapping):
        return {name: fetch(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(fetch(v) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: fetch(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


class FarRenderer(Renderer):
    """The CPU's renderer behind the pretended device."""

    name, device = "cpu", DEVICE

    def _rasterize(self, pos: Tensor, tri: Tensor, height: int, width: int) -> Tensor:
        return _call(get_renderer("cpu")._rasterize, pos, tri, height, width)

    def _interpolate(self, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        return _call(get_renderer("cpu")._interpolate, attr, rast, tri)


def _call(function, *args):
    with _disable_current_modes():
        return FarTensor(function(*_unwrap(args, [])))
