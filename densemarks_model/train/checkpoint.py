"""Checkpoints: everything a run needs to go on as if it had not stopped. The last two are kept, should the newest be damaged."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from densemarks_model.errors import ModelError

CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint-previous.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` complete or not at all; what was there before is kept beside it as :data:`PREVIOUS`.

    Raises:
        ModelError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".checkpoint-")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            if path.is_file():  # between the two lines only the previous one is there, which is enough to go on from
                os.replace(path, path.with_name(PREVIOUS))
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


def newest_checkpoint(folder: Path, say: Callable[[str], None] = print) -> tuple[Path, dict[str, Any]] | None:
    """The newest readable checkpoint of a run's folder with what is in it; None where there is none.

    ``say`` is told when the newest is damaged and the one before is taken.

    Raises:
        ModelError: there are checkpoints, and none can be read.
    """
    found = [p for p in (folder / CHECKPOINT, folder / PREVIOUS) if p.is_file()]
    for k, path in enumerate(found):
        try:
            return path, load_checkpoint(path)
        except ModelError as error:
            if k + 1 == len(found):
                raise
            say(f"note: {error}; going on from {found[k + 1].name}")
    return None
