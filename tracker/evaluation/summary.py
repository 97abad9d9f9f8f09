"""The benchmark's numbers under names that do not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from densemarks_model.evaluation.bootstrap import mean_and_interval
from tracker.evaluation.real_suite import MEASURES

PARTS = ("all", "face", "ears", "scalp", "neck", "lips", "eyes")
YAW_BINS = ((0, 20), (20, 40), (40, 60), (60, 90))
"""Degrees to either side, by which errors are told apart."""

_SINGLE = {
    "vertex_error_valid_mm": "posed_mm_valid",
    "rotation_error_valid_deg": "rotation_deg_valid",
    "rotation_change_deg": "rotation_change_deg_median",
    "translation_error_mm": "translation_mm",
    "gaze_error_deg": "gaze_deg",
    "focal_error_pct": "focal_pct",
    "focal_within_1_sigma": "focal_within_1_sigma",
    "focal_within_2_sigma": "focal_within_2_sigma",
    "failure_rate": "failure_rate",
    "frames_per_second": "frames_per_second",
}
_KINDS = {"vertex_error_mm": "posed", "vertex_error_aligned_mm": "aligned", "vertex_error_absolute_mm": "absolute"}


def synthetic_summary(clips: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """One tracker's means over clips with exact truth; each has its interval under the same path in ``interval``.

    ``vertex_error_mm`` is after one factor for the whole clip on the distance from the camera, which no single camera can
    tell; ``vertex_error_aligned_mm`` after a rigid motion of each frame; ``vertex_error_absolute_mm`` as it is. Lost frames
    count with the values that they hold, except in the figures named ``valid``, which are each tracker's own easy frames.
    """
    summary: dict[str, Any] = {}
    interval: dict[str, Any] = {}

    def put(path: tuple[str, ...], key: str) -> None:
        mean, low, high = mean_and_interval([c.get(key, float("nan")) for c in clips])
        for tree, value in ((summary, _number(mean)), (interval, [_number(low), _number(high)])):
            for name in path[:-1]:
                tree = tree.setdefault(name, {})
            tree[path[-1]] = value

    for name, kind in _KINDS.items():
        for part in PARTS:
            put((name, part), f"{kind}_mm_{part}")
    put(("rotation_error_deg", "median"), "rotation_deg_median")
    put(("rotation_error_deg", "p95"), "rotation_deg_p95")
    for low, high in YAW_BINS:
        put(("vertex_error_by_yaw_mm", f"{low}-{high}"), f"posed_mm_yaw_{low}_{high}")
        put(("rotation_error_by_yaw_deg", f"{low}-{high}"), f"rotation_deg_yaw_{low}_{high}")
    for name, key in _SINGLE.items():
        put((name,), key)
    put(("expression_error", "all"), "expression")
    for key in clips[0] if clips else ():
        if key.startswith("expression_"):
            put(("expression_error", key.removeprefix("expression_")), key)
    return {**summary, "clips": len(clips), "interval": interval}


def real_summary(clips: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """One tracker's means over real clips, with intervals."""
    found = {m: mean_and_interval([c[m] for c in clips.values()]) for m in MEASURES}
    return {
        **{m: _number(v[0]) for m, v in found.items()},
        "clips": len(clips),
        "interval": {m: [_number(v[1]), _number(v[2])] for m, v in found.items()},
    }


def look_up(tree: Mapping[str, Any], path: str) -> Any:
    """Value at ``a.b.c``, None where there is none."""
    for name in path.split("."):
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return tree


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if not np.isfinite(value) else float(value)
