"""A program for ``test_resume``: runs of the command line, each in a process of its own that may be killed at a given event.

Reads lines of JSON, ``{"arguments": […], "die_at": [stage, number of an event in it] or null, "after": seconds or null, "signal": number}``, and
answers each with ``{"status": …, "events": [stage, …]}``: the exit code, or minus the signal's number, and the stage that each
event belonged to. With ``"full": true`` the process lives on at its event, but no file can grow any more, as on a full disk; what it says
is then told as ``"said"``. Events are what moves the work on: a record in a journal, a report of progress, a stage's begin and end, a
file renamed, a folder removed. Libraries are loaded once and the processes forked from here, or loading would take most of the time.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import tracker.landmarks.mediapipe_graph
import tracker.run_to_folder
from tracker import cli, progress
from tracker.observe.journal import Journal


class Events:
    """Counts, notes the stage, and ends the process at the event that it is told."""

    def __init__(self, log: Path, die_at: list | None, number: int, full: bool = False) -> None:
        self._log, self._die_at, self._signal, self._full = log.open("w"), die_at, number, full
        self._counts, self.stage = collections.Counter(), "start"

    def __call__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if self._log is None:  # the disk is full
            return
        self._log.write(self.stage + "\n")
        self._log.flush()
        self._counts[self.stage] += 1
        if [self.stage, self._counts[self.stage] - 1] != self._die_at:
            return
        if not self._full:
            os.kill(os.getpid(), self._signal)
        self._log.close()
        self._log = None
        # Python ignores the signal that comes with it, and libraries in C are told, too
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def watch(self, owner: object, name: str, within: Path | None = None) -> None:
        """Make each call of a function an event, before it does anything; of those that end in a path, the ones in a folder alone."""
        original: Callable = getattr(owner, name)

        @functools.wraps(original)
        def watched(*arguments: object, **options: object) -> object:
            if within is None or Path(os.fspath(arguments[-1])).is_relative_to(within):
                self()
            return original(*arguments, **options)

        setattr(owner, name, watched)

    def watch_stages(self) -> None:
        """Make the begin and the end of each stage an event, and remember the last one."""
        original = progress.StageClock.stage

        @contextmanager
        def stage(clock: progress.StageClock, name: str):
            with original(clock, name):
                if threading.current_thread() is threading.main_thread():  # others look ahead, when exactly nobody can tell
                    self.stage = name
                self()
                yield
                self()

        progress.StageClock.stage = stage


def run(arguments: list[str], events: Events) -> int:
    """In the child: one run of the command line with everything watched."""
    for owner, name in ((Journal, "append"), (Journal, "flush"), (shutil, "rmtree"), (tracker.run_to_folder, "report_of")):
        events.watch(owner, name)
    # the first run of a checkout compiles, and renames files of caches, which later ones do not
    events.watch(os, "replace", within=Path(arguments[arguments.index("--out") + 1]))
    events.watch_stages()
    return cli.main(arguments)


def answer(order: dict, log: Path) -> dict:
    """In the parent: fork, wait, tell."""
    full = order.get("full", False)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # standard output is for the answers
        if full:
            os.dup2(theirs, 2)
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # the one that is there knows it as a file
        try:
            code = run(order["arguments"], Events(log, order.get("die_at"), order.get("signal", signal.SIGKILL), full))
            sys.stderr.flush()
        except BaseException:  # of these tests' own making
            traceback.print_exc()
        finally:
            os._exit(code)
    timer = threading.Timer(order["after"], os.kill, (child, signal.SIGKILL)) if order.get("after") else None
    if timer is not None:
        timer.start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if timer is not None:
        timer.cancel()
        timer.join()
    os.close(theirs)
    with open(ours, encoding="utf-8", errors="replace") as pipe:  # --quiet says little
        said = pipe.read()
    return {"status": status, "events": log.read_text().split("\n")[:-1], "said": said.splitlines()}


if __name__ == "__main__":
    import mediapipe.tasks.python.vision  # noqa: F401  (loaded here, once)

    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), Path(sys.argv[1]))), flush=True)
