"""Trackers on real clips, scored with cues that none of them was fitted to."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracker.errors import UserError
from tracker.evaluation.baselines import TRACKERS, Tracked
from tracker.evaluation.independent_landmarks import (
    INNER,
    find_landmarks,
    lid_opening,
    lip_opening,
    nme_pct,
    projected_landmarks,
)
from tracker.evaluation.motion import amplitude, jitter_deg, lag_frames
from tracker.evaluation.picture_measures import colour_spread, flow_agreement_px, silhouette_iou

MEASURES = (
    "independent_landmarks_nme_pct",
    "flow_agreement_px",
    "silhouette_iou",
    "colour_spread",
    "jitter_deg",
    "blink_amplitude_kept",
    "mouth_amplitude_kept",
    "motion_lag_frames",
    "failure_rate",
    "frames_per_second",
    "peak_memory_mb",
)
"""What each tracker gets on each clip; NaN where a clip cannot tell."""

_LEAST_BLINK, _LEAST_MOUTH = 0.06, 0.02  # ranges of dlib's openings below which a clip has no blink, no speech


@dataclass(frozen=True)
class RealClip:
    """A clip to score on.

    Attributes:
        name: in reports.
        video: file, or folder of pictures.
        max_frames: of it.
        masks: folder of person masks for its frames, or None.
    """

    name: str
    video: Path
    max_frames: int | None = None
    masks: Path | None = None


def run_alone(name: str, clip: RealClip) -> Tracked:
    """Run a tracker in a process of its own, so that its peak memory is its own.

    Raises:
        UserError: as the tracker does.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, name, clip.video, clip.max_frames).result()


def _run(name: str, video: Path, max_frames: int | None) -> Tracked:
    return TRACKERS[name](video, max_frames)


def score(tracked: Tracked, clip: RealClip, reference: np.ndarray) -> dict[str, float]:
    """Numbers of one tracker on one clip.

    Args:
        tracked: its result.
        clip: the clip.
        reference: dlib's landmarks of the clip, from :func:`find_landmarks`.
    """
    points = projected_landmarks(tracked)
    reference = reference[: len(points)]
    track = tracked.track

    def kept(opening: Callable[[np.ndarray], np.ndarray], least: float) -> float:
        whole = amplitude(opening(reference))
        return amplitude(opening(points)) / whole if whole > least else float("nan")

    return {
        "independent_landmarks_nme_pct": nme_pct(points, reference),
        "flow_agreement_px": flow_agreement_px(tracked, clip.video),
        "silhouette_iou": silhouette_iou(tracked, clip.masks) if clip.masks else float("nan"),
        "colour_spread": colour_spread(tracked, clip.video),
        "jitter_deg": jitter_deg(tracked.skull_rotation, track.tracked),
        "blink_amplitude_kept": kept(lid_opening, _LEAST_BLINK),
        "mouth_amplitude_kept": kept(lip_opening, _LEAST_MOUTH),
        "motion_lag_frames": lag_frames(points[:, INNER].mean(1), reference[:, INNER].mean(1)),
        "failure_rate": float((~track.tracked).mean()),
        "frames_per_second": track.n_frames / tracked.seconds if tracked.seconds else float("nan"),
        "peak_memory_mb": tracked.peak_memory_mb or float("nan"),
    }


def run_suite(
    trackers: list[str],
    clips: list[RealClip],
    from_disk: Mapping[str, Mapping[str, Tracked]] | None = None,
    say: Callable[[str], None] = print,
    keep: Callable[[str, str, Tracked], None] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by tracker and clip. A tracker that gives up on a clip has a failure rate of one there and nothing else.

    Args:
        trackers: names from :data:`TRACKERS`.
        clips: what to score on.
        from_disk: name -> clip's name -> results of other trackers.
        say: gets a line for each result.
        keep: gets the name, the clip's name and the result, for pictures.
    """
    others = dict(from_disk or {})
    scores: dict[str, dict[str, dict[str, float]]] = {name: {} for name in (*trackers, *others)}
    for clip in clips:
        reference = find_landmarks(clip.video, clip.max_frames)
        for name in scores:
            try:
                tracked = others[name][clip.name] if name in others else run_alone(name, clip)
            except KeyError:
                continue
            except UserError as error:
                scores[name][clip.name] = {m: float("nan") for m in MEASURES} | {"failure_rate": 1.0}
                say(f"{clip.name} {name}: {error}")
                continue
            found = scores[name][clip.name] = score(tracked, clip, reference)
            say(f"{clip.name} {name}: " + ", ".join(f"{k} {v:.3g}" for k, v in found.items() if np.isfinite(v)))
            if keep is not None:
                keep(name, clip.name, tracked)
    return scores
