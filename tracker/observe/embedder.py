"""Embedding the head in frame after frame: where to look, and whether a head is there at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from densemarks_model.crops import HeadCrop, crop_around_landmarks
from densemarks_model.errors import ModelError
from densemarks_model.inference import fast_network
from flame_assets.asset import HeadAsset
from tracker.landmarks.detection import Detection
from tracker.landmarks.landmark_schemes import N_LANDMARKS
from tracker.observe.affine_pose import AffinePose, fit_affine
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.finder import find_head, is_followed_head, is_sure_head
from tracker.observe.network_check import check_sees_heads
from tracker.observe.pooling import MIN_TRUST
from tracker.observe.sites import DenseSites

_MIN_HEAD_SHARE = 0.06
"""Of a crop's pixels must show the head for a frame without landmarks to count; a face that fits the crop has 0.3."""

_MAX_FIT_ERROR = 0.05
"""Median distance between a rigid head and the pixels, in crop sides, beyond which the map is no head's."""

_MAX_MISSES = 12

_MAX_SHIFT = 0.18
"""How far a crop may move from where training had it, in sides; networks are trained with shifts of up to 0.2."""


class HeadEmbedder:
    """Runs the network on the head of each frame.

    Where landmarks were found the crop is laid around them. Where none were, it is laid around where the head was last:
    from the locations that the network gave there, the pose of a rigid head is found in closed form, and with it the
    next crop. So heads are followed through profile views and behind hands, where landmark detectors lose them.

    Args:
        network: a name or file for :func:`densemarks_model.inference.fast_network`.
        device: for the same.
        asset, sites: the head whose canonical coordinates the network speaks of, in the network's version of the cube.
        doubt: landmarks whose median distance to where the network sees them is larger are rejected, cube units; infinite
            while the head's place in the network's cube is not known. Once it is, networks without a mask are told it.
        threads: of the network on a CPU; as many as there are cores when None.
    """

    def __init__(
        self,
        network: str | Path,
        device: str,
        asset: HeadAsset,
        sites: DenseSites,
        doubt: float = math.inf,
        threads: int | None = None,
    ) -> None:
        self._name = str(network)
        self._unaware = fast_network(network, "cuda" if device.startswith("cuda") else "cpu", threads=threads)
        self._speak_of(asset, sites, doubt)

    def for_head(self, asset: HeadAsset, sites: DenseSites, doubt: float = math.inf) -> HeadEmbedder:
        """The same network for another head, or for the same one in other coordinates; nothing is known of where to look."""
        other = copy.copy(self)
        other._speak_of(asset, sites, doubt)
        return other

    def _speak_of(self, asset: HeadAsset, sites: DenseSites, doubt: float) -> None:
        self._doubt = doubt
        if self._unaware.cube != asset.cube:
            raise ModelError(f"{self._name}: speaks version {self._unaware.cube} of the canonical cube, the head is in {asset.cube}; use asset.with_cube")
        self._sites = sites
        assert asset.canonical is not None
        self._network = self._unaware.with_surface(asset.canonical if math.isfinite(doubt) else None)
        embedding = asset.landmarks["mediapipe"]
        self._landmarks = embedding.positions(asset.canonical, asset.faces)
        self._numbers = embedding.indices
        self._head = _extremes(asset)
        self._crop: HeadCrop | None = None
        self._misses = 0

    def check(self) -> None:
        """Show the network a picture of a face.

        Raises:
        """
        check_sees_heads(self._network, self._name)

    @property
    def runtime(self) -> str:
        """What the network runs on, for reports."""
        return self._network.runtime

    @property
    def batch(self) -> int:
        """Frames to give at once to :meth:`look_ahead`: more are no faster on this device, 1 where it wins nothing."""
        return self._network.batch

    def forget(self) -> None:
        """Forget where the head was: the next frame has nothing to do with those before."""
        self._crop, self._misses = None, 0

    @property
    def place(self) -> tuple[HeadCrop | None, int]:
        """Where the head will be looked for, and in how many frames in a row it was not there: all that is carried from one
        frame to the next."""
        return self._crop, self._misses

    @place.setter
    def place(self, place: tuple[HeadCrop | None, int]) -> None:
        self._crop, self._misses = place

    def follow(self, detection: Detection) -> None:
        """Note where the head is without embedding it."""
        self._crop, self._misses = self._crop_of(detection), 0

    def _crop_of(self, detection: Detection) -> HeadCrop:
        """The crop of a frame with a detection, whatever came before."""
        seen = detection.points[self._numbers].astype(np.float64)
        camera, _ = fit_affine(self._landmarks, seen, np.ones(len(seen)), np.ptp(seen, axis=0).max() + 1e-6)
        return self._shifted(crop_around_landmarks(detection.points), camera)

    def look_ahead(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]], detections: Sequence[Detection | None]
    ) -> list[EmbeddingRecord | None]:
        """What the network says at the detections of some frames, :attr:`batch` at a time; None for frames without one.

        Nothing is noted. Give each record to :meth:`embed`, in the frames' order.
        """
        known = [k for k, detection in enumerate(detections) if detection is not None]
        records: list[EmbeddingRecord | None] = [None] * len(detections)
        for start in range(0, len(known), self.batch):
            at = known[start : start + self.batch]
            for k, record in zip(at, self._run_many([images[k] for k in at], [self._crop_of(detections[k]) for k in at]), strict=True):  # type: ignore[arg-type]
                records[k] = record
        return records

    def embed_many(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]], detections: Sequence[Detection | None]
    ) -> list[tuple[EmbeddingRecord | None, Detection | None]]:
        """What :meth:`embed` returns for each of consecutive frames, with the network's work done in batches.

        The same crops are looked at: those at detections together, those that depend on the frame before one by one.
        """
        ahead = self.look_ahead(images, detections)
        return [self.embed(*frame) for frame in zip(images, detections, ahead, strict=True)]

    def embed(
        self, image: UInt8[np.ndarray, "h w 3"], detection: Detection | None, ahead: EmbeddingRecord | None = None
    ) -> tuple[EmbeddingRecord | None, Detection | None]:
        """The head in an RGB frame, or None when there is none (or nothing is known yet of where to look).

        Args:
            ahead: of this frame, from :meth:`look_ahead`; without it the network looks now.

        Returns:
            The record, and the detection, or None instead of it when the network contradicts it: detectors put whole faces
            on hair and hands. Then the crop is found as if there had been no detection.
        """
        if detection is None:
            return self._follow_head(image), None
        before = self.place
        self.follow(detection)
        assert self._crop is not None
        record = ahead or self._run(image, self._crop)
        if not self._contradicts(record, detection):
            return record, detection
        at_landmarks, self.place = self._crop, before
        found = self._follow_head(image)
        if found is None:  # nothing is where the head was: perhaps a new shot, and a head near the wrong landmarks
            rest = self.place
            self._crop = at_landmarks
            found = self._centred(image, record)
            pose = None if found is None else AffinePose.of(found, self._sites)
            if pose is None or not is_sure_head(pose):  # the next frame is not to look where a false face was
                found, self.place = None, rest
        return found, None

    def find(self, image: UInt8[np.ndarray, "h w 3"]) -> EmbeddingRecord | None:
        """Look for a head over the whole RGB frame, whatever is known of it; the next frames are then looked at where it was found.

        None where there is none, or while the head's place in the network's cube is not known.
        """
        found = find_head(image, self._run_many, self._sites, self._crop_at) if math.isfinite(self._doubt) else None
        if found is None:
            return None
        record, self._crop = found
        self._misses = 0
        return record

    def look_back(self, crop: HeadCrop, images: Iterable[UInt8[np.ndarray, "h w 3"]]) -> list[EmbeddingRecord | None]:
        """Follow the head from ``crop`` through the frames before it, given from the last to the first, until it is lost.

        Only what is surely a head counts, since nothing that comes before can confirm it. What is known for the next frame stays.
        """
        rest, records = self.place, []
        self.place = crop, 0
        for image in images:
            record = self._follow_head(image)
            pose = None if record is None else AffinePose.of(record, self._sites)
            records.append(record if pose is not None and is_followed_head(pose) else None)
            if self._crop is None:
                break
        self.place = rest
        return records

    def _contradicts(self, record: EmbeddingRecord, detection: Detection) -> bool:
        """Whether the network sees other places of the head, or no head, where most of the landmarks are."""
        size = len(record.trust)
        points = record.crop.to_crop(detection.points[self._numbers].astype(np.float64), size)
        inside = ((points >= 0) & (points < size)).all(1)
        x, y = np.floor(points.clip(0, size - 1)).astype(int).T
        apart = np.linalg.norm(record.coordinates[y, x] - self._landmarks, axis=1)
        return bool(np.median(np.where(inside & (record.trust[y, x] > MIN_TRUST), apart, np.inf)) > self._doubt)

    def _follow_head(self, image: np.ndarray) -> EmbeddingRecord | None:
        return None if self._crop is None else self._centred(image, self._run(image, self._crop))

    def _centred(self, image: np.ndarray, record: EmbeddingRecord) -> EmbeddingRecord | None:
        """``record`` (of the present crop), or one of a better crop; None when it shows no head. Moves the crop for the next frame."""
        assert self._crop is not None
        following = self._next_crop(record)
        if following is None:
            self._misses += 1
            if self._misses > _MAX_MISSES:  # it has left: a crop that rests for long would catch whatever passes by
                self._crop = None
            return None
        moved = np.linalg.norm(following.center - self._crop.center) / self._crop.side
        if moved > 0.15 or abs(np.log(following.side / self._crop.side)) > 0.2:
            record = self._run(image, following)  # too far off for good locations: look again
            following = self._next_crop(record) or following
        self._crop, self._misses = following, 0
        return record

    def _run(self, image: np.ndarray, crop: HeadCrop) -> EmbeddingRecord:
        return self._run_many([image], [crop])[0]

    def _run_many(self, images: Sequence[np.ndarray], crops: Sequence[HeadCrop]) -> list[EmbeddingRecord]:
        """Records of crops, in one call."""
        size = self._network.image_size
        said = self._network(np.stack([crop.extract(image, size) for image, crop in zip(images, crops, strict=True)]))
        return [EmbeddingRecord.of(crop, said, number) for number, crop in enumerate(crops)]

    def _next_crop(self, record: EmbeddingRecord) -> HeadCrop | None:
        if float(record.trust.mean()) < _MIN_HEAD_SHARE:
            return None
        pose = AffinePose.of(record, self._sites)
        return None if pose is None or pose.error > _MAX_FIT_ERROR else self._crop_at(pose)

    def _crop_at(self, pose: AffinePose) -> HeadCrop:
        """The crop of a head in this pose."""
        points = self._landmarks @ pose.camera[:3] + pose.camera[3]
        around = np.zeros((N_LANDMARKS, 2))
        around[:] = points.mean(0)
        around[self._numbers] = points
        return self._shifted(crop_around_landmarks(around), pose.camera)

    def _shifted(self, crop: HeadCrop, camera: Float[np.ndarray, "4 2"]) -> HeadCrop:
        """Towards the back of a turned head, which a crop around the face would cut off."""
        outline = self._head @ camera[:3] + camera[3]
        shift = (outline.min(0) + outline.max(0)) / 2 - crop.center
        x = np.array([np.cos(crop.roll), np.sin(crop.roll)])
        along = np.clip(shift @ x, -_MAX_SHIFT * crop.side, _MAX_SHIFT * crop.side)
        return HeadCrop(crop.center + along * x, crop.side, crop.roll)


def _extremes(asset: HeadAsset) -> Float[np.ndarray, "n 3"]:
    """Canonical coordinates of the head without its neck: what a crop should hold."""
    assert asset.canonical is not None
    keep = np.ones(asset.n_vertices, bool)
    if "neck" in asset.regions:
        keep &= ~asset.regions["neck"]
    return asset.canonical[keep].astype(np.float64)
