"""Every other tracker whose files can be read, and the one function that reads them.

To add one: a function that takes a path and a head and gives a :class:`tracker.importing.foreign.ForeignTrack`, and a line in
:data:`IMPORTERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.errors import UserError

if TYPE_CHECKING:  # names and descriptions must not cost the import of numpy and torch
    from flame_assets.asset import HeadAsset
    from tracker.head_track import HeadTrack
    from tracker.importing.foreign import Crop, ForeignTrack
    from tracker.video.reader import VideoSource


@dataclass(frozen=True)
class Importer:
    """One tracker's files.

    Attributes:
        name: what the user calls it; that of the export with the same files.
        files: what is read, as the user sees it.
        reader: ``module:function``, of a path and a head to a :class:`ForeignTrack`; imported on use.
        edition: of FLAME that the tracker itself uses.
    """

    name: str
    files: str
    reader: str
    edition: str


IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        Importer("vhap", "tracked_flame_params_*.npz, or its folder", "tracker.importing.npz_files:read_vhap", "2023"),
        Importer("metrical-tracker", "the folder checkpoint/ of *.frame", "tracker.importing.frame_files:read_metrical", "2020"),
        Importer("pixel3dmm", "the folder checkpoint/ of *.frame", "tracker.importing.frame_files:read_pixel3dmm", "2020"),
        Importer("smirk", "an .npz of its outputs under their names, a frame a row", "tracker.importing.npz_files:read_smirk", "2020"),
    )
}
"""All trackers by name."""


def import_track(
    path: Path | str,
    head: HeadAsset,
    name: str | None = None,
    *,
    source: VideoSource | None = None,
    crop: Crop | str | None = None,
    frame_rate: float = 25.0,
    part: bool = False,
) -> tuple[HeadTrack, tuple[str, ...]]:
    """Another tracker's result as a track of a FLAME head.

    Args:
        path: of the tracker's file or folder.
        head: the FLAME head that the tracker used.
        name: of :data:`IMPORTERS`; the content tells when None.
        source: the video; the track is then in its pixels, at its times.
        crop: the part of the video's picture that the tracker saw, or ``square``: the square around the whole of it.
        frame_rate: of the video, where that is not given.
        part: the video is only a part, from its beginning: what the file says beyond that is left out.

    Returns:
        The track, and what the user should know of it, one sentence each.

    Raises:
        UserError: nothing that can be read, not of this head, or not of this video.
    """
    from tracker.importing.foreign import around, on_full_frame

    path, name = Path(path), name or tracker_of(Path(path))
    found = _read(name, path, head)
    notes = (*found.notes, *_edition_note(IMPORTERS[name], head))
    if source is None:
        return found.to_track(head, found.numbers / frame_rate, frame_rate), notes
    with source.open() as video:
        where = around(video.width, video.height) if isinstance(crop, str) else crop
        found = on_full_frame(found, video.width, video.height, where)
        times, rate = [frame.timestamp for frame in video], video.frame_rate
    inside = found.numbers < len(times)
    if part and inside.any():
        found = found.select(inside)
    elif not inside.all():
        raise UserError(f"{path}: it has a frame {found.numbers[-1]}, and the video {source.path} only {len(times)} frames; give the video it was made from")
    import numpy as np

    return found.to_track(head, np.array(times)[found.numbers], rate), notes


def read_any(path: Path, head: HeadAsset, frame_rate: float, source: VideoSource | None = None) -> HeadTrack:
    """This project's own ``flame_params.npz``, or another tracker's result: in the video's pixels where that is given, else in those that the
    tracker saw.

    Args:
        path: a file or a folder; the content says which tracker's.
        head: the head that the parameters belong to.
        frame_rate: of the clip, for files that do not tell times.
        source: the clip, or its beginning.

    Raises:
        UserError: nothing that can be read, or not of this head.
    """
    from tracker.export.flame_params import FILE_NAME, load_track

    path = Path(path)
    own = path / FILE_NAME if (path / FILE_NAME).is_file() else path
    if own.is_file() and own.suffix != ".frame" and is_own(own):
        track = load_track(own)
        if track.head_sha256 != head.sha256():
            raise UserError(f"{own}: made with head {track.head_name!r}, not with {head.name!r}; give that head")
        return track
    return import_track(path, head, source=source, frame_rate=frame_rate, part=True)[0]


def is_own(path: Path) -> bool:
    """Whether a file is this project's ``flame_params.npz``.

    Raises:
        UserError: it is no ``.npz``.
    """
    from tracker.importing.npz_files import keys_of

    return "head_sha256" in keys_of(path)


def tracker_of(path: Path) -> str:
    """Name of the tracker that wrote what lies at ``path``.

    Raises:
        UserError: nothing there can be read.
    """
    from tracker.importing import frame_files, npz_files

    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    frames = frame_files.frames_in(path)
    if frames:
        return "metrical-tracker" if frame_files.is_metrical(frames[0]) else "pixel3dmm"
    if path.is_dir():
        if any(path.glob("tracked_flame_params_*.npz")):
            return "vhap"
        raise UserError(f"{path}: it holds no *.frame of metrical-tracker or Pixel3DMM, and no tracked_flame_params_*.npz of VHAP")
    return "smirk" if npz_files.is_smirk(npz_files.keys_of(path)) else "vhap"


def _edition_note(importer: Importer, head: HeadAsset) -> tuple[str, ...]:
    """Files do not say which edition their coefficients are of; the head's name may."""
    other = "2020" if importer.edition == "2023" else "2023"
    if other not in head.name:
        return ()
    return (f"{importer.name} uses FLAME {importer.edition}, and this head is called {head.name!r}: another edition shows another face",)


def _read(name: str, path: Path, head: HeadAsset) -> ForeignTrack:
    """What a tracker's files say.

    Raises:
        UserError: there is no such tracker, or files that it does not write.
    """
    if name not in IMPORTERS:
        raise UserError(f"unknown tracker {name!r}; known are {', '.join(IMPORTERS)}")
    module, function = IMPORTERS[name].reader.split(":")
    reader: Callable[[Path, HeadAsset], ForeignTrack] = getattr(import_module(module), function)
    import numpy as np

    try:
        with np.errstate(all="ignore"):  # what is no number in the end is refused
            return reader(path, head)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:  # what odd arrays lead to
        raise UserError(f"{path}: not as {name} writes it ({type(error).__name__}: {' '.join(str(error).split())})") from error
