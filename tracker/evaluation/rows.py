"""What the benchmark's tables show, row by row, and what is to be said beside a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARK = "†"
"""Stands behind the labels of figures that a tracker's own objective is near to."""


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        label: in tables.
        path: in a suite's summary of one tracker.
        near: the trackers whose objective is near to this figure, and what that objective does; None where no tracker's is.
    """

    label: str
    path: str
    near: tuple[tuple[str, ...], str] | None = None

    def shown(self, trackers: Iterable[str]) -> str:
        """The label, marked where one of these trackers minimises something near to the figure."""
        return f"{self.label} {MARK}" if self.near_to(trackers) else self.label

    def near_to(self, trackers: Iterable[str]) -> list[str]:
        """Which of these trackers' objectives are near to the figure."""
        given = set(trackers)
        return [] if self.near is None else [name for name in self.near[0] if name in given]


SYNTHETIC_ROWS = (
    Row("whole head, mm", "vertex_error_mm.all"),
    Row("face, mm", "vertex_error_mm.face"),
    Row("ears, mm", "vertex_error_mm.ears"),
    Row("scalp, mm", "vertex_error_mm.scalp"),
    Row("neck, mm", "vertex_error_mm.neck"),
    Row("lips, mm", "vertex_error_mm.lips"),
    Row("lids, mm", "vertex_error_mm.eyes"),
    Row("whole head, in the frames it tracked, mm", "vertex_error_valid_mm"),
    Row("whole head, rigidly aligned, mm", "vertex_error_aligned_mm.all"),
    Row("lips, aligned, mm", "vertex_error_aligned_mm.lips"),
    Row("lids, aligned, mm", "vertex_error_aligned_mm.eyes"),
    Row("whole head, absolute, mm", "vertex_error_absolute_mm.all"),
    Row("head rotation, median, °", "rotation_error_deg.median"),
    Row("head rotation, 95th percentile, °", "rotation_error_deg.p95"),
    Row("head rotation in the frames it tracked, °", "rotation_error_valid_deg"),
    Row("head rotation without a constant, °", "rotation_change_deg"),
    Row("head position, mm", "translation_error_mm"),
    Row("gaze, °", "gaze_error_deg"),
    Row("expression coefficients, mean", "expression_error.all"),
    Row("jawOpen", "expression_error.jawOpen"),
    Row("eyeBlinkLeft", "expression_error.eyeBlinkLeft"),
    Row("focal length, %", "focal_error_pct"),
    Row("focal length within 1 σ (0.68 wanted), share", "focal_within_1_sigma"),
    Row("focal length within 2 σ (0.95 wanted), share", "focal_within_2_sigma"),
    Row("frames lost, share", "failure_rate"),
    Row("frames/s", "frames_per_second"),
)
"""Of every suite with exact truth; for all but frames/s and the shares within σ, less is better."""

REAL_ROWS = (
    Row("dlib's 51 inner points, NME, %", "independent_landmarks_nme_pct"),
    Row("agreement with optical flow, px", "flow_agreement_px", near=(("dense_landmarks", "dense_landmarks_photometric"), "ties frames some tenths of a second and more apart by optical flow")),
    Row("silhouette IoU", "silhouette_iou"),
    Row("change of colour on the skin, levels", "colour_spread", near=(("dense_landmarks_photometric",), "asks each place of the skin to keep its colour")),
    Row("jitter, °", "jitter_deg"),
    Row("blinks' range over dlib's", "blink_amplitude_kept"),
    Row("mouth's range over dlib's", "mouth_amplitude_kept"),
    Row("lag behind dlib's points, frames", "motion_lag_frames"),
    Row("frames lost, share", "failure_rate"),
    Row("frames/s", "frames_per_second"),
    Row("peak memory, MB", "peak_memory_mb"),
)


def footnotes(rows: Sequence[Row], trackers: Iterable[str]) -> list[str]:
    """A sentence for each tracker whose objective is near to some of the figures."""
    trackers = list(trackers)
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for name in row.near_to(trackers):
            assert row.near is not None
            reasons.setdefault(name, []).append(f"{row.label}: it {row.near[1]}")
    return [f"{MARK} near the objective of `{name}` ({'; '.join(why)}): no independent evidence for it." for name, why in reasons.items()]
