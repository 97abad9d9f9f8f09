"""Put one face's texture on another head: every pixel takes the colour that is nearest in the canonical cube.

    python tools/warp_texture.py --source a.jpg --target b.jpg --out warped.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from densemarks_model.errors import ModelError  # noqa: E402
from densemarks_model.evaluation.network import open_network  # noqa: E402
from densemarks_model.evaluation.queries import side_by_side, warp_texture  # noqa: E402
from densemarks_model.evaluation.still_pictures import (  # noqa: E402
    CROPS,
    check_output,
    embed_head,
    find_head,
    read_picture,
    write_picture,
)
from tracker.errors import UserError  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, metavar="PICTURE", help="whose texture")
    parser.add_argument("--target", type=Path, required=True, metavar="PICTURE", help="on whose head")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture to write (.png, .jpg, .webp)")
    parser.add_argument("--network", default="lite", metavar="NAME|PATH", help="embedding network (default: %(default)s)")
    parser.add_argument("--crop", choices=CROPS, default="face", help="where the heads are: found by MediaPipe, or the middle square (default: %(default)s)")
    parser.add_argument("--reach", type=float, default=0.02, help="distance in the cube up to which colours are taken (default: %(default)s)")
    parser.add_argument("--size", type=int, default=448, help="side of the maps that are searched, pixels (default: %(default)s)")
    parser.add_argument("--beside", action="store_true", help="write source, target and result in a row")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when something about the input is wrong."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.reach <= 0 or not 32 <= options.size <= 2048:
        parser.error("--reach is above 0 and --size between 32 and 2048")
    try:
        check_output(options.out)
        source, target = read_picture(options.source), read_picture(options.target)
        crops = [find_head(image, options.crop, str(path)) for image, path in ((source, options.source), (target, options.target))]
        network = open_network(options.network)
        maps = [embed_head(network, image, crop, options.size) for image, crop in zip((source, target), crops, strict=True)]
        warped = warp_texture(source, maps[0], target, maps[1], options.reach)
        write_picture(options.out, side_by_side(source, target, warped) if options.beside else warped)
    except (ModelError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
