"""Network files: reading safetensors without trusting them, recognising what is inside, writing our own."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from densemarks_model.errors import ModelError

LITE = "densemarks-lite"
"""Value of ``architecture`` in the metadata of lite networks."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a ``.safetensors`` file.

    Raises:
        ModelError: no such file, not this format, or cut short.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not a complete .safetensors file ({str(error).splitlines()[0]}); download it again") from error


def read_training_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The averaged weights and the network's settings from a checkpoint of ``densemarks_model.train``.

    Raises:
        ModelError: not such a file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state["average"], state["network"]
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except Exception as error:  # damaged archives raise many types
        raise ModelError(f"{path}: not a checkpoint of densemarks_model.train ({type(error).__name__})") from error


def save_network(path: Path, net: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Write a :class:`~densemarks_model.lite.LiteNet` as half-precision safetensors, complete or not at all.

    Raises:
        ModelError: the file cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in net.state_dict().items()}
    about = {"architecture": LITE, "config": json.dumps(net.config.to_dict()), **(metadata or {})}
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            save_file(tensors, str(Path(folder) / path.name), about)
            os.replace(Path(folder) / path.name, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from error


def fit_state(net: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load ``state`` into ``net``, or say in one line what does not fit.

    Raises:
        ModelError: missing or unknown names, or other shapes.
    """
    own = net.state_dict()
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    other = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or unknown or other:
        parts = [f"{len(names)} {what} (first: {names[0]})" for names, what in ((missing, "missing"), (unknown, "unknown"), (other, "of another shape")) if names]
        raise ModelError(f"{where}: weights of another architecture: {', '.join(parts)}")
    net.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})
