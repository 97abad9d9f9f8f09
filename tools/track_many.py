#!/usr/bin/env python3
"""Track many videos: those of a folder and the folders in it, or those that a list names, a path a line.

    python tools/track_many.py FOLDER_OR_LIST --out OUT --preset fast
    python tools/track_many.py videos.txt --address ray://head-node:10001     # a cluster; see docs/many_videos.md

Results go to OUT/NAME/ as track.py writes them, with a log.txt, and a table of all of them to OUT/results.csv. Videos with a
finished result of the same options are skipped, interrupted ones are gone on with: the same command again goes on.
Exit code: 0 when every video has a result, 1 when some have none (results.csv says why), 2 for bad options, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GLOG_minloglevel", "2")

from flame_assets.user_cache import keep_libraries_tidy  # noqa: E402
from tracker.cli import add_run_options, check_part, formats_of, request_of  # noqa: E402
from tracker.errors import UserError, one_line  # noqa: E402
from tracker.interrupts import Interrupted, interruptible  # noqa: E402
from tracker.many.video_list import find_videos  # noqa: E402
from tracker.terminal import lasting_output  # noqa: E402

_WORKER_BYTES = 1.5e9
"""Memory that a worker is given room for; see docs/many_videos.md."""


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", metavar="FOLDER_OR_LIST", type=Path, help="folder that is searched for videos, or a text file with a path a line")
    many = parser.add_argument_group("workers")
    many.add_argument("--workers", metavar="N", type=int, help="videos at a time (default: one a core, fewer where memory is short)")
    many.add_argument("--threads", metavar="N", type=int, help="threads of each worker's network (default: cores / workers)")
    many.add_argument("--retries", metavar="N", type=int, default=2, help="further tries of a video whose worker died (default: 2)")
    many.add_argument("--pool", choices=("auto", "ray", "process"), default="auto", help="auto: Ray where it is installed, else processes")
    many.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster: ray://host:10001, or auto on one of its machines")
    add_run_options(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    with lasting_output(), interruptible():
        try:
            return _run(options)
        except KeyboardInterrupt as error:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return error.exit_code if isinstance(error, Interrupted) else 130
        except UserError as error:
            print(f"track_many.py: error: {one_line(str(error))}", file=sys.stderr)
            return error.exit_code


def _run(options: argparse.Namespace) -> int:
    check_part(options)
    _check_numbers(options)
    videos = find_videos(options.videos, options.out)
    keep_libraries_tidy()

    from tracker.many.live_table import LiveTable
    from tracker.many.run_many import RESULTS, run_many
    from tracker.many.video_worker import Task, replaced, with_paths_resolved

    options = with_paths_resolved(options)
    _check_run(options)
    _make_folder(options.out)
    tasks = [Task(video, replaces=replaced(options, video)) for video in videos]
    with ExitStack() as stack:
        pool = stack.enter_context(_pool(options, len(tasks)))
        stack.enter_context(interruptible())  # Ray sets handlers of its own
        table = LiveTable(sys.stderr, len(tasks), quiet=options.quiet)
        stack.callback(table.close)
        rows = run_many(tasks, pool, options.out, options.retries, table)
    good = sum(row.outcome.good for row in rows)
    if not options.quiet:
        print(f"{good} of {len(rows)} videos have a result; written to {options.out / RESULTS}")
    return 0 if good == len(rows) else 1


def _check_numbers(options: argparse.Namespace) -> None:
    for name, least in (("workers", 1), ("threads", 1), ("retries", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: give {least} or more")
    if options.address and options.pool == "process":
        raise UserError("--address is for Ray, --pool process for this machine alone; leave one of them out")


def _check_run(options: argparse.Namespace) -> None:
    """What is wrong for every video is said once, before the first."""
    from densemarks_model.errors import ModelError
    from densemarks_model.loading import network_cube
    from flame_assets.asset import AssetError
    from flame_assets.load import load_head
    from tracker.export import check_formats
    from tracker.observe.reading import DENSE, PICTURES
    from tracker.rendering.devices import resolve_device

    request = request_of(options, options.videos)
    try:
        head = load_head(options.head)
        if DENSE in request.settings.reads and options.network != "official":
            network_cube(options.network)
    except (AssetError, ModelError) as error:
        raise UserError(str(error)) from error
    if formats := formats_of(options):
        check_formats(formats, head, PICTURES in request.settings.reads)
    if not options.address:
        resolve_device(options.device, needs_renderer=not options.no_overlay or bool(request.settings.reads))


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UserError(f"--out: {out} cannot be written ({error.strerror}); choose another folder with --out") from error


def _pool(options: argparse.Namespace, count: int):
    """Ray's, or processes of this machine."""
    from tracker.many.process_pool import ProcessPool
    from tracker.many.ray_pool import RayPool, ray_is_there
    from tracker.many.video_worker import Job

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = options.workers or None
    workers = min(wanted or _workers(cores), count)
    threads = options.threads or max(cores // workers, 1)
    if options.address:
        threads = options.threads or 1
        return RayPool(Job(options, threads), wanted and min(wanted, count), threads, options.address)
    if options.pool == "ray" or (options.pool == "auto" and ray_is_there()):
        return RayPool(Job(options, threads), workers, threads)
    if options.pool == "auto" and not options.quiet:
        print("Ray is not installed; processes of this machine do the work", file=sys.stderr)
    return ProcessPool(Job(options, threads), workers, _gpus(options.device))


def _workers(cores: int) -> int:
    import psutil

    return max(min(cores, int(psutil.virtual_memory().available / _WORKER_BYTES)), 1)


def _gpus(device: str) -> int:
    """GPUs over which workers are spread."""
    import torch

    return torch.cuda.device_count() if device in ("auto", "cuda") else 0


if __name__ == "__main__":
    sys.exit(main())
