"""Where a pass over the video stood after each frame, so that one that was stopped goes on as if it had not been; where the video is cut,
and what colour the skin is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float, Int, UInt8

from densemarks_model.crops import HeadCrop
from tracker.observe.crossfades import TINY, crossfades
from tracker.observe.journal import Journal

_RECORD = np.dtype(
    [
        ("embeddings", "<i8"),
        ("pictures", "<i8"),
        ("has_crop", "u1"),
        ("crop", "<f8", (4,)),
        ("misses", "<i8"),
        ("since", "<i8"),
        ("gap", "<i8"),
        ("wait", "<i8"),
        ("cut", "u1"),
        ("skin", "<f4", (3,)),
        ("tiny", "u1", (TINY[1], TINY[0], 3)),
    ]
)


@dataclass(frozen=True)
class LookState:
    """What looking carries from a frame to the next; the detector's own state is not in it, see ``first_pass``.

    Attributes:
        crop: where the head is looked for; None where nothing is known of it.
        misses: frames in a row in which it was not there.
        since: frames since the network looked last.
        gap, wait: frames from one search of the whole frame to the next, and those left until it.
    """

    crop: HeadCrop | None = None
    misses: int = 0
    since: int = 0
    gap: int = 0
    wait: int = 0


class LookStore:
    """Append states frame by frame, with how much the other files of the folder held by then. Use it as a context manager.

    A frame takes 1.1 kB.

    Args:
        folder: where the file goes; one that is there already is gone on with.
    """

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(Path(folder) / "look.journal", _RECORD)
        self._cuts: list[int] = np.flatnonzero(self.journal.table()["cut"]).tolist()

    def __enter__(self) -> LookStore:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.journal.close()

    def __len__(self) -> int:
        return len(self.journal)

    def append(
        self, state: LookState, embeddings: int, pictures: int, cut: bool = False, skin: Float[np.ndarray, "3"] | None = None,
        tiny: UInt8[np.ndarray, "14 24 3"] | None = None,
    ) -> None:  # fmt: skip
        """Add the state after the next frame, how many embeddings and pictures there are up to it, whether the frame begins a shot,
        the skin's colour, and a tiny picture."""
        record = np.zeros((), _RECORD)
        if cut:
            record["cut"] = 1
            self._cuts.append(len(self))
        if skin is not None:
            record["skin"] = skin
        if tiny is not None:
            record["tiny"] = tiny
        record["embeddings"], record["pictures"] = embeddings, pictures
        if state.crop is not None:
            record["has_crop"], record["crop"] = 1, (*state.crop.center, state.crop.side, state.crop.roll)
        for name in ("misses", "since", "gap", "wait"):
            record[name] = getattr(state, name)
        self.journal.append(record)

    def read(self, frame: int) -> LookState:
        """The state after a frame."""
        row = self.journal.read(frame)
        x, y, side, roll = (float(v) for v in row["crop"])
        crop = HeadCrop(np.array([x, y]), side, roll) if row["has_crop"] else None
        return LookState(crop, *(int(row[name]) for name in ("misses", "since", "gap", "wait")))

    def keep(self, frames: int) -> None:
        """Forget the frames from number ``frames`` on."""
        self.journal.keep(frames)
        self._cuts = [frame for frame in self._cuts if frame < frames]

    def sync(self) -> None:
        """Put what was added on the disk."""
        self.journal.sync()

    def shots(self, frames: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Number of the shot, from 0, that each of some frames belongs to."""
        return np.searchsorted(np.array(self._cuts, int), frames, side="right")

    def crossfades(self, frame_rate: float) -> list[tuple[int, int]]:
        """First and last frame of each crossfade."""
        return crossfades(self.journal.table()["tiny"], frame_rate, self._cuts)

    @property
    def skin(self) -> Float[np.ndarray, "frames 3"]:
        """The skin's RGB in every frame, grey levels of 255; zeros where no face was found."""
        return np.array(self.journal.table()["skin"], float)

    def whole(self, embeddings: int, pictures: int) -> int:
        """For how many frames so many embeddings and pictures are all."""
        table = self.journal.table()
        had = [np.searchsorted(table[name], count, side="right") for name, count in (("embeddings", embeddings), ("pictures", pictures))]
        return int(min(had))
