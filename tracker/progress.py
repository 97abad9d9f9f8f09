"""How a run tells how far it is, and how long its stages took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int | None], None]
"""Called with the name of what is being done, how many frames of it are done, and how many there are (None: not known)."""


def silent(name: str, done: int, total: int | None) -> None:
    """A :data:`Progress` that tells nobody."""


Say = Callable[[str], None]
"""Called with one sentence that the user should read now."""


def say_nothing(sentence: str) -> None:
    """A :data:`Say` that keeps it to itself."""


class StageClock:
    """Wall-clock seconds of named stages; a stage entered twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    @property
    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start
