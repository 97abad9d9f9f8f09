"""Render shards of synthetic heads: ``python -m densemarks_model.data.synthetic --out FOLDER --count 12000 --seed 1``.

A shard is a folder ``shard_0000`` with ``images.u8`` (N, S, S, 3), ``coordinates.f16`` (N, M, M, 3), ``masks.u8``
(N, M, M, 2: head, surface; 255 is full coverage), all raw and C-contiguous, and ``meta.json``. Shards that are there
already are left alone, so an interrupted run goes on where it stopped; several runs may share a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from densemarks_model.data.panoramas import panoramas
from densemarks_model.data.synthetic.repertoire import FULL, Repertoire
from densemarks_model.errors import ModelError
from flame_assets.canonical import CUBE_VERSION

SHARD = 250


def main(arguments: list[str] | None = None) -> int:
    """Render what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m densemarks_model.data.synthetic", description="Render shards of synthetic heads.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--count", type=int, default=12000, help=f"pictures, rounded up to shards of {SHARD} (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SHARD", help="number of the first shard (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="series of pictures (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=256, help="side of the pictures, pixels (default: %(default)s)")
    parser.add_argument("--map-size", type=int, default=64, help="side of the maps, pixels (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--backgrounds", type=Path, help="folder of pictures without people, to use behind half of the heads without a panorama")
    parser.add_argument("--no-panoramas", action="store_true", help="light by formula only; without it panoramas are fetched once, by npm")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.workers < 1 or options.image_size % options.map_size:
        parser.error("--count and --workers start at 1, and --image-size is a multiple of --map-size")
    if options.backgrounds is not None:
        if not options.backgrounds.is_dir():
            parser.error(f"--backgrounds: {options.backgrounds} is not a folder")
        from densemarks_model.data.synthetic.effects import BACKGROUNDS_VARIABLE

        os.environ[BACKGROUNDS_VARIABLE] = str(options.backgrounds.resolve())
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = range(options.first, options.first + -(-options.count // SHARD))
    repertoire = replace(FULL, panorama_share=0.0) if options.no_panoramas else FULL
    todo = [(options.out, n, options.seed, options.image_size, options.map_size, repertoire) for n in numbers]
    todo = [job for job in todo if not (options.out / f"shard_{job[1]:04d}").exists()]
    print(f"{len(numbers) - len(todo)} of {len(numbers)} shards are there, {len(todo)} to render")
    if todo and not options.no_panoramas:
        try:
            panoramas()  # once, before there are workers
        except ModelError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    started, used = time.perf_counter(), 0.0
    with ProcessPoolExecutor(options.workers) as pool:
        for number, seconds in pool.map(_render, todo):
            print(f"shard {number}", flush=True)
            used += seconds
    if todo:
        pictures = SHARD * len(todo)
        print(f"{pictures / (time.perf_counter() - started):.1f} pictures a second; {pictures / used:.1f} a second of processor time")
    return 0


def _render(job: tuple[Path, int, int, int, int, Repertoire]) -> tuple[int, float]:
    """Make one shard; its number, and the processor time that it took, seconds."""
    import cv2
    import torch

    from densemarks_model.data.synthetic.scene import SceneRenderer

    torch.set_num_threads(1)  # processes share the cores
    cv2.setNumThreads(1)
    started = time.process_time()
    out, number, seed, image_size, map_size, repertoire = job
    renderer = SceneRenderer(image_size, map_size, repertoire)
    images = np.empty((SHARD, image_size, image_size, 3), np.uint8)
    coordinates = np.empty((SHARD, map_size, map_size, 3), np.float16)
    masks = np.empty((SHARD, map_size, map_size, 2), np.uint8)
    yaw, pitch = [], []
    for k in range(SHARD):
        sample = renderer.sample(seed, number * SHARD + k)
        images[k], coordinates[k] = sample.image, sample.coordinates
        masks[k] = np.round(255 * np.stack([sample.head, sample.surface], -1))
        yaw.append(round(sample.yaw, 2))
        pitch.append(round(sample.pitch, 2))
    staging = Path(tempfile.mkdtemp(prefix=".shard-", dir=out))
    images.tofile(staging / "images.u8")
    coordinates.tofile(staging / "coordinates.f16")
    masks.tofile(staging / "masks.u8")
    meta = {
        "generator": "densemarks_model.data.synthetic", "count": SHARD, "seed": seed, "first_index": number * SHARD,
        "image_size": image_size, "map_size": map_size, "yaw_deg": yaw, "pitch_deg": pitch, "cube": CUBE_VERSION,
        "panorama_share": repertoire.panorama_share,
    }  # fmt: skip
    (staging / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    try:
        os.replace(staging, out / f"shard_{number:04d}")
    except OSError:  # another run was faster
        shutil.rmtree(staging, ignore_errors=True)
    return number, time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
