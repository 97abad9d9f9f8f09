"""Curves over time: jitter, lag, and how much of a movement's range a tracker keeps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

_WINDOW = 9  # frames: a third of a second at 25 frames a second; heads do not shake faster than a parabola follows
_MAX_LAG = 4
_LEAST_CORRELATION = 0.3  # below it the curves do not show the same movement


def jitter_deg(rotation: Float[np.ndarray, "frames 3 3"], valid: Bool[np.ndarray, "frames"]) -> float:
    """RMS of the part of a head's rotation that local parabolas do not follow (Savitzky and Golay 1964), degrees.

    NaN when no run of valid frames is long enough to tell.
    """
    squares = []
    for run in _runs(valid, _WINDOW):
        turns = Rotation.from_matrix(rotation[run])
        away = (turns.mean().inv() * turns).as_rotvec()
        squares.append((away - savgol_filter(away, _WINDOW, 2, axis=0)) ** 2)
    return float(np.degrees(np.sqrt(np.concatenate(squares).sum(1).mean()))) if squares else float("nan")


def amplitude(curve: Float[np.ndarray, "frames"]) -> float:
    """Range from the 2nd to the 98th percentile, NaN left out."""
    known = curve[np.isfinite(curve)]
    return float(np.percentile(known, 98) - np.percentile(known, 2)) if len(known) else float("nan")


def lag_frames(curves: Float[np.ndarray, "frames k"], reference: Float[np.ndarray, "frames k"]) -> float:
    """By how many frames ``curves`` come after ``reference``: the shift of the largest correlation of their changes, refined
    by a parabola through its neighbours. NaN where they do not move alike."""
    known = np.isfinite(curves).all(1) & np.isfinite(reference).all(1)
    scores = []
    for lag in range(-_MAX_LAG, _MAX_LAG + 1):
        a, b, both = curves, reference, known
        if lag > 0:
            a, b, both = curves[lag:], reference[:-lag], known[lag:] & known[:-lag]
        elif lag < 0:
            a, b, both = curves[:lag], reference[-lag:], known[:lag] & known[-lag:]
        if both.sum() < 3 * _MAX_LAG:
            return float("nan")
        a, b = (np.gradient(np.where(both[:, None], c, 0), axis=0) for c in (a, b))
        inside = both.copy()
        inside[1:] &= both[:-1]
        inside[:-1] &= both[1:]
        inside[[0, -1]] = False
        strength = np.linalg.norm(a[inside]) * np.linalg.norm(b[inside])
        if strength < 1e-12:
            return float("nan")
        scores.append(float((a[inside] * b[inside]).sum() / strength))
    best = int(np.argmax(scores))
    if scores[best] < _LEAST_CORRELATION:
        return float("nan")
    if not 0 < best < len(scores) - 1:
        return float(best - _MAX_LAG)
    before, here, after = scores[best - 1 : best + 2]
    return best - _MAX_LAG + 0.5 * (before - after) / (before - 2 * here + after)


def _runs(valid: Bool[np.ndarray, "frames"], least: int) -> list[np.ndarray]:
    """Runs of consecutive valid frames of at least so many."""
    numbers = np.flatnonzero(valid)
    pieces = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [p for p in pieces if len(p) >= least]
