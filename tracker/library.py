"""What a notebook calls: a track, or everybody's, in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tracker.errors import UserError
from tracker.loaded import Loaded
from tracker.observe.survey import survey
from tracker.pipeline import LARGEST, Request, run
from tracker.progress import Progress, silent
from tracker.result import TrackResult
from tracker.settings import load_settings
from tracker.video.reader import VideoPart


def track(
    video: str | Path,
    preset: str = "balanced",
    *,
    config: str | Path | None = None,
    part: VideoPart = VideoPart(),
    head: str | Path | None = None,
    network: str = "lite",
    landmarker: str | Path | None = None,
    focal_px: float | None = None,
    fov_deg: float | None = None,
    intrinsics: str | Path | None = None,
    device: str = "auto",
    photos: bool = False,
    start_from: str | Path | None = None,
    person: int | str = LARGEST,
    progress: Progress = silent,
) -> TrackResult:
    """Track the head in a video. Nothing is printed, and nothing is written but scratch files in the system's temporary folder.

    Args:
        video: a file of any container, or a folder of images.
        preset: ``fast``, ``balanced`` or ``best``.
        config: a settings file laid over the preset.
        part: frames and seconds of the video that are wanted, and the rate of a folder of images.
        head: a FLAME file, a folder that holds one, or a ``.npz`` head; the default head when None.
        network: ``lite``, ``official``, or a file.
        landmarker: MediaPipe's model file; the one that comes with the project when None.
        focal_px, fov_deg, intrinsics: what is known of the camera: focal length in pixels, horizontal field of view in degrees, or
            a file with OpenCV's 3 × 3 matrix; one of them at most.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        photos: ``video`` is a folder of photos of one person, or one photo, not frames of a video.
        start_from: an earlier result for this video, or another tracker's, to begin the fit from (:mod:`tracker.importing`).
        person: of several people: ``largest``, the one whose face is the largest at the beginning, or a number, from 1 for the one whose
            face covers most of the video. For all of them see :func:`track_people`.
        progress: told how far it is; see :data:`tracker.progress.Progress`.

    Raises:
        UserError: anything about the input, the options or the machine that stands in the way.
    """
    if person != LARGEST and not isinstance(person, int):
        raise UserError(f"person {person!r}: give largest or a number; track_people() tracks each person")
    request = requested(
        video, preset, config=config, part=part, head=head, network=network, landmarker=landmarker, focal_px=focal_px, fov_deg=fov_deg,
        intrinsics=intrinsics, device=device, photos=photos, start_from=start_from, person=person,
    )  # fmt: skip
    return run(request, progress=progress)


def track_people(video: str | Path, preset: str = "balanced", *, progress: Progress = silent, **options: Any) -> list[TrackResult]:
    """Track everybody in a video, those first whose faces cover more of it. The people are looked for once.

    Args:
        video, preset, progress, options: as for :func:`track`, without ``person`` and ``photos``.

    Raises:
        UserError: see :func:`track`; also where somebody is seen too little to be tracked.
    """
    request, loaded = requested(video, preset, **options), Loaded()
    with TemporaryDirectory(prefix="head-track-") as folder:
        people = survey(request.source, Path(folder), request.landmarker, progress)
    numbers = range(1, max(len(people), 1) + 1)
    return [run(replace(request, person=number), people=people, loaded=loaded, progress=progress) for number in numbers]


def requested(
    video: str | Path,
    preset: str,
    *,
    config: str | Path | None = None,
    head: str | Path | None = None,
    landmarker: str | Path | None = None,
    intrinsics: str | Path | None = None,
    start_from: str | Path | None = None,
    **others: Any,
) -> Request:
    """The request that :func:`track`'s arguments make.

    Raises:
        UserError: settings that cannot be read.
    """
    settings = load_settings(preset, None if config is None else Path(config))
    given = {"head": head, "landmarker": landmarker, "intrinsics": intrinsics, "start_from": start_from}
    paths = {name: None if path is None else Path(path) for name, path in given.items()}
    return Request(Path(video), settings, preset, **paths, **others)
