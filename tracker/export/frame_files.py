"""Folders of ``.frame`` files, as metrical-tracker and Pixel3DMM leave them: one torch pickle of numpy arrays a frame.

metrical-tracker holds the head still at FLAME's origin and moves the camera; it has no neck joint, so the whole skull, the neck's turn
included, is what the camera moves against. Vertices are ours to the last digit where the neck is at rest (preset ``fast``); otherwise the
neck's own skin and its pose correctives differ. Pixel3DMM has a neck and moves the head, and counts pixels in square crops of 256:
here the whole picture, in the middle of a square. Frames without a tracked head hold what the track holds for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from flame_assets.atomic_files import atomic_folder
from tracker.camera import CAMERA_POSITION
from tracker.export.flame_layout import flame_expressions, flame_shapes, joint_motion, rows_of, six_numbers
from tracker.export.registry import ExportJob

METRICAL_FOLDER, PIXEL3DMM_FOLDER = "metrical_tracker", "pixel3dmm"

_ROOT, _NECK = 0, 1
_OPENCV = np.diag([1.0, -1.0, -1.0])  # from OpenGL's axes
_PYTORCH3D = np.diag([-1.0, 1.0, -1.0])
_PIXEL3DMM_SIDE = 256

_Content = dict[str, Any]


def export_metrical(job: ExportJob) -> list[str]:
    """Write ``metrical_tracker/checkpoint/00000.frame`` and so on."""
    return _write(job, METRICAL_FOLDER, _metrical_frames)


def export_pixel3dmm(job: ExportJob) -> list[str]:
    """Write ``pixel3dmm/checkpoint/00000.frame`` and so on."""
    return _write(job, PIXEL3DMM_FOLDER, _pixel3dmm_frames)


def _write(job: ExportJob, folder: str, frames: Callable[[ExportJob], Iterator[_Content]]) -> list[str]:
    with atomic_folder(job.folder / folder) as temporary:
        checkpoint = temporary / "checkpoint"
        checkpoint.mkdir()
        for number, content in enumerate(frames(job)):
            path = checkpoint / f"{number:05d}.frame"
            with path.open("wb") as file:  # opened here: a full disk is then an OSError, from inside torch it is none
                torch.save(content, file)
            job.written(number + 1)
    return [f"{folder}/"]


def _face(job: ExportJob) -> dict[str, Float[np.ndarray, "frames n"]]:
    """What both formats say of the face, a row a frame."""
    track = job.track
    eyes = np.concatenate([six_numbers(track.eyes_pose[:, :3]), six_numbers(track.eyes_pose[:, 3:])], axis=1)
    return {
        "exp": flame_expressions(track),
        "shape": np.broadcast_to(flame_shapes(track), (track.n_frames, 300)),
        "eyes": eyes,
        "eyelids": np.zeros((track.n_frames, 2)),  # these trackers' own shapes; FLAME's files, and so our heads, do not have them
        "jaw": six_numbers(track.jaw_pose),
    }


def _metrical_frames(job: ExportJob) -> Iterator[_Content]:
    track, camera, face = job.track, job.track.camera, _face(job)
    linear, offsets = joint_motion(track, job.head)
    turn, shift = linear[:, _NECK], offsets[:, _NECK] - CAMERA_POSITION  # to the camera, OpenGL axes
    half = min(camera.width, camera.height) / 2  # PyTorch3D's unit of screen space; its x points left, its y up
    focal = np.array([camera.focal_px / half])
    centre = np.array([camera.width / 2 - camera.cx, camera.height / 2 - camera.cy]) / half
    for number in range(track.n_frames):
        row = _row(face, number)
        yield {
            "flame": row | {"tex": np.zeros((1, 140), np.float32), "sh": np.zeros((1, 9, 3), np.float32)},
            "camera": {
                # rows times matrix is PyTorch3D's order: its R is the transpose of what columns are multiplied with
                "R": _one(rows_of((_PYTORCH3D @ turn[number]).T[None])[0]),
                "t": _one(_PYTORCH3D @ shift[number]), "fl": _one(focal), "pp": _one(centre),
            },
            "opencv": {"R": _one(_OPENCV @ turn[number]), "t": _one(_OPENCV @ shift[number]), "K": _one(camera.intrinsics)},
            "img_size": np.array([camera.height, camera.width]),
            "frame_id": f"{number:05d}",
            "global_step": number,
        }  # fmt: skip


def _pixel3dmm_frames(job: ExportJob) -> Iterator[_Content]:
    track, camera = job.track, job.track.camera
    face = _face(job) | {"neck": six_numbers(track.neck_pose), "R": six_numbers(track.rotation)}
    linear, offsets = joint_motion(track, job.head)
    turn, shift = linear[:, _ROOT], offsets[:, _ROOT]
    side = max(camera.width, camera.height)
    left, top = (camera.width - side) / 2, (camera.height - side) / 2
    per_pixel, middle = _PIXEL3DMM_SIDE / side, (_PIXEL3DMM_SIDE + 1) / 2
    centre = (np.array([camera.cx - left, camera.cy - top]) * per_pixel - middle) / middle
    for number in range(track.n_frames):
        moved = {"R_rotation_matrix": _one(turn[number]), "t": _one(shift[number])}
        yield {
            "flame": _row(face, number) | moved,
            "camera": {
                "R_base_0": _one(np.eye(3)), "t_base_0": _one(-np.array(CAMERA_POSITION)),
                "fl": _one(np.array([camera.focal_px / side])), "pp": _one(centre),
            },
            "img_size": np.array([_PIXEL3DMM_SIDE, _PIXEL3DMM_SIDE]),
            "frame_id": f"{number:05d}",
            "global_step": number,
        }  # fmt: skip


def _row(face: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    return {name: _one(values[number]) for name, values in face.items()}


def _one(values: np.ndarray) -> np.ndarray:
    """With a first axis of one, float32, and memory of its own: a view would be saved with all that it looks into."""
    return np.array(values[None], np.float32)
