"""Samples by number. What a step sees is a function of the seed, the step and the data alone, so that runs can be resumed exactly.

Several sources are mixed by shares: of every ten pictures three are of the second source, say, however many it holds; each is gone
through in an order of its own, shuffled anew each time round. A folder may grow while a run stands still; from then on steps see other
pictures than they would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from densemarks_model.errors import ModelError
from densemarks_model.train.config import DataSettings, Folder, Stage
from densemarks_model.train.prepared_clips import PairSource
from densemarks_model.train.shards import ShardSource, refuse_reserved, shard_folders


class Source(Protocol):
    """A numbered collection of samples."""

    def __len__(self) -> int: ...

    def sample(self, index: int, image_size: int, map_size: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """Sample ``index``, changed at random by ``rng`` (None: not at all)."""
        ...


@dataclass(frozen=True)
class Part:
    """One source of a mixture and its share of the samples, 0 to 1."""

    name: str
    source: Source
    share: float = 1.0


class Mixture:
    """Sources whose shares of the samples are kept to within one sample at any time.

    Args:
        parts: the sources; their shares are scaled to a sum of one.
    """

    def __init__(self, parts: list[Part]) -> None:
        if not parts or any(p.share < 1e-4 for p in parts):
            raise ValueError("a mixture needs parts, and each a share of 0.0001 or more")
        self.parts = parts
        # in whole numbers, so that no rounding takes a sample twice
        shares = [Fraction(p.share).limit_denominator(10_000) for p in parts]
        # of what the sources before it leave, each takes this much; the last one all
        self._takes = [share / sum(shares[k:]) for k, share in enumerate(shares)]

    def __len__(self) -> int:
        return sum(len(p.source) for p in self.parts)

    def pick(self, number: int) -> tuple[int, int]:
        """Which part sample ``number`` is of, and how many samples of that part came before it."""
        for k, take in enumerate(self._takes):
            before = number * take.numerator // take.denominator
            if (number + 1) * take.numerator // take.denominator > before:
                return k, before
            number -= before
        raise AssertionError("the last part takes what is left")


def open_sources(data: DataSettings, say: Callable[[str], None] = print) -> tuple[dict[str, Source], dict[str, ShardSource]]:
    """The collections that the settings name: for training (``synthetic``, ``videos``), and held-out ones by name.

    ``say`` is told how many pictures each holds, and which optional ones are left out.

    Raises:
        ModelError: a folder without samples, or one that may not be trained on.
    """
    sources: dict[str, Source] = {}
    training = _open_folders(data.training_folders, data.augment, "training", say)
    held_out = _open_folders(data.held_out_folders, "plain", "held out", say)
    refuse_reserved([s for _, s in training], [s for _, s in held_out])
    if training:
        named = sum(f.share for f, _ in training)
        unnamed = [f for f, _ in training if not f.share]
        rest = (1 - named) / len(unnamed) if unnamed else 0.0
        parts = [Part(f.title, s, f.share or rest) for f, s in training]
        if any(p.share < 1e-4 for p in parts):
            raise ModelError("data.synthetic: the shares leave nothing for the folders that name none")
        sources["synthetic"] = Mixture(parts)
    if data.videos:
        sources["videos"] = PairSource(Path(data.videos), data.flow_points)
    return sources, {f.title: s for f, s in held_out}


def _open_folders(folders: list[Folder], strength: str, use: str, say: Callable[[str], None]) -> list[tuple[Folder, ShardSource]]:
    found = []
    for folder in folders:
        if folder.optional and not shard_folders(Path(folder.folder)):
            say(f"{use}: {folder.title}: no shards in {folder.folder} yet, left out until the run is started again")
            continue
        source = ShardSource(Path(folder.folder), strength)
        say(f"{use}: {folder.title}: {len(source)} pictures in {folder.folder}" + (f", share {folder.share:g}" if folder.share else ""))
        found.append((folder, source))
    if folders and not found:
        raise ModelError(f"{use}: none of the folders holds shards: {', '.join(f.folder for f in folders)}")
    return found


class _Steps(Dataset):
    """Batches by step, for one stage and process."""

    def __init__(self, sources: dict[str, Source], stage: Stage, patch: int, first: int, last: int, seed: int, rank: int, world: int) -> None:
        self.sources = {kind: s if isinstance(s, Mixture) else Mixture([Part(kind, s)]) for kind, s in sources.items()}
        self.stage, self.patch = stage, patch
        self.steps, self.seed, self.rank, self.world = range(first, last), seed, rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, k: int) -> dict[str, dict[str, Tensor]]:
        step, batches = self.steps[k], {}
        size = size_at(self.stage, step, self.seed)
        for kind, count in (("synthetic", self.stage.synthetic_batch), ("videos", self.stage.video_batch)):
            if not count:
                continue
            mixture, samples = self.sources[kind], []
            for place in range(self.rank * count, (self.rank + 1) * count):
                which, number = mixture.pick(step * count * self.world + place)
                source = mixture.parts[which].source
                epoch, within = divmod(number, len(source))
                index = int(_order(len(source), self.seed, kind, epoch, which)[within])
                rng = np.random.default_rng([self.seed, step, place, kind == "videos"])
                samples.append(source.sample(index, size, 4 * size // self.patch, rng))
            batches[kind] = collate(samples)
        return batches


def size_at(stage: Stage, step: int, seed: int) -> int:
    """Side of the pictures of a step, pixels."""
    sizes = stage.image_sizes
    return sizes[0] if len(sizes) == 1 else sizes[np.random.default_rng([seed, step, 78]).integers(len(sizes))]


_ORDERS: dict[tuple, np.ndarray] = {}


def _order(count: int, seed: int, kind: str, epoch: int, which: int = 0) -> np.ndarray:
    """A shuffling of all samples, another for each epoch and part; the latest few are kept."""
    key = (count, seed, kind, epoch, which)
    if key not in _ORDERS:
        if len(_ORDERS) > 8:
            _ORDERS.clear()
        _ORDERS[key] = np.random.default_rng([seed, epoch, kind == "videos", 77, *([which] if which else [])]).permutation(count)
    return _ORDERS[key]


def collate(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Stack samples along a new first axis."""
    return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}


def batches(
    sources: dict[str, Source], stage: Stage, patch: int, first: int, last: int, seed: int, workers: int, rank: int = 0, world: int = 1,
    pin: bool = False,
) -> Iterator[dict[str, dict[str, Tensor]]]:  # fmt: skip
    """Batches of steps ``first`` to ``last - 1`` (numbered over the whole run) for process ``rank`` of ``world``.

    ``pin`` puts them where a GPU fetches them without the processor's waiting.
    """
    steps = _Steps(sources, stage, patch, first, last, seed, rank, world)
    # a sampler over a stage without end is an iterator over a range: nothing is listed
    yield from DataLoader(
        steps, batch_size=None, num_workers=workers, persistent_workers=False, prefetch_factor=2 if workers else None, pin_memory=pin
    )
