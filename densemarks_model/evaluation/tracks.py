"""Points of the whole head, followed by optical flow, found again by matching: end-point error."""

from __future__ import annotations

import numpy as np

from densemarks_model.evaluation.bootstrap import bootstrap_interval
from densemarks_model.evaluation.flow import FlowPair
from densemarks_model.evaluation.matchers import Matcher, StayPut
from densemarks_model.evaluation.metrics import Measure, mean_over_people


def evaluate_tracks(pairs: list[FlowPair], matchers: list[Matcher], rounds: int = 500) -> dict[str, dict[str, Measure]]:
    """Distances between matched and followed points, pixels of the 224 crop, every person counting the same.

    A pair's points are averaged first, then a person's pairs, then people; intervals over people.

    Returns:
        For each matcher's name, and ``stay put`` (no matching at all): ``epe_mean``, ``epe_median`` (median over a pair's points),
        and ``epe_gap_G`` (mean, for the gap of G frames).
    """
    names = sorted({p.person for p in pairs})
    people = np.array([names.index(p.person) for p in pairs], int)
    gaps = np.array([p.gap for p in pairs])
    results: dict[str, dict[str, Measure]] = {}
    for matcher in [*matchers, StayPut()]:
        mean, median = np.zeros(len(pairs)), np.zeros(len(pairs))
        for k, pair in enumerate(pairs):  # two pictures at a time: descriptions of all would fill the memory
            source, target = matcher.describe(np.stack([pair.source, pair.target]))
            distance = np.linalg.norm(matcher.find(source, pair.source_points, target) - pair.target_points, axis=1)
            mean[k], median[k] = distance.mean(), np.median(distance)
        results[matcher.name] = {"epe_mean": _measure(mean, people, len(names), rounds), "epe_median": _measure(median, people, len(names), rounds)}
        for gap in sorted(set(gaps.tolist())):
            results[matcher.name][f"epe_gap_{gap}"] = _measure(np.where(gaps == gap, mean, np.nan), people, len(names), rounds)
    return results


def _measure(values: np.ndarray, people: np.ndarray, number: int, rounds: int) -> Measure:
    def statistic(counts: np.ndarray) -> float:
        return mean_over_people(values, people, counts)

    return Measure(statistic(np.ones(number)), *bootstrap_interval(statistic, number, rounds), int(np.isfinite(values).sum()))
