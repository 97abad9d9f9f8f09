"""Checkpoints: everything a run needs to go on as if it had not stopped."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from densemarks_model.errors import ModelError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` complete or not at all.

    Raises:
        ModelError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".checkpoint-")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; tensors and plain values only, nothing is executed.

    Raises:
        ModelError: no such file, or not a checkpoint.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise many types
        raise ModelError(f"{path}: not a checkpoint, or cut short ({type(error).__name__}); remove it or name another") from error
    missing = {"model", "average", "optimizer", "step", "network", "config"} - set(state)
    if missing:
        raise ModelError(f"{path}: not a checkpoint of this trainer, it lacks {', '.join(sorted(missing))}")
    return state
