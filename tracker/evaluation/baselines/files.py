"""Other trackers' results, read from the files that they write, as tracks of the user's FLAME head.

Read: this project's ``flame_params.npz``; VHAP's ``tracked_flame_params_*.npz``; folders of ``*.frame`` of metrical-tracker
(``checkpoint/``) and of Pixel3DMM; and SMIRK's outputs, which it keeps in memory, saved under their own names in one ``.npz`` with a frame a row.
The last two see square crops, of 256 and 224 pixels: the clip to score on is then the clip of those crops. Eyelid shapes of their own, which FLAME
does not have, are left out. Files are never unpickled freely: numpy without pickles, torch with ``weights_only``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from tracker.camera import CAMERA_POSITION
from tracker.errors import UserError
from tracker.evaluation.baselines.interface import Tracked
from tracker.export.flame_params import load_track
from tracker.head_track import HeadTrack

_PIXEL3DMM_SIZE, _SMIRK_SIZE = 256, 224
_FAR_M = 10.0  # stands for SMIRK's orthographic camera: over a head's depth the scale changes by one percent
_OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0])


def read_result(path: Path, head: HeadAsset, frame_rate: float) -> Tracked:
    """A tracker's result from disk.

    Args:
        path: a file or a folder, see above; the content says which tracker's.
        head: the head model that the parameters belong to.
        frame_rate: of the clip, for files that do not tell times.

    Raises:
        UserError: nothing that can be read, or not of this head.
    """
    path = Path(path)
    if path.is_dir():
        return Tracked(_frame_folder(path, head, frame_rate), head)
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable .npz ({error})") from error
    if "head_sha256" in data:
        track = load_track(path)
        if track.head_sha256 != head.sha256():
            raise UserError(f"{path}: made with head {track.head_name!r}, not with {head.name!r}; give that head")
        return Tracked(track, head)
    read = _smirk if "cam" in data and "pose_params" in data else _vhap
    return Tracked(read(path, data, head, frame_rate), head)


def _vhap(path: Path, data: Mapping[str, np.ndarray], head: HeadAsset, frame_rate: float) -> HeadTrack:
    """VHAP's world is this project's: camera at (0, 0, 1), OpenGL axes, rotation about the root joint."""
    needed = ("rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation", "shape", "expr", "image_size", "focal_length")
    missing = [key for key in needed if key not in data]
    if missing:
        raise UserError(f"{path}: neither this project's nor VHAP's: it lacks {', '.join(missing)}")
    height, width = (int(n) for n in data["image_size"])
    poses = {name: data[name] for name in ("rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")}
    focal = float(np.ravel(data["focal_length"])[0]) * max(height, width)
    return _track(head, poses, np.ravel(data["shape"]), data["expr"], focal, (width / 2, height / 2), (height, width), frame_rate)


def _smirk(path: Path, data: Mapping[str, np.ndarray], head: HeadAsset, frame_rate: float) -> HeadTrack:
    """``cam`` is (s, tx, ty) of an orthographic camera: x = s (X + tx) across the crop from −1 to 1, y up likewise."""
    needed = ("pose_params", "cam", "shape_params", "expression_params", "jaw_params")
    missing = [key for key in needed if key not in data]
    if missing:
        raise UserError(f"{path}: of SMIRK's outputs it lacks {', '.join(missing)}")
    cam = data["cam"].astype(np.float64)
    focal = _SMIRK_SIZE / 2 * float(np.median(cam[:, 0])) * _FAR_M
    distance = focal / (_SMIRK_SIZE / 2 * cam[:, 0])
    zero = np.zeros((len(cam), 3))
    poses = {
        "rotation": data["pose_params"],
        "translation": np.stack([cam[:, 1], cam[:, 2], CAMERA_POSITION[2] - distance], axis=1),
        "neck_pose": zero,
        "jaw_pose": data["jaw_params"],
        "eyes_pose": np.zeros((len(cam), 6)),
    }
    shape = np.median(data["shape_params"], axis=0)  # it is predicted frame by frame; a track has one
    centre = (_SMIRK_SIZE / 2, _SMIRK_SIZE / 2)
    return _track(head, poses, shape, data["expression_params"], focal, centre, (_SMIRK_SIZE, _SMIRK_SIZE), frame_rate)


def _frame_folder(folder: Path, head: HeadAsset, frame_rate: float) -> HeadTrack:
    """metrical-tracker's or Pixel3DMM's folder; both keep FLAME's axes and differ in their cameras."""
    files = sorted(folder.glob("*.frame"))
    if not files:
        raise UserError(f"{folder}: it holds no *.frame of metrical-tracker or Pixel3DMM")
    frames = [_load_frame(file) for file in files]
    try:
        flame = [f["flame"] for f in frames]
        shape = _array(flame[0]["shape"]).ravel()
        expr = np.stack([_array(f["exp"]).ravel() for f in flame])
        poses = {
            "jaw_pose": np.stack([_axis_angles(_array(f["jaw"]).reshape(1, 6))[0] for f in flame]),
            "eyes_pose": np.stack([_axis_angles(_array(f["eyes"]).reshape(2, 6)).ravel() for f in flame]),
            "neck_pose": np.stack([_axis_angles(_array(f["neck"]).reshape(1, 6))[0] if "neck" in f else np.zeros(3) for f in flame]),
        }
        camera = (_metrical_camera if "opencv" in frames[0] else _pixel3dmm_camera)(frames)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: neither as metrical-tracker nor as Pixel3DMM writes it ({error})") from error
    turn, shift, focal, centre, size = camera
    poses["rotation"], poses["translation"] = placed(head, shape, expr, turn, shift)
    return _track(head, poses, shape, expr, focal, centre, size, frame_rate)


_FrameCamera = tuple[np.ndarray, np.ndarray, float, tuple[float, float], tuple[int, int]]


def _metrical_camera(frames: list[dict[str, Any]]) -> _FrameCamera:
    """The head stays at FLAME's origin and the camera moves; the ``opencv`` entry is the usual ``x = K (R v + t)``."""
    entries = [f["opencv"] for f in frames]
    height, width = (int(n) for n in np.ravel(_array(frames[0]["img_size"])))
    k = np.stack([_array(c["K"]).reshape(3, 3) for c in entries])
    turn = np.stack([_array(c["R"]).reshape(3, 3) for c in entries])
    shift = np.stack([_array(c["t"]).reshape(3) for c in entries])
    x, y = (float(v) for v in np.median(k[:, :2, 2], axis=0))
    return _OPENCV_TO_OPENGL @ turn, shift @ _OPENCV_TO_OPENGL, float(np.median(k[:, 0, 0])), (x, y), (height, width)


def _pixel3dmm_camera(frames: list[dict[str, Any]]) -> _FrameCamera:
    """The head moves by R v + t about FLAME's origin, the camera (OpenGL axes) by ``R_base_0`` and ``t_base_0``; focal length and
    principal point are relative to a crop of 256 pixels."""
    flame, camera = [f["flame"] for f in frames], [f["camera"] for f in frames]
    turn = np.stack([_array(f["R_rotation_matrix"]).reshape(3, 3) for f in flame])
    shift = np.stack([_array(f["t"]).reshape(3) for f in flame])
    base = np.stack([_array(c["R_base_0"]).reshape(3, 3) for c in camera])
    base_shift = np.stack([_array(c["t_base_0"]).reshape(3) for c in camera])
    focal = _PIXEL3DMM_SIZE * float(np.median([_array(c["fl"]).ravel()[0] for c in camera]))
    half = _PIXEL3DMM_SIZE / 2 + 0.5
    x, y = (float(v) for v in half + half * np.median([_array(c["pp"]).ravel() for c in camera], axis=0))
    turned = np.einsum("fab,fb->fa", base, shift) + base_shift
    return base @ turn, turned, focal, (x, y), (_PIXEL3DMM_SIZE, _PIXEL3DMM_SIZE)


def placed(
    head: HeadAsset,
    shape: Float[np.ndarray, "identity"],
    expr: Float[np.ndarray, "frames expression"],
    turn: Float[np.ndarray, "frames 3 3"],
    shift: Float[np.ndarray, "frames 3"],
) -> tuple[Float[np.ndarray, "frames 3"], Float[np.ndarray, "frames 3"]]:
    """This project's rotation (axis-angle, about the root joint) and translation for a head whose vertices go to camera
    space (OpenGL axes) by ``turn v + shift``, about the origin. Joints follow the expression a little, as in FLAME."""
    moved = np.einsum("v,vck->ck", head.joint_regressor[0], head.shapedirs)
    still = head.joint_regressor[0] @ head.v_template + moved[:, : head.n_identity] @ _sized(shape, head.n_identity)
    root = still + _sized(expr, head.n_expression) @ moved[:, head.n_identity :].T
    translation = np.einsum("fab,fb->fa", turn, root) - root + shift + np.asarray(CAMERA_POSITION)
    return Rotation.from_matrix(turn).as_rotvec(), translation


def _track(
    head: HeadAsset, poses: Mapping[str, np.ndarray], shape: np.ndarray, expr: np.ndarray, focal_px: float,
    centre: tuple[float, float], size: tuple[int, int], frame_rate: float,
) -> HeadTrack:  # fmt: skip
    frames = len(expr)
    try:
        return HeadTrack(
            **{name: np.asarray(value, np.float64) for name, value in poses.items()},
            shape=_sized(shape, head.n_identity), expr=_sized(expr, head.n_expression), focal_px=focal_px,
            principal_point=np.array(centre), image_size=np.array(size), timestamps=np.arange(frames) / frame_rate,
            valid=np.ones(frames, bool), confidence=np.ones(frames), timestep_id=np.array([f"{f:05d}" for f in range(frames)]),
            expression_names=head.expression_names, head_name=head.name, head_sha256=head.sha256(), frame_rate=frame_rate,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(str(error)) from error


def _sized(values: np.ndarray, size: int) -> np.ndarray:
    """Coefficients of another edition: what is missing is zero, what the head does not have must be."""
    if np.abs(values[..., size:]).max(initial=0) > 0:
        raise UserError(f"the file has {values.shape[-1]} coefficients where this head has {size}; give the head it was made with")
    short = max(size - values.shape[-1], 0)
    return np.pad(values[..., :size].astype(np.float64), [(0, 0)] * (values.ndim - 1) + [(0, short)])


def _load_frame(file: Path) -> dict[str, Any]:
    safe: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(t)) for t in ("f4", "f8", "i4", "i8", "u1"))]
    from numpy.core import multiarray

    safe += [multiarray._reconstruct, multiarray.scalar]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{file}: not a *.frame that can be read safely ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected a dictionary, found {type(content).__name__}")
    return content


def _array(value: Any) -> np.ndarray:
    return value.detach().numpy().astype(np.float64) if isinstance(value, torch.Tensor) else np.asarray(value, np.float64)


def _axis_angles(six: Float[np.ndarray, "n 6"]) -> Float[np.ndarray, "n 3"]:
    """From the first two rows of a rotation matrix (Zhou et al., *On the continuity of rotation representations*, CVPR 2019)."""
    a = six[:, :3] / np.linalg.norm(six[:, :3], axis=1, keepdims=True)
    b = six[:, 3:] - (a * six[:, 3:]).sum(1, keepdims=True) * a
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    return Rotation.from_matrix(np.stack([a, b, np.cross(a, b)], axis=1)).as_rotvec()
