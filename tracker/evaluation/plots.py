"""Figures of the benchmark, drawn with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_assets.atomic_files import atomic_file
from tracker.errors import UserError
from tracker.evaluation.rows import REAL_ROWS
from tracker.evaluation.summary import PARTS, YAW_BINS, look_up

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {
    "landmarks68_adam": "#9a9a9a",
    "landmarks478": "#d08a2e",
    "mediapipe": "#c8c07a",
    "dense": "#7fb2d9",
    "dense_landmarks": "#2f6fae",
    "dense_landmarks_photometric": "#123a66",
}
_OTHER = "#7a4fa3"  # trackers read from disk
_REAL = (
    ("dlib's points, NME, %", "independent_landmarks_nme_pct"),
    ("optical flow, px", "flow_agreement_px"),
    ("colour change on the skin", "colour_spread"),
    ("jitter, °", "jitter_deg"),
    ("blinks kept", "blink_amplitude_kept"),
    ("mouth kept", "mouth_amplitude_kept"),
)


def figures(scores: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures by name, of those suites that were run: ``cycles_yaw``, ``cycles_parts``, ``yaw``, ``parts`` and ``real``.

    Raises:
        UserError: matplotlib is missing.
    """
    suites, out = scores["suites"], {}
    for name, prefix in (("cycles", "cycles_"), ("synthetic", "")):
        if suites.get(name):
            out[f"{prefix}yaw"] = _by_yaw(suites[name])
            out[f"{prefix}parts"] = _by_part(suites[name])
    if suites.get("real"):
        out["real"] = _real(suites["real"])
    return out


def svg(figure: Figure) -> str:
    """A figure as an ``<svg>`` element for a page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file."""
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=110)


def _new(columns: int, width: float, height: float) -> tuple[Figure, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('plots need matplotlib: python -m pip install ".[benchmark]"') from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
    return figure, axes


def _mean_and_bars(summary: Mapping[str, Any], path: str) -> tuple[float, tuple[float, float]]:
    """Mean, and how far its interval reaches below and above; NaN where nothing is known."""
    mean, interval = look_up(summary, path), look_up(summary["interval"], path)
    if mean is None:
        return np.nan, (np.nan, np.nan)
    if interval is None or None in interval:
        return mean, (0.0, 0.0)
    return mean, (max(mean - interval[0], 0.0), max(interval[1] - mean, 0.0))


def _colour(name: str) -> str:
    return _COLOURS.get(name, _OTHER)


def _by_yaw(suite: Mapping[str, Mapping[str, Any]]) -> Figure:
    figure, axes = _new(2, 10, 3.6)
    names = [f"{low}–{high}°" for low, high in YAW_BINS]
    for ax, key, label in (
        (axes[0], "vertex_error_by_yaw_mm", "whole head, mm"),
        (axes[1], "rotation_error_by_yaw_deg", "head rotation, °"),
    ):
        for step, (tracker, summary) in enumerate(suite.items()):
            found = [_mean_and_bars(summary, f"{key}.{low}-{high}") for low, high in YAW_BINS]
            places = np.arange(len(found)) + 0.05 * (step - (len(suite) - 1) / 2)  # whiskers side by side
            bars = np.array([f[1] for f in found]).T
            ax.errorbar(places, [f[0] for f in found], bars, marker="o", markersize=4, capsize=2, color=_colour(tracker), label=tracker)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlabel("yaw, to either side")
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def _by_part(suite: Mapping[str, Mapping[str, Any]]) -> Figure:
    figure, axes = _new(2, 12, 3.6)
    width = 0.8 / len(suite)
    for ax, key, label in (
        (axes[0], "vertex_error_mm", "in place, mm"),
        (axes[1], "vertex_error_aligned_mm", "rigidly aligned, mm"),
    ):
        for step, (tracker, summary) in enumerate(suite.items()):
            found = [_mean_and_bars(summary, f"{key}.{part}") for part in PARTS]
            places = np.arange(len(PARTS)) + width * (step - (len(suite) - 1) / 2)
            bars = np.array([f[1] for f in found]).T
            ax.bar(places, [f[0] for f in found], width, yerr=bars, color=_colour(tracker), label=tracker, error_kw={"lw": 0.8})
        ax.set_xticks(range(len(PARTS)), ["whole head" if p == "all" else "lids" if p == "eyes" else p for p in PARTS])
        ax.set_ylabel(label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def _real(suite: Mapping[str, Mapping[str, Any]]) -> Figure:
    figure, axes = _new(len(_REAL), 14, 2.8)
    described = {row.path: row for row in REAL_ROWS}
    for ax, (label, key) in zip(axes, _REAL, strict=True):
        found = [_mean_and_bars(summary, key) for summary in suite.values()]
        bars = np.array([f[1] for f in found]).T
        colours = [_colour(name) for name in suite]
        ax.bar(range(len(found)), [f[0] for f in found], 0.8, yerr=bars, color=colours, label=list(suite), error_kw={"lw": 0.8})
        ax.set_title(replace(described[key], label=label).shown(suite), fontsize="medium")
        ax.set_xticks([])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure
