"""A network that reads locations from colours, so that tests know what it must say of a picture."""

from __future__ import annotations

import numpy as np
import pytest

from densemarks_model.prediction import Prediction
from flame_assets.asset import HeadAsset
from tracker.observe import embedder as embedder_module
from tracker.observe.embedder import HeadEmbedder
from tracker.observe.sites import DenseSites


class ColourReader:
    """A network for pictures whose colours are the locations: it reads them. Notes what it was given."""

    runtime, image_size = "colours", 64

    def __init__(self, cube: int, side: int = 64, batch: int = 1, surface: bool = True) -> None:
        self.cube, self.side, self.batch, self.tells_surface = cube, side, batch, surface
        self.calls: list[np.ndarray] = []
        self.told: list[np.ndarray | None] = []

    def with_surface(self, points: np.ndarray | None) -> ColourReader:
        self.told.append(points)
        return self

    def __call__(self, crops: np.ndarray) -> Prediction[np.ndarray]:
        self.calls.append(crops)
        times = self.side // self.image_size
        large = crops.repeat(times, 1).repeat(times, 2).astype(np.float32) / 255
        shown = (large.max(-1) > 0.05).astype(np.float32)
        return Prediction(large, shown, shown if self.tells_surface else None, np.full_like(shown, 0.01) if self.tells_surface else None)


def colour_embedder(
    monkeypatch: pytest.MonkeyPatch, asset: HeadAsset, sites: DenseSites, doubt: float = 0.15, **network
) -> tuple[HeadEmbedder, ColourReader]:
    """An embedder on such a network, and the network."""
    reader = ColourReader(asset.cube, **network)
    monkeypatch.setattr(embedder_module, "fast_network", lambda *_, **__: reader)
    return HeadEmbedder("made up", "cpu", asset, sites, doubt), reader
