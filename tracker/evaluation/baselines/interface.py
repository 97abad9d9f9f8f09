"""What every compared tracker gives: a track of a known head, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from tracker.camera import CAMERA_POSITION
from tracker.head_track import HeadTrack
from tracker.track_vertices import track_vertices


@dataclass(frozen=True)
class Tracked:
    """A tracker's result for one clip.

    Attributes:
        track: parameters, whatever the tracker: scoring knows no other form.
        head: the head model that they belong to.
        seconds: wall clock of the whole run; 0 when it was read from a file.
        stages: seconds of its parts.
        peak_memory_mb: of the process that ran it; 0 when it was read from a file.
        focal_log_sigma: what it says of the accuracy of its focal length: standard deviation of the logarithm; NaN when it says
            nothing.
    """

    track: HeadTrack
    head: HeadAsset
    seconds: float = 0.0
    stages: dict[str, float] | None = None
    peak_memory_mb: float = 0.0
    focal_log_sigma: float = float("nan")

    @cached_property
    def vertices(self) -> Float[np.ndarray, "frames verts 3"]:
        """Of every frame in camera space (camera at the origin, OpenGL axes), metres."""
        return np.stack(list(track_vertices(self.track, self.head))) - np.asarray(CAMERA_POSITION, np.float32)

    @property
    def skull_rotation(self) -> Float[np.ndarray, "frames 3 3"]:
        """Of the head, neck included, to camera space."""
        return (Rotation.from_rotvec(self.track.rotation) * Rotation.from_rotvec(self.track.neck_pose)).as_matrix()

    def pixels(self, points: Float[np.ndarray, "frames n 3"]) -> Float[np.ndarray, "frames n 2"]:
        """Camera-space points in the picture, full-frame pixels."""
        camera = self.track.camera
        scaled = camera.focal_px * points[..., :2] / np.maximum(-points[..., 2:], 1e-3)
        return scaled * [1, -1] + [camera.cx, camera.cy]


class Tracker(Protocol):
    """Anything that tracks a head through a clip."""

    def __call__(self, video: Path, max_frames: int | None = None) -> Tracked:
        """Track ``video`` (a file or a folder of pictures).

        Raises:
            UserError: no head could be tracked.
        """
        ...
