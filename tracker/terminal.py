"""What is printed must never stop a run: terminals that lack a character, readers that went away, full disks, closed streams."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tracker.progress import Progress


class LastingStream:
    """A text stream that drops what can no longer be written (``| head``, ``> /dev/full``) instead of raising."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or do nothing from the first failure on."""
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush, or do nothing from the first failure on."""
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        # the descriptor itself, since the interpreter flushes the stream once more at its end
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Standard output and error that never raise meanwhile; characters that they lack become question marks."""
    before = sys.stdout, sys.stderr
    if None in before:  # closed by the shell: a file opened next would get the number that libraries print to
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
        setattr(sys, name, LastingStream(stream))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Progress]:
    """A :data:`tracker.progress.Progress` that draws a bar on standard error for each thing it is told of."""
    from tqdm import tqdm  # not needed for --help

    bars: dict[str, tqdm] = {}

    def progress(name: str, done: int, total: int | None) -> None:
        if name not in bars:
            for bar in bars.values():
                bar.close()
            bars[name] = tqdm(total=total, desc=name, unit="frame", disable=quiet)
        bars[name].update(done - bars[name].n)

    try:
        yield progress
    finally:
        for bar in bars.values():
            bar.close()
