"""What a run tells: lines on the terminal, numbers and pictures for TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor


class Records:
    """Collects losses between two lines. ``board`` is a TensorBoard writer or None."""

    def __init__(self, folder: Path | None, tensorboard: bool) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count, self._samples, self._since = 0, 0, time.monotonic()
        self.board = _board(folder) if tensorboard and folder is not None else None

    def add(self, losses: dict[str, Tensor], samples: int) -> None:
        """Note one step's losses."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._count, self._samples = self._count + 1, self._samples + samples

    def line(self, step: int) -> str:
        """Means since the last line, with samples a second; and to the board."""
        means = {name: float(total) / max(self._count, 1) for name, total in self._sums.items()}
        speed = self._samples / max(time.monotonic() - self._since, 1e-9)
        self.numbers({f"loss/{k}": v for k, v in means.items()} | {"speed/samples_per_second": speed}, step)
        self._sums, self._count, self._samples, self._since = {}, 0, 0, time.monotonic()
        return f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in means.items()) + f"; {speed:.1f} samples/s"

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


def _board(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("note: tensorboard is not installed, no logs are written (pip install densemarks-tracker[train])")
        return None
    return SummaryWriter(str(folder / "logs"))
