"""Network files: reading safetensors without trusting them, telling what does not fit, writing our own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densemarks_model.errors import ModelError
from flame_assets.canonical import CUBE_VERSION

LITE = "densemarks-lite"
"""Value of ``architecture`` in the metadata of lite networks."""

HEAD, DEFAULT_HEAD = "head", "default"
"""Entry of the metadata that says whose canonical coordinates a network learned, and its value for the default head; ``cube`` is
the version of them."""


def read_header(path: Path) -> tuple[list[str], dict[str, str]]:
    """Tensors' names and the metadata of a ``.safetensors`` file, without its tensors.

    Raises:
        ModelError: no such file, not this format, or cut short.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: " + ("a folder; give the file in it" if path.is_dir() else "no such file"))
    try:
        # numpy, so that a caller who only predicts need not import torch
        with safe_open(str(path), framework="numpy") as file:
            return list(file.keys()), dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not a complete .safetensors file ({str(error).splitlines()[0]}); download it again") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file.

    Raises:
        ModelError: as :func:`read_header`.
    """
    read_header(path)
    from safetensors.torch import load_file

    return load_file(str(path))


def read_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The network's settings in the metadata of a lite network's file.

    Raises:
        ModelError: there are none, or they cannot be read.
    """
    try:
        settings = json.loads(metadata["config"])
    except (KeyError, ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ModelError(f"{path}: its header has no readable \"config\" with the network's settings; write it with save_network")
    return settings


def cube_of(path: Path, stated: object) -> int:
    """Version of the canonical cube that a network file speaks, from its ``cube`` entry (None: written before there were two).

    Raises:
        ModelError: no version that this package knows.
    """
    version = 1 if stated is None else int(stated) if str(stated).isdigit() else 0
    if not 1 <= version <= CUBE_VERSION:
        raise ModelError(f"{path}: speaks version {stated} of the canonical cube, and this package knows 1 to {CUBE_VERSION}; update it")
    return version


def read_training_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    """The averaged weights, the network's settings and the version of its cube from a checkpoint of ``densemarks_model.train``.

    Raises:
        ModelError: not such a file.
    """
    state = _training_checkpoint(path)
    return state["average"], state["network"], cube_of(path, state.get("cube"))


def training_checkpoint_head(path: Path) -> str | None:
    """Whose canonical coordinates a checkpoint of ``densemarks_model.train`` learns (``DEFAULT_HEAD``); None where it does not say.

    Raises:
        ModelError: not such a file.
    """
    return _training_checkpoint(path).get(HEAD)


def _training_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise many types
        raise ModelError(f"{path}: not a checkpoint of densemarks_model.train, or cut short ({type(error).__name__})") from error
    weights, settings = (state.get(k) if isinstance(state, dict) else None for k in ("average", "network"))
    if not isinstance(weights, dict) or not isinstance(settings, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelError(f"{path}: not a checkpoint of densemarks_model.train: it has no averaged weights with settings")
    return state


def save_network(path: Path, net: nn.Module, metadata: dict[str, str] | None = None, cube: int = CUBE_VERSION) -> None:
    """Write a :class:`~densemarks_model.lite.LiteNet` as half-precision safetensors, complete or not at all.

    Args:
        metadata: more of it. cube: version of the canonical cube that ``net`` was taught.

    Raises:
        ModelError: the file cannot be written, or a weight is no number in half precision.
    """
    from safetensors.torch import save_file

    tensors = {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in net.state_dict().items()}
    if broken := next((k for k, v in tensors.items() if not torch.isfinite(v).all()), None):
        raise ModelError(f"{path}: not written: {broken} has values that are not finite in half precision")
    about = {"architecture": LITE, "config": json.dumps(net.config.to_dict()), "cube": str(cube), **(metadata or {})}
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            save_file(tensors, str(Path(folder) / path.name), about)
            os.replace(Path(folder) / path.name, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from error


def check_layout(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], where: str) -> None:
    """Say in one line how ``state`` differs from the names and shapes that are ``expected``, if it does.

    Raises:
        ModelError: missing or unknown names, other shapes, or values that are not finite.
    """
    problems = []
    if missing := [k for k in expected if k not in state]:
        problems.append(f"{len(missing)} missing (first: {missing[0]})")
    if unknown := [k for k in state if k not in expected]:
        problems.append(f"{len(unknown)} unknown (first: {unknown[0]})")
    if other := [k for k in expected if k in state and tuple(state[k].shape) != tuple(expected[k])]:
        first = other[0]
        problems.append(f"{len(other)} of another shape (first: {first} is {tuple(state[first].shape)}, not {tuple(expected[first])})")
    if problems:
        raise ModelError(f"{where}: weights of another architecture: {', '.join(problems)}")
    if broken := next((k for k, v in state.items() if not torch.isfinite(v).all()), None):
        raise ModelError(f"{where}: {broken} has values that are not finite; the file is damaged, or its training diverged")


def fit_state(net: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load ``state`` into ``net``, in the network's own precision.

    Raises:
        ModelError: what :func:`check_layout` finds.
    """
    own = net.state_dict()
    check_layout({k: tuple(v.shape) for k, v in own.items()}, state, where)
    net.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})
