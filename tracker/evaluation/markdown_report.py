"""Benchmark scores as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracker.evaluation.rows import REAL_ROWS, SYNTHETIC_ROWS, Row, footnotes
from tracker.evaluation.speed_suite import speed_lines
from tracker.evaluation.summary import look_up


def table(suite: Mapping[str, Mapping[str, Any]], rows: Sequence[Row]) -> list[str]:
    """A markdown table of means and intervals, one column a tracker, with its footnotes."""
    lines = ["| | " + " | ".join(suite) + " |", "|---|" + "---|" * len(suite)]
    filled = []
    for row in rows:
        cells = [_cell(look_up(summary, row.path), look_up(summary["interval"], row.path)) for summary in suite.values()]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {row.shown(suite)} | " + " | ".join(cells) + " |")
            filled.append(row)
    return [*lines, *(line for note in footnotes(filled, suite) for line in ("", note))]


def _cell(mean: float | None, interval: Sequence[float | None] | None) -> str:
    if mean is None:
        return "–"
    text = f"{mean:.3g}" if abs(mean) < 100 else f"{mean:.0f}"
    if interval is None or None in interval or interval[0] == interval[1]:
        return text
    return f"{text} ({interval[0]:.3g}–{interval[1]:.3g})" if abs(mean) < 100 else f"{text} ({interval[0]:.0f}–{interval[1]:.0f})"


def worse_than_landmarks(suite: Mapping[str, Mapping[str, Any]], rows: Sequence[Row]) -> list[str]:
    """Sentences that name where a dense tracker scores worse than the landmark-only one."""
    base = suite.get("landmarks478")
    if base is None:
        return []
    higher_is_better = {"frames_per_second", "silhouette_iou"}
    not_ranked = {
        "blink_amplitude_kept", "mouth_amplitude_kept", "motion_lag_frames", "peak_memory_mb", "frames_per_second",
        "focal_within_1_sigma", "focal_within_2_sigma",
    }  # fmt: skip
    out = []
    for name, summary in suite.items():
        if not name.startswith("dense"):
            continue
        worse = []
        for row in rows:
            a, b = look_up(base, row.path), look_up(summary, row.path)
            if row.path not in not_ranked and a is not None and b is not None and (b < a if row.path in higher_is_better else b > a):
                worse.append(f"{row.label} ({b:.3g} against {a:.3g})")
        if worse:
            out.append(f"`{name}` is worse than `landmarks478` in: " + "; ".join(worse) + ".")
    return out


def gave_up(suite: Mapping[str, Mapping[str, Any]], total: int) -> list[str]:
    """Sentences that name the trackers that gave no result on some clips, which their means leave out."""
    missing = {name: total - summary["clips"] for name, summary in suite.items() if summary["clips"] < total}
    return [f"`{name}` found no face on {count} of {total} clips; its means are over the others." for name, count in missing.items()]


def markdown_report(scores: Mapping[str, Any]) -> str:
    """Tables of everything ``tools/benchmark.py`` measured."""
    lines: list[str] = []
    run, suites = scores["run"], scores["suites"]
    if "cycles" in suites:
        lines += [
            f"{run['cycles_clips']} clips rendered by Cycles, {run['cycles_frames']} frames each; mean (95 % interval over clips).",
            "",
            *table(suites["cycles"], SYNTHETIC_ROWS),
            "",
            *gave_up(suites["cycles"], run["cycles_clips"]),
            *worse_than_landmarks(suites["cycles"], SYNTHETIC_ROWS),
            "",
        ]
    if "synthetic" in suites:
        lines += [
            f"{run['synthetic_clips']} synthetic clips of {run['synthetic_frames']} frames, seed {run['seed']}; mean (95 % interval over clips).",
            "",
            *table(suites["synthetic"], SYNTHETIC_ROWS),
            "",
            *gave_up(suites["synthetic"], run["synthetic_clips"]),
            *worse_than_landmarks(suites["synthetic"], SYNTHETIC_ROWS),
            "",
        ]
    if "real" in suites:
        clips = ", ".join(run["real_clips"])
        lines += [
            f"Real clips: {clips}; mean (95 % interval over clips).",
            "",
            *table(suites["real"], REAL_ROWS),
            "",
            *worse_than_landmarks(suites["real"], REAL_ROWS),
            "",
        ]
    if "solver" in scores:
        s = scores["solver"]
        lines += [
            f"Dense term alone from 25° and 15 % of a head off: {100 * s['convergence_share']:.1f} % of frames recovered.",
            f"Solver {s['ms_per_frame']:.2f} ms a frame at a final cost of {s['cost']:.0f}; 50 Adam steps on the same frames at once "
            f"{s['adam_ms_per_frame']:.2f} ms ({s['speedup_over_adam']:.1f} times as long) at {s['adam_cost']:.0f}; frame after frame, as published "
            f"trackers do, {s['serial_adam_ms_per_frame']:.0f} ms ({s['speedup_over_serial_adam']:.0f} times) at {s['serial_adam_cost']:.0f}.",
        ]
        for name, jitter in s["static_jitter_deg"].items():
            kept = s["amplitude_kept"][name]
            lines.append(
                f"{name}: jitter of a still head {jitter:.3f}° RMS; smoothing keeps {100 * kept['blink']:.0f} % of blinks and "
                f"{100 * kept['mouth']:.0f} % of the mouth's opening."
            )
    if "speed" in scores:
        lines += ["", *speed_lines(scores["speed"])]
    return "\n".join(lines).rstrip() + "\n"
