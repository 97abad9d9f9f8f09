"""A run of the command line: everything in one folder, complete or not at all."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracker.camera import Camera
from tracker.errors import UserError
from tracker.export import EXPORTERS, check_formats, export, formats_of_run, parse_formats
from tracker.export.gltf import GLB_NAME
from tracker.loaded import Loaded
from tracker.observe.observations import frames_left
from tracker.observe.reading import PICTURES
from tracker.observe.survey import Survey, survey
from tracker.overlay import nobody_watches, write_overlay
from tracker.photo_overlay import write_photo_overlays
from tracker.pipeline import ALL, OBSERVATIONS, Request, camera_of, run, user_errors
from tracker.progress import Progress, Say, StageClock, say_nothing, silent
from tracker.report import ReportData, Strip, write_report
from tracker.result import TrackResult
from tracker.run_report import PAGE, RunReport, peak_memory_mb, shots_of
from tracker.work_identity import asked_for, video_identity, work_identity
from tracker.workspace import SUMMARY, read_json, result_folder


def track_to_folder(
    request: Request,
    out: Path,
    name: str | None = None,
    *,
    formats: Sequence[str] = (),
    overlay: bool = True,
    page: bool = True,
    restart: bool = False,
    loaded: Loaded | None = None,
    progress: Progress = silent,
    say: Say = say_nothing,
) -> RunReport:
    """Track a video and write ``out/name/``: parameters, the animated mesh, the overlay, a summary, and what else is asked for.

    Args:
        request: what to track, and how.
        out, name: where to; the video's name without its ending when None.
        formats: of :data:`tracker.export.EXPORTERS`, besides those that every run writes.
        overlay: write overlay.mp4.
        page: write report.html.
        restart: begin anew where unfinished work of the same run lies, and replace the result of another video.
        loaded: heads and networks that earlier runs of this process have read.
        progress: told how far it is.
        say: told what becomes of unfinished work of earlier runs.

    Raises:
        UserError: anything about the input, the options or the machine that stands in the way. Nothing is written then.
        Interrupted: see :func:`tracker.workspace.result_folder`.
    """
    clock, loaded = StageClock(), loaded or Loaded()
    request.for_photos()
    _check_formats(formats, request, loaded)
    name = name or request.video.resolve().stem or "video"
    video = video_identity(request.video)
    if not restart:
        _refuse_other_video(out / name, video)
    identity = work_identity(request)
    job = _Job(formats, overlay, page, identity, video, loaded, progress, say)
    with result_folder(out, name, identity, restart=restart, say=say) as (staging, scratch):
        write = _write_people if request.person == ALL else _write_result
        return write(request, staging, scratch, out / name, job, clock)


@dataclass(frozen=True)
class _Job:
    """What is the same for all people of a video; see :func:`track_to_folder`."""

    formats: Sequence[str]
    overlay: bool
    page: bool
    identity: Mapping[str, Any]
    video: Mapping[str, Any]
    loaded: Loaded
    progress: Progress
    say: Say


def _write_people(request: Request, staging: Path, scratch: Path, folder: Path, job: _Job, clock: StageClock) -> RunReport:
    """Track each person of a video into ``person_1``, ``person_2``, …; those who cannot be tracked are told of.

    Raises:
        UserError: nobody can be.
    """
    people = survey(request.source, scratch, request.landmarker, job.progress, clock)
    reports: list[RunReport] = []
    failed: list[UserError] = []
    notes: list[str] = []
    for number in range(1, max(len(people), 1) + 1):
        name = f"person_{number}"
        (staging / name).mkdir()
        try:
            reports.append(
                _write_result(replace(request, person=number), staging / name, scratch / name, folder / name, job, StageClock(), people)
            )
        except UserError as error:
            shutil.rmtree(staging / name)
            failed.append(error)
            notes.append(f"{name}: {error}")
    if not reports:
        raise failed[0]
    seconds = Counter(clock.seconds)
    for one in reports:
        seconds.update(one.seconds)
    files = (*(f"{one.folder.name}/" for one in reports), SUMMARY)
    said = (*notes, *(f"{one.folder.name}: {note}" for one in reports for note in one.notes))
    report = replace(
        reports[0], folder=folder, files=files, seconds=dict(seconds), total_seconds=clock.total, peak_memory_mb=peak_memory_mb(),
        notes=said, asked=asked_for(request, job.formats, job.overlay, job.page), persons=tuple(reports),
    )  # fmt: skip
    (staging / SUMMARY).write_text(json.dumps(report.json(), indent=2) + "\n", encoding="utf-8")
    return report


def _write_result(
    request: Request, staging: Path, scratch: Path, folder: Path, job: _Job, clock: StageClock, people: Survey | None = None
) -> RunReport:
    """Track one person, and write all files of the result into ``staging``; ``folder`` is where they go in the end."""
    frames, complete = frames_left(scratch / OBSERVATIONS)
    if frames:
        job.say(f"going on with an earlier run: {'all' if complete else 'the first'} {frames} frames have been looked at")
    progress = job.progress
    result = run(request, work=scratch, draws=job.overlay, loaded=job.loaded, people=people, progress=progress, clock=clock)
    files: list[str] = []
    for chosen in formats_of_run(job.formats, textured=result.texture is not None):
        with clock.stage(chosen):
            files += export(result.track, result.head, chosen, staging, texture=result.texture, source=result.source, progress=progress)
    strip = Strip(result.track, result.fit.error_percent) if job.page else None
    if job.overlay:
        with clock.stage("overlay"):
            files.append(_draw(request, result, staging, progress, strip))
    files = [*dict.fromkeys(files), *([PAGE] if job.page else []), SUMMARY]
    told = (result, folder, files, clock, job.video, asked_for(request, job.formats, job.overlay, job.page))
    if strip is not None:
        with clock.stage("report"):
            _write_page(staging, request, report_of(*told), result, strip, job.identity)
    report = report_of(*told)
    (staging / SUMMARY).write_text(json.dumps(report.json(), indent=2) + "\n", encoding="utf-8")
    return report


def _check_formats(formats: Sequence[str], request: Request, loaded: Loaded) -> None:
    """A format that cannot hold the head or the camera must not cost the user the whole run.

    Raises:
        UserError: there is one.
    """
    if not formats:
        return
    wanted = [EXPORTERS[name] for name in parse_formats(formats)]
    head = camera = None
    if any(format.refuses for format in wanted):
        with user_errors():
            head = loaded.head(request.head)
    check_formats(formats, head, PICTURES in request.settings.reads)
    if any(format.refuses_camera for format in wanted):
        with request.source.open() as video:
            known, _ = camera_of(video, request)
            camera = Camera(known.focal_px, *known.principal_point, video.width, video.height)
        check_formats(formats, camera=camera)


def _write_page(folder: Path, request: Request, report: RunReport, result: TrackResult, strip: Strip, identity: Mapping[str, Any]) -> None:
    """The page beside the result; ``strip`` has seen the overlay's frames, if one was written."""
    if not strip.pictures:  # on the CPU, which can always draw: a run without an overlay may have a device that cannot
        strip.draw(result.source, result.head, request.settings.overlay, result.texture, "cpu")
    glb = folder / GLB_NAME
    data = ReportData(report, result.track, result.head, result.fit.error_percent, result.texture, identity, glb.read_bytes() if glb.is_file() else b"")
    write_report(folder / PAGE, data, strip)


def _draw(request: Request, result: TrackResult, folder: Path, progress: Progress, strip: Strip | None) -> str:
    """The overlay, as a video or as a picture a photo, seen by ``strip``; returns its name."""
    watch = nobody_watches if strip is None else strip.see
    what = (result.track, result.head, request.settings.overlay, result.texture, result.device.draw, progress, watch)
    if result.track.photos is not None:
        write_photo_overlays(folder / "overlay", result.source, *what)
        return "overlay/"
    write_overlay(folder / "overlay.mp4", request.video, *what)
    return "overlay.mp4"


def _refuse_other_video(folder: Path, video: Mapping[str, Any]) -> None:
    """Results are not replaced by those of another video, whose name happens to be the same."""
    before = read_json(folder / SUMMARY).get("video")
    if isinstance(before, dict) and {**before, "name": ""} != {**video, "name": ""}:
        raise UserError(
            f"{folder} holds the result of another video ({before.get('name')}, {before.get('bytes')} bytes; this one has "
            f"{video['bytes']}); choose another folder with --out, or replace it with --restart"
        )


def report_of(
    result: TrackResult, folder: Path, files: Sequence[str], clock: StageClock, video: Mapping[str, Any] | None = None, asked: str = ""
) -> RunReport:
    """Numbers of a finished run."""
    track, fit = result.track, result.fit
    return RunReport(
        folder=folder,
        files=tuple(files),
        head=result.head.name,
        preset=result.preset,
        where=result.where,
        frames=track.n_frames,
        valid_frames=int(track.tracked.sum()),
        error_percent=fit.error_percent[track.tracked],
        focal_px=track.focal_px,
        focal_log_sigma=fit.focal_log_sigma,
        seconds=clock.seconds,
        total_seconds=clock.total,
        peak_memory_mb=peak_memory_mb(),
        notes=result.notes,
        shots=shots_of(track),
        crossfades=fit.crossfades,
        people=track.n_people,
        interpolated_frames=int((track.valid & ~track.tracked).sum()),
        video=video or {},
        asked=asked,
    )
