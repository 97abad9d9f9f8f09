"""Embedding maps of a whole video on disk, so that memory does not grow with its length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32

from densemarks_model.crops import HeadCrop


@dataclass(frozen=True)
class EmbeddingRecord:
    """What a network said about one frame.

    Attributes:
        crop: what it looked at.
        coordinates: canonical locations, [0, 1].
        trust: [0, 1]: the pixel shows the head, hair included, and the line of sight through it meets the bald head.
        scale: expected error of the coordinates, cube units.
        surface: [0, 1]: the line of sight meets the bald head, whatever lies in front; zeros from networks that do not tell.
    """

    crop: HeadCrop
    coordinates: Float32[np.ndarray, "h w 3"]
    trust: Float32[np.ndarray, "h w"]
    scale: Float32[np.ndarray, "h w"]
    surface: Float32[np.ndarray, "h w"]


class EmbeddingStore:
    """Put records under frame numbers, read them back. Use it as a context manager.

    A record of a 64 × 64 map takes 41 kB in a scratch file; its numbers are rounded to 1.5e-5 of the cube (5 µm on a head).

    Args:
        folder: where the scratch file goes; it is removed at the end.
    """

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / "embeddings.bin"
        self._row_of: dict[int, int] = {}
        self._layout: np.dtype | None = None

    def __enter__(self) -> EmbeddingStore:
        self._file = open(self._path, "w+b")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, frame: int) -> bool:
        return int(frame) in self._row_of

    def put(self, frame: int, record: EmbeddingRecord) -> None:
        """Add the record of a frame that has none yet; all maps of a store have one size."""
        if frame in self._row_of:
            raise ValueError(f"frame {frame} has a record already")
        if self._layout is None:
            size = record.trust.shape
            self._layout = np.dtype(
                [
                    ("coordinates", "<u2", (*size, 3)),
                    ("trust", "u1", size),
                    ("surface", "u1", size),
                    ("scale", "<f2", size),
                    ("crop", "<f8", 4),
                ]
            )
        row = np.zeros((), self._layout)
        row["coordinates"] = np.round(np.clip(record.coordinates, 0, 1) * 65535)
        row["trust"] = np.round(np.clip(record.trust, 0, 1) * 255)
        row["surface"] = np.round(np.clip(record.surface, 0, 1) * 255)
        row["scale"] = record.scale
        row["crop"] = (*record.crop.center, record.crop.side, record.crop.roll)
        self._file.seek(0, 2)
        self._file.write(row.tobytes())
        self._row_of[frame] = len(self._row_of)

    def read(self, frame: int) -> EmbeddingRecord | None:
        """The record of a frame, None where it has none."""
        number = self._row_of.get(int(frame))
        if number is None or self._layout is None:
            return None
        self._file.seek(number * self._layout.itemsize)
        row = np.frombuffer(self._file.read(self._layout.itemsize), self._layout)[0]
        x, y, side, roll = (float(v) for v in row["crop"])
        return EmbeddingRecord(
            HeadCrop(np.array([x, y]), side, roll),
            row["coordinates"].astype(np.float32) / np.float32(65535),
            row["trust"].astype(np.float32) / np.float32(255),
            row["scale"].astype(np.float32),
            row["surface"].astype(np.float32) / np.float32(255),
        )
