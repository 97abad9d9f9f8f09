"""Observations as tensors for the fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from tracker.head_model import HeadModel
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.frame_batch import DenseBatch, FrameBatch, PictureBatch
from tracker.observe.look_store import LookStore
from tracker.observe.observations import Observations
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.pooling import PooledSites, pool
from tracker.observe.signed_distance import outline_error, signed_distance
from tracker.observe.sites import DenseSites

DENSE, OUTLINES, PICTURES, MOTION = "dense", "outlines", "pictures", "motion"
EVERYTHING = frozenset({DENSE, OUTLINES, PICTURES})
"""What can be read besides landmarks. Outlines and pictures are costly, and come only together with the dense maps.
``MOTION`` is what moves from picture to picture, which is read apart (:meth:`ObservationReader.grey`)."""

_FULL_WEIGHT = 2.0
"""Trusted pixels from which a site counts fully; more of them err together."""

_BLUR = 1.0  # pixels: slopes of a picture reach as far as its blur


@dataclass(frozen=True)
class GreyPicture:
    """A frame's picture of the head.

    Attributes:
        grey: the picture.
        shown: pixels that show the head and nothing in front of it, as the network says.
        to_picture: affine map from full-frame pixels to the picture's.
    """

    grey: UInt8[np.ndarray, "side side"]
    shown: Bool[np.ndarray, "side side"]
    to_picture: Float[np.ndarray, "2 3"]


@dataclass(frozen=True)
class ObservationReader:
    """Reads frames of observations for one head.

    Attributes:
        observations: what was seen.
        sites: of the head, in the network's cube; None where nothing dense is to be read.
        expression_names: the head's, to start those that are named like the detector's blendshapes.
        settings: how far predictions are trusted.
        dtype, device: of the tensors.
    """

    observations: Observations
    sites: DenseSites | None
    expression_names: tuple[str, ...]
    settings: ObserveSettings
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(observations: Observations, model: HeadModel, sites: DenseSites | None) -> ObservationReader:
        """For a head, on its device, as the observations' own settings say."""
        return ObservationReader(
            observations, sites, model.expression_names, observations.settings, model.dtype, model.device
        )

    def __call__(self, frames: torch.Tensor, reads: frozenset[str] = EVERYTHING) -> FrameBatch:
        """What is known of some frames, given by number: landmarks, and of :data:`EVERYTHING` what is asked for."""
        numbers = frames.cpu().numpy()
        records = self.observations.landmarks.read(numbers)
        dense = pictures = None
        if DENSE in reads and self.sites is not None:
            dense = self._dense(numbers, records.points, OUTLINES in reads)
            if PICTURES in reads:
                pictures = self._pictures(numbers)
        return FrameBatch(
            points=self._tensor(records.points),
            depth=self._tensor(records.depth),
            timestamps=torch.as_tensor(records.timestamps, dtype=torch.float64, device=self.device),
            expression_guess=self._expression_guess(records.blendshapes),
            found=torch.as_tensor(records.found, device=self.device),
            dense=dense,
            pictures=pictures,
        )

    def grey(self, frame: int, side: int) -> GreyPicture | None:
        """A frame's picture of the head in grey, ``side`` pixels wide; None where there is none."""
        entry, record = self.observations.pictures.read(frame), self.observations.embeddings.read(frame)
        if entry is None or record is None:
            return None
        crop, image = entry
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if side != len(grey):
            grey = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA if side < len(grey) else cv2.INTER_LINEAR)
        shown = cv2.resize(record.trust, (side, side), interpolation=cv2.INTER_LINEAR) >= self.settings.min_trust
        return GreyPicture(grey, shown, _inverse(crop.matrix(side)))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=self.dtype, device=self.device)

    def _expression_guess(self, scores: Float[np.ndarray, "frames 52"]) -> torch.Tensor | None:
        names = {name: column for column, name in enumerate(self.observations.landmarks.blendshape_names)}
        columns = [names.get(n, -1) for n in self.expression_names]
        if all(c < 0 for c in columns):
            return None
        return self._tensor(np.concatenate([scores, np.zeros((len(scores), 1))], axis=1)[:, columns])

    def _dense(self, frames: np.ndarray, landmarks: Float[np.ndarray, "frames 478 2"], outlines: bool) -> DenseBatch | None:
        """What the network said about some frames; None when it said nothing about any.

        Frames between those that the network looked at (see ``ObserveSettings.stride``) get what it said just before and just
        after, moved along with the landmarks.
        """
        assert self.sites is not None
        sites, floor = self.sites, self.settings.error_floor
        records = [self.observations.embeddings.read(f) for f in frames]
        known = next((r for r in records if r is not None), None)
        if known is None:
            return None
        size = known.trust.shape
        none, one = np.zeros(size, np.float32), np.ones(size, np.float32)
        blank = EmbeddingRecord(known.crop, np.zeros((*size, 3), np.float32), none, one)
        pooled = self._pooled(frames, landmarks, records, sites)
        filled = [blank if r is None else r for r in records]

        def stacked(arrays: list[np.ndarray]) -> torch.Tensor:
            return self._tensor(np.stack(arrays))

        weight, scale = np.stack([p.weight for p in pooled]), np.stack([p.scale for p in pooled])
        precision = np.sqrt(np.minimum(weight / _FULL_WEIGHT, 1) / (scale**2 + floor**2))
        return DenseBatch(
            pixels=stacked([p.pixels for p in pooled]),
            offsets=stacked([p.offsets for p in pooled]) * sites.metres_per_cube,
            precision=self._tensor(precision),
            maps=stacked([r.coordinates for r in filled]).permute(0, 3, 1, 2).contiguous(),
            trust=stacked([np.where(r.trust < self.settings.min_trust, 0, r.trust) for r in filled]),
            scale=stacked([np.hypot(r.scale, np.float32(floor)) for r in filled]),
            outline=stacked([signed_distance(r.surface) if outlines and r.surface is not None else none for r in filled]),
            outline_error=stacked([outline_error(r.surface) if outlines and r.surface is not None else one for r in filled]),
            to_map=stacked([_inverse(r.crop.matrix(size[0])) for r in filled]),
        )

    def _pooled(
        self,
        frames: np.ndarray,
        landmarks: Float[np.ndarray, "frames 478 2"],
        records: list[EmbeddingRecord | None],
        sites: DenseSites,
    ) -> list[PooledSites]:
        """What each frame's map says about each site; of frames without a map, what those around them say."""
        trust = self.settings.min_trust
        neighbours = self._neighbours(frames)
        by_frame = {int(f): pool(r, sites, trust) for f, r in zip(frames, records, strict=True) if r is not None}
        pooled = []
        for frame, points in zip(frames.tolist(), landmarks, strict=True):
            if frame not in by_frame:
                ends = _ends(frame, neighbours, self.observations.look)
                for end in ends:
                    if end not in by_frame:
                        by_frame[end] = pool(self.observations.embeddings.read(end), sites, trust)  # type: ignore[arg-type]
                pooled.append(_carried(frame, points, ends, neighbours, by_frame, len(sites)))
            else:
                pooled.append(by_frame[frame])
        return pooled

    def _neighbours(self, frames: np.ndarray) -> dict[int, np.ndarray]:
        """Landmarks of embedded frames around those in ``frames``."""
        stride, seen = self.settings.stride, self.observations
        if stride == 1:
            return {}
        around = {g for f in frames.tolist() for g in range(f - stride, f + stride + 1)}
        near = np.array(sorted(g for g in around if g in seen.embeddings and seen.landmarks.has_face(g)), int)
        return dict(zip(near.tolist(), seen.landmarks.read(near).points, strict=True)) if len(near) else {}

    def _pictures(self, frames: np.ndarray) -> PictureBatch | None:
        """Pictures of some frames, with the network's word on which pixels show the head; None when there are none."""
        found = [self.observations.pictures.read(f) for f in frames]
        known = next((f for f in found if f is not None), None)
        if known is None:
            return None
        size = known[1].shape[0]
        images, trusts, maps = [], [], []
        for frame, entry in zip(frames, found, strict=True):
            crop, image = entry if entry is not None else (known[0], np.zeros_like(known[1]))
            record = self.observations.embeddings.read(frame)
            trust = np.zeros((size, size), np.float32)
            if entry is not None and record is not None:
                trust = cv2.resize(record.trust, (size, size), interpolation=cv2.INTER_LINEAR)
            images.append(cv2.GaussianBlur(image, (0, 0), _BLUR).astype(np.float32) / 255)
            trusts.append(trust)
            maps.append(_inverse(crop.matrix(size)))
        return PictureBatch(
            pictures=self._tensor(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
            trust=self._tensor(np.stack(trusts)),
            to_map=self._tensor(np.stack(maps)),
            present=torch.tensor([f is not None for f in found], device=self.device),
        )


def _inverse(matrix: np.ndarray) -> np.ndarray:
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -(linear @ matrix[:, 2])[:, None]], axis=1)


def _ends(frame: int, neighbours: Iterable[int], look: LookStore) -> list[int]:
    """The embedded frames just before and just after, as far as there are such in the frame's shot."""
    before = max((f for f in neighbours if f < frame), default=None)
    after = min((f for f in neighbours if f > frame), default=None)
    shot, *shots = look.shots(np.array([frame, *(frame if f is None else f for f in (before, after))]))
    return [f for f, other in zip((before, after), shots, strict=True) if f is not None and other == shot]


def _carried(
    frame: int,
    landmarks: np.ndarray,
    ends: list[int],
    neighbours: dict[int, np.ndarray],
    by_frame: dict[int, PooledSites],
    count: int,
) -> PooledSites:
    """Sites of the embedded frames on both sides, blended and moved by the affine map that takes their landmarks here."""
    if not ends or not landmarks.any():
        nothing = np.zeros(count, np.float32)
        return PooledSites(np.zeros((count, 2), np.float32), np.zeros((count, 3), np.float32), nothing, nothing + 1)
    shares = [1.0] if len(ends) == 1 else [(ends[1] - frame) / (ends[1] - ends[0]), (frame - ends[0]) / (ends[1] - ends[0])]
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
