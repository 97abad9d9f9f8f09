"""What a run tells: lines on the terminal, the same as JSON lines in ``log.jsonl``, numbers and pictures for TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densemarks_model.train.validation import Scores

LOG = "log.jsonl"

PAUSE = 60.0
"""A step that takes longer (seconds), and ten times as long as others, was a paused process: its time is not counted."""


class Records:
    """Collects losses between two lines; nothing waits for a GPU before the line is written.

    Args:
        folder: of the run, for its files; None to write none. tensorboard: write those logs too.
    """

    def __init__(self, folder: Path | None, tensorboard: bool) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = self._samples = 0
        self._spent, self._since = 0.0, time.monotonic()
        self._log = folder / LOG if folder is not None else None
        self.board = _board(folder) if tensorboard and folder is not None else None

    def add(self, losses: dict[str, Tensor], samples: int) -> None:
        """Note one step's losses."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        now = time.monotonic()
        took = now - self._since
        usual = self._spent / self._count if self._count else took
        self._spent += usual if took > max(PAUSE, 10 * usual) else took
        self._count, self._samples, self._since = self._count + 1, self._samples + samples, now

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Time in here (validating, writing) is no time of training."""
        before = time.monotonic()
        yield
        self._since += time.monotonic() - before

    def line(self, step: int, passes: int) -> str:
        """Means since the last line, with pictures a second; ``passes``: pictures that the network has seen."""
        means = {name: float(total) / max(self._count, 1) for name, total in self._sums.items()}
        speed = self._samples / max(self._spent, 1e-9)
        self.numbers({f"loss/{k}": v for k, v in means.items()} | {"speed/pictures_per_second": speed, "passes": passes}, step)
        self.write("losses", step, passes, pictures_per_second=round(speed, 2), losses={k: round(v, 6) for k, v in means.items()})
        self._sums, self._count, self._samples, self._spent = {}, 0, 0, 0.0
        return f"step {step}: {passes:,} passes, {speed:.1f} pictures/s; " + ", ".join(f"{k} {v:.4f}" for k, v in means.items())

    def scores(self, found: dict[str, Scores], step: int, passes: int) -> str:
        """What validation found, by held-out folder."""
        for name, score in found.items():
            self.numbers({f"held_out_{name}/{k}": v for k, v in score.to_dict().items()}, step)
        self.write("held_out", step, passes, scores={name: score.to_dict() for name, score in found.items()})
        return f"step {step}: {passes:,} passes; held out: " + "; ".join(f"{name}: {score}" for name, score in found.items())

    def write(self, kind: str, step: int, passes: int, **values: Any) -> None:
        """Append a line to ``log.jsonl``."""
        if self._log is None:
            return
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, "passes": passes, "time": round(time.time()), **values}) + "\n")

    def numbers(self, values: dict[str, float], step: int) -> None:
        """Scalars for the board."""
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def pictures(self, images: Tensor, coordinates: Tensor, head: Tensor, step: int) -> None:
        """Pictures beside their embedding as RGB, for the board. ``(B, 3, H, W)``, ``(B, 3, h, w)``, ``(B, 1, h, w)``."""
        if self.board is None:
            return
        colours = torch.nn.functional.interpolate(coordinates.clamp(0, 1) * (0.2 + 0.8 * head), size=images.shape[-2:], mode="bilinear")
        self.board.add_images("embedding", torch.cat([images, colours], 3).float().cpu(), step)

    def close(self) -> None:
        """Finish the board's file."""
        if self.board is not None:
            self.board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a ``log.jsonl`` in order of steps. Of lines that a run wrote again after it had been stopped, the last ones.

    A last line that was cut off is left out.
    """
    lines: dict[tuple[str, int], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            lines[line["kind"], line["step"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(lines.values(), key=lambda line: line["step"])


def _board(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("note: tensorboard is not installed, no logs are written (pip install densemarks-tracker[train])")
        return None
    return SummaryWriter(str(folder / "logs"))
