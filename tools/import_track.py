#!/usr/bin/env python3
"""Read another tracker's result as a track of this project: to view, to export, to score, or for track.py --start-from.

    python tools/import_track.py PATH --head FLAME [--from NAME] [--video PATH] [--crop PART] [--to LIST] -o out/NAME

Exit code: 0 when everything was written, 2 for bad input or options, 130 when interrupted by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tracker.errors import UserError  # noqa: E402
from tracker.export import check_formats, export, parse_formats  # noqa: E402
from tracker.importing import IMPORTERS, import_track  # noqa: E402
from tracker.interrupts import Interrupted, interruptible  # noqa: E402
from tracker.terminal import lasting_output, progress_bars  # noqa: E402

if TYPE_CHECKING:
    from tracker.importing.foreign import Crop

PARAMETERS, SUMMARY = "npz", "summary.json"
SQUARE = "square"


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    trackers = "\n".join(f"  {i.name:<17}{i.files}" for i in IMPORTERS.values())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"trackers:\n{trackers}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the tracker's file or folder")
    parser.add_argument("--from", dest="tracker", choices=tuple(IMPORTERS), metavar="NAME", help="whose it is (default: the content tells)")
    parser.add_argument("--head", type=Path, required=True, metavar="PATH", help="the FLAME file that the tracker used, as for track.py")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where to write flame_params.npz and the formats")
    parser.add_argument("--to", default="glb", metavar="LIST", help="formats besides, as for tools/export.py (default: glb)")
    parser.add_argument(
        "--video", type=Path, metavar="PATH",
        help="the video that was tracked: the track is then in its pixels, at its times; without it in the pixels that the tracker saw",
    )  # fmt: skip
    parser.add_argument(
        "--crop", metavar="PART",
        help=f"the part of the video's picture that the tracker saw: LEFT,TOP,WIDTH in pixels, or {SQUARE}, the square around the whole of it "
        "(default: the whole picture, at any size)",
    )  # fmt: skip
    parser.add_argument("--fps", type=float, metavar="N", help="frames per second of the video, where its file does not say, or without --video (default: 25)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no notes, no list of what was written")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    with lasting_output(), interruptible():
        try:
            names, notes = _run(options)
        except KeyboardInterrupt as error:
            print("interrupted; no unfinished file was left behind", file=sys.stderr)
            return (error if isinstance(error, Interrupted) else Interrupted()).exit_code
        except UserError as error:
            print(f"import_track.py: error: {error}", file=sys.stderr)
            return error.exit_code
        if not options.quiet:
            for note in notes:
                print(f"note: {note}")
            print(f"written to {options.out}: {', '.join(names)}")
    return 0


def _run(options: argparse.Namespace) -> tuple[list[str], tuple[str, ...]]:
    formats = (PARAMETERS, *parse_formats(options.to))
    check_formats(formats, filmed=options.video is not None)  # a slip of the pen should not cost the import of torch
    if options.fps is not None and not 0 < options.fps < 10_000:
        raise UserError(f"--fps {options.fps:g}: give frames per second above 0")
    if options.crop is not None and options.video is None:
        raise UserError("--crop: give the --video that the part is of")
    if (options.out / SUMMARY).exists():
        raise UserError(f"{options.out} holds the result of a run; choose another folder with --out")
    crop = None if options.crop is None else crop_of(options.crop)

    from flame_assets.asset import AssetError
    from flame_assets.load import load_head
    from tracker.export.flame_layout import refuses
    from tracker.video.reader import VideoPart, VideoSource

    try:
        head = load_head(options.head)
    except AssetError as error:
        raise UserError(f"--head: {error}") from error
    reason = refuses(head)
    if reason:
        raise UserError(f"--head {options.head}: {head.name!r} is not the head of these trackers: give the FLAME file that the tracker used")
    source = None if options.video is None else VideoSource(options.video, VideoPart(frame_rate=options.fps))
    track, notes = import_track(options.path, head, options.tracker, source=source, crop=crop, frame_rate=options.fps or 25.0)
    with progress_bars(options.quiet) as progress:
        return export(track, head, formats, options.out, source=source, progress=progress), notes


def crop_of(text: str) -> Crop | str:
    """The part that ``--crop`` names.

    Raises:
        UserError: it names none.
    """
    from tracker.importing.foreign import Crop

    if text == SQUARE:
        return text
    try:
        left, top, width = (float(word) for word in text.split(","))
    except ValueError:
        left = top = width = math.nan
    if not (math.isfinite(left + top) and 0 < width < math.inf):
        raise UserError(f"--crop {text}: give LEFT,TOP,WIDTH in pixels of the video (--crop=-10,20,512), or {SQUARE}")
    return Crop(left, top, width)


if __name__ == "__main__":
    sys.exit(main())
