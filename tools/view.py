#!/usr/bin/env python3
"""Look at a finished track in a browser: the head in 3-D, the frame beside or behind it, curves with a cursor.

    python tools/view.py out/NAME [--video PATH] [--head PATH] [--port 8080]

Needs viser (pip install viser). Pictures come from overlay.mp4 of the result; without one, or to have them in full size, give the video.
Nobody but this machine can connect unless --host says otherwise. Stop with Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.export import PARAMETERS, read_texture  # noqa: E402
from tracker.errors import UserError  # noqa: E402

if TYPE_CHECKING:
    from tracker.viewer.window import Window


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("track", type=Path, metavar="RESULT", help=f"folder of a finished run, or its {PARAMETERS}")
    parser.add_argument("--video", type=Path, metavar="PATH", help="the video that was tracked (default: pictures from the result's overlay.mp4)")
    parser.add_argument("--head", type=Path, metavar="PATH", help="the head that the run was given (default: the one that comes with the project)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen at; the next free one is taken (default: 8080)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = build_parser().parse_args(arguments)
    window = None
    try:
        window = open_window(options)
        print(f"open {window.address} in a browser; Ctrl-C ends this", flush=True)
        window.run()
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        print(f"view.py: error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        if window is not None:
            window.close()
    return 0


def open_window(options: argparse.Namespace) -> Window:
    """The window of a result, served but not yet running.

    Raises:
        UserError: viser is missing, or something is wrong with the result, the head or the video.
    """
    if find_spec("viser") is None:
        raise UserError("the viewer needs viser, which is not installed: pip install viser (report.html shows the result without it)")
    from flame_assets.asset import AssetError
    from flame_assets.load import load_head
    from tracker.export.flame_params import load_track
    from tracker.viewer.coloured_mesh import ColouredMesh
    from tracker.viewer.pictures import Pictures
    from tracker.viewer.window import Window

    file = options.track / PARAMETERS if options.track.is_dir() else options.track
    track = load_track(file)
    try:
        head = load_head(options.head)
    except AssetError as error:
        raise UserError(f"--head: {error}") from error
    mesh = ColouredMesh(track, head, read_texture(file.parent))
    pictures = Pictures(file.parent, track, options.video)
    return Window(mesh, pictures, options.host, options.port)


if __name__ == "__main__":
    sys.exit(main())
