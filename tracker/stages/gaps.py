"""Frames without a head between frames with one: where the gap is short, the head is taken to have moved evenly from the one to the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation, Slerp

_TURNS = ("rotation", "neck_pose", "jaw_pose", "eyes_pose")  # axis-angle vectors; others are blended as they are

CONFIDENCE_SHARE = 0.25
"""What interpolated frames have of the confidence of the less sure of the two ends."""


def short_gaps(
    tracked: Bool[np.ndarray, "frames"], shots: Int[np.ndarray, "frames"], timestamps: Float[np.ndarray, "frames"], longest: float
) -> list[tuple[int, int]]:
    """Tracked frames just before and just after each gap, which lies within one shot and whose ends are at most ``longest`` seconds apart."""
    ends = np.flatnonzero(tracked)
    pairs = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    return [(a, b) for a, b in pairs if b > a + 1 and shots[a] == shots[b] and timestamps[b] - timestamps[a] <= longest]


def filled(
    values: Mapping[str, Float[np.ndarray, "frames d"]],
    confidence: Float[np.ndarray, "frames"],
    timestamps: Float[np.ndarray, "frames"],
    gaps: list[tuple[int, int]],
) -> tuple[dict[str, np.ndarray], np.ndarray, Bool[np.ndarray, "frames"]]:
    """Parameters and confidence with the gaps filled, and which frames that were. Rotations go the shortest way, at an even speed."""
    values, confidence = {name: array.copy() for name, array in values.items()}, confidence.copy()
    frames = np.zeros(len(timestamps), bool)
    for a, b in gaps:
        inside = slice(a + 1, b)
        frames[inside] = True
        share = (timestamps[inside] - timestamps[a]) / (timestamps[b] - timestamps[a])
        confidence[inside] = CONFIDENCE_SHARE * min(confidence[a], confidence[b])
        for name, array in values.items():
            if name not in _TURNS:
                array[inside] = array[a] + share[:, None] * (array[b] - array[a])
                continue
            for part in range(0, array.shape[1], 3):
                ends = Rotation.from_rotvec(array[[a, b], part : part + 3])
                array[inside, part : part + 3] = Slerp([0.0, 1.0], ends)(share).as_rotvec()
    return values, confidence, frames


def nearest_index(valid: Bool[np.ndarray, "frames"], shots: Int[np.ndarray, "frames"] | None = None) -> Int[np.ndarray, "frames"]:
    """For every frame, the nearest valid one (the earlier of two), in its own shot where that has any."""
    found = _nearest(valid)
    for shot in [] if shots is None else np.unique(shots[valid]).tolist():
        own = np.flatnonzero(shots == shot)
        found[own] = own[_nearest(valid[own])]
    return found


def _nearest(valid: Bool[np.ndarray, "frames"]) -> Int[np.ndarray, "frames"]:
    positions = np.flatnonzero(valid)
    after = np.searchsorted(positions, np.arange(len(valid))).clip(0, len(positions) - 1)
    before = (after - 1).clip(0)
    frames = np.arange(len(valid))
    closer_before = np.abs(frames - positions[before]) <= np.abs(positions[after] - frames)
    return np.where(closer_before, positions[before], positions[after])
