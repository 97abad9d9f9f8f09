"""The loop over many videos: each is given to a free worker, and once more when that one dies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tracker.many.outcome import FAULT, Outcome, Row, write_table
from tracker.many.pools import Died, Ended, Pool, Told
from tracker.many.video_worker import Task, at_next_try

RESULTS = "results.csv"

_WAIT = 0.5
_WRITE_SECONDS = 10.0


class Listener(Protocol):
    """Who is told of what happens."""

    def given(self, worker: int, task: Task) -> None:
        """A worker begins with a video."""
        ...

    def told(self, event: Told) -> None:
        """A worker is so far."""
        ...

    def again(self, task: Task, why: str) -> None:
        """A try failed, and the video waits for another one."""
        ...

    def ended(self, worker: int, row: Row) -> None:
        """A video is ready."""
        ...

    def tick(self) -> None:
        """Called about twice a second."""
        ...


def run_many(tasks: Sequence[Task], pool: Pool, out: Path, retries: int, listener: Listener) -> list[Row]:
    """Track videos, each once; those whose worker died, or failed by a fault of the program, up to ``retries`` times more.

    ``out/results.csv`` is written every ten seconds and at the end, however that comes, with the videos that are ready, in the
    order of ``tasks``.

    Returns:
        A row for each task, in their order.
    """
    loop = _Loop(tasks, pool, out, retries, listener)
    try:
        loop.run()
    finally:
        rows = loop.write()
    return rows


class _Loop:
    def __init__(self, tasks: Sequence[Task], pool: Pool, out: Path, retries: int, listener: Listener) -> None:
        self._order = [task.video.name for task in tasks]
        self._waiting = deque(tasks)
        self._pool, self._out, self._retries, self._listener = pool, out, retries, listener
        self._at_work: dict[int, Task] = {}
        self._rows: dict[str, Row] = {}
        self._written = time.monotonic()

    def run(self) -> None:
        while self._waiting or self._at_work:
            for worker in range(self._pool.workers):
                if self._waiting and worker not in self._at_work:
                    task = self._at_work[worker] = self._waiting.popleft()
                    self._pool.give(worker, task)
                    self._listener.given(worker, task)
            for event in self._pool.wait(_WAIT):
                self._heard(event)
            self._listener.tick()
            if time.monotonic() - self._written > _WRITE_SECONDS:
                self.write()

    def _heard(self, event: Told | Ended | Died) -> None:
        if isinstance(event, Told):
            self._listener.told(event)
            return
        task = self._at_work.pop(event.worker, None)
        if task is None:
            return  # a worker that died while it had nothing to do
        if isinstance(event, Died):
            self._failed(event.worker, task, Outcome(FAULT, error=event.why))
        elif event.outcome.state == FAULT:
            self._pool.replace(event.worker)
            self._failed(event.worker, task, event.outcome)
        else:
            self._note(event.worker, task, event.outcome)

    def _failed(self, worker: int, task: Task, outcome: Outcome) -> None:
        if task.attempt > self._retries:
            self._note(worker, task, Outcome(FAULT, error=f"{outcome.error}; given up after {task.attempt} tries"))
            return
        self._waiting.append(at_next_try(task))
        self._listener.again(task, outcome.error)

    def _note(self, worker: int, task: Task, outcome: Outcome) -> None:
        row = self._rows[task.video.name] = Row(task.video.name, task.video.path, task.attempt, outcome)
        self._listener.ended(worker, row)

    def write(self) -> list[Row]:
        rows = [self._rows[name] for name in self._order if name in self._rows]
        write_table(self._out / RESULTS, rows)
        self._written = time.monotonic()
        return rows
