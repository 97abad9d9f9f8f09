"""Embedding maps of a whole video on disk, so that memory does not grow with its length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from jaxtyping import Float32

from densemarks_model.crops import HeadCrop
from densemarks_model.prediction import Prediction
from tracker.observe.journal import Journal

MAX_SIDE = 128
"""Side of the largest maps that are kept, pixels: twice what places need, and a hundred frames take tens of megabytes."""

_USUAL_SCALE = 0.02
"""Expected error of networks that do not tell, cube units."""


@dataclass(frozen=True)
class EmbeddingRecord:
    """What a network said about one frame.

    Attributes:
        crop: what it looked at.
        coordinates: canonical locations, [0, 1].
        trust: [0, 1]: the pixel shows the head, hair included, and the line of sight through it meets the bald head.
        scale: expected error of the coordinates, cube units.
        surface: [0, 1]: the line of sight meets the bald head, whatever lies in front; None from networks that do not tell.
    """

    crop: HeadCrop
    coordinates: Float32[np.ndarray, "h w 3"]
    trust: Float32[np.ndarray, "h w"]
    scale: Float32[np.ndarray, "h w"]
    surface: Float32[np.ndarray, "h w"] | None = None

    @staticmethod
    def of(crop: HeadCrop, prediction: Prediction[np.ndarray], number: int = 0) -> EmbeddingRecord:
        """What ``prediction`` says about its crop ``number``.

        Maps larger than :data:`MAX_SIDE` are reduced to it by area averages; locations and their errors by trust, so that a
        background beside the head does not pull them away.
        """
        confidence = prediction.confidence[number]
        surface = None if prediction.surface is None else prediction.surface[number]
        trust = confidence if surface is None else confidence * surface
        scale = np.full_like(trust, _USUAL_SCALE) if prediction.scale is None else prediction.scale[number]
        coordinates = prediction.coordinates[number]
        if max(trust.shape) > MAX_SIDE:
            weight = trust + 1e-6
            mean = _reduced(np.dstack([coordinates, scale]) * weight[..., None]) / _reduced(weight)[..., None]
            coordinates, scale = np.ascontiguousarray(mean[..., :3]), np.ascontiguousarray(mean[..., 3])
            trust, surface = _reduced(trust), None if surface is None else _reduced(surface)
        return EmbeddingRecord(crop, coordinates, trust, scale, surface)


def _reduced(maps: np.ndarray) -> np.ndarray:
    """Maps of which no side is longer than :data:`MAX_SIDE`, by area averages."""
    height, width = maps.shape[:2]
    share = MAX_SIDE / max(height, width)
    return cv2.resize(maps, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA)


class EmbeddingStore:
    """Put records under frame numbers, read them back. Use it as a context manager.

    A record of a 64 × 64 map takes 41 kB in a file, one of the largest 164 kB at most; its numbers are rounded to 1.5e-5 of the
    cube (5 µm on a head).

    Args:
        folder: where the file goes; one that is there already is gone on with.
    """

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / "embeddings.journal"
        self._journal: Journal | None = None
        self._row_of: dict[int, int] = {}
        if self._path.is_file() and self._path.stat().st_size > 0:
            self._journal = Journal(self._path)
            self._row_of = {int(frame): row for row, frame in enumerate(self._journal.table()["frame"])}

    def __enter__(self) -> EmbeddingStore:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._journal is not None:
            self._journal.close()

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, frame: int) -> bool:
        return int(frame) in self._row_of

    def put(self, frame: int, record: EmbeddingRecord) -> None:
        """Add the record of a frame that has none yet; all records of a store come from one network.

        Raises:
            ValueError: a second record of a frame; maps of another size than the first record's or larger than
                :data:`MAX_SIDE`; a surface where the first had none, or none where it had one.
        """
        if frame in self._row_of:
            raise ValueError(f"frame {frame} has a record already")
        layout = _layout(record)
        if self._journal is None:
            self._journal = Journal(self._path, layout)
        elif layout != self._journal.layout:
            raise ValueError(f"frame {frame}: maps of {record.trust.shape}, other ones than the store's first")
        row = np.zeros((), layout)
        row["frame"] = frame
        row["coordinates"] = np.round(np.clip(record.coordinates, 0, 1) * 65535)
        row["trust"] = np.round(np.clip(record.trust, 0, 1) * 255)
        if record.surface is not None:
            row["surface"] = np.round(np.clip(record.surface, 0, 1) * 255)
        row["scale"] = record.scale
        row["crop"] = (*record.crop.center, record.crop.side, record.crop.roll)
        self._row_of[frame] = self._journal.append(row)

    def flush(self) -> None:
        """Hand what was added to the operating system."""
        if self._journal is not None:
            self._journal.flush()

    def sync(self) -> None:
        """Put what was added on the disk."""
        if self._journal is not None:
            self._journal.sync()

    def keep(self, frames: int) -> None:
        """Forget the records of frames from number ``frames`` on."""
        kept = {f: row for f, row in self._row_of.items() if f < frames}
        if self._journal is not None:
            self._journal.keep(len(kept))  # frames are put in order
        self._row_of = kept

    def read(self, frame: int) -> EmbeddingRecord | None:
        """The record of a frame, None where it has none."""
        number = self._row_of.get(int(frame))
        if number is None or self._journal is None:
            return None
        row = self._journal.read(number)
        x, y, side, roll = (float(v) for v in row["crop"])
        return EmbeddingRecord(
            HeadCrop(np.array([x, y]), side, roll),
            row["coordinates"].astype(np.float32) / np.float32(65535),
            row["trust"].astype(np.float32) / np.float32(255),
            row["scale"].astype(np.float32),
            row["surface"].astype(np.float32) / np.float32(255) if "surface" in row.dtype.fields else None,
        )


def _layout(record: EmbeddingRecord) -> np.dtype:
    size = record.trust.shape
    if max(size) > MAX_SIDE:
        raise ValueError(f"maps of {size}: larger than {MAX_SIDE} on a side, see EmbeddingRecord.of")
    surface = [("surface", "u1", size)] if record.surface is not None else []
    maps = [("coordinates", "<u2", (*size, 3)), ("trust", "u1", size), *surface, ("scale", "<f2", size)]
    return np.dtype([("frame", "<i8"), *maps, ("crop", "<f8", (4,))])
