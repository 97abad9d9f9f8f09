"""Trackers against exact ground truth: synthetic clips of people outside the head model's basis.

:func:`score` and :func:`score_clips` serve every suite whose truth is exact; :func:`run_suite` renders the clips of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from densemarks_model.data.synthetic.sequences import Script, render_sequence, suite
from flame_assets.similarity import rigid_alignment
from tracker.errors import UserError
from tracker.evaluation.baselines import Tracked, Tracker
from tracker.evaluation.geometry import part_masks, rotation_angles_deg, vertex_errors
from tracker.evaluation.summary import YAW_BINS


@dataclass(frozen=True)
class ClipTruth:
    """Ground truth of a rendered clip; arrays as in :class:`densemarks_model.data.synthetic.sequences.Truth`."""

    vertices: Float[np.ndarray, "frames verts 3"]
    skull_rotation: Float[np.ndarray, "frames 3 3"]
    expression: Float[np.ndarray, "frames expression"]
    eyes: Float[np.ndarray, "frames 6"]
    focal_px: float
    yaw: Float[np.ndarray, "frames"]


@dataclass(frozen=True)
class KnownClip:
    """A clip whose truth is known: what it is called in messages, its video, the truth."""

    label: str
    video: Path
    truth: ClipTruth


def render_clip(script: Script, file: Path) -> ClipTruth:
    """Write a clip as a video without loss, each picture at its time in the script, and return its truth.

    PNG pictures in QuickTime's container keep every pixel and take any clock, and every tracker can read them.

    Args:
        script: what to render.
        file: ending in ``.mov``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(script.frame_rate).limit_denominator(1001)
    truths = []
    with av.open(str(file), "w") as container:
        stream = container.add_stream("png", rate=rate)
        stream.width = stream.height = script.size
        stream.pix_fmt = "rgb24"
        stream.codec_context.time_base = stream.time_base = 1 / rate
        for index, (image, truth) in enumerate(render_sequence(script)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.duration, frame.time_base = index, 1, 1 / rate
            container.mux(stream.encode(frame))
            truths.append(truth)
        container.mux(stream.encode(None))
    return ClipTruth(
        np.stack([t.vertices for t in truths]),
        np.stack([t.skull_rotation for t in truths]),
        np.stack([t.expression for t in truths]),
        np.stack([t.eyes for t in truths]),
        truths[0].focal_px,
        np.array([t.yaw for t in truths]),
    )


def score(tracked: Tracked, truth: ClipTruth) -> dict[str, float]:
    """Numbers of one tracker on one clip; lengths in millimetres, angles in degrees.

    The head's rotation is compared by the motion that takes the tracked skull's surface onto the true one, so that it does
    not depend on how a model divides a head into shape and pose. ``rotation_change`` is the same after one rotation for the
    whole clip has been taken out, since which way a head of unknown shape faces is a matter of definition.

    Frames that the tracker calls invalid are scored with the values that they hold: a user gets nothing else.

    Raises:
        UserError: the tracker's head is not the one whose truth is known.
    """
    if tracked.vertices.shape != truth.vertices.shape:
        raise UserError(f"a track of {tracked.vertices.shape} vertices cannot be scored against {truth.vertices.shape}")
    masks = part_masks(tracked.head.regions)
    errors = vertex_errors(tracked.vertices, truth.vertices, masks)
    skull = masks["all"] & ~masks["neck"] & ~masks["lips"] & ~masks["eyes"]
    off, _ = rigid_alignment(tracked.vertices[:, skull].astype(np.float64), truth.vertices[:, skull].astype(np.float64))
    angle = rotation_angles_deg(off, np.eye(3)[None])
    in_head = np.swapaxes(truth.skull_rotation, 1, 2) @ off @ truth.skull_rotation
    change = rotation_angles_deg(in_head, Rotation.from_matrix(in_head).mean().as_matrix()[None])
    centre = [v[:, skull].mean(1) for v in (tracked.vertices, truth.vertices)]
    track = tracked.track
    scores = {
        "rotation_deg_median": float(np.median(angle)),
        "rotation_deg_p95": float(np.percentile(angle, 95)),
        "rotation_change_deg_median": float(np.median(change)),
        "translation_mm": float(1000 * np.median(np.linalg.norm(centre[0] - centre[1], axis=1))),
        "gaze_deg": float(np.median(gaze_errors_deg(tracked, truth))),
        "expression": float(np.abs(track.expr - truth.expression).mean()),
        "focal_pct": float(100 * abs(track.focal_px / truth.focal_px - 1)),
        "failure_rate": float((~track.tracked).mean()),
        "frames_per_second": track.n_frames / tracked.seconds if tracked.seconds else float("nan"),
    }
    for sigmas, within in zip((1, 2), focal_within(track.focal_px, tracked.focal_log_sigma, truth.focal_px), strict=True):
        scores[f"focal_within_{sigmas}_sigma"] = within
    for name, column in zip(track.expression_names, np.abs(track.expr - truth.expression).mean(0), strict=True):
        scores[f"expression_{name}"] = float(column)
    if track.tracked.any():
        scores["posed_mm_valid"] = float(errors.posed["all"][track.tracked].mean())
        scores["rotation_deg_valid"] = float(np.median(angle[track.tracked]))
    for low, high in YAW_BINS:
        there = (np.abs(truth.yaw) >= low) & (np.abs(truth.yaw) < high)
        if there.any():
            scores[f"posed_mm_yaw_{low}_{high}"] = float(errors.posed["all"][there].mean())
            scores[f"rotation_deg_yaw_{low}_{high}"] = float(np.median(angle[there]))
    for kind in ("aligned", "posed", "absolute"):
        for part, values in getattr(errors, kind).items():
            scores[f"{kind}_mm_{part}"] = float(values.mean())
    return scores


def focal_within(found_px: float, log_sigma: float, true_px: float) -> tuple[float, float]:
    """Whether a focal length's error is within one and within two of its stated standard deviations: 1 or 0, NaN where none is stated."""
    if not log_sigma > 0:
        return float("nan"), float("nan")
    sigmas = abs(np.log(found_px / true_px)) / log_sigma
    return float(sigmas <= 1), float(sigmas <= 2)


def gaze_errors_deg(tracked: Tracked, truth: ClipTruth) -> Float[np.ndarray, "frames eyes"]:
    """Angles between the tracked eyes' axes and the true ones, in camera space, frames with open eyes."""
    blink = [tracked.track.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    open_eyes = truth.expression[:, blink].max(1) < 0.3

    def axes(skull: np.ndarray, eyes: np.ndarray) -> np.ndarray:
        turn = Rotation.from_rotvec(eyes.reshape(-1, 3)).as_matrix().reshape(-1, 2, 3, 3)
        return np.einsum("fab,febc,c->fea", skull, turn, np.array([0.0, 0.0, 1.0]))

    a, b = axes(tracked.skull_rotation, tracked.track.eyes_pose), axes(truth.skull_rotation, truth.eyes)
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))[open_eyes]


def run_suite(
    trackers: Mapping[str, Tracker], count: int, frames: int, work: Path, seed: int = 9000, say: Callable[[str], None] = print
) -> dict[str, list[dict[str, float]]]:
    """Scores of every tracker on every clip of a suite, which is rendered into ``work``; see :func:`score_clips`."""

    def clips() -> Iterator[KnownClip]:
        for number, script in enumerate(suite(seed, count, frames)):
            file = work / f"clip_{number}.mov"
            yield KnownClip(f"clip {number} (yaw ±{script.yaw_deg:.0f}°)", file, render_clip(script, file))

    return score_clips(trackers, clips(), say)


def score_clips(
    trackers: Mapping[str, Tracker],
    clips: Iterable[KnownClip],
    say: Callable[[str], None] = print,
    keep: Callable[[str, KnownClip, Tracked], None] | None = None,
) -> dict[str, list[dict[str, float]]]:
    """Scores of every tracker on every clip, one row a clip. A tracker that gives up on a clip is named, and has no row there.

    Args:
        say: told one line a clip and tracker.
        keep: called with tracker's name, clip and result, for pictures of it.
    """
    results: dict[str, list[dict[str, float]]] = {name: [] for name in trackers}
    for number, clip in enumerate(clips):
        for name, tracker in trackers.items():
            try:
                tracked = tracker(clip.video)
                scores = score(tracked, clip.truth)
            except UserError as error:
                say(f"{clip.label} {name}: {error}")
                continue
            results[name].append({"clip": number, **scores})
            if keep is not None:
                keep(name, clip, tracked)
            shown = ", ".join(f"{k} {scores[k]:.2f}" for k in ("posed_mm_all", "aligned_mm_all", "rotation_deg_median"))
            say(f"{clip.label} {name}: {shown}")
    return results
