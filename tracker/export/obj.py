"""Wavefront OBJ: one text file per frame, with uv and the parts of the surface as groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flame_assets.asset import HeadAsset
from tracker.export.meshes import FrameWriter, write_sequence
from tracker.export.registry import ExportJob
from tracker.export.surface import surface_parts


def export(job: ExportJob) -> list[str]:
    """Write ``meshes/00000.obj`` and so on."""
    return write_sequence(job, "obj", frame_writer(job.head))


def frame_writer(asset: HeadAsset) -> FrameWriter:
    """Text by hand: trimesh spends seven times as long, and would renumber vertices along the uv seams.

    Everything after the vertices (uv, groups, faces) is the same in all frames and formatted once.
    """
    line = "v %.6f %.6f %.6f\n" * asset.n_vertices
    rest = _rest(asset)

    def write(path: Path, vertices: np.ndarray) -> None:
        path.write_text(line % tuple(vertices.ravel().tolist()) + rest, encoding="ascii")

    return write


def _rest(asset: HeadAsset) -> str:
    corners = asset.faces + 1
    pattern = "f %d %d %d\n"
    text = ""
    if asset.uv is not None and asset.uv_faces is not None:
        text = ("vt %.6f %.6f\n" * len(asset.uv)) % tuple(asset.uv.ravel().tolist())
        corners = np.stack([corners, asset.uv_faces + 1], axis=-1).reshape(-1, 6)
        pattern = "f %d/%d %d/%d %d/%d\n"
    for name, triangles in surface_parts(asset).items():
        text += f"g {name}\n" + (pattern * len(triangles)) % tuple(corners[triangles].ravel().tolist())
    return text
