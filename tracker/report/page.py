"""The page: everything in one file, read by any browser of the last years from the disk."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from flame_assets.asset import HeadAsset
from flame_assets.atomic_files import atomic_file
from tracker.head_track import HeadTrack
from tracker.report.curves import PLOT_ENDS, Chart, charts_of, legend, svg
from tracker.report.facts import (
    about,
    cuts_of,
    headline,
    next_steps,
    settings_text,
    shots_said,
    table,
)
from tracker.report.page_head import FOV_DEG, PageHead, camera_distance, framing, page_head
from tracker.report.strip import Picture, Strip
from tracker.run_report import RunReport

LARGEST_BYTES = 3_000_000
"""No page is larger."""

_MOST_NUMBERS = 1500  # frames whose values the cursor knows; of longer tracks every other, third, …
_KEPT_FREE = 60_000  # bytes for what is said in words

# whatever the scripts of the page would like: nothing is fetched but what the page holds
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src data: blob:; worker-src blob:"
)
_VIEWER = "model_viewer.min.js.gz"


@dataclass(frozen=True)
class ReportData:
    """What a page is made of.

    Attributes:
        run: numbers of the run.
        track, head: the result.
        error_percent: ``(frames,)`` each frame's landmark error, percent; infinite without a head.
        texture: the clip's texture, RGB, row 0 at v = 1, or None.
        identity: what the work depended on (:func:`tracker.work_identity.work_identity`): settings, versions, models.
        glb: bytes of the finished head.glb; empty to make a short one.
    """

    run: RunReport
    track: HeadTrack
    head: HeadAsset
    error_percent: Float[np.ndarray, "frames"]
    texture: UInt8[np.ndarray, "size size 3"] | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    glb: bytes = b""


def write_report(path: Path, data: ReportData, strip: Strip) -> None:
    """Write the page to ``path``, complete or not at all."""
    text = report_page(data, strip)
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def report_page(data: ReportData, strip: Strip) -> str:
    """The page as text, at most :data:`LARGEST_BYTES` in UTF-8."""
    charts = charts_of(data.track, data.error_percent)
    viewer = base64.b64encode(_file(_VIEWER)).decode("ascii")
    body = _body(data, strip, charts)
    script = f"<script>{_file('page.js').decode()}</script>"
    frame = _frame(data.track, data.run)
    spent = sum(len(part.encode()) for part in (frame, body, script, viewer)) + _KEPT_FREE
    head = page_head(data.glb, data.track, data.head, data.texture, LARGEST_BYTES - spent)
    stage, stored = _stage(data, head, viewer)
    return frame.replace("<!--body-->", body.replace("<!--stage-->", stage) + stored + script)


def _frame(track: HeadTrack, run: RunReport) -> str:
    title = html.escape(f"{run.video.get('name') or run.folder.name} – head track")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_file('page.css').decode()}</style></head><body>\n<main><h1>{title}</h1><!--body--></main></body></html>\n"
    )


def _body(data: ReportData, strip: Strip, charts: Sequence[Chart]) -> str:
    run, track = data.run, data.track
    one = "frame" if track.photos is None else "photo"
    notes = [*run.notes, *shots_said(track)]
    whole = "" if strip.whole is None else f'<figure class="whole">{_image(strip.whole)}<figcaption>{one} {strip.whole.frame}</figcaption></figure>'
    said = "<ul class=\"notes\">" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>" if notes else ""
    settings = settings_text(data.identity)
    return "\n".join([
        table(headline(run)), said,
        f'<div class="top"><!--stage-->{whole}</div>',
        "<h2>Frames</h2>", f'<div class="strip">{"".join(_figure(p, track) for p in strip.pictures)}</div>',
        "<h2>Curves</h2>", _curves(track, charts),
        "<h2>What next</h2>", table(next_steps(run)),
        "<h2>About this result</h2>", table(about(run, track, data.identity)),
        f"<details><summary>settings</summary><pre>{html.escape(settings)}</pre></details>" if settings else "",
        f"<p><small>files: {html.escape(', '.join(run.files))}. This page holds pictures of the person filmed; pass it on with as much care as "
        "the video. The moving head is shown by &lt;model-viewer&gt; (Apache-2.0) with three.js (MIT).</small></p>",
    ])  # fmt: skip


def _figure(picture: Picture, track: HeadTrack) -> str:
    when = f"{picture.seconds:.2f} s · " if track.photos is None else ""
    return (
        f'<figure data-seconds="{picture.seconds:.3f}">{_image(picture)}'
        f"<figcaption>{when}{'frame' if track.photos is None else 'photo'} {picture.frame} · {html.escape(picture.caption)}</figcaption></figure>"
    )


def _image(picture: Picture) -> str:
    code = base64.b64encode(picture.jpeg).decode("ascii")
    return (
        f'<img width="{picture.width}" height="{picture.height}" alt="frame {picture.frame}: {html.escape(picture.caption)}" '
        f'src="data:image/jpeg;base64,{code}">'
    )


def _curves(track: HeadTrack, charts: Sequence[Chart]) -> str:
    seconds = track.timestamps - track.timestamps[0]
    filled = np.zeros(track.n_frames, bool) if track.interpolated is None else track.interpolated.astype(bool)
    shade = ~track.valid | filled
    cuts = cuts_of(track)
    axis = "seconds" if track.photos is None else "photo"
    parts = [f'<div class="chart-box">{legend(chart, i)}{svg(chart, seconds, shade, cuts, whole=track.photos is not None)}</div>' for i, chart in enumerate(charts)]
    grey = " Grey: frames in which no head was tracked." if shade.any() else ""
    words = f"<p><small>Across: {axis}. Click a curve to bring the head there.{grey}</small></p>"
    return words + "".join(parts) + _numbers(seconds, charts, track.photos is not None)


def _numbers(seconds: np.ndarray, charts: Sequence[Chart], photos: bool) -> str:
    """Values at the cursor, as JSON."""
    step = _step(len(seconds))
    numbers = {
        "every": step,
        "ends": PLOT_ENDS,
        "photos": photos,
        "seconds": [round(float(t), 4) for t in seconds[::step]],
        "charts": [
            {"title": c.title, "unit": c.unit, "curves": [{"name": k.name, "values": _plain(k.values[::step])} for k in c.curves]} for c in charts
        ],
    }
    # no text of a file's name can end the element early
    text = json.dumps(numbers, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="numbers">{text}</script>'


def _step(frames: int) -> int:
    """Every which frame has numbers in the page."""
    return -(-frames // _MOST_NUMBERS)


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(v), 4) if np.isfinite(v) else None for v in values]


def _stage(data: ReportData, head: PageHead, viewer: str) -> tuple[str, str]:
    """The place where the head turns, and what is stored for it."""
    note = f"<figcaption>{html.escape(head.note)}</figcaption>" if head.note else ""
    if not head.packed:
        return f'<figure class="stage">{note}</figure>', ""
    track, at = data.track, framing(data.track, data.head)
    height, width = (int(n) for n in track.image_size)
    views = {
        "target": [round(float(x), 4) for x in at.target],
        "close": {"distance": round(at.distance, 4), "fov": FOV_DEG},
        "centres": None if at.centres is None else at.centres[:: _step(track.n_frames)].round(3).tolist(),
        "camera": {"distance": round(camera_distance(at), 4), "fov": round(2 * np.degrees(np.arctan(height / 2 / track.focal_px)), 3), "aspect": width / height},
    }
    stage = (
        '<figure class="stage"><model-viewer id="head" camera-controls interaction-prompt="none" shadow-intensity="0" '
        'exposure="0.9" alt="the tracked head, moving"></model-viewer>'
        '<div class="controls"><button id="play">pause</button><input id="time" type="range" min="0" max="1" step="any" value="0" '
        'aria-label="time"><output id="clock"></output><button id="view">from the camera</button></div>'
        f'<p id="trouble"></p>{note}</figure>'
    )
    stored = (
        f'<script type="application/json" id="views">{json.dumps(views)}</script>'
        f'<script type="text/plain" id="viewer-code">{viewer}</script><script type="text/plain" id="head-file">{head.packed}</script>'
    )
    return stage, stored


def _file(name: str) -> bytes:
    return (files("tracker.report") / "files" / name).read_bytes()
