"""What a person sees meanwhile: a table that redraws itself on a terminal, a line a video elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from tracker.many.outcome import EARLIER, FAULT, REFUSED, Row
from tracker.many.pools import Told
from tracker.many.video_worker import Task

_LINES = 16
"""Workers that are shown; on a cluster there may be hundreds."""

_REDRAW_SECONDS = 0.4


class LiveTable:
    """A :class:`tracker.many.run_many.Listener` that prints.

    Args:
        stream: where to.
        count: of the videos.
        terminal: redraw; by default if the stream is one.
        quiet: print nothing.
    """

    def __init__(self, stream: TextIO, count: int, terminal: bool | None = None, quiet: bool = False) -> None:
        self._stream, self._count, self._quiet = stream, count, quiet
        self._terminal = stream.isatty() if terminal is None else terminal
        self._began = time.monotonic()
        self._work: dict[int, tuple[Task, str]] = {}
        self._states: dict[str, int] = {}
        self._drawn, self._last_draw = 0, 0.0

    def given(self, worker: int, task: Task) -> None:
        self._work[worker] = (task, "begins")

    def told(self, event: Told) -> None:
        if event.worker in self._work:
            share = f"{event.done}/{event.total}" if event.total else str(event.done)
            self._work[event.worker] = (self._work[event.worker][0], f"{event.stage} {share}")

    def again(self, task: Task, why: str) -> None:
        self._forget(task.video.name)
        self._say(f"{task.video.name}: {why}; it is tried again")

    def ended(self, worker: int, row: Row) -> None:
        self._forget(row.name)
        state = REFUSED if row.outcome.state == FAULT else row.outcome.state
        self._states[state] = self._states.get(state, 0) + 1
        cells = row.cells()
        if not row.outcome.good:
            what = f"failed: {row.outcome.error}"
        else:
            what = f"{state}: {cells['valid_frames']} of {cells['frames']} frames, error {cells['median_error_percent']} %"
            what += "" if state == EARLIER else f", {cells['seconds']} s"
        self._say(f"[{self._ready}/{self._count}] {row.name}: {what}")

    def tick(self) -> None:
        if self._terminal and not self._quiet and time.monotonic() - self._last_draw > _REDRAW_SECONDS:
            self._draw()

    def close(self) -> None:
        """Take the table away; the lines about the videos stay."""
        if self._terminal and not self._quiet:
            self._clear()
            self._stream.flush()

    @property
    def _ready(self) -> int:
        return sum(self._states.values())

    def _forget(self, name: str) -> None:
        self._work = {worker: (task, stage) for worker, (task, stage) in self._work.items() if task.video.name != name}

    def _say(self, line: str) -> None:
        if self._quiet:
            return
        if self._terminal:
            self._clear()
        self._stream.write(line + "\n")
        if self._terminal:
            self._draw()
        self._stream.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\x1b[J")  # up so many lines, and clear to the end
            self._drawn = 0

    def _draw(self) -> None:
        self._clear()
        width = shutil.get_terminal_size().columns - 1
        shown = [f"  {worker:>3}  {task.video.name}  {stage}" for worker, (task, stage) in sorted(self._work.items())]
        more = [f"       and {len(shown) - _LINES} more workers"] if len(shown) > _LINES else []
        lines = [self._headline(), *shown[:_LINES], *more]
        self._stream.write("".join(line[:width] + "\n" for line in lines))
        self._stream.flush()
        self._drawn, self._last_draw = len(lines), time.monotonic()

    def _headline(self) -> str:
        minutes = (time.monotonic() - self._began) / 60
        fresh = self._ready - self._states.get(EARLIER, 0)
        states = ", ".join(f"{count} {state}" for state, count in self._states.items()) or "none ready"
        head = f"{self._ready} of {self._count} videos ({states}), {minutes:.1f} min"
        if fresh:
            head += f", {fresh / minutes:.2f} videos/min, about {(self._count - self._ready) * minutes / fresh:.0f} min left"
        return head
