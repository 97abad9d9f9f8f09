"""``gaussian_avatars/``: the data set that GaussianAvatars trains on, laid out as VHAP exports it.

Frames without a tracked head are left out and the others numbered anew, because every timestep there needs a picture and a pose;
``timestep_index_original`` keeps the video's numbers. GaussianAvatars takes the principal point for the picture's middle: pictures whose
camera has another one are widened with white until it is.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from flame_assets.atomic_files import atomic_folder
from flame_assets.stable_npz import write_stable_npz
from tracker.camera import CAMERA_POSITION, Camera
from tracker.export.flame_layout import VHAP_VERTICES, flame_expressions, flame_shape
from tracker.export.head_masks import HeadMasks
from tracker.export.pictures import MaskedFrame, check_tracked, intrinsics, masked_frames, matrix, on_white, write_png
from tracker.export.registry import ExportJob
from tracker.head_track import POSE_SIZES, HeadTrack

FOLDER = "gaussian_avatars"

_TRAINED = 0.7
"""Share of the clip, from its start, that is trained on; the rest is for tests."""

_MIDDLE_PX = 1e-3
_CANONICAL_JAW = (0.3, 0.0, 0.0)  # rad: the mouth stands open, so that lips do not stick to each other


def export(job: ExportJob) -> list[str]:
    """Write ``gaussian_avatars/`` with ``images``, ``fg_masks``, ``flame_param``, and ``transforms.json`` with its three parts.

    Raises:
        UserError: the head was tracked in no frame, or the video is another.
    """
    check_tracked(job, "gaussian-avatars")
    track = job.track
    # recentred as VHAP does: the head's mean place is the origin, and the camera moves as far
    middle = track.translation[track.tracked].mean(0)
    camera, shift = centred(track.camera)
    pose = matrix(np.eye(3), np.array(CAMERA_POSITION) - middle)
    masks, frames = HeadMasks(job.head, track.camera), []
    offset = np.zeros((1, VHAP_VERTICES, 3), np.float32)
    with atomic_folder(job.folder / FOLDER) as temporary:
        for name in ("images", "fg_masks", "flame_param"):
            (temporary / name).mkdir()
        for index, seen in enumerate(masked_frames(job, masks)):
            frame = _frame(index, seen.number, track, camera, pose)
            _write_pictures(temporary, frame, seen, camera, shift)
            write_stable_npz(temporary / frame["flame_param_path"], _parameters(track, seen.number, middle) | {"static_offset": offset})
            frames.append(frame)
        write_stable_npz(temporary / "canonical_flame_param.npz", _canonical(track) | {"static_offset": offset})
        _write_transforms(temporary, frames, camera, masks.words)
    return [f"{FOLDER}/"]


def centred(camera: Camera) -> tuple[Camera, Float[np.ndarray, "2"]]:
    """The smallest picture that holds ``camera``'s and has the principal point in its middle, and how far pixels move in it."""
    size = np.array([camera.width, camera.height])
    off = 2 * np.array([camera.cx, camera.cy]) - size
    if np.abs(off).max() < _MIDDLE_PX:
        return camera, np.zeros(2)
    width, height = (math.ceil(side - 1e-9) for side in size + np.abs(off))
    return Camera(camera.focal_px, width / 2, height / 2, width, height), np.array([width / 2 - camera.cx, height / 2 - camera.cy])


def _frame(index: int, number: int, track: HeadTrack, camera: Camera, pose: Float[np.ndarray, "4 4"]) -> dict[str, Any]:
    name = f"{index:05d}"
    return {
        "timestep_index": index, "timestep_index_original": number, "timestep_id": str(track.timestep_id[number]), "camera_index": 0,
        "camera_id": "0", **intrinsics(camera), "transform_matrix": pose.tolist(), "file_path": f"images/{name}_00.png",
        "fg_mask_path": f"fg_masks/{name}_00.png", "flame_param_path": f"flame_param/{name}.npz",
    }  # fmt: skip


def _write_pictures(folder: Path, frame: dict[str, Any], seen: MaskedFrame, camera: Camera, shift: Float[np.ndarray, "2"]) -> None:
    image, mask = on_white(seen.image, seen.mask), seen.mask
    if shift.any():
        move, size = np.concatenate([np.eye(2), shift[:, None]], axis=1), (camera.width, camera.height)
        image = cv2.warpAffine(image, move, size, flags=cv2.INTER_LINEAR, borderValue=(255, 255, 255))
        mask = cv2.warpAffine(mask, move, size, flags=cv2.INTER_LINEAR)
    write_png(folder / frame["file_path"], image)
    write_png(folder / frame["fg_mask_path"], mask)


def _parameters(track: HeadTrack, number: int, middle: Float[np.ndarray, "3"]) -> dict[str, np.ndarray]:
    here = {name: getattr(track, name)[[number]].astype(np.float64) for name in POSE_SIZES}
    here["translation"] -= middle
    here |= {"shape": flame_shape(track), "expr": flame_expressions(track)[[number]]}
    return {name: values.astype(np.float32) for name, values in here.items()}


def _canonical(track: HeadTrack) -> dict[str, np.ndarray]:
    rest = {name: np.zeros((1, size), np.float32) for name, size in POSE_SIZES.items()}
    rest["jaw_pose"] = np.array([_CANONICAL_JAW], np.float32)
    return rest | {"shape": flame_shape(track), "expr": np.zeros((1, 100), np.float32)}


def _write_transforms(folder: Path, frames: list[dict[str, Any]], camera: Camera, mask_source: str) -> None:
    """``transforms.json`` with all frames, and the parts to train on, to validate with (no further camera: empty) and to test with."""
    trained = max(round(_TRAINED * len(frames)), 1)
    parts = {"": frames, "_train": frames[:trained], "_val": [], "_test": frames[trained:]}
    for name, some in parts.items():
        indices = [frame["timestep_index"] for frame in some]
        content = {"frames": some, **intrinsics(camera), "timestep_indices": indices, "camera_indices": [0] if some else [], "mask_source": mask_source}
        (folder / f"transforms{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
