"""Trackers against exact ground truth: synthetic clips of people outside the head model's basis."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from densemarks_model.data.synthetic.sequences import Script, render_sequence, suite
from flame_assets.load import load_head
from tracker.evaluation.geometry import part_masks, rigid_alignment, rotation_angles_deg, vertex_errors
from tracker.evaluation.trackers import Result, run_tracker


@dataclass(frozen=True)
class ClipTruth:
    """Ground truth of a rendered clip; arrays as in :class:`densemarks_model.data.synthetic.sequences.Truth`."""

    vertices: Float[np.ndarray, "frames verts 3"]
    skull_rotation: Float[np.ndarray, "frames 3 3"]
    expression: Float[np.ndarray, "frames expression"]
    focal_px: float
    yaw: Float[np.ndarray, "frames"]


def render_clip(script: Script, folder: Path) -> ClipTruth:
    """Write a clip as numbered PNG files with their times, and return its truth."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = []
    for index, (image, truth) in enumerate(render_sequence(script)):
        cv2.imwrite(str(folder / f"{index:05d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        truths.append(truth)
    return ClipTruth(
        np.stack([t.vertices for t in truths]),
        np.stack([t.skull_rotation for t in truths]),
        np.stack([t.expression for t in truths]),
        truths[0].focal_px,
        np.array([t.yaw for t in truths]),
    )


def score(result: Result, truth: ClipTruth) -> dict[str, float]:
    """Numbers of one tracker on one clip; lengths in millimetres, angles in degrees.

    The head's rotation is compared by the motion that takes the tracked skull's surface onto the true one, so that it does
    not depend on how a model divides a head into shape and pose. ``rotation_change`` is the same after one rotation for the
    whole clip has been taken out, since which way a head of unknown shape faces is a matter of definition.
    """
    asset = load_head()
    masks = part_masks(asset.regions)
    errors = vertex_errors(result.vertices, truth.vertices, masks)
    skull = masks["all"] & ~masks["neck"] & ~masks["lips"] & ~masks["eyes"]
    off, _ = rigid_alignment(result.vertices[:, skull].astype(np.float64), truth.vertices[:, skull].astype(np.float64))
    angle = rotation_angles_deg(off, np.eye(3)[None])
    in_head = np.swapaxes(truth.skull_rotation, 1, 2) @ off @ truth.skull_rotation
    u, _, vt = np.linalg.svd(in_head.mean(0))
    change = rotation_angles_deg(in_head, (u @ vt)[None])
    centre = [v[:, skull].mean(1) for v in (result.vertices, truth.vertices)]
    scores = {
        "rotation_deg_median": float(np.median(angle)),
        "rotation_deg_p95": float(np.percentile(angle, 95)),
        "rotation_change_deg_median": float(np.median(change)),
        "translation_mm": float(1000 * np.median(np.linalg.norm(centre[0] - centre[1], axis=1))),
        "expression": float(np.abs(result.track.expr - truth.expression).mean()),
        "focal_pct": float(100 * abs(result.track.focal_px / truth.focal_px - 1)),
        "lost_frames_pct": float(100 * (~result.track.valid).mean()),
        "seconds_per_frame": result.seconds / len(truth.yaw),
    }
    for kind in ("aligned", "posed", "absolute"):
        for part, values in getattr(errors, kind).items():
            scores[f"{kind}_mm_{part}"] = float(values.mean())
    return scores


def run_suite(
    trackers: list[str], count: int, frames: int, work: Path, seed: int = 9000, say: Callable[[str], None] = print
) -> dict[str, list[dict[str, float]]]:
    """Scores of every tracker on every clip of a suite. A tracker that gives up on a clip gets no scores there and is named."""
    asset = load_head()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in trackers}
    for number, script in enumerate(suite(seed, count, frames)):
        folder = work / f"clip_{number}"
        truth = render_clip(script, folder)
        for name in trackers:
            scores = score(run_tracker(name, folder, asset), truth)
            results[name].append(scores)
            say(f"clip {number} (yaw ±{script.yaw_deg:.0f}°) {name}: " + json.dumps({k: round(v, 2) for k, v in scores.items() if "mm_all" in k or "median" in k}))
    return results
