"""Samples by number. What a step sees is a function of the seed and the step alone, so that runs can be resumed exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from densemarks_model.errors import ModelError
from densemarks_model.train.augment import vary
from densemarks_model.train.config import Stage


class Source(Protocol):
    """A numbered collection of samples."""

    def __len__(self) -> int: ...

    def sample(self, index: int, image_size: int, map_size: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """Sample ``index``, changed at random by ``rng`` (None: not at all)."""
        ...


@dataclass(frozen=True)
class _Shard:
    images: np.ndarray
    coordinates: np.ndarray
    masks: np.ndarray
    yaw: np.ndarray


class ShardSource:
    """Folders ``shard_*`` as ``python -m densemarks_model.data.synthetic`` writes them, memory-mapped.

    Raises:
        ModelError: no shards, or a shard whose files do not fit its description.
    """

    def __init__(self, folder: Path) -> None:
        folders = sorted(p for p in Path(folder).glob("shard_*") if p.is_dir())
        if not folders:
            raise ModelError(f"{folder}: holds no shards; render some with python -m densemarks_model.data.synthetic --out {folder}")
        self._shards = [_open_shard(p) for p in folders]
        self._starts = np.cumsum([0] + [len(s.images) for s in self._shards])

    def __len__(self) -> int:
        return int(self._starts[-1])

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
        return vary(shard.images[k], shard.coordinates[k], shard.masks[k], image_size, map_size, rng)


def _open_shard(folder: Path) -> _Shard:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        count, size, cells = (int(meta[k]) for k in ("count", "image_size", "map_size"))
        arrays = []
        for name, dtype, shape in (
            ("images.u8", np.uint8, (count, size, size, 3)),
            ("coordinates.f16", np.float16, (count, cells, cells, 3)),
            ("masks.u8", np.uint8, (count, cells, cells, 2)),
        ):
            if (folder / name).stat().st_size != np.prod(shape) * np.dtype(dtype).itemsize:
                raise ModelError(f"{folder / name}: not as long as meta.json says; render the shard again")
            arrays.append(np.memmap(folder / name, dtype, "r", shape=shape))
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(f"{folder}: not a shard ({type(error).__name__}: {error})") from error
    return _Shard(*arrays, np.asarray(meta.get("yaw_deg", np.zeros(count))))


class _Steps(Dataset):
    """Batches by step, for one stage and process."""

    def __init__(self, sources: dict[str, Source], stage: Stage, patch: int, first: int, last: int, seed: int, rank: int, world: int) -> None:
        self.sources, self.stage, self.map_size = sources, stage, 4 * stage.image_size // patch
        self.steps, self.seed, self.rank, self.world = range(first, last), seed, rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, k: int) -> dict[str, dict[str, Tensor]]:
        step, batches = self.steps[k], {}
        for kind, count in (("synthetic", self.stage.synthetic_batch), ("videos", self.stage.video_batch)):
            if not count:
                continue
            source, samples = self.sources[kind], []
            for place in range(self.rank * count, (self.rank + 1) * count):
                number = step * count * self.world + place
                epoch, within = divmod(number, len(source))
                index = int(_order(len(source), self.seed, kind, epoch)[within])
                rng = np.random.default_rng([self.seed, step, place, kind == "videos"])
                samples.append(source.sample(index, self.stage.image_size, self.map_size, rng))
            batches[kind] = collate(samples)
        return batches


_ORDERS: dict[tuple, np.ndarray] = {}


def _order(count: int, seed: int, kind: str, epoch: int) -> np.ndarray:
    """A shuffling of all samples, another for each epoch; the latest few are kept."""
    key = (count, seed, kind, epoch)
    if key not in _ORDERS:
        if len(_ORDERS) > 4:
            _ORDERS.clear()
        _ORDERS[key] = np.random.default_rng([seed, epoch, kind == "videos", 77]).permutation(count)
    return _ORDERS[key]


def collate(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Stack samples along a new first axis."""
    return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}


def batches(
    sources: dict[str, Source], stage: Stage, patch: int, first: int, last: int, seed: int, workers: int, rank: int = 0, world: int = 1
) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Batches of steps ``first`` to ``last - 1`` (numbered over the whole run) for process ``rank`` of ``world``."""
    steps = _Steps(sources, stage, patch, first, last, seed, rank, world)
    yield from DataLoader(steps, batch_size=None, num_workers=workers, persistent_workers=False, prefetch_factor=2 if workers else None)
