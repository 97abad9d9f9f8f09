"""Fine-tune an embedding network on your own clips: ``python -m densemarks_model.adapt CLIPS --minutes 30``; see docs/training.md."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from densemarks_model.errors import ModelError

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 2 when something about the input is wrong, 130 when it was stopped."""
    options = build_parser().parse_args(arguments)
    from densemarks_model.adapt.session import Options, Stopped, adapt

    work = options.work or options.out.with_suffix(".work")
    try:
        adapt(Options(
            options.clips, options.out, work, options.network, options.minutes, options.steps, options.synthetic, options.pictures, options.seed,
            options.quiet,
        ))  # fmt: skip
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Stopped) as reason:
        print(f"\n{str(reason) or 'stopped'}; the same command goes on from here (from what is in {work})", file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        print(f"error: {error.filename or work}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m densemarks_model.adapt", description="Fine-tune an embedding network on your own clips.")
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="video files, and folders that are searched for them")
    parser.add_argument("--minutes", type=_minutes, default=30.0, help="for preparing, rendering and training together (default: %(default)g)")
    parser.add_argument("--network", default="lite", metavar="lite|FILE", help="network to begin with (default: %(default)s, the shipped one)")
    parser.add_argument("--out", type=Path, default=Path("adapted.safetensors"), metavar="FILE", help="file to write (default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="for everything that is kept on the way (default: --out with the ending .work)")
    parser.add_argument(
        "--synthetic", type=Path, metavar="SHARDS",
        help="folder of python -m densemarks_model.data.synthetic; without it pictures are rendered, for a fifth of the minutes at most",
    )  # fmt: skip
    parser.add_argument("--pictures", type=_count, metavar="N", help="render so many, however long that takes")
    parser.add_argument("--steps", type=_count, metavar="N", help="train for so many steps, however long they take (default: what fits the minutes)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def _minutes(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
