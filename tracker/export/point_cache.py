"""``mdd/`` and ``pc2/``: point caches, the moving vertices that nearly every 3D program lays over a mesh of the same topology.

Each folder holds the cache and ``rest.obj``, the person's neutral face with uv and named groups, whose vertices the cache moves: in
Blender the modifier *Mesh Cache*. Vertices are the head's own, in its order, in world metres with y up, as in the mesh.

An MDD file (big-endian) says each frame's time, counted from the first frame's; a PC2 file (little-endian) only knows even steps, and
frame k stands at step k.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from flame_assets.asset import HeadAsset
from flame_assets.atomic_files import atomic_folder
from tracker.export.obj import frame_writer
from tracker.export.registry import ExportJob
from tracker.head_model import HeadModel
from tracker.head_track import HeadTrack
from tracker.track_vertices import track_vertices

REST_NAME = "rest.obj"


def export_mdd(job: ExportJob) -> list[str]:
    """Write ``mdd/head.mdd`` and ``mdd/rest.obj``."""
    return _write(job, "mdd", mdd_header, ">f4")


def export_pc2(job: ExportJob) -> list[str]:
    """Write ``pc2/head.pc2`` and ``pc2/rest.obj``."""
    return _write(job, "pc2", pc2_header, "<f4")


def mdd_header(track: HeadTrack, points: int) -> bytes:
    """Counts of frames and points, and the frames' times, seconds."""
    times = (track.timestamps - track.timestamps[0]).astype(">f4")
    return struct.pack(">2i", track.n_frames, points) + times.tobytes()


def pc2_header(track: HeadTrack, points: int) -> bytes:
    """Name, version, count of points, first frame, frames per sample, count of samples."""
    return struct.pack("<12siiffi", b"POINTCACHE2", 1, points, 0.0, 1.0, track.n_frames)


def rest_vertices(track: HeadTrack, asset: HeadAsset) -> Float[np.ndarray, "verts 3"]:
    """The person's neutral face, joints at rest, at the head's own place, metres."""
    return HeadModel.from_asset(asset).with_shape(torch.as_tensor(track.shape, dtype=torch.float32)).vertices.numpy()


def _write(job: ExportJob, name: str, header: Callable[[HeadTrack, int], bytes], number_type: str) -> list[str]:
    with atomic_folder(job.folder / name) as folder:
        frame_writer(job.head)(folder / REST_NAME, rest_vertices(job.track, job.head))
        with Path(folder / f"head.{name}").open("wb") as file:
            file.write(header(job.track, job.head.n_vertices))
            for number, vertices in enumerate(track_vertices(job.track, job.head), 1):
                file.write(vertices.astype(number_type).tobytes())
                job.written(number)
    return [f"{name}/"]
