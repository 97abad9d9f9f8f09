"""Where workers live: what the loop over the videos needs to know of a pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tracker.many.outcome import Outcome
from tracker.many.video_worker import Task

TELL_SECONDS = 0.5
"""How often a worker tells how far it is."""


@dataclass(frozen=True)
class Told:
    """A worker is so far with its video; see :data:`tracker.progress.Progress` for the last three."""

    worker: int
    stage: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Ended:
    """A worker is ready with its video and free."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True)
class Died:
    """A worker is no more; its place is free, and another one starts there with the next video. ``why``: a clause."""

    worker: int
    why: str


Event = Told | Ended | Died


class Pool(Protocol):
    """Places for workers, numbered from 0. A context manager: at its end no worker is left."""

    workers: int
    name: str

    def give(self, worker: int, task: Task) -> None:
        """Have the worker of a free place track a video; one is started if there is none."""
        ...

    def replace(self, worker: int) -> None:
        """End the worker of a free place: what failed once may have left it in a bad state."""
        ...

    def wait(self, seconds: float) -> list[Event]:
        """What happened since the last call; waits at most so long for something to happen."""
        ...

    def __enter__(self) -> Pool: ...

    def __exit__(self, *error: object) -> None: ...
