"""Synthetic pictures beside the clips, so that the network forgets nothing of what it was taught.

The user's shards, or pictures rendered here while a share of the minutes lasts. The last ones are kept aside to measure on.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from densemarks_model.evaluation.cubes import in_cube
from densemarks_model.evaluation.synthetic import Shard, open_shards
from flame_assets.canonical import CUBE_VERSION

if TYPE_CHECKING:
    from densemarks_model.train.sources import Source

SERIES = 8041
"""Series of the rendered pictures: neither a training's, nor held out, nor a benchmark's."""

BLOCK = 20
"""Pictures of a shard here: what is lost when rendering is stopped."""

LEAST, MOST = 60, 400
"""Pictures that are rendered, however little or much time there is."""

KEPT_ASIDE = 100
"""Pictures that are measured on, at most; and at most a fifth of all."""

_IMAGE_SIZE, _MAP_SIZE = 256, 64


def kept_aside(total: int) -> int:
    """How many of ``total`` pictures are measured on and not learned from; the last ones."""
    return min(KEPT_ASIDE, total // 5)


class Stretch:
    """Pictures ``first`` to ``last - 1`` of a source, with coordinates in version ``cube`` of the canonical cube."""

    def __init__(self, source: Source, first: int, last: int, cube: int) -> None:
        self._source, self.first, self.last, self._cube = source, first, last, cube

    def __len__(self) -> int:
        return self.last - self.first

    def sample(self, index: int, image_size: int, map_size: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """See :func:`densemarks_model.train.augment.vary`."""
        sample = self._source.sample(self.first + index, image_size, map_size, rng)
        if self._cube != CUBE_VERSION:
            places = np.ascontiguousarray(np.moveaxis(sample["coordinates"], 0, 2))
            sample["coordinates"] = np.ascontiguousarray(np.moveaxis(in_cube(places, CUBE_VERSION, self._cube), 2, 0))
        return sample


def held_out_shards(folder: Path, total: int) -> list[Shard]:
    """The pictures among the first ``total`` that are measured on.

    Raises:
        ModelError: no pictures.
    """
    first, found, start = total - kept_aside(total), [], 0
    for shard in open_shards(folder):
        count = len(shard.images)
        rows = slice(max(first - start, 0), max(min(total - start, count), 0))
        start += count
        if rows.start < rows.stop:
            found.append(replace(
                shard, images=shard.images[rows], coordinates=shard.coordinates[rows], masks=shard.masks[rows],
                yaw=None if shard.yaw is None else shard.yaw[rows],
            ))  # fmt: skip
    return found


def render_pictures(folder: Path, wanted: int | None, seconds: float, quiet: bool = False) -> int:
    """See to it that ``folder`` holds pictures; returns how many are to be used.

    Args:
        wanted: how many, rounded up to whole shards; None for as many as ``seconds`` allow, from :data:`LEAST` to :data:`MOST`.
    """
    from densemarks_model.data.panoramas import available
    from densemarks_model.data.synthetic.repertoire import FULL
    from densemarks_model.data.synthetic.scene import SceneRenderer

    folder.mkdir(parents=True, exist_ok=True)
    goal = -(-(wanted or MOST) // BLOCK)
    made = sum((folder / f"shard_{n:04d}").is_dir() for n in range(goal))
    renderer, deadline = None, time.monotonic() + seconds
    with tqdm(total=goal * BLOCK, initial=made * BLOCK, unit="picture", disable=quiet) as bar:
        for number in range(made, goal):
            if wanted is None and number * BLOCK >= LEAST and time.monotonic() > deadline:
                break
            # nothing is fetched for this: without panoramas heads are lit by formula
            renderer = renderer or SceneRenderer(_IMAGE_SIZE, _MAP_SIZE, FULL if available() else replace(FULL, panorama_share=0.0))
            _render(renderer, folder, number, bar)
            made = number + 1
    return made * BLOCK


def _render(renderer, folder: Path, number: int, bar: tqdm) -> None:
    """A shard as ``densemarks_model.data.synthetic`` writes them, whole or not at all."""
    samples = []
    for k in range(BLOCK):
        samples.append(renderer.sample(SERIES, number * BLOCK + k))
        bar.update()
    staging = Path(tempfile.mkdtemp(prefix=".shard-", dir=folder))
    try:
        np.stack([s.image for s in samples]).astype(np.uint8).tofile(staging / "images.u8")
        np.stack([s.coordinates for s in samples]).astype(np.float16).tofile(staging / "coordinates.f16")
        masks = np.stack([np.stack([s.head, s.surface], -1) for s in samples])
        np.round(255 * masks).astype(np.uint8).tofile(staging / "masks.u8")
        meta = {
            "generator": "densemarks_model.adapt", "count": BLOCK, "seed": SERIES, "first_index": number * BLOCK, "image_size": _IMAGE_SIZE,
            "map_size": _MAP_SIZE, "yaw_deg": [round(s.yaw, 2) for s in samples], "pitch_deg": [round(s.pitch, 2) for s in samples],
            "cube": CUBE_VERSION, "panorama_share": renderer.repertoire.panorama_share,
        }  # fmt: skip
        (staging / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        os.replace(staging, folder / f"shard_{number:04d}")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
