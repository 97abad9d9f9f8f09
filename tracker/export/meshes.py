"""One mesh file per frame, for tools that read sequences of meshes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float

from flame_assets.asset import HeadAsset
from flame_assets.atomic_files import atomic_folder
from tracker.export.surface import surface_parts
from tracker.export.vertices import track_vertices
from tracker.head_track import HeadTrack

FORMATS = ("obj", "ply")

FrameWriter = Callable[[Path, Float[np.ndarray, "verts 3"]], None]


def write_mesh_sequence(folder: Path, track: HeadTrack, asset: HeadAsset, file_format: str) -> None:
    """Write ``folder/00000.obj`` (or ``.ply``) and so on, one file per frame, world coordinates in metres.

    The numbering has no gaps: frames without a tracked head repeat the values that the track holds for them. Vertices
    and faces are the head's own, in its order. Frames are computed and written one after the other.

    Raises:
        UserError: ``asset`` is not the track's head.
        ValueError: ``file_format`` is not in :data:`FORMATS`.
    """
    if file_format not in FORMATS:
        raise ValueError(f"mesh format {file_format!r}; known are {', '.join(FORMATS)}")
    write_frame = _obj_writer(asset) if file_format == "obj" else _ply_writer(asset)
    with atomic_folder(Path(folder)) as temporary:
        for number, vertices in enumerate(track_vertices(track, asset)):
            write_frame(temporary / f"{number:05d}.{file_format}", vertices)


def _ply_writer(asset: HeadAsset) -> FrameWriter:
    def write(path: Path, vertices: np.ndarray) -> None:
        trimesh.Trimesh(vertices, asset.faces, process=False).export(path)

    return write


def _obj_writer(asset: HeadAsset) -> FrameWriter:
    """Text by hand: trimesh spends seven times as long, and would renumber vertices along the uv seams.

    Everything after the vertices (uv, groups, faces) is the same in all frames and formatted once.
    """
    line = "v %.6f %.6f %.6f\n" * asset.n_vertices
    rest = _obj_rest(asset)

    def write(path: Path, vertices: np.ndarray) -> None:
        path.write_text(line % tuple(vertices.ravel().tolist()) + rest, encoding="ascii")

    return write


def _obj_rest(asset: HeadAsset) -> str:
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
