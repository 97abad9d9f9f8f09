"""``tracked_flame_params_30.npz``: a track as VHAP saves it, whole enough for VHAP to load and to go on from.

VHAP's world is this project's (camera at (0, 0, 1) m, OpenGL axes, rotation about the root joint). What nothing here estimates is neutral:
no static offsets, no extra texture, white light from everywhere.
"""

from __future__ import annotations

import numpy as np

from flame_assets.stable_npz import write_stable_npz
from tracker.camera import Camera
from tracker.export.flame_layout import VHAP_VERTICES, flame_expressions, flame_shape
from tracker.export.registry import ExportJob
from tracker.head_track import POSE_SIZES

FILE_NAME = "tracked_flame_params_30.npz"
"""VHAP wants the number of an epoch in the name; 30 is where its own runs end."""

_TEXTURE_SIDE = 2048
_CENTRED_PX = 0.05


def refuses_camera(camera: Camera) -> str | None:
    """Why a camera has no place in the file: its principal point is not the middle of the picture."""
    middle = (camera.width / 2, camera.height / 2)
    if max(abs(camera.cx - middle[0]), abs(camera.cy - middle[1])) <= _CENTRED_PX:
        return None
    return (
        f"the format puts the principal point in the middle of the picture, ({middle[0]:g}, {middle[1]:g}), and this one's is "
        f"({camera.cx:g}, {camera.cy:g})"
    )


def export(job: ExportJob) -> list[str]:
    """Write ``tracked_flame_params_30.npz``."""
    track = job.track
    lights = np.zeros((9, 3), np.float32)
    lights[0] = np.sqrt(4 * np.pi)  # the constant harmonic is 1 / sqrt(4 π): every direction is as bright as the texture
    arrays = {name: getattr(track, name).astype(np.float32) for name in POSE_SIZES}
    arrays |= {
        "shape": flame_shape(track),
        "expr": flame_expressions(track),
        "timestep_id": np.array([str(t) for t in track.timestep_id]),
        "n_processed_frames": np.array(0),  # in VHAP the number of the first timestep, not a count
        "focal_length": np.array([track.focal_px / max(track.image_size)], np.float32),
        "image_size": np.asarray(track.image_size, np.int64),
        "lights": lights,
        "static_offset": np.zeros((1, VHAP_VERTICES, 3), np.float32),
        "tex_extra": np.zeros((3, _TEXTURE_SIDE, _TEXTURE_SIDE), np.float32),
    }
    write_stable_npz(job.folder / FILE_NAME, arrays)
    return [FILE_NAME]
