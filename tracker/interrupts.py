"""Signals that end a run: Ctrl-C, and what a system sends to processes that shall go, all in the same way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # not every system has each of them


class Interrupted(KeyboardInterrupt):
    """Somebody wants the run to end.

    Attributes:
        number: of the signal.
        kept: folder with the work so far, from which the same run goes on; None where nothing was kept.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.kept: Path | None = None

    @property
    def exit_code(self) -> int:
        """As shells count: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.number


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals that end a process raise :class:`Interrupted` meanwhile, in the main thread.

    A signal that is ignored stays so: under nohup a run outlives its terminal. In other threads nothing is changed, since
    only the main one may.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [n for n, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in ours:
            signal.signal(number, _raise)
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)
