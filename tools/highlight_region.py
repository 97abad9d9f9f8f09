"""Point at something on the head model and see it in any picture: a heat map of the distance in the canonical cube.

    python tools/highlight_region.py --region ears --image a.jpg --out ears.png
    python tools/highlight_region.py --point 0.5,0.55,0.88 --image a.jpg --out point.png
    python tools/highlight_region.py --list
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from densemarks_model.errors import ModelError  # noqa: E402
from densemarks_model.evaluation.network import open_network  # noqa: E402
from densemarks_model.evaluation.queries import highlight, region_places, vertex_places  # noqa: E402
from densemarks_model.evaluation.still_pictures import (  # noqa: E402
    CROPS,
    check_output,
    embed_head,
    find_head,
    read_picture,
    write_picture,
)
from flame_assets.asset import AssetError, HeadAsset  # noqa: E402
from flame_assets.load import load_head  # noqa: E402
from tracker.errors import UserError  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--region", metavar="NAME[,NAME]", help="regions of the head model; --list names them")
    what.add_argument("--point", metavar="X,Y,Z", help="a location in the cube: x to the subject's left, y up, z out of the face")
    what.add_argument("--vertices", metavar="N[,N]", help="numbers of the head model's vertices")
    what.add_argument("--list", action="store_true", help="print the names of the regions and stop")
    parser.add_argument("--image", type=Path, metavar="PICTURE", help="where to look")
    parser.add_argument("--out", type=Path, metavar="FILE", help="picture to write (.png, .jpg, .webp)")
    parser.add_argument("--network", default="lite", metavar="NAME|PATH", help="embedding network (default: %(default)s)")
    parser.add_argument("--head", type=Path, metavar="PATH", help="head model (default: the one that comes with the project)")
    parser.add_argument("--crop", choices=CROPS, default="face", help="where the head is: found by MediaPipe, or the middle square (default: %(default)s)")
    parser.add_argument("--reach", type=float, default=0.02, help="how sharply the heat falls off, cube units (default: %(default)s)")
    parser.add_argument("--size", type=int, default=448, help="side of the heat map, pixels (default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when something about the input is wrong."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.reach <= 0 or not 32 <= options.size <= 2048:
        parser.error("--reach is above 0 and --size between 32 and 2048")
    if not options.list and (options.image is None or options.out is None):
        parser.error("--image and --out are needed")
    try:
        head = load_head(options.head)
        if options.list:
            print("\n".join(f"{name} ({int(mask.sum())} vertices)" for name, mask in sorted(head.regions.items())))
            return 0
        network = open_network(options.network)
        head = head.with_cube(network.cube)
        places = _places(options, head)
        check_output(options.out)
        image = read_picture(options.image)
        crop = find_head(image, options.crop, str(options.image))
        maps = embed_head(network, image, crop, options.size)
        write_picture(options.out, highlight(image, maps, places, region_places(head, None), options.reach))
    except (ModelError, UserError, AssetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.out}")
    return 0


def _places(options: argparse.Namespace, head: HeadAsset) -> np.ndarray:
    if options.region is not None:
        names = [n.strip() for n in options.region.split(",") if n.strip()]
        if not names:
            raise ModelError("--region: no name given; --list prints them")
        return region_places(head, names)
    if options.vertices is not None:
        try:
            return vertex_places(head, [int(v) for v in options.vertices.split(",")])
        except ValueError as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"--vertices: {options.vertices!r} are not whole numbers with commas between them") from error
    try:
        point = np.array([float(v) for v in options.point.split(",")])
    except ValueError as error:
        raise ModelError(f"--point: {options.point!r} are not numbers with commas between them") from error
    if point.shape != (3,) or not ((point >= 0) & (point <= 1)).all():
        raise ModelError(f"--point: {options.point!r} is not three numbers from 0 to 1")
    return point[None]


if __name__ == "__main__":
    sys.exit(main())
