"""Heads and networks that runs of one process share: read by the first that needs them."""

from __future__ import annotations

import os
from pathlib import Path

from flame_assets.asset import HeadAsset
from flame_assets.load import load_head
from tracker.observe.embedder import HeadEmbedder
from tracker.observe.sites import DenseSites, spread_sites


class Loaded:
    """Keeps what was read. One run at a time may use it. Files that change meanwhile are not read again.

    Args:
        threads: of networks on a CPU; when None, as many as there are cores but one, since landmarks are found meanwhile.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or max(cores() - 1, 1)
        self._heads: dict[Path | None, HeadAsset] = {}
        self._sites: dict[tuple[Path | None, int, int], DenseSites] = {}
        self._embedders: dict[tuple[str, str], HeadEmbedder] = {}

    def head(self, path: Path | None) -> HeadAsset:
        """The head of a file; the default head when None.

        Raises:
            AssetError: see :func:`flame_assets.load.load_head`.
        """
        if path not in self._heads:
            self._heads[path] = load_head(path)
        return self._heads[path]

    def sites(self, path: Path | None, asset: HeadAsset, count: int) -> DenseSites:
        """Spread sites of ``asset``, which is the head of ``path`` in the cube that it says."""
        key = (path, asset.cube, count)
        if key not in self._sites:
            self._sites[key] = spread_sites(asset, count)
        return self._sites[key]

    def embedder(self, network: str, device: str, asset: HeadAsset, sites: DenseSites, doubt: float) -> HeadEmbedder:
        """An embedder with this network that knows nothing of where to look; see :class:`HeadEmbedder` for the arguments.

        Raises:
            ModelError: the network cannot be read, or speaks of another cube.
        """
        key = (network, device)
        if key not in self._embedders:
            self._embedders[key] = HeadEmbedder(network, device, asset, sites, doubt, self._threads)
        return self._embedders[key].for_head(asset, sites, doubt)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
