"""Landmarks of a whole video on disk, so that memory does not grow with its length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Float

from tracker.landmarks.detection import Detection
from tracker.landmarks.landmark_schemes import BLENDSHAPE_NAMES, N_LANDMARKS
from tracker.observe.journal import Journal

N_BLENDSHAPES = 52
_RECORD = np.dtype(
    [
        ("timestamp", "<f8"),
        ("confidence", "<f8"),
        ("found", "u1"),
        ("points", "<f4", (N_LANDMARKS, 2)),
        ("depth", "<f4", (N_LANDMARKS,)),
        ("blendshapes", "<f4", (N_BLENDSHAPES,)),
    ]
)


@dataclass(frozen=True)
class LandmarkRecords:
    """Landmarks of some frames; all zero where no face was found (``found`` false). Units as in :class:`Detection`."""

    points: Float[np.ndarray, "frames 478 2"]
    depth: Float[np.ndarray, "frames 478"]
    blendshapes: Float[np.ndarray, "frames 52"]
    timestamps: Float[np.ndarray, "frames"]
    found: Bool[np.ndarray, "frames"]


class LandmarkStore:
    """Append detections frame by frame, read them back by frame number. Use it as a context manager.

    A frame takes 6.0 kB in a file and a few bytes in memory.

    Args:
        folder: where the file goes; one that is there already is gone on with.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(Path(folder) / "landmarks.journal", _RECORD)
        known = self._journal.table()
        self._timestamps: list[float] = known["timestamp"].tolist()
        self._confidence: list[float] = known["confidence"].tolist()
        self._found: list[bool] = known["found"].astype(bool).tolist()
        self.blendshape_names: tuple[str, ...] = BLENDSHAPE_NAMES

    def __enter__(self) -> LandmarkStore:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._journal.close()

    def __len__(self) -> int:
        return len(self._timestamps)

    @property
    def timestamps(self) -> Float[np.ndarray, "frames"]:
        """Seconds of every frame."""
        return np.array(self._timestamps)

    @property
    def found(self) -> np.ndarray:
        """``(T,)`` bool: frames with a face. Made anew from all frames; ask :meth:`has_face` about one."""
        return np.array(self._found, bool)

    def has_face(self, frame: int) -> bool:
        """Whether a face was found in this frame."""
        return self._found[frame]

    @property
    def confidence(self) -> Float[np.ndarray, "frames"]:
        """The detector's confidence, 0 where no face was found."""
        return np.array(self._confidence)

    def append(self, timestamp: float, detection: Detection | None) -> None:
        """Add the next frame; None when it has no face."""
        record = np.zeros((), _RECORD)
        record["timestamp"], record["found"] = timestamp, detection is not None
        if detection is not None:
            record["points"], record["depth"] = detection.points, detection.depth
            record["blendshapes"], record["confidence"] = detection.blendshapes, detection.confidence
        self._journal.append(record)
        self._timestamps.append(timestamp)
        self._found.append(detection is not None)
        self._confidence.append(0.0 if detection is None else detection.confidence)

    def flush(self) -> None:
        """Hand what was added to the operating system."""
        self._journal.flush()

    def sync(self) -> None:
        """Put what was added on the disk."""
        self._journal.sync()

    def keep(self, frames: int) -> None:
        """Forget the frames from number ``frames`` on."""
        self._journal.keep(frames)
        for values in (self._timestamps, self._confidence, self._found):
            del values[frames:]

    def read(self, frames: np.ndarray) -> LandmarkRecords:
        """Records of the given frame numbers, in that order."""
        frames = np.asarray(frames, int)
        if len(frames) and (frames.min() < 0 or frames.max() >= len(self)):
            raise IndexError(f"frames {frames.min()}–{frames.max()} asked for, {len(self)} stored")
        picked = np.array(self._journal.table()[frames])
        timestamps = np.array([self._timestamps[f] for f in frames], float)
        found = np.array([self._found[f] for f in frames], bool)
        # fields of packed records lie at odd addresses, which tensors cannot share
        points, depth, blendshapes = (picked[n].copy() for n in ("points", "depth", "blendshapes"))
        return LandmarkRecords(points, depth, blendshapes, timestamps, found)
