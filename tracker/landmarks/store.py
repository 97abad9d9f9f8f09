"""Landmarks of a whole video on disk, so that memory does not grow with its length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Float

from tracker.landmarks.detection import Detection
from tracker.landmarks.landmark_schemes import BLENDSHAPE_NAMES, N_LANDMARKS

N_BLENDSHAPES = 52
_RECORD = np.dtype(
    [
        ("points", np.float32, (N_LANDMARKS, 2)),
        ("depth", np.float32, (N_LANDMARKS,)),
        ("blendshapes", np.float32, (N_BLENDSHAPES,)),
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

    A frame takes 5.9 kB in a scratch file and a few bytes in memory.

    Args:
        folder: where the scratch file goes; it is removed at the end.
    """

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / "landmarks.bin"
        self._timestamps: list[float] = []
        self._confidence: list[float] = []
        self._found: list[bool] = []
        self.blendshape_names: tuple[str, ...] = BLENDSHAPE_NAMES

    def __enter__(self) -> LandmarkStore:
        self._file = open(self._path, "w+b")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

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
        if detection is not None:
            record["points"], record["depth"] = detection.points, detection.depth
            record["blendshapes"] = detection.blendshapes
        self._file.seek(0, 2)
        self._file.write(record.tobytes())
        self._timestamps.append(timestamp)
        self._found.append(detection is not None)
        self._confidence.append(0.0 if detection is None else detection.confidence)

    def read(self, frames: np.ndarray) -> LandmarkRecords:
        """Records of the given frame numbers, in that order."""
        self._file.flush()
        frames = np.asarray(frames)
        if len(frames) and (frames.min() < 0 or frames.max() >= len(self)):
            raise IndexError(f"frames {frames.min()}–{frames.max()} asked for, {len(self)} stored")
        table = np.memmap(self._path, _RECORD, mode="r", shape=(len(self),))
        picked = np.array(table[frames])
        del table
        timestamps = np.array([self._timestamps[f] for f in frames], float)
        found = np.array([self._found[f] for f in frames], bool)
        return LandmarkRecords(picked["points"], picked["depth"], picked["blendshapes"], timestamps, found)
