"""One mesh file per frame, for tools that read sequences of meshes: what the formats of that kind share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from flame_assets.atomic_files import atomic_folder
from tracker.export.registry import ExportJob
from tracker.track_vertices import track_vertices

FOLDER = "meshes"

FrameWriter = Callable[[Path, Float[np.ndarray, "verts 3"]], None]


def write_sequence(job: ExportJob, ending: str, write_frame: FrameWriter) -> list[str]:
    """Write ``meshes/00000.ENDING`` and so on, one file per frame, world coordinates in metres.

    The numbering has no gaps: frames without a tracked head repeat the values that the track holds for them. Vertices
    and faces are the head's own, in its order. Frames are computed and written one after the other. An older sequence with
    this ending is replaced, those with other endings stay.
    """
    with atomic_folder(job.folder / FOLDER, replaces=f"*.{ending}") as temporary:
        for number, vertices in enumerate(track_vertices(job.track, job.head)):
            write_frame(temporary / f"{number:05d}.{ending}", vertices)
            job.written(number + 1)
    return [f"{FOLDER}/"]
