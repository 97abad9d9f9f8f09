"""PLY: one binary file per frame, positions and triangles only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from flame_assets.asset import HeadAsset
from tracker.export.meshes import FrameWriter, write_sequence
from tracker.export.registry import ExportJob


def export(job: ExportJob) -> list[str]:
    """Write ``meshes/00000.ply`` and so on."""
    return write_sequence(job, "ply", frame_writer(job.head))


def frame_writer(asset: HeadAsset) -> FrameWriter:
    """Through trimesh; vertices and triangles stay in the head's order."""

    def write(path: Path, vertices: np.ndarray) -> None:
        trimesh.Trimesh(vertices, asset.faces, process=False).export(path)

    return write
