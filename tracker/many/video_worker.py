"""What a worker process does with a video, whoever started the process."""

from __future__ import annotations

import argparse
import faulthandler
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from flame_assets.user_cache import keep_libraries_tidy
from tracker.cli import formats_of, request_of
from tracker.errors import UserError, of_the_machine, one_line
from tracker.input_path import check_input
from tracker.many.outcome import DONE, EARLIER, FAULT, REFUSED, Outcome
from tracker.many.video_list import NamedVideo
from tracker.progress import Progress

LOG = "log.txt"
"""Name of a video's log, in its folder of results."""


@dataclass(frozen=True)
class Job:
    """What is the same for all videos: the options, as :func:`tracker.cli.add_run_options` reads them, and threads per worker."""

    options: argparse.Namespace
    threads: int


@dataclass(frozen=True)
class Task:
    """A video to track.

    Attributes:
        video: which, and under which name.
        attempt: 1 for the first.
        replaces: the time of the summary that ``--restart`` puts away, ns; None where there is none.
    """

    video: NamedVideo
    attempt: int = 1
    replaces: int | None = None


def thread_settings(threads: int) -> dict[str, str]:
    """Environment of a worker: libraries that start threads of their own read it when they are imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**dict.fromkeys(names, str(threads)), "GLOG_minloglevel": "2", "PYTHONUNBUFFERED": "1"}


class VideoWorker:
    """Tracks one video after the other; head and network are read for the first alone."""

    def __init__(self, job: Job) -> None:
        keep_libraries_tidy()  # of this machine, before they are imported
        from tracker.loaded import Loaded

        self._job = job
        self._loaded = Loaded(job.threads)

    def track(self, task: Task, progress: Progress) -> Outcome:
        """Track a video into its folder, where its log lies, too. Raises nothing but what ends the process."""
        options, name = self._job.options, task.video.name
        folder = options.out / name
        try:
            request = request_of(options, task.video.path)
            found = finished(request, folder, formats_of(options), not options.no_overlay, not options.no_report)
            if found is not None and not (options.restart and _time(folder) == task.replaces):
                return Outcome(DONE if task.attempt > 1 else EARLIER, found)
            folder.mkdir(parents=True, exist_ok=True)
        except (UserError, OSError) as error:
            return Outcome(REFUSED, error=one_line(str(error)))
        try:
            with _logged(folder / LOG, f"{task.video.path}, try {task.attempt}") as log:
                return self._tracked(request, options, task, _noted(progress, log), log)
        except OSError as error:
            return Outcome(FAULT, error=one_line(str(error)))

    def _tracked(self, request: Any, options: argparse.Namespace, task: Task, progress: Progress, log: TextIO) -> Outcome:
        from tracker.run_to_folder import track_to_folder

        place = options.out / task.video.name
        _forget_peak_memory()
        try:
            check_input(task.video.path, "video")
            report = track_to_folder(
                request, place.parent, place.name, formats=formats_of(options), overlay=not options.no_overlay, page=not options.no_report,
                restart=options.restart and task.attempt == 1, loaded=self._loaded, progress=progress,
                say=lambda sentence: print(sentence, file=log, flush=True),
            )  # fmt: skip
        except UserError as error:
            print(f"error: {error}", file=log)
            return Outcome(REFUSED, error=one_line(str(error)))
        except Exception as error:  # the others shall go on
            traceback.print_exc(file=log)
            return Outcome(FAULT, error=one_line(of_the_machine(error) or f"unexpected {type(error).__name__}: {error} (see {LOG})"))
        print(report.text(), file=log)
        return Outcome(DONE, report.json())


def finished(request: Any, folder: Path, formats: tuple[str, ...], overlay: bool, page: bool = True) -> dict[str, Any] | None:
    """The summary of a finished run of the same video and options, or None."""
    from tracker.work_identity import asked_for, video_identity
    from tracker.workspace import SUMMARY, read_json

    summary = read_json(folder / SUMMARY)
    if not summary or summary.get("asked") != asked_for(request, formats, overlay, page):
        return None
    tracked = summary.get("video")
    # a renamed video is the same one
    same = isinstance(tracked, dict) and {**tracked, "name": ""} == {**video_identity(request.video), "name": ""}
    return summary if same else None


def replaced(options: argparse.Namespace, video: NamedVideo) -> int | None:
    """For :attr:`Task.replaces`."""
    return _time(options.out / video.name) if options.restart else None


def _time(folder: Path) -> int | None:
    try:
        return (folder / "summary.json").stat().st_mtime_ns
    except OSError:
        return None


def _noted(progress: Progress, log: TextIO) -> Progress:
    """Tells the log of each new stage."""
    names: list[str] = []

    def tell(name: str, done: int, total: int | None) -> None:
        if name not in names:
            names.append(name)
            print(f"{time.strftime('%H:%M:%S')} {name}", file=log, flush=True)
        progress(name, done, total)

    return tell


@contextmanager
def _logged(path: Path, title: str) -> Iterator[TextIO]:
    """A log that takes all that this process prints meanwhile, also from libraries in C, and where it was if it crashes."""
    with path.open("a", encoding="utf-8", errors="replace") as log:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {title}, process {os.getpid()} on {socket.gethostname()}", file=log, flush=True)
        sys.stdout.flush()
        sys.stderr.flush()
        before = [os.dup(number) for number in (1, 2)]
        crashes = faulthandler.is_enabled()
        faulthandler.enable(log)
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            yield log
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in zip((1, 2), before, strict=True):
                os.dup2(old, number)
                os.close(old)
            faulthandler.disable()
            if crashes:
                faulthandler.enable()


def _forget_peak_memory() -> None:
    """Count the largest memory from here on; systems that cannot keep the worker's largest so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def with_paths_resolved(options: argparse.Namespace) -> argparse.Namespace:
    """The options with absolute paths: a worker's current folder may be another."""
    given = {key: value.absolute() for key, value in vars(options).items() if isinstance(value, Path)}
    network = options.network
    if Path(network).exists():
        given["network"] = str(Path(network).absolute())
    return argparse.Namespace(**{**vars(options), **given})


def at_next_try(task: Task) -> Task:
    """The same video once more."""
    return replace(task, attempt=task.attempt + 1)
