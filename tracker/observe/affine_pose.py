"""Where a head is in a picture, and how it stands, in closed form from what the network says of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.pooling import pool
from tracker.observe.sites import DenseSites

_FEWEST_SITES = 30


@dataclass(frozen=True)
class AffinePose:
    """An affine camera on a rigid head.

    Attributes:
        camera: takes canonical locations (with a 1 behind them) to full-frame pixels.
        error: median distance that it leaves, in crop sides.
        share: of the crop that shows the head.
        sites: that were seen.
        scale: the network's own expected error of its locations, averaged over the head, cube units.
    """

    camera: Float[np.ndarray, "4 2"]
    error: float
    share: float
    sites: int
    scale: float

    @staticmethod
    def of(record: EmbeddingRecord, sites: DenseSites) -> AffinePose | None:
        """The pose that ``record`` shows; None where it shows too little of a head for one."""
        share = float(record.trust.mean())
        if share <= 0:
            return None
        pooled = pool(record, sites)
        seen = pooled.weight > 0
        if seen.sum() < _FEWEST_SITES:
            return None
        points = (sites.canonical + pooled.offsets)[seen].astype(np.float64)
        camera, error = fit_affine(points, pooled.pixels[seen].astype(np.float64), pooled.weight[seen].astype(np.float64), record.crop.side)
        scale = float((record.trust * record.scale).sum() / record.trust.sum())
        return AffinePose(camera, error / record.crop.side, share, int(seen.sum()), scale)

    @property
    def stretch(self) -> float:
        """How much the picture of the head is stretched along its longer axis; about 1 for a head, which is rigid."""
        longer, shorter = np.linalg.svd(self.camera[:3], compute_uv=False)
        return float(longer / max(shorter, 1e-9 * longer + 1e-12))

    def apart(self, other: AffinePose) -> float:
        """How differently the two see the head turned and sized: about the angle between them in radians, for small ones."""
        a, b = self.camera[:3], other.camera[:3]
        return float(np.linalg.norm(a - b) / max((np.linalg.norm(a) * np.linalg.norm(b)) ** 0.5, 1e-12))


def fit_affine(
    points: Float[np.ndarray, "n 3"], pixels: Float[np.ndarray, "n 2"], weight: Float[np.ndarray, "n"], side: float
) -> tuple[Float[np.ndarray, "4 2"], float]:
    """Affine camera by re-weighted least squares, and the median distance that it leaves, pixels."""
    system = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    w = weight.copy()
    for _ in range(4):
        normal = np.einsum("na,n,nb->ab", system, w, system) + 1e-9 * np.eye(4)
        camera = np.linalg.solve(normal, np.einsum("na,n,nc->ac", system, w, pixels))
        error = np.linalg.norm(np.einsum("na,ac->nc", system, camera) - pixels, axis=1)
        w = weight / (1 + (error / (0.02 * side)) ** 2) ** 2
    return camera, float(np.median(error))
