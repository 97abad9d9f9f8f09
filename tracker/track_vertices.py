"""A track's meshes, frame after frame, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_assets.asset import HeadAsset
from tracker.errors import UserError
from tracker.head_model import HeadModel, PosedHead
from tracker.head_track import HeadTrack

_CHUNK = 32  # frames computed at once: enough to fill the machine's vector units, 30 MB for the largest heads


def track_vertices(
    track: HeadTrack, asset: HeadAsset, device: torch.device | str = "cpu"
) -> Iterator[Float[np.ndarray, "verts 3"]]:
    """World vertices of every frame, metres, float32. Frames without a tracked head show the values they hold.

    Args:
        device: where they are computed, some frames at a time.

    Raises:
        UserError: ``asset`` is not the head that the track was made with.
    """
    for vertices in _chunks(track, asset, device):
        yield from vertices.cpu().numpy()


def vertices_on_device(
    track: HeadTrack, asset: HeadAsset, device: torch.device | str = "cpu"
) -> Iterator[Float[Tensor, "verts 3"]]:
    """As :func:`track_vertices`, for those who go on working on ``device``."""
    for vertices in _chunks(track, asset, device):
        yield from vertices


def _chunks(track: HeadTrack, asset: HeadAsset, device: torch.device | str) -> Iterator[Float[Tensor, "frames verts 3"]]:
    check_head(track, asset)
    model = HeadModel.from_asset(asset, device)
    for start in range(0, track.n_frames, _CHUNK):
        frames = slice(start, start + _CHUNK)
        translation = torch.as_tensor(track.translation[frames], dtype=model.dtype, device=model.device)
        yield posed_frames(model, track, frames).skin(translation)


def posed_frames(model: HeadModel, track: HeadTrack, frames: slice) -> PosedHead:
    """The head of some frames, shaped and posed, ready to be skinned."""

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=model.dtype, device=model.device)

    shaped = model.with_shape(tensor(track.shapes_of(frames)), tensor(track.expr[frames]))
    poses = (track.rotation, track.neck_pose, track.jaw_pose, track.eyes_pose)
    return shaped.with_pose(*(tensor(pose[frames]) for pose in poses))


def check_head(track: HeadTrack, asset: HeadAsset) -> None:
    """Refuse to combine a track with another head than its own.

    Raises:
        UserError: the hashes differ.
    """
    found = asset.sha256()
    if track.head_sha256 != found:
        raise UserError(
            f"this track was made with head {track.head_name!r} (hash {track.head_sha256[:12]}), not with "
            f"{asset.name!r} (hash {found[:12]}); give the same version of the same head"
        )
