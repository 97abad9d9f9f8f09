"""A fit that begins from an earlier track: its identity, focal length, poses and expressions are where the solver starts, frame by frame
where they explain the frame at least as well as the closed-form pose does. Weights and priors are those of any other fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_assets.asset import HeadAsset
from tracker.camera import CAMERA_POSITION, FocalPrior
from tracker.errors import UserError
from tracker.head_track import HeadTrack
from tracker.observe.frame_batch import FrameBatch
from tracker.residuals.fit_head import FitHead
from tracker.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from tracker.solver import Values
from tracker.stages.landmark_error import landmark_error_percent
from tracker.stages.recipe import focal_limits

_SAME_FRAME = 0.5  # of the time between two frames: a track's frame is the video's nearest one, if it is as near as that


@dataclass(frozen=True)
class Start:
    """An earlier track, laid against a video's frames.

    Attributes:
        track: of the head that is fitted.
        row: the track's row of every frame of the video, -1 where it has none.
        joints: root and neck of the track's own shape, at rest.
    """

    track: HeadTrack
    row: Int[np.ndarray, "frames"]
    joints: Float[Tensor, "2 3"]

    @staticmethod
    def of(track: HeadTrack, asset: HeadAsset, timestamps: Float[np.ndarray, "frames"], image_size: tuple[int, int]) -> Start:
        """Lay ``track``, which is of the head ``asset``, against a video's frames.

        Args:
            timestamps: of the frames, seconds from the video's first one.
            image_size: (height, width), pixels.

        Raises:
            UserError: another head's, of pictures of another size, or none of its frames is one of these.
        """
        if track.head_sha256 != asset.sha256():
            raise UserError(
                f"the track to start from is of the head {track.head_name!r}, not {asset.name!r}; give that head, or re-express the track "
                "first (tools/export.py --to-head)"
            )
        if tuple(track.image_size) != image_size:
            sizes = [f"{width}×{height}" for height, width in (track.image_size, image_size)]
            raise UserError(f"the track to start from is in pictures of {sizes[0]}, the video has {sizes[1]}; give that of this video")
        after = np.searchsorted(track.timestamps, timestamps).clip(0, track.n_frames - 1)
        before = (after - 1).clip(0)
        nearer_before = np.abs(track.timestamps[before] - timestamps) <= np.abs(track.timestamps[after] - timestamps)
        row = np.where(nearer_before, before, after)
        near = np.abs(track.timestamps[row] - timestamps) <= _SAME_FRAME / track.frame_rate
        row = np.where(near & track.valid[row], row, -1)
        if (row < 0).all():
            raise UserError("the track to start from has a head in none of these frames; give that of this video, at its times")
        directions = np.einsum("jv,vck->jck", asset.joint_regressor[:2], asset.shapedirs[:, :, : asset.n_identity])
        joints = asset.joint_regressor[:2] @ asset.v_template + directions @ track.shape
        return Start(track, row, torch.as_tensor(joints, dtype=torch.float32))

    @property
    def known(self) -> int:
        """How many of the video's frames it knows."""
        return int((self.row >= 0).sum())

    def focal_px(self, camera: FocalPrior) -> float:
        """Where the focal length starts: the track's, where it may be that and is not known better."""
        if camera.log_sigma > 0:
            low, high = focal_limits(camera)
            if low < math.log(self.track.focal_px) < high:
                return float(self.track.focal_px)
        return camera.focal_px

    def shape(self, like: Tensor) -> Float[Tensor, "identity"]:
        """The track's identity."""
        return torch.as_tensor(self.track.shape).to(like)

    def begun(
        self, head: FitHead, batch: FrameBatch, frames: Int[Tensor, "frames"], values: Values, principal_point: tuple[float, float]
    ) -> Values:
        """``values`` with those of the track in their place, in the frames that it knows and explains no worse.

        Args:
            head: the head, with the identity baked in or among the values.
            batch: what was seen of the frames.
            frames: their numbers in the video.
            values: of a start without a track; the focal length is the one to begin with.
            principal_point: pixels.
        """
        rows = self.row[frames.cpu().numpy()]
        known = torch.as_tensor(rows >= 0, device=batch.points.device)
        own = values | self._values(head, np.maximum(rows, 0), values, principal_point)
        error = [landmark_error_percent(head, batch, candidate, principal_point) for candidate in (values, own)]
        use = (known & ~(error[1] > error[0]))[:, None]
        per_frame = {name for name, value in values.items() if value.ndim == 2}
        return {name: torch.where(use, own[name], value) if name in per_frame else value for name, value in values.items()}

    def _values(self, head: FitHead, rows: np.ndarray, like: Mapping[str, Tensor], principal_point: tuple[float, float]) -> Values:
        """The track's values of some of its rows, for another identity and another camera: the face stays on its pixels."""
        track, tensor = self.track, like["rotation"]

        def rows_of(name: str) -> Tensor:
            return torch.as_tensor(getattr(track, name)[rows]).to(tensor)

        found = {name: rows_of(name) for name in ("expr", "eyes_pose", "jaw_pose", "neck_pose", "rotation") if name in like}
        root, neck = self.joints.to(tensor)
        turn, bend = (axis_angle_to_matrix(rows_of(name)) for name in ("rotation", "neck_pose"))
        bent = torch.einsum("fab,fb->fa", turn, (neck - root) - bend @ (neck - root))
        moved = rows_of("translation")
        # the face, which is what was seen: nearer to the camera than the root by a share that counts
        face = head.landmarks.template.mean(0) - root
        seen = root + moved + bent + turn @ bend @ face - tensor.new_tensor(CAMERA_POSITION)
        if "neck_pose" not in like:  # the neck is at rest in this fit: the skull stays where it was
            found["rotation"] = matrix_to_axis_angle(turn @ bend)
            moved = moved + bent
        shift = seen.new_tensor([track.principal_point[0] - principal_point[0], principal_point[1] - track.principal_point[1]])
        depth = -seen[:, 2:]
        sideways, away = shift * depth / float(track.focal_px), depth * (1 - float(like["log_focal"].exp()) / float(track.focal_px))
        own_root = head.model.joint_template[0] + head.model.joint_identity_dirs[0] @ like["shape"]
        found["translation"] = root + moved + torch.cat([sideways, away], dim=1) - own_root
        return found
