"""Render shards with Cycles: ``python -m densemarks_model.data.cycles --out shards/cycles --count 2000 --seed 1``.

The shards are those of :mod:`densemarks_model.data.synthetic`, of 50 pictures each. An interrupted run goes on with the
picture where it stopped, and several runs may share a folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from densemarks_model.data.cycles.shelf import SHARD, Shelf
from densemarks_model.errors import ModelError


def main(arguments: list[str] | None = None) -> int:
    """Render what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m densemarks_model.data.cycles", description="Render shards of synthetic heads with Blender's path tracer (pip install bpy)."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--count", type=int, default=2000, help=f"pictures, rounded up to shards of {SHARD} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="series of pictures (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=256, help="side of the pictures, pixels (default: %(default)s)")
    parser.add_argument("--map-size", type=int, default=64, help="side of the maps, pixels (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=8, help="paths a pixel, before denoising (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads that render (default: all cores)")
    options = parser.parse_args(arguments)
    if min(options.count, options.map_size, options.samples) < 1 or options.threads < 0 or options.image_size % options.map_size:
        parser.error("--count, --map-size and --samples start at 1, --threads at 0, and --image-size is a multiple of --map-size")
    try:
        render(options)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def render(options: argparse.Namespace) -> None:
    """Make every picture that is neither there nor being made by another process, and the shards that are complete."""
    shards = -(-options.count // SHARD)
    total = shards * SHARD
    shelf = Shelf(options.out, options.seed, options.image_size, options.map_size, options.samples)
    missing = [i for i in range(total) if not shelf.has(i)]
    with tqdm(total=total, initial=total - len(missing), unit="picture", smoothing=0.1) as bar:
        if missing:
            _photograph(options, shelf, missing, bar)
    joined = sum(shelf.join(n) for n in range(shards))
    print(f"{joined} of {shards} shards are complete")
    if joined == shards:
        shelf.clear_up()


def _photograph(options: argparse.Namespace, shelf: Shelf, missing: list[int], bar: tqdm) -> None:
    import cv2
    import torch

    from densemarks_model.data.cycles.photographer import Photographer, person_of, pictures_of

    torch.set_num_threads(1)  # Cycles has the cores
    cv2.setNumThreads(1)
    photographer = Photographer(options.image_size, options.map_size, options.samples, options.threads)
    last = max(missing)
    for person in sorted({person_of(i)[0] for i in missing}):
        with shelf.taken(f"person-{person:06d}") as ours:
            for index in pictures_of(person) if ours else ():
                if index > last or shelf.has(index):
                    continue
                shelf.put(index, photographer.sample(options.seed, index))
                bar.update()
                shelf.join(index // SHARD)


if __name__ == "__main__":
    sys.exit(main())
