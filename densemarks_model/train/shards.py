"""Rendered pictures on disk, and which of them a network may be taught with.

A shard's ``meta.json`` says which series (``seed``) it was drawn from and in which version of the canonical cube its coordinates are.
Series that networks are judged by are never learned from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densemarks_model.errors import ModelError
from densemarks_model.train.augment import vary
from flame_assets.canonical import CUBE_VERSION

HELD_OUT_SEED = 2
"""Series of the held-out pictures."""

RESERVED_SEEDS = (range(7000, 8000), range(9000, 10000))
"""Series of the benchmark's suites."""


@dataclass(frozen=True)
class _Shard:
    images: np.ndarray
    coordinates: np.ndarray
    masks: np.ndarray
    yaw: np.ndarray
    seed: int | None


class ShardSource:
    """Folders ``shard_*`` as ``python -m densemarks_model.data.synthetic`` writes them, memory-mapped.

    Args:
        folder: where they are. strength: of the random changes, see :func:`densemarks_model.train.augment.vary`.

    Raises:
        ModelError: no shards, or a shard whose files do not fit its description.
    """

    def __init__(self, folder: Path, strength: str = "plain") -> None:
        folders = shard_folders(folder)
        if not folders:
            raise ModelError(f"{folder}: holds no shards; render some with python -m densemarks_model.data.synthetic --out {folder}")
        self.folder, self.strength = Path(folder), strength
        self._shards = [_open_shard(p) for p in folders]
        self._starts = np.cumsum([0] + [len(s.images) for s in self._shards])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def seeds(self) -> set[int]:
        """Series that the shards were drawn from, as far as they say."""
        return {s.seed for s in self._shards if s.seed is not None}

    def _find(self, index: int) -> tuple[_Shard, int]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[shard], index - int(self._starts[shard])

    def yaw(self, index: int) -> float:
        """Yaw of the head in sample ``index``, degrees."""
        shard, k = self._find(index)
        return float(shard.yaw[k])

    def sample(self, index: int, image_size: int, map_size: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """See :func:`densemarks_model.train.augment.vary`."""
        shard, k = self._find(index)
        return vary(shard.images[k], shard.coordinates[k], shard.masks[k], image_size, map_size, rng, self.strength)


def shard_folders(folder: Path) -> list[Path]:
    """The shards of a folder, in order."""
    return sorted(p for p in Path(folder).glob("shard_*") if p.is_dir())


def refuse_reserved(training: list[ShardSource], held_out: list[ShardSource]) -> None:
    """See to it that nothing is learned from what networks are judged by.

    Raises:
        ModelError: a training folder with pictures of a held-out series or of a benchmark's suite.
    """
    kept = {seed: source.folder for source in held_out for seed in source.seeds}
    for source in training:
        for seed in sorted(source.seeds):
            if seed == HELD_OUT_SEED or any(seed in series for series in RESERVED_SEEDS):
                use = "held-out pictures" if seed == HELD_OUT_SEED else "the benchmark's suites"
                raise ModelError(f"{source.folder}: seed {seed} is kept for {use} and not trained on; render another series, e.g. --seed 1")
            if seed in kept:
                raise ModelError(f"{source.folder}: seed {seed} is also that of the held-out pictures in {kept[seed]}; render one of them anew")


def _open_shard(folder: Path) -> _Shard:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        count, size, cells = (int(meta[k]) for k in ("count", "image_size", "map_size"))
        cube = int(meta.get("cube", 1))
        seed = None if meta.get("seed") is None else int(meta["seed"])
        arrays = []
        for name, dtype, shape in (
            ("images.u8", np.uint8, (count, size, size, 3)),
            ("coordinates.f16", np.float16, (count, cells, cells, 3)),
            ("masks.u8", np.uint8, (count, cells, cells, 2)),
        ):
            if (folder / name).stat().st_size != np.prod(shape) * np.dtype(dtype).itemsize:
                raise ModelError(f"{folder / name}: not as long as meta.json says; render the shard again")
            arrays.append(np.memmap(folder / name, dtype, "r", shape=shape))
    except ModelError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}: not a shard ({type(error).__name__}: {error})") from error
    if cube != CUBE_VERSION:
        raise ModelError(f"{folder}: its coordinates are in version {cube} of the canonical cube, this package's in {CUBE_VERSION}; render it again")
    return _Shard(*arrays, np.asarray(meta.get("yaw_deg", np.zeros(count))), seed)
