"""Folders of ``*.frame`` of metrical-tracker and of Pixel3DMM: torch pickles, which are read with ``weights_only``, so that nothing in
them is executed. Both keep FLAME's axes and differ in their cameras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from tracker.camera import Camera
from tracker.errors import UserError
from tracker.importing.foreign import ForeignTrack, placed
from tracker.importing.npz_files import NO_EYELIDS

_PIXEL3DMM_SIZE = 256
_OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0])

_Frame = dict[str, Any]
_Seen = tuple[Float[np.ndarray, "frames 3 3"], Float[np.ndarray, "frames 3"], Camera]


def frames_in(path: Path) -> list[Path]:
    """The ``*.frame`` at a path: a folder of them, the folder above it, or one file."""
    if path.is_file():
        return [path] if path.suffix == ".frame" else []
    return sorted(path.glob("*.frame")) or sorted(path.glob("checkpoint/*.frame"))


def is_metrical(file: Path) -> bool:
    """Whether a ``.frame`` is metrical-tracker's and not Pixel3DMM's.

    Raises:
        UserError: it cannot be read.
    """
    return "opencv" in load_frame(file)


def read_metrical(path: Path, head: HeadAsset) -> ForeignTrack:
    """metrical-tracker's ``checkpoint/*.frame``.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    return _read(path, head, _metrical_camera)


def read_pixel3dmm(path: Path, head: HeadAsset) -> ForeignTrack:
    """Pixel3DMM's ``checkpoint/*.frame``.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    return _read(path, head, _pixel3dmm_camera)


def _read(path: Path, head: HeadAsset, camera_of: Callable[[list[_Frame]], _Seen]) -> ForeignTrack:
    files = frames_in(path)
    if not files:
        raise UserError(f"{path}: it holds no *.frame of metrical-tracker or Pixel3DMM")
    frames = [load_frame(file) for file in files]
    flame = [f["flame"] for f in frames]
    shape = _array(flame[0]["shape"]).ravel()
    expr = np.stack([_array(f["exp"]).ravel() for f in flame])
    poses = {
        "jaw_pose": np.stack([_axis_angles(_array(f["jaw"]).reshape(1, 6))[0] for f in flame]),
        "eyes_pose": np.stack([_axis_angles(_array(f["eyes"]).reshape(2, 6)).ravel() for f in flame]),
        "neck_pose": np.stack([_axis_angles(_array(f["neck"]).reshape(1, 6))[0] if "neck" in f else np.zeros(3) for f in flame]),
    }
    turn, shift, camera = camera_of(frames)
    poses["rotation"], poses["translation"] = placed(head, shape, expr, turn, shift)
    lids = max(float(np.abs(_array(f.get("eyelids", 0.0))).max(initial=0)) for f in flame)
    return ForeignTrack(poses, shape, expr, camera, _numbers(files), (NO_EYELIDS,) if lids > 0 else ())


def _numbers(files: list[Path]) -> np.ndarray:
    """Frame numbers: the files' own names, or their order where those are no numbers."""
    named = all(file.stem.isascii() and file.stem.isdigit() for file in files)
    numbers = np.array([int(file.stem) for file in files]) if named else np.arange(len(files))
    return numbers if (np.diff(numbers) > 0).all() else np.arange(len(files))


def _metrical_camera(frames: list[_Frame]) -> _Seen:
    """The head stays at FLAME's origin and the camera moves; the ``opencv`` entry is the usual ``x = K (R v + t)``."""
    entries = [f["opencv"] for f in frames]
    height, width = (int(n) for n in np.ravel(_array(frames[0]["img_size"])))
    k = np.stack([_array(c["K"]).reshape(3, 3) for c in entries])
    turn = np.stack([_array(c["R"]).reshape(3, 3) for c in entries])
    shift = np.stack([_array(c["t"]).reshape(3) for c in entries])
    x, y = (float(v) for v in np.median(k[:, :2, 2], axis=0))
    return _OPENCV_TO_OPENGL @ turn, shift @ _OPENCV_TO_OPENGL, Camera(float(np.median(k[:, 0, 0])), x, y, width, height)


def _pixel3dmm_camera(frames: list[_Frame]) -> _Seen:
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
    return base @ turn, turned, Camera(focal, x, y, _PIXEL3DMM_SIZE, _PIXEL3DMM_SIZE)


def load_frame(file: Path) -> _Frame:
    """The dictionary in a ``.frame``.

    Raises:
        UserError: it is damaged, or would have to be executed to be read.
    """
    try:
        with torch.serialization.safe_globals(_known()):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles, archives and torch each have types of their own for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file}: not a *.frame that can be read safely, without running what is in it ({reason})") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected a dictionary, found {type(content).__name__}")
    return content


def _known() -> list[Any]:
    """What numpy arrays are unpickled with; nothing of it runs code of the file's. numpy 2 has other names for it than numpy 1."""
    array = np.zeros(1)
    rebuild, scalar = array.__reduce__()[0], array[0].__reduce__()[0]
    places = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(function, f"{place}.{name}") for place in places for function, name in ((rebuild, "_reconstruct"), (scalar, "scalar"))]
    types = [type(np.dtype(t)) for t in ("?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")]
    return [np.ndarray, np.dtype, *types, *named]


def _array(value: Any) -> np.ndarray:
    return value.detach().numpy().astype(np.float64) if isinstance(value, torch.Tensor) else np.asarray(value, np.float64)


def _axis_angles(six: Float[np.ndarray, "n 6"]) -> Float[np.ndarray, "n 3"]:
    """From the first two rows of a rotation matrix (Zhou et al., *On the continuity of rotation representations*, CVPR 2019)."""
    a = six[:, :3] / np.linalg.norm(six[:, :3], axis=1, keepdims=True)
    b = six[:, 3:] - (a * six[:, 3:]).sum(1, keepdims=True) * a
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    return Rotation.from_matrix(np.stack([a, b, np.cross(a, b)], axis=1)).as_rotvec()
