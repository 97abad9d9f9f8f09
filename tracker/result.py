"""What tracking gives: a track in memory, its head, and the ways to look at it and to write it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float, UInt8

from flame_assets.asset import HeadAsset
from tracker.errors import UserError
from tracker.export import export
from tracker.head_track import HeadTrack
from tracker.progress import Progress, silent
from tracker.rendering.devices import Device
from tracker.stages.fit import Fit
from tracker.track_vertices import track_vertices
from tracker.video.reader import VideoSource


@dataclass(frozen=True)
class TrackResult:
    """A finished track.

    Attributes:
        fit: the track, and what its fit found beside it.
        head: the head model that it moves.
        source: the video that it was made from.
        texture: the clip's texture, RGB, row 0 at v = 1, where the preset makes one.
        device: where it was made.
        preset: its name.
        notes: what the user should know, one sentence each.
        where: what worked where: the fit, the drawing, the network.
        seconds: wall clock by stage.
    """

    fit: Fit
    head: HeadAsset
    source: VideoSource
    texture: UInt8[np.ndarray, "size size 3"] | None
    device: Device
    preset: str
    notes: tuple[str, ...]
    where: dict[str, str]
    seconds: dict[str, float]

    @property
    def track(self) -> HeadTrack:
        """Parameters of the head in every frame."""
        return self.fit.track

    def vertices(self, frames: Sequence[int] | slice | None = None) -> Float[np.ndarray, "frames verts 3"]:
        """World positions of the head's vertices, metres, in some frames or in all."""
        every = np.arange(self.track.n_frames)
        wanted = every if frames is None else every[frames if isinstance(frames, slice) else list(frames)]
        if len(wanted) == 0:
            return np.empty((0, self.head.n_vertices, 3), np.float32)
        chosen, place = np.unique(wanted, return_inverse=True)
        return np.stack(list(track_vertices(self.track.select(chosen), self.head)))[place]

    def export(self, formats: str, path: str | Path, progress: Progress = silent) -> list[Path]:
        """Write formats (``"glb"``, ``"npz,obj"``, see :mod:`tracker.export`).

        Args:
            formats: names with commas between.
            path: a folder, or, for one format that is one file, the file itself.
            progress: told of the formats that take long.

        Returns:
            What was written.

        Raises:
            UserError: as :func:`tracker.export.export`; a file's name for formats that write more than one.
        """
        path = Path(path)
        if not path.suffix or path.is_dir():
            names = export(self.track, self.head, formats, path, texture=self.texture, source=self.source, progress=progress)
            return [path / name for name in names]
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
            names = export(self.track, self.head, formats, folder, texture=self.texture, source=self.source, progress=progress)
            if len(names) != 1 or names[0].endswith("/"):
                raise UserError(f"{path}: {formats} is more than one file; give the name of a folder")
            os.replace(Path(folder) / names[0], path)
        return [path]
