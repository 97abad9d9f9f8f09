"""MediaPipe's own pose matrix and blendshape scores, put onto the default head without any fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from flame_assets.load import load_head
from flame_assets.registration_model import CANONICAL_FILE
from flame_assets.similarity import similarity
from tracker.camera import CAMERA_POSITION
from tracker.errors import UserError
from tracker.evaluation.baselines.interface import Tracked
from tracker.head_track import HeadTrack
from tracker.landmarks.landmark_schemes import BLENDSHAPE_NAMES
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.progress import StageClock
from tracker.run_report import peak_memory_mb
from tracker.stages.gaps import nearest_index
from tracker.video.reader import open_video

_FIELD_OF_VIEW_DEG = 63.0  # vertical, of the camera that its matrices assume


@dataclass(frozen=True)
class MediapipeOwn:
    """The mean head where MediaPipe's facial transformation puts its canonical face, with its scores as ARKit values.

    The matrix is a similarity; the head keeps its size, and the distance changes instead, which looks the same.
    """

    def __call__(self, video: Path, max_frames: int | None = None) -> Tracked:
        clock, asset = StageClock(), load_head()
        matrices, scores, times = [], [], []
        with clock.stage("landmarks"), FaceLandmarker() as detector, open_video(video, max_frames=max_frames) as frames:
            width, height, rate = frames.width, frames.height, frames.frame_rate
            for frame in frames:
                found = detector.detect(frame.image, frame.timestamp)
                seen = found is not None and found.matrix is not None
                matrices.append(found.matrix.astype(np.float64) if seen else np.full((4, 4), np.nan))
                scores.append(found.blendshapes if found is not None else np.zeros(len(BLENDSHAPE_NAMES)))
                times.append(frame.timestamp)
        valid = np.isfinite(np.array(matrices)).all((1, 2))
        if not valid.any():
            raise UserError(f"{video}: no face was found")
        held = nearest_index(valid)
        poses = head_poses(asset, np.array(matrices)[held])
        names = {n: i for i, n in enumerate(BLENDSHAPE_NAMES)}
        columns = [names.get(n, -1) for n in asset.expression_names]
        padded = np.concatenate([np.array(scores)[held], np.zeros((len(held), 1))], axis=1)
        rotation, translation = poses
        zero = np.zeros((len(held), 3))
        track = HeadTrack(
            rotation=rotation, neck_pose=zero, jaw_pose=zero, eyes_pose=np.zeros((len(held), 6)), translation=translation,
            shape=np.zeros(asset.n_identity), expr=padded[:, columns],
            focal_px=height / 2 / math.tan(math.radians(_FIELD_OF_VIEW_DEG) / 2),
            principal_point=np.array([width / 2, height / 2]), image_size=np.array([height, width]),
            timestamps=np.array(times), valid=valid, confidence=valid.astype(float),
            timestep_id=np.array([f"{t:05d}" for t in range(len(held))]), expression_names=asset.expression_names,
            head_name=asset.name, head_sha256=asset.sha256(), frame_rate=rate,
        )  # fmt: skip
        return Tracked(track, asset, clock.total, dict(clock.seconds), peak_memory_mb())


def head_poses(
    asset: HeadAsset, matrices: Float[np.ndarray, "frames 4 4"]
) -> tuple[Float[np.ndarray, "frames 3"], Float[np.ndarray, "frames 3"]]:
    """Rotation (axis-angle) and translation of the mean head from MediaPipe's facial transformations.

    Args:
        asset: a head with MediaPipe landmarks, to which the canonical face is aligned by a similarity.
        matrices: canonical face in centimetres to camera space.
    """
    with np.load(CANONICAL_FILE, allow_pickle=False) as file:
        canonical = file["vertices_cm"].astype(np.float64)
    embedding = asset.landmarks["mediapipe"]
    rows = np.flatnonzero(embedding.indices < len(canonical))
    ours = embedding.positions(asset.v_template, asset.faces)[rows].astype(np.float64)
    theirs = canonical[embedding.indices[rows]]
    scale, turn, shift = similarity(ours, theirs)
    linear = matrices[:, :3, :3]
    size = np.cbrt(np.linalg.det(linear)) * scale  # centimetres of its camera space per metre of our head
    rotation = linear @ turn / np.cbrt(np.linalg.det(linear))[:, None, None]
    # the root joint turns about itself: where the matrix puts it is where the head's translation must
    root = asset.joint_regressor[0] @ asset.v_template
    placed = np.einsum("fab,b->fa", linear, scale * turn @ root + shift) + matrices[:, :3, 3]
    return Rotation.from_matrix(rotation).as_rotvec(), placed / size[:, None] + np.asarray(CAMERA_POSITION) - root
