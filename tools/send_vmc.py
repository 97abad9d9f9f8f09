#!/usr/bin/env python3
"""Play a finished track into a virtual avatar: VMC protocol over OSC, at the video's pace.

    python tools/send_vmc.py out/NAME [--host 127.0.0.1] [--port 39539] [--loop] [--head PATH]

VSeeFace, Warudo, VNyan, VirtualMotionCapture, and Unity with EVMC4U listen there. Sent are ARKit's 52 values and the turns of Neck,
Head, LeftEye and RightEye. Needs python-osc (pip install python-osc). Stop with Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tracker.errors import UserError  # noqa: E402

PARAMETERS = "flame_params.npz"


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("track", type=Path, metavar="RESULT", help=f"folder of a finished run, or its {PARAMETERS}")
    parser.add_argument("--host", default="127.0.0.1", help="where the receiver runs (default: this machine)")
    parser.add_argument("--port", type=int, default=39539, help="where it listens (default: 39539)")
    parser.add_argument("--loop", action="store_true", help="begin again at the end, until Ctrl-C")
    parser.add_argument("--head", type=Path, metavar="PATH", help="the head that the run was given (default: the one that comes with the project)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        sent = _run(options)
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        print(f"send_vmc.py: error: {error}", file=sys.stderr)
        return error.exit_code
    if not options.quiet:
        print(f"sent {sent} frames to {options.host}:{options.port}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from flame_assets.asset import AssetError
    from flame_assets.load import load_head
    from tracker.export.flame_params import load_track
    from tracker.export.vmc import play

    track = load_track(options.track / PARAMETERS if options.track.is_dir() else options.track)
    try:
        head = load_head(options.head)
    except AssetError as error:
        raise UserError(f"--head: {error}") from error
    return play(track, head, options.host, options.port, loop=options.loop)


if __name__ == "__main__":
    sys.exit(main())
