#!/usr/bin/env python3
"""Write a finished track in further formats.

    python tools/export.py out/NAME --to obj,glb [--head PATH] [--video PATH] [--folder FOLDER]
    python tools/export.py out/NAME --to-head FLAME [--to vhap]     the track on another head, in a folder of its own

Exit code: 0 when everything was written, 2 for bad input or options, 130 when interrupted by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tracker.errors import UserError  # noqa: E402
from tracker.export import EXPORTERS, check_formats, export, parse_formats  # noqa: E402
from tracker.interrupts import Interrupted, interruptible  # noqa: E402
from tracker.terminal import lasting_output, progress_bars  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

    from flame_assets.asset import HeadAsset
    from tracker.head_track import HeadTrack
    from tracker.progress import Progress
    from tracker.video.reader import VideoSource

PARAMETERS, TEXTURE, SUMMARY = "flame_params.npz", "texture.png", "summary.json"


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    formats = "\n".join(f"  {e.name:<9}{e.files}: {e.content}" for e in EXPORTERS.values())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"formats:\n{formats}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("track", type=Path, metavar="RESULT", help=f"folder of a finished run, or its {PARAMETERS}")
    parser.add_argument("--to", metavar="LIST", help="formats, with commas between; with --to-head flame_params.npz is written besides")
    parser.add_argument(
        "--to-head", type=Path, metavar="PATH",
        help="re-express the track on this head first (a FLAME file, a folder that holds one, an .npz head), and say how far it is off",
    )  # fmt: skip
    parser.add_argument("--head", type=Path, metavar="PATH", help="the head that the run was given (default: the one that comes with the project)")
    parser.add_argument("--video", type=Path, metavar="PATH", help="the video that was tracked, for formats that hold its pictures")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where to write (default: beside the track; with --to-head NAME-HEAD beside its folder)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no list of what was written")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    with lasting_output(), interruptible():
        try:
            folder, names, report = _run(options)
        except KeyboardInterrupt as error:
            print("interrupted; no unfinished file was left behind", file=sys.stderr)
            return (error if isinstance(error, Interrupted) else Interrupted()).exit_code
        except UserError as error:
            print(f"export.py: error: {error}", file=sys.stderr)
            return error.exit_code
        if not options.quiet:
            print(report, end="")
            print(f"written to {folder}: {', '.join(names)}")
    return 0


def _run(options: argparse.Namespace) -> tuple[Path, list[str], str]:
    """Where to, what was written there, and what there is to say of it."""
    if options.to is None and options.to_head is None:
        raise UserError("nothing to do; name formats with --to, or a head with --to-head")
    formats = parse_formats(options.to) if options.to else ()
    if options.to_head is not None:
        formats = ("npz", *formats)
    check_formats(formats, filmed=options.video is not None)  # a slip of the pen should not cost the import of torch
    from tracker.export.flame_params import load_track

    file = options.track / PARAMETERS if options.track.is_dir() else options.track
    track, head = load_track(file), _head(options.head, "--head")
    texture, folder = read_texture(file.parent), options.folder or file.parent
    source, report = video_of(options.video, track), ""
    with progress_bars(options.quiet) as progress:
        if options.to_head is not None:
            target = _head(options.to_head, "--to-head")
            folder = options.folder or folder_for(file, target.name)
            if folder.resolve() == file.parent.resolve():
                raise UserError(f"--folder {folder}: the track lies there, and the new one would replace it; choose another folder")
            check_formats(formats, target, False, source is not None, track.camera)
            track, report = _transferred(track, head, target, progress)
            head, texture = target, None
        return folder, export(track, head, formats, folder, texture=texture, source=source, progress=progress), report


def _head(path: Path | None, option: str) -> HeadAsset:
    from flame_assets.asset import AssetError
    from flame_assets.load import load_head

    try:
        return load_head(path)
    except AssetError as error:
        raise UserError(f"{option}: {error}") from error


def folder_for(file: Path, head: str) -> Path:
    """Where a track on another head is written: beside the folder of its ``flame_params.npz``, or beside a bare file."""
    result = file.parent.resolve() if file.name == PARAMETERS else file.resolve().with_suffix("")
    return result.with_name(f"{result.name}-{head}")


def _transferred(track: HeadTrack, head: HeadAsset, target: HeadAsset, progress: Progress) -> tuple[HeadTrack, str]:
    """The track on ``target``, and what is left of differences, in words."""
    from tracker.track_vertices import check_head
    from tracker.transfer.fit import transfer

    check_head(track, head)
    found = transfer(track, head, target, progress)
    lines = [f"{head.name} → {target.name}: {found.points} points correspond; distances to them, and to the new head's surface:"]
    for name, part in (("face", found.face), ("whole head", found.head)):
        lines.append(f"  {name:<11}mean {part.mean:5.2f} mm, 95 % {part.p95:5.2f} mm; surface mean {part.surface_mean:5.2f} mm, 95 % {part.surface_p95:5.2f} mm")
    return found.track, "".join(f"{line}\n" for line in lines)


def video_of(path: Path | None, track: HeadTrack) -> VideoSource | None:
    """The video that a track was made from, at the track's rate where the file has no times of its own.

    Raises:
        UserError: there is none, or it is another: its pictures have another size. Frames are found by their times later.
    """
    if path is None:
        return None
    if track.photos is not None:
        raise UserError("--video: a track of photos; name the formats that hold pictures when tracking (track.py --export)")
    from tracker.video.reader import VideoPart, VideoSource

    source = VideoSource(path, VideoPart(frame_rate=track.frame_rate))
    with source.open() as video:
        if (video.height, video.width) != tuple(track.image_size):
            height, width = track.image_size
            raise UserError(f"--video {path}: {video.width}×{video.height}, but the tracked video has {width}×{height}; give that one")
    return source


def read_texture(folder: Path) -> np.ndarray | None:
    """The texture that belongs to a folder's track, RGB; None when there is none, or only that of an earlier run.

    Raises:
        UserError: it is damaged.
    """
    path, summary = folder / TEXTURE, folder / SUMMARY
    if not path.is_file():
        return None
    try:
        if TEXTURE not in json.loads(summary.read_text(encoding="utf-8"))["files"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a folder without its summary: what lies there is taken to belong together
    from tracker.export.texture_png import read_picture

    return read_picture(path)


if __name__ == "__main__":
    sys.exit(main())
