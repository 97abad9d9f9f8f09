"""Trackers that are read from one ``.npz``: VHAP, and SMIRK, whose outputs its users save themselves. Never unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flame_assets.asset import HeadAsset
from flame_assets.safe_npz import names_in_npz, read_npz
from tracker.camera import CAMERA_POSITION, Camera
from tracker.errors import UserError
from tracker.head_track import POSE_SIZES
from tracker.importing.foreign import ForeignTrack

_SMIRK_SIZE = 224
_FAR_M = 10.0  # stands for SMIRK's orthographic camera: over a head's depth the scale changes by one percent
_VHAP_KEYS = (*POSE_SIZES, "shape", "expr", "image_size", "focal_length")
_SMIRK_KEYS = ("pose_params", "cam", "shape_params", "expression_params", "jaw_params")


def keys_of(path: Path) -> frozenset[str]:
    """Names of the arrays in a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return names_in_npz(path)
    except ValueError as error:
        raise UserError(f"{path}: not a readable .npz ({error})") from error


def is_smirk(keys: frozenset[str]) -> bool:
    """Whether a file with these arrays holds SMIRK's outputs."""
    return {"cam", "pose_params"} <= keys


def read_vhap(path: Path, head: HeadAsset) -> ForeignTrack:
    """VHAP's ``tracked_flame_params_*.npz``, or the folder that holds it: the one of the latest epoch there.

    VHAP's world is this project's: camera at (0, 0, 1), OpenGL axes, rotation about the root joint.

    Raises:
        UserError: no such file, or one that lacks something.
    """
    if path.is_dir():
        path = _latest(path)
    data = _arrays(path, _VHAP_KEYS, "neither this project's nor VHAP's: it lacks {}", ("n_processed_frames", "static_offset"))
    height, width = (int(n) for n in np.ravel(data["image_size"])[-2:])
    focal = float(np.ravel(data["focal_length"])[0]) * max(height, width)
    first = int(np.ravel(data.get("n_processed_frames", np.zeros(1)))[0])  # where in the video the run began, not a count
    notes = []
    offset = np.abs(data.get("static_offset", np.zeros(1)))
    if offset.max(initial=0) > 0:
        millimetres = 1000 * float(np.linalg.norm(offset.reshape(-1, offset.shape[-1]), axis=1).mean())
        notes.append(f"its personal offsets of the vertices (static_offset, {millimetres:.1f} mm on average) are left out: a track has none")
    poses = {name: data[name].astype(np.float64) for name in POSE_SIZES}
    camera = Camera(focal, width / 2, height / 2, width, height)
    numbers = first + np.arange(len(data["expr"]))
    return ForeignTrack(poses, np.ravel(data["shape"]), data["expr"], camera, numbers, tuple(notes))


def read_smirk(path: Path, head: HeadAsset) -> ForeignTrack:
    """SMIRK's outputs under their own names, a frame a row.

    ``cam`` is (s, tx, ty) of an orthographic camera: x = s (X + tx) across the crop from −1 to 1, y up likewise.

    Raises:
        UserError: no such file, or one that lacks something.
    """
    data = _arrays(path, _SMIRK_KEYS, "of SMIRK's outputs it lacks {}", ("eyelid_params",))
    cam = data["cam"].astype(np.float64)
    focal = _SMIRK_SIZE / 2 * float(np.median(cam[:, 0])) * _FAR_M
    distance = focal / (_SMIRK_SIZE / 2 * cam[:, 0])
    poses = {
        "rotation": data["pose_params"],
        "translation": np.stack([cam[:, 1], cam[:, 2], CAMERA_POSITION[2] - distance], axis=1),
        "neck_pose": np.zeros((len(cam), 3)),
        "jaw_pose": data["jaw_params"],
        "eyes_pose": np.zeros((len(cam), 6)),
    }
    notes = [f"SMIRK's camera is orthographic: the head stands about {_FAR_M:g} m away here, seen through a long lens"]
    if np.abs(data.get("eyelid_params", np.zeros(1))).max(initial=0) > 0:
        notes.append(NO_EYELIDS)
    shape = np.median(data["shape_params"], axis=0)  # it is predicted frame by frame; a track has one
    camera = Camera(focal, _SMIRK_SIZE / 2, _SMIRK_SIZE / 2, _SMIRK_SIZE, _SMIRK_SIZE)
    return ForeignTrack(poses, shape, data["expression_params"], camera, np.arange(len(cam)), tuple(notes))


NO_EYELIDS = "its eyelid values are left out: they move shapes of its own, which FLAME files do not have"


def _latest(folder: Path) -> Path:
    files = sorted(folder.glob("tracked_flame_params_*.npz"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise UserError(f"{folder}: it holds no tracked_flame_params_*.npz of VHAP")
    return files[-1]


def _arrays(path: Path, needed: tuple[str, ...], lacking: str, more: tuple[str, ...] = ()) -> Mapping[str, np.ndarray]:
    missing = [key for key in needed if key not in keys_of(path)]
    if missing:
        raise UserError(f"{path}: {lacking.format(', '.join(missing))}")
    try:
        data = read_npz(path, (*needed, *more))
    except ValueError as error:
        raise UserError(f"{path}: not a readable .npz ({error})") from error
    odd = [key for key in data if data[key].dtype.kind not in "fiub"]
    if odd or len(data[needed[0]].shape) != 2:
        raise UserError(f"{path}: its {(odd or needed)[0]} is no table of numbers, a row a frame")
    return data
