"""Curves over a track's frames: what they are, and how they are drawn as SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tracker.camera import CAMERA_POSITION
from tracker.export.arkit_values import eye_angles, head_angles
from tracker.head_track import HeadTrack

_EXPRESSIONS = 6  # the most moved are shown
_WIDTH, _HEIGHT = 1000, 130
PLOT_ENDS = (46, 992)
"""Where the first and the last frame stand, of 1000 across."""
_TOP, _BOTTOM = 8, 18
_MOST_POINTS = 900  # of a curve; a longer one keeps the least and the greatest of each short stretch
_DOTS_UP_TO = 40  # frames, or photos, that are shown as dots, too
_COLOURS = ("#2f6fb0", "#c2571a", "#2f8f4e", "#8a4fb0", "#b0892f", "#b02f5c")


@dataclass(frozen=True)
class Curve:
    """One value per frame: ``values`` ``(frames,)``, NaN where there is none."""

    name: str
    values: Float[np.ndarray, "frames"]


@dataclass(frozen=True)
class Chart:
    """Curves that share an axis. ``low`` and ``high`` hold the axis at least that wide."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    low: float | None = None
    high: float | None = None


def charts_of(track: HeadTrack, error_percent: Float[np.ndarray, "frames"] | None = None) -> list[Chart]:
    """What is worth seeing of a track: pose, place, gaze, the expressions that move most, confidence and landmark error.

    Frames without a head have no values but their confidence. Angles are degrees, in the senses of
    :func:`tracker.export.arkit_values.yaw_pitch_roll`.
    """
    missing = ~track.valid

    def curve(name: str, values: np.ndarray) -> Curve:
        return Curve(name, np.where(missing, np.nan, values.astype(np.float64)))

    head = np.degrees(head_angles(track))
    place = 100 * np.array([1, 1, -1]) * (track.translation - CAMERA_POSITION)
    eyes = [np.degrees(eye_angles(track, side)) for side in (0, 1)]
    spread = np.where(track.valid[:, None], track.expr, track.expr[track.valid].mean(0) if track.valid.any() else 0).std(0)
    moved = [int(i) for i in np.argsort(-spread, kind="stable")[:_EXPRESSIONS] if spread[i] > 0 or track.n_frames == 1]
    charts = [
        Chart("Head pose", "°", tuple(curve(n, head[:, i]) for i, n in enumerate(("yaw", "pitch", "roll")))),
        Chart("Head position across the camera's axis", "cm", tuple(curve(n, place[:, i]) for i, n in enumerate(("right", "up")))),
        Chart("Distance from the camera", "cm", (curve("distance", place[:, 2]),)),
        Chart("Gaze, within the head", "°", tuple(curve(f"{side} {what}", eyes[e][:, i]) for e, side in enumerate(("left", "right")) for i, what in enumerate(("yaw", "pitch")))),
        Chart("Expressions that move most", "", tuple(curve(track.expression_names[i], track.expr[:, i]) for i in moved)),
        Chart("Confidence", "", (Curve("confidence", track.confidence.astype(np.float64)),), 0, 1),
    ]  # fmt: skip
    if error_percent is not None:
        finite = np.where(np.isfinite(error_percent), error_percent, np.nan)
        charts.append(Chart("Landmark error, of the inter-ocular distance", "%", (curve("error", finite),), 0))
    return [chart for chart in charts if chart.curves]


def svg(chart: Chart, seconds: Float[np.ndarray, "frames"], shade: Bool[np.ndarray, "frames"], cuts: Sequence[float] = (), *, whole: bool = False) -> str:
    """A chart as an SVG element of class ``chart``.

    Args:
        chart: what to draw.
        seconds: of each frame, increasing; the horizontal axis.
        shade: frames behind which the ground is grey.
        cuts: times at which a dashed line stands.
        whole: only whole numbers stand at the horizontal axis.
    """
    low, high, step = _axis(chart)
    begin, end = _ends(seconds)
    (left, right), bottom = PLOT_ENDS, _HEIGHT - _BOTTOM

    def x(time: np.ndarray | float) -> np.ndarray:
        return left + (np.asarray(time) - begin) / (end - begin) * (right - left)

    def y(value: np.ndarray | float) -> np.ndarray:
        return bottom - (np.asarray(value) - low) / (high - low) * (bottom - _TOP)

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(chart.title)}">']
    half = np.median(np.diff(seconds)) / 2 if len(seconds) > 1 else 0.5
    for first, last in _runs(shade):
        begins, ends = float(x(max(seconds[first] - half, begin))), float(x(min(seconds[last] + half, end)))
        parts.append(f'<rect class="gap" x="{begins:.1f}" y="{_TOP}" width="{max(ends - begins, 1):.1f}" height="{bottom - _TOP}"/>')
    for tick in np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step:
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{float(y(tick)):.1f}" y2="{float(y(tick)):.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{float(y(tick)) + 4:.1f}" text-anchor="end">{tick:g}{chart.unit if chart.unit == "°" else ""}</text>')
    for time in _time_ticks(begin, end, whole):
        parts.append(f'<text x="{float(x(time)):.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{time:g}</text>')
    parts += [f'<line class="cut" x1="{float(x(t)):.1f}" x2="{float(x(t)):.1f}" y1="{_TOP}" y2="{bottom}"/>' for t in cuts]
    for number, curve in enumerate(chart.curves):
        colour = _COLOURS[number % len(_COLOURS)]
        for stretch in _stretches(curve.values, len(seconds) <= _DOTS_UP_TO):
            points = " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(x(seconds[stretch]), y(curve.values[stretch]), strict=True))
            parts.append(f'<polyline stroke="{colour}" points="{points}"/>')
        if len(seconds) <= _DOTS_UP_TO:
            kept = np.flatnonzero(np.isfinite(curve.values))
            parts += [f'<circle fill="{colour}" cx="{float(x(seconds[k])):.1f}" cy="{float(y(curve.values[k])):.1f}" r="3"/>' for k in kept]
    parts.append(f'<line class="cursor" x1="{left}" x2="{left}" y1="{_TOP}" y2="{bottom}"/></svg>')
    return "".join(parts)


def legend(chart: Chart, number: int) -> str:
    """Title and curves of a chart as HTML, with room for the values at the cursor."""
    names = "".join(
        f'<span class="key"><i style="background:{_COLOURS[k % len(_COLOURS)]}"></i>{html.escape(c.name)} '
        f'<b data-chart="{number}" data-curve="{k}"></b></span>'
        for k, c in enumerate(chart.curves)
    )
    unit = f" <small>{html.escape(chart.unit)}</small>" if chart.unit else ""
    return f"<h3>{html.escape(chart.title)}{unit}</h3><p class=\"keys\">{names}</p>"


def _axis(chart: Chart) -> tuple[float, float, float]:
    """Least and greatest value of the vertical axis, and the step between its lines."""
    values = np.concatenate([c.values for c in chart.curves])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    low, high = min(low, math.inf if chart.low is None else chart.low), max(high, -math.inf if chart.high is None else chart.high)
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5, high + 0.5
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 4)
    return low, high, step


def _ends(seconds: np.ndarray) -> tuple[float, float]:
    begin, end = float(seconds[0]), float(seconds[-1])
    return (begin, end) if end > begin else (begin - 0.5, end + 0.5)


def _time_ticks(begin: float, end: float, whole: bool) -> Iterator[float]:
    step = 10 ** math.floor(math.log10(max(end - begin, 1e-3) / 5))
    step *= next(m for m in (1, 2, 5, 10) if (end - begin) / (step * m) <= 10)
    step = max(step, 1.0) if whole else step
    for k in range(math.ceil(begin / step - 1e-9), math.floor(end / step + 1e-9) + 1):
        yield round(k * step, 6)


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last of each unbroken run of true entries."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]


def _stretches(values: np.ndarray, every: bool) -> Iterator[Int[np.ndarray, "n"]]:
    """Frames of each unbroken stretch of a curve; of a long one, those where it is least and greatest."""
    size = 1 if every else math.ceil(2 * len(values) / _MOST_POINTS)
    for first, last in _runs(np.isfinite(values)):
        if size <= 2:
            yield np.arange(first, last + 1)
            continue
        kept = {first, last}
        for start in range(first, last + 1, size):
            part = values[start : min(start + size, last + 1)]
            kept |= {start + int(part.argmin()), start + int(part.argmax())}
        yield np.array(sorted(kept))
