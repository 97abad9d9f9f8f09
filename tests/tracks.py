"""Synthetic tracks for tests: a head that talks, turns and blinks, without any video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flame_assets.asset import HeadAsset
from tracker.head_track import HeadTrack
from tracker.video.reader import VideoPart, VideoSource


def talking_track(asset: HeadAsset, frames: int = 20, seed: int = 0, **changes: object) -> HeadTrack:
    """A track of ``asset`` with uneven times and a gap without a head in the middle.

    Args:
        changes: fields to set to other values.
    """
    rng = np.random.default_rng(seed)
    valid = np.ones(frames, bool)
    valid[frames // 2 : frames // 2 + frames // 6] = False
    low, high = asset.expression_range
    signed = not np.isfinite(low)
    expr = (
        rng.normal(size=(frames, asset.n_expression))
        if signed
        else rng.uniform(low, high, (frames, asset.n_expression))
    )
    values = {
        "rotation": _walk(rng, frames, 3, 0.4),
        "neck_pose": _walk(rng, frames, 3, 0.2),
        "jaw_pose": _walk(rng, frames, 3, 0.05) + np.array([0.2, 0, 0]),
        "eyes_pose": _walk(rng, frames, 6, 0.2),
        "translation": _walk(rng, frames, 3, 0.05),
        "shape": rng.normal(size=asset.n_identity),
        "expr": expr,
        "focal_px": 700.0,
        "principal_point": np.array([320.0, 180.0]),
        "image_size": np.array([360, 640]),
        "timestamps": 1.5 + np.cumsum(rng.uniform(0.02, 0.06, frames)),
        "valid": valid,
        "confidence": np.where(valid, rng.uniform(0.5, 1, frames), 0.0),
        "timestep_id": np.array([f"{t:05d}" for t in range(frames)]),
        "expression_names": asset.expression_names,
        "head_name": asset.name,
        "head_sha256": asset.sha256(),
        "frame_rate": 25.0,
    }
    return HeadTrack(**(values | changes))


def filmed_track(asset: HeadAsset, folder: Path, frames: int = 4, **changes: object) -> tuple[HeadTrack, VideoSource]:
    """A track and a folder of pictures that it could come from: noise, 25 a second, each frame's level its number times ten."""
    track = talking_track(asset, frames, **({"timestamps": np.arange(frames) / 25} | changes))
    height, width = (int(n) for n in track.image_size)
    folder.mkdir(parents=True)
    for number in range(frames):
        noise = np.random.default_rng(number).integers(0, 100, (height, width, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number:05d}.png"), noise + np.uint8(10 * number))
    return track, VideoSource(folder, VideoPart(frame_rate=25))


def _walk(rng: np.random.Generator, frames: int, size: int, reach: float) -> np.ndarray:
    """Smooth motion of about ``reach``: a few slow sines."""
    time = np.linspace(0, 1, frames)[:, None]
    speed, phase = rng.uniform(0.5, 3, size), rng.uniform(0, 2 * np.pi, size)
    return reach * np.sin(2 * np.pi * speed * time + phase)
