"""Benchmark scores as text."""

from __future__ import annotations

from typing import Any

import numpy as np

_ROWS = (
    ("whole head, posed, mm", "posed_mm_all"),
    ("whole head, shape alone, mm", "aligned_mm_all"),
    ("whole head, absolute, mm", "absolute_mm_all"),
    ("face, posed, mm", "posed_mm_face"),
    ("ears, posed, mm", "posed_mm_ears"),
    ("scalp, posed, mm", "posed_mm_scalp"),
    ("neck, posed, mm", "posed_mm_neck"),
    ("lips, posed, mm", "posed_mm_lips"),
    ("lids, posed, mm", "posed_mm_eyes"),
    ("lips, shape alone, mm", "aligned_mm_lips"),
    ("lids, shape alone, mm", "aligned_mm_eyes"),
    ("head rotation, median, °", "rotation_deg_median"),
    ("head rotation, 95th percentile, °", "rotation_deg_p95"),
    ("head rotation without a constant, median, °", "rotation_change_deg_median"),
    ("head position, mm", "translation_mm"),
    ("expression coefficients, mean", "expression"),
    ("focal length, %", "focal_pct"),
    ("frames lost, %", "lost_frames_pct"),
    ("seconds a frame", "seconds_per_frame"),
)


def mean_and_interval(values: list[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean over clips and its 95 % bootstrap interval."""
    array = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(0, len(array), (2000, len(array)))].mean(1)
    return float(array.mean()), float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def markdown_report(scores: dict[str, Any]) -> str:
    """Tables of everything ``tools/benchmark.py`` measured."""
    trackers = list(scores["synthetic"])
    lines = [
        f"{scores['clips']} synthetic clips of {scores['frames']} frames, seed {scores['seed']}; mean and 95 % interval over clips.",
        "",
        "| | " + " | ".join(trackers) + " |",
        "|---|" + "---|" * len(trackers),
    ]
    for label, key in _ROWS:
        cells = []
        for name in trackers:
            mean, low, high = mean_and_interval([clip[key] for clip in scores["synthetic"][name]])
            cells.append(f"{mean:.2f} ({low:.2f}–{high:.2f})")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    if "solver" not in scores:
        return "\n".join(lines) + "\n"
    solver = scores["solver"]
    lines += [
        "",
        f"Dense term alone from 25° and 15 % of a head off: {100 * solver['convergence_share']:.1f} % of frames recovered.",
        f"Solver {solver['ms_per_frame']:.2f} ms a frame, Adam (50 steps) {solver['adam_ms_per_frame']:.0f} ms: {solver['speedup_over_adam']:.0f} times "
        f"faster, final cost {solver['cost']:.0f} against {solver['adam_cost']:.0f}.",
    ]
    for name in scores["static_jitter_deg"]:
        kept = scores["amplitude_kept"][name]
        lines.append(
            f"{name}: jitter of a still head {scores['static_jitter_deg'][name]:.3f}° RMS; smoothing keeps "
            f"{100 * kept['blink']:.0f} % of blinks and {100 * kept['mouth']:.0f} % of the mouth's opening."
        )
    return "\n".join(lines) + "\n"
