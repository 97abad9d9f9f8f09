"""Every format that a track can be written in, and the one function that writes them.

To add a format: a module in this folder with a function that takes an :class:`ExportJob`, writes into its folder and
returns the names of what it wrote; and a line in :data:`EXPORTERS`. ``--export``, ``tools/export.py``, the table in
``docs/outputs.md`` and the tests read the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.errors import UserError
from tracker.progress import Progress, silent

if TYPE_CHECKING:  # names and descriptions must not cost the import of numpy and torch
    import numpy as np
    from jaxtyping import UInt8

    from flame_assets.asset import HeadAsset
    from tracker.camera import Camera
    from tracker.head_track import HeadTrack
    from tracker.video.reader import VideoSource

@dataclass(frozen=True)
class ExportJob:
    """What a format gets.

    Attributes:
        track: what to write.
        head: the head that the track was made with.
        folder: where to write; it exists.
        texture: the clip's texture, RGB, row 0 at v = 1; None when there is none.
        written: to be called with the number of frames written so far, by formats that take long.
        source: the video that the track was made from, for formats that hold its pictures; None where it is not at hand.
    """

    track: HeadTrack
    head: HeadAsset
    folder: Path
    texture: UInt8[np.ndarray, "size size 3"] | None
    written: Callable[[int], None]
    source: VideoSource | None = None


@dataclass(frozen=True)
class Exporter:
    """One format.

    Attributes:
        name: what the user calls it.
        files: what it writes, as the user sees it.
        content: one line about what is in there.
        writer: ``module:function``, of :class:`ExportJob` to the names it wrote; imported on use.
        by_default: whether every run of ``track.py`` writes it.
        needs_texture: whether there is nothing to write without a texture.
        needs_video: whether it holds the video's pictures.
        one_person: whether it holds one identity and pictures of it: frames of others, where shots show several people, are left out.
        library: ``module:package`` that it is made with, when a plain installation lacks that one.
        refuses: ``module:function``, of a head to the reason why the format cannot hold it, None for heads that it can; empty
            for formats that hold every head.
        refuses_camera: the same of a :class:`tracker.camera.Camera`; empty for formats that hold every camera, or none.
    """

    name: str
    files: str
    content: str
    writer: str
    by_default: bool = False
    needs_texture: bool = False
    needs_video: bool = False
    one_person: bool = False
    library: str = ""
    refuses: str = ""
    refuses_camera: str = ""

    @property
    def missing(self) -> str | None:
        """The package that has to be installed first; None when nothing is missing."""
        module, _, package = self.library.partition(":")
        return package if module and find_spec(module) is None else None


_ONLY_FLAME = "tracker.export.flame_layout:refuses"

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        Exporter("npz", "flame_params.npz", "head parameters of every frame, and the camera", "tracker.export.flame_params:export", by_default=True),
        Exporter("glb", "head.glb", "the animated head, glTF 2.0", "tracker.export.gltf:export", by_default=True),
        Exporter(
            "texture", "texture.png", "colours of the skin without the light, in the head's uv layout", "tracker.export.texture_png:export",
            by_default=True, needs_texture=True, refuses="tracker.export.texture_png:refuses",
        ),
        Exporter("obj", "meshes/00000.obj …", "one mesh per frame, Wavefront OBJ with uv and named groups", "tracker.export.obj:export"),
        Exporter("ply", "meshes/00000.ply …", "one mesh per frame, binary PLY", "tracker.export.ply:export"),
        Exporter(
            "usd", "head.usdz", "the animated head as USD: skeleton, blend shapes, camera", "tracker.export.usd:export_usdz",
            library="pxr:usd-core",
        ),
        Exporter(
            "usdc", "usdc/head.usdc …", "the same as a plain layer, its texture beside it", "tracker.export.usd:export_usdc",
            library="pxr:usd-core",
        ),
        Exporter(
            "abc", "head.abc", "the moving mesh and the camera as Alembic", "tracker.export.abc_cache:export", library="alembic3d:alembic3d",
        ),
        Exporter(
            "mdd", "mdd/head.mdd + rest.obj", "moving vertices at the frames' true times, and the mesh that they move",
            "tracker.export.point_cache:export_mdd",
        ),
        Exporter("pc2", "pc2/head.pc2 + rest.obj", "the same in even steps", "tracker.export.point_cache:export_pc2"),
        Exporter("bvh", "head.bvh", "the turns of head, jaw and eyes as motion capture", "tracker.export.bvh:export"),
        Exporter(
            "livelink", "livelink.csv", "ARKit's 52 values, head and eye angles in radians, as Live Link Face saves them",
            "tracker.export.livelink:export", refuses="tracker.export.arkit_values:refuses",
        ),
        Exporter(
            "livelink-degrees", "livelink_degrees.csv", "the same with angles in degrees",
            "tracker.export.livelink:export_degrees", refuses="tracker.export.arkit_values:refuses",
        ),
        Exporter(
            "vhap", "tracked_flame_params_30.npz", "FLAME parameters as VHAP saves and loads them", "tracker.export.vhap:export",
            refuses=_ONLY_FLAME, refuses_camera="tracker.export.vhap:refuses_camera",
        ),
        Exporter(
            "metrical-tracker", "metrical_tracker/checkpoint/00000.frame …", "FLAME parameters and a moving camera, as metrical-tracker saves them",
            "tracker.export.frame_files:export_metrical", refuses=_ONLY_FLAME,
        ),
        Exporter(
            "pixel3dmm", "pixel3dmm/checkpoint/00000.frame …", "FLAME parameters and camera, as Pixel3DMM saves them",
            "tracker.export.frame_files:export_pixel3dmm", refuses=_ONLY_FLAME,
        ),
        Exporter(
            "gaussian-avatars", "gaussian_avatars/transforms.json …", "data set for GaussianAvatars: pictures, masks, FLAME parameters, camera",
            "tracker.export.gaussian_avatars:export", needs_video=True, one_person=True, refuses=_ONLY_FLAME,
        ),
        Exporter(
            "nerf", "nerf/transforms.json …", "pictures, masks and cameras around the head at rest, as NeRF's programs read them",
            "tracker.export.nerf:export", needs_video=True, one_person=True,
        ),
    )
}  # fmt: skip
"""All formats by name, in the order in which they are written."""


def export(
    track: HeadTrack,
    head: HeadAsset,
    formats: str | Iterable[str],
    folder: Path | str,
    *,
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
    source: VideoSource | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Write ``track`` into ``folder``, which is made if it is not there.

    Everything is checked before anything is written, and each format's output appears when it is complete.

    Args:
        track, head: what to write, and the head that it was made with.
        formats: names of :data:`EXPORTERS`, or one string of names with commas between.
        folder: where to; files of the same names are replaced.
        texture: the clip's texture, RGB, row 0 at v = 1, for the formats that hold one.
        source: the video that the track was made from, for the formats that hold its pictures.
        progress: told of the formats that take long.

    Returns:
        Names of what was written, in the folder; a folder's ends with a slash.

    Raises:
        UserError: an unknown format, one whose library is not installed, another head than the track's, a format that cannot hold
            this head or this camera, or needs a texture or a video where there is none, or a folder that cannot be written.
    """
    from tracker.track_vertices import check_head

    exporters = check_formats(formats, head, texture is not None, source is not None, track.camera)
    check_head(track, head)
    folder, names = Path(folder), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for exporter in exporters:
            shown = track.of_main_person() if exporter.one_person else track
            job = ExportJob(shown, head, folder, texture, partial(_tell, progress, exporter.name, track.n_frames), source)
            names += _imported(exporter.writer)(job)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot be written ({reason}); make room there, or choose another folder") from error
    return list(dict.fromkeys(names))


def check_formats(
    formats: str | Iterable[str], head: HeadAsset | None = None, textured: bool = True, filmed: bool = True, camera: Camera | None = None
) -> list[Exporter]:
    """The named formats in the registry's order, each once.

    Args:
        formats: as for :func:`export`.
        head: to be held by all of them; not checked when None.
        textured: whether there is, or will be, a texture.
        filmed: whether the video is at hand.
        camera: the track's, or what is known of it before there is a track; not checked when None.

    Raises:
        UserError: as for :func:`export`.
    """
    wanted = parse_formats(formats)
    chosen = [exporter for name, exporter in EXPORTERS.items() if name in wanted]
    for exporter in chosen:
        if exporter.missing:
            raise UserError(f"format {exporter.name}: it needs {exporter.missing}, which is not installed: pip install {exporter.missing}")
        if exporter.needs_texture and not textured:
            raise UserError(f"format {exporter.name}: there is no texture; only the preset best makes one, of heads with uv")
        if exporter.needs_video and not filmed:
            raise UserError(f"format {exporter.name}: it holds the video's pictures; give the video (tools/export.py --video PATH)")
        reason = _imported(exporter.refuses)(head) if exporter.refuses and head is not None else None
        if reason:
            raise UserError(f"format {exporter.name}: it cannot hold the head {head.name!r}: {reason}; leave the format out")
        reason = _imported(exporter.refuses_camera)(camera) if exporter.refuses_camera and camera is not None else None
        if reason:
            raise UserError(f"format {exporter.name}: it cannot hold the camera: {reason}; leave the format out, or track without --intrinsics")
    return chosen


def parse_formats(formats: str | Iterable[str]) -> tuple[str, ...]:
    """Names of formats, from names or from one string of names with commas between.

    Raises:
        UserError: one that is unknown, or none at all.
    """
    names = formats.split(",") if isinstance(formats, str) else formats
    wanted = tuple(name.strip().lower() for name in names if name.strip())
    unknown = [name for name in wanted if name not in EXPORTERS]
    if unknown or not wanted:
        what = f"unknown format {unknown[0]!r}" if unknown else "no format is named"
        raise UserError(f"{what}; known are {', '.join(EXPORTERS)}")
    return wanted


def formats_of_run(asked: Iterable[str] = (), *, textured: bool) -> tuple[str, ...]:
    """What a run of the tracker writes: what every run does, and what was asked for besides."""
    asked = set(asked)
    return tuple(
        e.name for e in EXPORTERS.values() if e.name in asked or (e.by_default and (textured or not e.needs_texture))
    )


def _imported(name: str) -> Callable:
    module, function = name.split(":")
    return getattr(import_module(module), function)


def _tell(progress: Progress, name: str, frames: int, done: int) -> None:
    progress(name, done, frames)
