"""Points of a head in space from two pictures with known cameras.

    python tools/stereo_points.py --left l.png --right r.png --cameras cameras.json --out points.ply

cameras.json holds, for "left" and "right", "intrinsics" (3 x 3, pixels of the whole picture, centres of pixels at halves)
and "extrinsics" (3 x 4, world to camera, OpenCV's axes: x right, y down, z forward):

    {"left":  {"intrinsics": [[900, 0, 320], [0, 900, 240], [0, 0, 1]],
               "extrinsics": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.8]]},
     "right": {...}}

The points have the world's unit and the left picture's colours.
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
from densemarks_model.evaluation.stereo import StereoPoints, read_cameras, reconstruct  # noqa: E402
from densemarks_model.evaluation.still_pictures import (  # noqa: E402
    CROPS,
    check_output,
    embed_head,
    find_head,
    read_picture,
)
from densemarks_model.matching import sample_bilinear  # noqa: E402
from flame_assets.atomic_files import atomic_file  # noqa: E402
from tracker.errors import UserError  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--left", type=Path, required=True, metavar="PICTURE", help="first picture")
    parser.add_argument("--right", type=Path, required=True, metavar="PICTURE", help="second picture")
    parser.add_argument("--cameras", type=Path, required=True, metavar="FILE", help="cameras.json, see above")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="point cloud to write (.ply)")
    parser.add_argument("--network", default="lite", metavar="NAME|PATH", help="embedding network (default: %(default)s)")
    parser.add_argument("--crop", choices=CROPS, default="face", help="where the heads are: found by MediaPipe, or the middle square (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the maps that are matched, pixels (default: %(default)s)")
    parser.add_argument("--max-reprojection", type=float, default=2.0, metavar="PX", help="drop points that project farther from their pixels (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, default=1.0, metavar="PX", help="how far a match's own match may be from the pixel, pixels of the maps (default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when something about the input is wrong."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.max_reprojection <= 0 or options.tolerance <= 0 or not 32 <= options.size <= 2048:
        parser.error("--max-reprojection and --tolerance are above 0 and --size between 32 and 2048")
    try:
        check_output(options.out, (".ply",))
        cameras = read_cameras(options.cameras)
        images = [read_picture(path) for path in (options.left, options.right)]
        crops = [find_head(image, options.crop, str(path)) for image, path in zip(images, (options.left, options.right), strict=True)]
        network = open_network(options.network)
        maps = [embed_head(network, image, crop, options.size) for image, crop in zip(images, crops, strict=True)]
        found = reconstruct(*cameras, *maps, options.max_reprojection, options.tolerance)
        if not len(found.points):
            raise ModelError("no match survived; check the cameras, or raise --max-reprojection or --tolerance")
        write_points(options.out, found, images[0])
    except (ModelError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {len(found.points)} points to {options.out}; median reprojection error {np.median(found.reprojection):.2f} px")
    return 0


def write_points(path: Path, found: StereoPoints, image: np.ndarray) -> None:
    """Write a PLY with the colours of ``image`` ``(H, W, 3)``, which the left pixels belong to.

    Raises:
        ModelError: it cannot be written.
    """
    import trimesh

    colours = np.round(sample_bilinear(image, found.left)).astype(np.uint8)
    try:
        with atomic_file(path) as temporary:
            trimesh.PointCloud(found.points, colours).export(temporary)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main())
