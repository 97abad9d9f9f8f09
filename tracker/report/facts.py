"""What the page says in words: numbers of the run, versions and hashes, and what to do next."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from tracker.head_track import HeadTrack
from tracker.run_report import RunReport

Rows = list[tuple[str, str]]
"""Names and what they are, as HTML."""


def headline(report: RunReport) -> Rows:
    """The numbers that matter most."""
    error = report.error_percent
    sigma = f" ± {100 * report.focal_log_sigma:.0f} %" if report.focal_log_sigma else " (given)"
    return [
        ("frames with a head", f"{report.valid_frames} of {report.frames}"),
        ("landmark error", f"median {np.median(error):.2f} %, 95th percentile {np.percentile(error, 95):.2f} % of the inter-ocular distance"),
        ("focal length", f"{report.focal_px:.0f} px{sigma}"),
        ("took", f"{report.total_seconds:.1f} s, {report.frames / report.total_seconds:.1f} frames/s, {report.peak_memory_mb:.0f} MB"),
    ]  # fmt: skip


def about(report: RunReport, track: HeadTrack, identity: Mapping[str, Any]) -> Rows:
    """Where the result comes from."""
    height, width = (int(n) for n in track.image_size)
    video = report.video
    seconds = float(track.timestamps[-1] - track.timestamps[0])
    if track.photos is None:
        what = f"{track.n_frames} frames, {seconds:.2f} s, {width} × {height} pixels, {track.frame_rate:g} frames/s"
    else:
        what = f"{track.n_frames} photos of one person"
    rows = [("input", f"{_said(video.get('name', ''))}: {what}")]
    if video:
        rows.append(("its size and digest", f"{video.get('bytes')} bytes, <code>{_said(video.get('digest'))}</code>"))
    rows += [("preset", _said(report.preset)), ("head", f"{_said(track.head_name)}, geometry <code>{_said(track.head_sha256)}</code>")]
    for key in ("network", "landmarker"):
        if key in identity and (key != "network" or "network" in report.where):
            rows.append((key, _said(identity[key])))
    rows.append(("worked on", _said(", ".join(f"{k} {v}" for k, v in report.where.items() if k != "reason") + f" ({report.where.get('reason', '')})")))
    if "program" in identity:
        rows.append(("program", _said(identity["program"])))
    if "libraries" in identity:
        rows.append(("libraries", _said(", ".join(f"{k} {v}" for k, v in identity["libraries"].items() if v != "none"))))
    asked = {k: identity[k] for k in ("part", "camera", "device") if k in identity}
    return rows + [(key, f"<code>{_said(json.dumps(value, ensure_ascii=False))}</code>") for key, value in asked.items()]


def settings_text(identity: Mapping[str, Any]) -> str:
    """The settings as the YAML file that ``--config`` takes; empty when they are not known."""
    settings = identity.get("settings")
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True) if settings else ""


def shots_said(track: HeadTrack) -> list[str]:
    """Sentences on shots, people and interpolated frames, where the track has such."""
    said = []
    if track.shot is not None and len(np.unique(track.shot)) > 1:
        said.append(f"{len(np.unique(track.shot))} shots; dashed lines in the curves are cuts")
    if track.person is not None and track.n_people > 1:
        counts = np.bincount(track.person, minlength=track.n_people)
        said.append(f"{track.n_people} people: " + ", ".join(f"number {i} in {n} frames" for i, n in enumerate(counts)))
    if track.interpolated is not None and track.interpolated.any():
        said.append(f"{int(track.interpolated.sum())} frames are interpolated between tracked ones (grey in the curves)")
    return said


def cuts_of(track: HeadTrack) -> list[float]:
    """Times at which a new shot begins, seconds from the track's first frame."""
    if track.shot is None:
        return []
    changes = np.flatnonzero(np.diff(track.shot)) + 1
    return ((track.timestamps[changes - 1] + track.timestamps[changes]) / 2 - track.timestamps[0]).tolist()


def next_steps(report: RunReport) -> Rows:
    """What one can do with the result, as commands."""
    folder = shlex.quote(str(report.folder))
    steps = [
        ("Look at it frame by frame, in 3-D beside the video", f"python tools/view.py {folder}"),
        ("Open it in Blender", "File → Import → glTF 2.0: head.glb (set the scene's frame rate first)"),
        ("For other programs (USD, Alembic, BVH, Live Link Face, …)", f"python tools/export.py {folder} --to usd,abc,livelink"),
        ("Play it into an avatar's program", f"python tools/send_vmc.py {folder}"),
        ("Read the numbers", f'numpy.load("{report.folder}/flame_params.npz", allow_pickle=False)'),
    ]
    return [(_said(what), f"<code>{_said(how)}</code>") for what, how in steps]


def table(rows: Rows) -> str:
    """Rows as an HTML table."""
    return "<table>" + "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows) + "</table>"


def _said(value: Any) -> str:
    return html.escape(str(value))
