"""``flame_params.npz``: a track under VHAP's names and shapes, and what VHAP's file lacks beside them.

VHAP's arrays have FLAME's sizes, 300 identity and 100 expression coefficients. A FLAME head's are padded to those with
zeros; any other head keeps its own sizes, since its coefficients mean nothing to FLAME. ``docs/outputs.md`` lists every
key.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from flame_assets.safe_npz import read_npz
from flame_assets.stable_npz import write_stable_npz
from tracker.camera import PhotoCameras
from tracker.errors import UserError
from tracker.export.camera_matrices import camera_matrices
from tracker.export.registry import ExportJob
from tracker.head_track import POSE_SIZES, HeadTrack

FILE_NAME = "flame_params.npz"

FLAME_IDENTITY, FLAME_EXPRESSION = 300, 100


def write_flame_params(path: Path, track: HeadTrack) -> None:
    """Write ``track`` to ``path``; the file's bytes depend on the track alone."""
    flame = is_flame(track.expression_names)
    matrices = camera_matrices(track.camera)
    arrays = {name: getattr(track, name).astype(np.float32) for name in POSE_SIZES}
    arrays |= {
        "shape": _padded(track.shape, FLAME_IDENTITY if flame else 0),
        "expr": _padded(track.expr, FLAME_EXPRESSION if flame else 0),
        "timestep_id": np.array([str(t) for t in track.timestep_id]),
        "n_processed_frames": np.array(0),  # in VHAP this is the number of the first timestep, not a count
        "focal_length": np.array([track.focal_px / max(track.image_size)], np.float32),
        "image_size": np.asarray(track.image_size, np.int64),
        "valid": track.valid,
        "confidence": track.confidence.astype(np.float32),
        "timestamp": track.timestamps.astype(np.float64),
        "frame_rate": np.array(track.frame_rate, np.float64),
        "expression_names": np.array(track.expression_names, dtype=str),
        "n_identity": np.array(len(track.shape)),
        "K": matrices.K,
        "extrinsics_opencv": matrices.extrinsics_opencv,
        "extrinsics_opengl": matrices.extrinsics_opengl,
        "projection_opengl": matrices.projection_opengl,
        "head_name": np.array(track.head_name),
        "head_sha256": np.array(track.head_sha256),
        "shot": _or_zeros(track.shot, track.n_frames).astype(np.int32),
        "person": _or_zeros(track.person, track.n_frames).astype(np.int32),
        "shapes": _padded(track.shape[None] if track.shapes is None else track.shapes, FLAME_IDENTITY if flame else 0),
        "interpolated": _or_zeros(track.interpolated, track.n_frames).astype(bool),
    }
    if track.photos is not None:
        arrays |= {
            "photo_name": np.asarray(track.photos.names, str),
            "photo_image_size": np.asarray(track.photos.image_size, np.int64),
            "photo_focal_length": np.asarray(track.photos.K[:, 0, 0] / track.photos.image_size.max(1), np.float32),
            "photo_focal_log_sigma": np.asarray(track.photos.focal_log_sigma, np.float32),
            "photo_K": np.asarray(track.photos.K, np.float64),
        }
    write_stable_npz(Path(path), arrays)


def export(job: ExportJob) -> list[str]:
    """Write ``flame_params.npz``."""
    write_flame_params(job.folder / FILE_NAME, job.track)
    return [FILE_NAME]


def load_track(path: Path) -> HeadTrack:
    """Read what :func:`write_flame_params` wrote, padding taken off again.

    Raises:
        UserError: the file is missing, damaged, or not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the flame_params.npz of a finished run")
    try:
        data = read_npz(path)
        names = tuple(str(n) for n in data["expression_names"])
        k = data["K"]
        return HeadTrack(
            **{name: data[name] for name in POSE_SIZES},
            shape=data["shape"][: int(data["n_identity"])],
            expr=data["expr"][:, : len(names)],
            focal_px=float(k[0, 0]),
            principal_point=k[:2, 2],
            image_size=data["image_size"],
            timestamps=data["timestamp"],
            valid=data["valid"],
            confidence=data["confidence"],
            timestep_id=data["timestep_id"],
            expression_names=names,
            head_name=str(data["head_name"]),
            head_sha256=str(data["head_sha256"]),
            frame_rate=float(data["frame_rate"]),
            photos=_photos(data) if "photo_K" in data else None,
            **_shots(data),
        )
    except KeyError as error:
        raise UserError(f"{path}: it lacks {error}; only a flame_params.npz of this program can be read") from error
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:  # arrays of other kinds and shapes
        raise UserError(f"{path}: not a readable flame_params.npz ({' '.join(str(error).split())[:200]}); run the tracker again") from error


def _shots(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a track says of shots, people and gaps, where there is something to say; files of earlier versions say nothing."""
    found = {name: data[name] for name in ("shot", "interpolated") if name in data and data[name].any()}
    if "person" in data and len(data["shapes"]) > 1:
        found |= {"person": data["person"], "shapes": data["shapes"][:, : int(data["n_identity"])]}
    return found


def _or_zeros(values: np.ndarray | None, count: int) -> np.ndarray:
    return np.zeros(count) if values is None else values


def _photos(data: dict[str, np.ndarray]) -> PhotoCameras:
    return PhotoCameras(data["photo_name"], data["photo_image_size"], data["photo_K"], data["photo_focal_log_sigma"])


def is_flame(expression_names: tuple[str, ...]) -> bool:
    """Whether these are FLAME's expressions, numbered ``expr000`` … whatever the file was called."""
    return bool(expression_names) and all(re.fullmatch(r"expr\d{3}", name) for name in expression_names)


def _padded(values: Float[np.ndarray, "*frames n"], size: int) -> Float[np.ndarray, "*frames m"]:
    missing = max(size - values.shape[-1], 0)
    return np.pad(values.astype(np.float32), [(0, 0)] * (values.ndim - 1) + [(0, missing)])
