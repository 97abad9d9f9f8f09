"""Landmarks carried from one person to another by matching: PCK@0.05."""

from __future__ import annotations

import itertools

import numpy as np

from densemarks_model.evaluation.bootstrap import bootstrap_interval
from densemarks_model.evaluation.clips import FaceSample
from densemarks_model.evaluation.matchers import Matcher
from densemarks_model.evaluation.metrics import Measure, head_size, mean_over_pairs, pck

FRACTION = 0.05
"""Of the longest side of the box around the target's landmarks: how near a carried landmark must come."""

MAX_YAW_DIFFERENCE = 60.0
_FAR_YAW = 20.0
_MIN_LANDMARKS = 20


def choose_pairs(samples: list[FaceSample], per_people: int = 1, seed: int = 0) -> list[tuple[int, int]]:
    """Frames of different people whose yaw differs by at most 60 degrees: ``per_people`` for every ordered pair of people.

    Half of a pair's frames (rounded up) are drawn among those that differ by more than 20 degrees, where there are any.
    """
    rng = np.random.default_rng(seed)
    names = sorted({s.person for s in samples})
    frames = {name: [k for k, s in enumerate(samples) if s.person == name] for name in names}
    chosen: list[tuple[int, int]] = []
    for one, other in itertools.permutations(names, 2):
        possible = [(i, j) for i in frames[one] for j in frames[other]]
        turn = np.array([abs(samples[i].yaw - samples[j].yaw) for i, j in possible])
        far = np.flatnonzero((turn <= MAX_YAW_DIFFERENCE) & (turn > _FAR_YAW))
        drawn = rng.permutation(far)[: (per_people + 1) // 2]
        rest = np.setdiff1d(np.flatnonzero(turn <= MAX_YAW_DIFFERENCE), drawn)
        drawn = np.concatenate([drawn, rng.permutation(rest)[: per_people - len(drawn)]])
        chosen += [possible[int(k)] for k in drawn]
    return chosen


def evaluate_transfer(
    samples: list[FaceSample], matchers: list[Matcher], per_people: int = 1, rounds: int = 500
) -> dict[str, dict[str, Measure]]:
    """PCK@0.05 of landmarks visible in both frames, every ordered pair of people counting the same; intervals over people.

    Returns:
        For each matcher's name: ``pck`` (share), ``pck_yaw_0_20`` and ``pck_yaw_20_60`` (by difference of yaw).
    """
    names = sorted({s.person for s in samples})
    number = {name: k for k, name in enumerate(names)}
    pairs = [p for p in choose_pairs(samples, per_people) if _shared(samples, p).sum() >= _MIN_LANDMARKS]
    people = np.array([[number[samples[i].person], number[samples[j].person]] for i, j in pairs]).reshape(-1, 2)
    turn = np.array([abs(samples[i].yaw - samples[j].yaw) for i, j in pairs])
    images = np.stack([s.image for s in samples])
    results: dict[str, dict[str, Measure]] = {}
    for matcher in matchers:
        described = matcher.describe(images)
        scores = np.full(len(pairs), np.nan)
        for k, (i, j) in enumerate(pairs):
            shared = _shared(samples, (i, j))
            found = matcher.find(described[i], samples[i].points[shared], described[j])
            scores[k] = pck(found, samples[j].points[shared], head_size(samples[j].points[:468]), FRACTION)
        results[matcher.name] = {
            "pck": _measure(scores, people, len(names), rounds),
            f"pck_yaw_0_{_FAR_YAW:.0f}": _measure(np.where(turn <= _FAR_YAW, scores, np.nan), people, len(names), rounds),
            f"pck_yaw_{_FAR_YAW:.0f}_{MAX_YAW_DIFFERENCE:.0f}": _measure(
                np.where(turn > _FAR_YAW, scores, np.nan), people, len(names), rounds
            ),
        }
    return results


def _shared(samples: list[FaceSample], pair: tuple[int, int]) -> np.ndarray:
    return samples[pair[0]].visible & samples[pair[1]].visible


def _measure(scores: np.ndarray, pairs: np.ndarray, people: int, rounds: int) -> Measure:
    def statistic(counts: np.ndarray) -> float:
        return mean_over_pairs(scores, pairs, counts)

    value = statistic(np.ones(people))
    return Measure(value, *bootstrap_interval(statistic, people, rounds), int(np.isfinite(scores).sum()))
