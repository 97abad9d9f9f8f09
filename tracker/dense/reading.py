"""Stored embeddings as tensors for the fit."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from tracker.dense.embedding_store import EmbeddingRecord, EmbeddingStore
from tracker.dense.outline import outline_error, signed_distance
from tracker.dense.pooling import MIN_TRUST, PooledSites, pool
from tracker.dense.sites import DenseSites
from tracker.fitting.dense import DenseBatch

_FULL_WEIGHT = 2.0
"""Trusted pixels from which a place counts fully; more of them err together."""


def read_dense(
    store: EmbeddingStore,
    frames: np.ndarray,
    landmarks: Float[np.ndarray, "frames 478 2"],
    neighbours: dict[int, np.ndarray],
    sites: DenseSites,
    error_floor: float,
    like: dict,
    outlines: bool = True,
    min_trust: float = MIN_TRUST,
) -> DenseBatch | None:
    """What the network said about some frames; None when it said nothing about any.

    Frames between those that the network looked at (see ``DenseSettings.stride``) get what it said just before and just
    after, moved along with the landmarks.

    Args:
        store: the records.
        frames: frame numbers.
        landmarks: of these frames, full-frame pixels.
        neighbours: landmarks of embedded frames around those in ``frames``.
        sites: the places.
        error_floor: cube units.
        like: dtype and device of the tensors.
        outlines: measure the outlines too; without, none is known in any frame.
        min_trust: pixels that show the head with less certainty belong to no place.
    """
    records = [store.read(f) for f in frames]
    known = next((r for r in records if r is not None), None)
    if known is None:
        return None
    size = known.trust.shape
    none, one = np.zeros(size, np.float32), np.ones(size, np.float32)
    blank = EmbeddingRecord(known.crop, np.zeros((*size, 3), np.float32), none, one)
    by_frame = {int(f): pool(r, sites, min_trust) for f, r in zip(frames, records, strict=True) if r is not None}
    pooled = [
        by_frame[int(f)] if int(f) in by_frame else _carried(store, int(f), points, neighbours, sites, by_frame, min_trust)
        for f, points in zip(frames, landmarks, strict=True)
    ]
    filled = [blank if r is None else r for r in records]

    def tensor(arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.as_tensor(np.stack(arrays), **like)

    weight, scale = np.stack([p.weight for p in pooled]), np.stack([p.scale for p in pooled])
    precision = np.sqrt(np.minimum(weight / _FULL_WEIGHT, 1) / (scale**2 + error_floor**2))
    return DenseBatch(
        pixels=tensor([p.pixels for p in pooled]),
        offsets=tensor([p.offsets for p in pooled]) * sites.metres_per_cube,
        precision=torch.as_tensor(precision, **like),
        maps=tensor([r.coordinates for r in filled]).permute(0, 3, 1, 2).contiguous(),
        trust=tensor([r.trust for r in filled]),
        scale=tensor([r.scale for r in filled]),
        outline=tensor([signed_distance(r.surface) if outlines and r.surface is not None else none for r in filled]),
        outline_error=tensor([outline_error(r.surface) if outlines and r.surface is not None else one for r in filled]),
        to_map=tensor([_inverse(r.crop.matrix(size[0])) for r in filled]),
    )


def _inverse(matrix: np.ndarray) -> np.ndarray:
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -(linear @ matrix[:, 2])[:, None]], axis=1)


def _carried(
    store: EmbeddingStore,
    frame: int,
    landmarks: np.ndarray,
    neighbours: dict[int, np.ndarray],
    sites: DenseSites,
    by_frame: dict[int, PooledSites],
    min_trust: float,
) -> PooledSites:
    """Places of the embedded frames on both sides, blended and moved by the affine map that takes their landmarks here.

    ``by_frame`` holds frames that are pooled already, and gets those that were not.
    """
    before = max((f for f in neighbours if f < frame), default=None)
    after = min((f for f in neighbours if f > frame), default=None)
    ends = [f for f in (before, after) if f is not None]
    if not ends or not landmarks.any():
        nothing = np.zeros(len(sites), np.float32)
        return PooledSites(np.zeros((len(sites), 2), np.float32), np.zeros((len(sites), 3), np.float32), nothing, nothing + 1)
    shares = [1.0] if len(ends) == 1 else [(ends[1] - frame) / (ends[1] - ends[0]), (frame - ends[0]) / (ends[1] - ends[0])]
    for end in ends:
        if end not in by_frame:
            by_frame[end] = pool(store.read(end), sites, min_trust)  # type: ignore[arg-type]
    pooled = [by_frame[end] for end in ends]

    def blend(arrays: list[np.ndarray]) -> np.ndarray:
        return np.asarray(sum(s * a for s, a in zip(shares, arrays, strict=True)), np.float32)

    affine = _affine_between(blend([neighbours[f] for f in ends]), landmarks)
    pixels = blend([p.pixels for p in pooled]) @ affine[:2] + affine[2]
    weight = np.minimum.reduce([p.weight for p in pooled])
    return PooledSites(pixels.astype(np.float32), blend([p.offsets for p in pooled]), weight, blend([p.scale for p in pooled]))


def _affine_between(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``(3, 2)`` least-squares affine map."""
    system = np.concatenate([source, np.ones((len(source), 1))], axis=1).astype(np.float64)
    return np.linalg.lstsq(system, target.astype(np.float64), rcond=None)[0]
