"""Single-view 3D face reconstruction of the NeRSemble benchmark: pictures in, the archive that its submission system scores out.

The ground truth is not public, so this module writes submissions instead of scores; the package ``nersemble-benchmark`` downloads the
pictures and can check the archive. Pictures lie at ``PPP/SEQUENCE_TIMESTEP_SERIAL/rgb.png`` (three-digit participant). The archive holds,
under the same names with the time step padded to three digits, ``mesh_posed.ply`` and ``mesh_neutral.ply``, and for meshes of another
topology than FLAME's the seven NoW landmarks as ``landmarks_*.npy``, in :data:`tracker.evaluation.protocols.now.IBUG_LANDMARKS`' order. The
system aligns meshes itself; ours are in metres, in camera space where posed.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from flame_assets.atomic_files import atomic_file
from tracker.errors import UserError
from tracker.evaluation.baselines.interface import Tracked
from tracker.evaluation.protocols.now import IBUG_LANDMARKS, neutral_mesh

_FLAME_VERTICES = 5023
_KEY = re.compile(r"(?P<sequence>.+)_(?P<timestep>\d+)_(?P<serial>\d+)")


@dataclass(frozen=True)
class SvfrPicture:
    """One of the benchmark's pictures."""

    participant: int
    sequence: str
    timestep: int
    serial: str
    file: Path

    @property
    def folder(self) -> str:
        """Its folder in the archive."""
        return f"{self.participant:03d}/{self.sequence}_{self.timestep:03d}_{self.serial}"


def find_pictures(data: Path) -> list[SvfrPicture]:
    """All pictures in a folder as downloaded.

    Raises:
        UserError: there are none.
    """
    found = []
    for file in sorted(Path(data).glob("*/*/rgb.png")):
        key = _KEY.fullmatch(file.parent.name)
        if key is not None and file.parent.parent.name.isdigit():
            found.append(SvfrPicture(int(file.parent.parent.name), key["sequence"], int(key["timestep"]), key["serial"], file))
    if not found:
        raise UserError(f"{data}: no pictures of the benchmark there (PPP/SEQUENCE_TIMESTEP_SERIAL/rgb.png)")
    return found


def write_submission(path: Path, results: Iterable[tuple[SvfrPicture, Tracked]]) -> int:
    """Write the archive from results of one frame each; returns how many pictures are in it.

    Raises:
        UserError: there are no results.
    """
    count = 0
    with atomic_file(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for picture, tracked in results:
            for name, content in _files(tracked):
                archive.writestr(f"{picture.folder}/{name}", content)
            count += 1
        if not count:
            raise UserError(f"{path}: nothing to write, no picture has a result")
    return count


def _files(tracked: Tracked) -> Iterator[tuple[str, bytes]]:
    head = tracked.head
    posed = tracked.vertices[0]
    neutral, neutral_marks = neutral_mesh(tracked)
    posed_marks = head.landmarks["ibug68"].positions(posed, head.faces)[list(IBUG_LANDMARKS)]
    for task, vertices, marks in (("posed", posed, posed_marks), ("neutral", neutral, neutral_marks)):
        yield f"mesh_{task}.ply", trimesh.Trimesh(vertices, head.faces, process=False).export(file_type="ply")
        if head.n_vertices != _FLAME_VERTICES:
            buffer = io.BytesIO()
            np.save(buffer, marks.astype(np.float64), allow_pickle=False)
            yield f"landmarks_{task}.npy", buffer.getvalue()
