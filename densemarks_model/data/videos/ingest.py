"""From a clip to what training needs, or a reason why it is not fit for it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from densemarks_model.crops import HeadCrop, crop_around_landmarks
from densemarks_model.data.videos.masks import head_mask
from densemarks_model.data.videos.point_tracks import PointTracker
from densemarks_model.evaluation.clips import facing_landmarks
from tracker.errors import UserError
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.video.reader import open_video

VERSION = 1
"""Part of the cache's names: a new number when the files' contents change."""


@dataclass(frozen=True)
class IngestSettings:
    """How clips are prepared.

    Attributes:
        crop_size: side of stored crops, pixels. frames: most frames taken from a clip, in a row. stride: every how many-th frame
            of the clip. points: tracked points. least_frames: with a face, else the clip is dropped. least_face: longest
            side of the landmarks' box, pixels. largest_jump: of the face's middle between frames taken, in faces.
    """

    crop_size: int = 256
    frames: int = 48
    stride: int = 2
    points: int = 600
    least_frames: int = 12
    least_face: float = 80.0
    largest_jump: float = 0.6

    def digest(self, tracker: str) -> str:
        """Short hash of the settings, so that a cache made with others is not mistaken."""
        return hashlib.sha256(json.dumps([VERSION, tracker, asdict(self)]).encode()).hexdigest()[:12]


class Rejected(Exception):
    """A clip that is not fit for training; the message is the reason, the same for all clips that share it."""


def prepare_clip(path: Path, target: Path, settings: IngestSettings, tracker: PointTracker) -> None:
    """Write ``target`` (.npz) for the clip ``path``, complete or not at all.

    The file holds, for F frames, P points and crops of S pixels: ``crops`` (F, S, S, 3) uint8; ``landmarks`` (F, 478, 2) and
    ``tracks`` (F, P, 2) float32 in crop sides from the top-left corner; ``visible`` (F, 478) and ``tracked`` (F, P) bool;
    ``masks`` (F, S/4, S/4) uint8.

    Raises:
        Rejected: unreadable, too few faces, too small a face, or a cut.
    """
    frames, detections = _read(path, settings)
    points = np.stack([d.points for d in detections])
    size = (points.max(1) - points.min(1)).max(1)
    if np.median(size) < settings.least_face:
        raise Rejected("face too small")
    centres = points.mean(1)
    if (np.linalg.norm(np.diff(centres, axis=0), axis=1) > settings.largest_jump * size[:-1]).any():
        raise Rejected("cut or jump")
    crops = [crop_around_landmarks(p) for p in points]
    pixels = np.stack([c.extract(f, settings.crop_size) for c, f in zip(crops, frames, strict=True)])
    landmarks = np.stack([c.to_crop(p, 1) for c, p in zip(crops, points, strict=True)])
    # MediaPipe guesses the landmarks that the head hides, and guesses are no anchors
    visible = np.stack([facing_landmarks(d.points, d.depth) for d in detections])
    masks = [head_mask(c, p * settings.crop_size) for c, p in zip(pixels, landmarks, strict=True)]
    tracks, tracked = _tracks(frames, crops, masks, settings, tracker)
    cells = settings.crop_size // 4
    arrays = {
        "crops": pixels, "landmarks": landmarks.astype(np.float32), "visible": visible, "tracks": tracks.astype(np.float32), "tracked": tracked,
        "masks": np.stack([cv2.resize(m, (cells, cells), interpolation=cv2.INTER_AREA) for m in masks]),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        np.savez_compressed(Path(folder) / target.name, **arrays)
        os.replace(Path(folder) / target.name, target)


def _read(path: Path, settings: IngestSettings) -> tuple[list[np.ndarray], list]:
    frames, detections = [], []
    try:
        with open_video(path) as video, FaceLandmarker() as landmarker:
            for number, frame in enumerate(video):
                if number % settings.stride:
                    continue
                found = landmarker.detect(frame.image, frame.timestamp)
                if found is None:
                    if len(frames) >= settings.least_frames:
                        break  # a run long enough ends here
                    frames, detections = [], []
                    continue
                frames.append(np.ascontiguousarray(frame.image))
                detections.append(found)
                if len(frames) == settings.frames:
                    break
    except UserError as error:
        raise Rejected("unreadable") from error
    if not frames:
        raise Rejected("no face")
    if len(frames) < settings.least_frames:
        raise Rejected("too short")
    return frames, detections


def _tracks(
    frames: list[np.ndarray], crops: list[HeadCrop], masks: list[np.ndarray], settings: IngestSettings, tracker: PointTracker
) -> tuple[np.ndarray, np.ndarray]:
    """Points on the head, followed in one square that holds all crops, given in each frame's own crop."""
    centres, sides = np.stack([c.center for c in crops]), np.array([c.side for c in crops])
    low, high = (centres - sides[:, None] / 2).min(0), (centres + sides[:, None] / 2).max(0)
    stage = HeadCrop((low + high) / 2, float((high - low).max()))
    size = int(np.clip(settings.crop_size * stage.side / np.median(sides), settings.crop_size, 3 * settings.crop_size))
    pictures = np.stack([stage.extract(f, size) for f in frames])
    rng = np.random.default_rng(0)
    queries = []
    for number in np.linspace(0, len(frames) - 1, 3).astype(int):
        rows, columns = np.nonzero(masks[number])
        chosen = rng.choice(len(rows), settings.points // 3, replace=len(rows) < settings.points // 3)
        inside = np.stack([columns[chosen], rows[chosen]], 1) + 0.5
        places = stage.to_crop(crops[number].to_frame(inside, settings.crop_size), size)
        queries.append(np.concatenate([np.full((len(places), 1), number), places], 1))
    points, seen = tracker.track(pictures, np.concatenate(queries))
    own = np.stack([c.to_crop(stage.to_frame(p, size), 1) for c, p in zip(crops, points, strict=True)])
    return own, seen & ((own > 0) & (own < 1)).all(2)
