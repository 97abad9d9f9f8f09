"""A self-contained HTML page of the benchmark: tables, plots, and every tracker's overlay side by side."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from tracker.camera import CAMERA_POSITION
from tracker.evaluation.baselines import Tracked
from tracker.evaluation.markdown_report import gave_up, worse_than_landmarks
from tracker.evaluation.plots import figures, svg
from tracker.evaluation.rows import REAL_ROWS, SYNTHETIC_ROWS, Row, footnotes
from tracker.evaluation.summary import look_up
from tracker.overlay import MeshPainter
from tracker.video.reader import open_video

_WIDTH = 260  # of each picture, pixels
_QUALITY = 80
_BAR = 240
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1800px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    "th{background:#f4f4f4}img{display:block}small{color:#666}rect{fill:#4a7fb5}.best{font-weight:600}"
)


@dataclass(frozen=True)
class Overlay:
    """A frame with a tracker's mesh on it, JPEG."""

    clip: str
    tracker: str
    frame: int
    jpeg: bytes


def overlays(clip: str, name: str, tracked: Tracked, video: Path, count: int = 4) -> list[Overlay]:
    """``count`` frames spread over a clip with the tracked mesh; frames that were lost stay bare."""
    total = tracked.track.n_frames
    picked = set(np.linspace(0, total - 1, count + 2).round().astype(int)[1:-1].tolist())
    height, width = (int(n) for n in tracked.track.image_size)
    painter = MeshPainter(tracked.head, tracked.track, (width, height))
    out = []
    with open_video(video, max_frames=total) as frames:
        for number, frame in enumerate(frames):
            if number not in picked:
                continue
            image = np.ascontiguousarray(frame.image)
            if tracked.track.valid[number]:
                painter.paint(image, tracked.vertices[number] + np.asarray(CAMERA_POSITION, np.float32))
            out.append(Overlay(clip, name, number, _jpeg(image)))
    return out


def _jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    small = cv2.resize(image, (_WIDTH, round(_WIDTH * image.shape[0] / image.shape[1])), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def html_report(scores: Mapping[str, Any], pictures: Sequence[Overlay]) -> str:
    """The page; it loads nothing from anywhere.

    Raises:
        UserError: matplotlib is missing.
    """
    drawn = figures(scores)
    body = ["<h1>Head tracking benchmark</h1>", f"<p><small>{_run(scores['run'])}</small></p>"]
    for name, title, rows, plots in (
        ("cycles", "Clips rendered by Cycles, exact ground truth", SYNTHETIC_ROWS, ("cycles_yaw", "cycles_parts")),
        ("synthetic", "Synthetic clips, exact ground truth", SYNTHETIC_ROWS, ("yaw", "parts")),
        ("real", "Real clips, held-out cues", REAL_ROWS, ("real",)),
    ):
        suite = scores["suites"].get(name)
        if not suite:
            continue
        body += [f"<h2>{title}</h2>", "<p>Means over clips, 95 % intervals in brackets; bars show the means.</p>", _table(suite, rows)]
        missing = [] if name == "real" else gave_up(suite, scores["run"][f"{name}_clips"])
        body += [f"<p>{html.escape(sentence)}</p>" for sentence in (*missing, *worse_than_landmarks(suite, rows))]
        body += [f"<p>{svg(drawn[plot])}</p>" for plot in plots]
    if "solver" in scores:
        body += ["<h2>Solver</h2>", "<table>", *_solver_rows(scores["solver"]), "</table>"]
    body += _side_by_side(pictures)
    page = "\n".join(body)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Head tracking benchmark</title>'
        f"<style>{_STYLE}</style></head><body>{page}</body></html>\n"
    )


def _run(run: Mapping[str, Any]) -> str:
    return html.escape(", ".join(f"{k.replace('_', ' ')} {v}" for k, v in run.items()))


def _table(suite: Mapping[str, Mapping[str, Any]], rows: Sequence[Row]) -> str:
    out = ["<table><tr><th></th>", *(f"<th>{html.escape(name)}</th>" for name in suite), "</tr>"]
    filled = []
    for row in rows:
        values = [look_up(summary, row.path) for summary in suite.values()]
        known = [abs(v) for v in values if v is not None]
        if not known:
            continue
        filled.append(row)
        out.append(f"<tr><td>{html.escape(row.shown(suite))}</td>")
        for value, summary in zip(values, suite.values(), strict=True):
            if value is None:
                out.append("<td>–</td>")
                continue
            interval = look_up(summary["interval"], row.path)
            spread = "" if interval is None or None in interval else f" <small>({interval[0]:.3g}–{interval[1]:.3g})</small>"
            bar = round(_BAR / 3 * abs(value) / max(*known, 1e-12), 1)
            out.append(f'<td>{value:.3g}{spread}<svg width="{_BAR // 3}" height="6"><rect width="{bar}" height="6"/></svg></td>')
        out.append("</tr>")
    return "".join([*out, "</table>", *(f"<p>{html.escape(note)}</p>" for note in footnotes(filled, suite))])


def _solver_rows(solver: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, value in solver.items():
        shown = f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{html.escape(shown)}</td></tr>")
    return rows


def _side_by_side(pictures: Sequence[Overlay]) -> list[str]:
    out = []
    for clip in dict.fromkeys(p.clip for p in pictures):
        here = [p for p in pictures if p.clip == clip]
        trackers = list(dict.fromkeys(p.tracker for p in here))
        by_place = {(p.tracker, p.frame): p for p in here}
        out += [f"<h2>{html.escape(clip)}</h2>", "<table><tr>", *(f"<th>{html.escape(t)}</th>" for t in trackers), "</tr>"]
        for frame in sorted({p.frame for p in here}):
            out.append("<tr>")
            for tracker in trackers:
                picture = by_place.get((tracker, frame))
                code = "" if picture is None else base64.b64encode(picture.jpeg).decode()
                out.append(f'<td><img alt="frame {frame}" src="data:image/jpeg;base64,{code}"><small>frame {frame}</small></td>' if code else "<td>–</td>")
            out.append("</tr>")
        out.append("</table>")
    return out
