"""Trackers that can be compared: this project's, by what they look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from tracker.camera import CAMERA_POSITION
from tracker.config import TrackerConfig, load_config
from tracker.export.flame_params import load_track
from tracker.export.vertices import track_vertices
from tracker.pipeline import Request, track_video
from tracker.track import HeadTrack

TRACKERS = {
    "landmarks478": "fast",
    "dense_landmarks": "balanced",
    "dense_landmarks_photometric": "best",
}
"""Name in reports -> preset."""

ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "look_up": {"dense": {"outline_inflation": 0.0}, "photometric": {"enabled": False}},
    "compare": {"dense": {"outline_inflation": 0.0, "look_up": False, "compare": True}, "photometric": {"enabled": False}},
    "look_up_then_compare": {"dense": {"outline_inflation": 0.0, "compare": True}, "photometric": {"enabled": False}},
    "look_up_outline": {"photometric": {"enabled": False}},
    "look_up_outline_photometric": {},
}
"""Name in reports -> what differs from preset ``best``."""


def configuration(name: str) -> tuple[str, TrackerConfig]:
    """Preset and configuration of one of :data:`TRACKERS` or :data:`ABLATIONS`."""
    if name in TRACKERS:
        return TRACKERS[name], load_config(TRACKERS[name])
    config = load_config("best")
    for section, changes in ABLATIONS[name].items():
        config = replace(config, **{section: replace(getattr(config, section), **changes)})
    return "best", config


@dataclass(frozen=True)
class Result:
    """What a tracker gave for one clip.

    Attributes:
        track: parameters.
        vertices: of every frame in camera space (camera at the origin, OpenGL axes), metres.
        skull_rotation: of the head, neck included, to camera space.
        seconds: wall clock of the whole run; stages: of its parts.
        peak_memory_mb: of the process so far.
    """

    track: HeadTrack
    vertices: Float[np.ndarray, "frames verts 3"]
    skull_rotation: Float[np.ndarray, "frames 3 3"]
    seconds: float
    stages: dict[str, float]
    peak_memory_mb: float


def run_tracker(
    name: str, video: Path, asset: HeadAsset, config: TrackerConfig | None = None, max_frames: int | None = None
) -> Result:
    """Track ``video`` with one of :data:`TRACKERS` or :data:`ABLATIONS` (or a configuration of one's own) in a temporary
    folder, without an overlay."""
    preset, usual = configuration(name)
    with TemporaryDirectory() as folder:
        request = Request(
            video=video, out=Path(folder), config=config or usual, preset=preset, max_frames=max_frames, overlay=False, quiet=True
        )
        report = track_video(request)
        track = load_track(report.folder / "flame_params.npz")
    vertices = np.stack(list(track_vertices(track, asset))) - np.asarray(CAMERA_POSITION, np.float32)
    rotation = Rotation.from_rotvec(track.rotation) * Rotation.from_rotvec(track.neck_pose)
    return Result(track, vertices, rotation.as_matrix(), report.total_seconds, report.seconds, report.peak_memory_mb)


