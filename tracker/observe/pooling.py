"""Pixels of an embedding map, averaged over the places of the head's surface that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.sites import DenseSites
from tracker.rendering.jit import kernel

MIN_TRUST = 0.3
"""Pixels that show the head with less certainty than this belong to nothing."""


@dataclass(frozen=True)
class PooledSites:
    """What one frame's map says about each place.

    Attributes:
        pixels: mean position of the pixels that belong to a place, full-frame pixels.
        offsets: from the place to the mean of those pixels' locations, within the surface, cube units.
        weight: summed trust of the pixels; 0 where none belongs.
        scale: their mean expected error, cube units.
    """

    pixels: Float[np.ndarray, "n 2"]
    offsets: Float[np.ndarray, "n 3"]
    weight: Float[np.ndarray, "n"]
    scale: Float[np.ndarray, "n"]


def pool(record: EmbeddingRecord, sites: DenseSites, min_trust: float = MIN_TRUST) -> PooledSites:
    """Give every pixel of at least ``min_trust`` to the place nearest to its location (one step in a grid) and average.

    The mean location belongs to the mean position to first order, so nothing is lost to the places' spacing.
    """
    sums = np.zeros((len(sites), 8), np.float64)
    _accumulate(record.coordinates, record.trust, record.scale, sites.grid, np.float32(min_trust), sums)
    weight = sums[:, 0]
    mean = sums[:, 1:] / np.maximum(weight, 1e-9)[:, None]
    offsets = mean[:, 2:5] - sites.canonical
    # a location off the surface is an error across it; only the part within the surface tells where the pixel belongs
    offsets -= (offsets * sites.normals).sum(1, keepdims=True) * sites.normals
    length = np.linalg.norm(offsets, axis=1, keepdims=True)
    offsets *= np.minimum(1, 2 * sites.spacing / np.maximum(length, 1e-9))
    seen = weight > 0
    pixels = record.crop.to_frame(mean[:, :2], record.trust.shape[0])
    return PooledSites(
        np.where(seen[:, None], pixels, 0).astype(np.float32),
        np.where(seen[:, None], offsets, 0).astype(np.float32),
        weight.astype(np.float32),
        np.where(seen, mean[:, 5], 1).astype(np.float32),
    )


@kernel
def _accumulate(coordinates, trust, scale, grid, threshold, sums):
    height, width = trust.shape
    cells = grid.shape[0]
    for row in range(height):
        for column in range(width):
            t = trust[row, column]
            if t < threshold:
                continue
            x, y, z = coordinates[row, column, 0], coordinates[row, column, 1], coordinates[row, column, 2]
            i = min(max(int(x * cells), 0), cells - 1)
            j = min(max(int(y * cells), 0), cells - 1)
            k = min(max(int(z * cells), 0), cells - 1)
            site = grid[i, j, k]
            if site < 0:
                continue
            sums[site, 0] += t
            sums[site, 1] += t * (column + 0.5)
            sums[site, 2] += t * (row + 0.5)
            sums[site, 3] += t * x
            sums[site, 4] += t * y
            sums[site, 5] += t * z
            sums[site, 6] += t * scale[row, column]
