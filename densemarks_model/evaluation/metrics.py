"""Measures as pure functions: arrays in, numbers out, every person counting the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

YAW_EDGES = (0, 30, 60, 90, 180)
"""Edges of the bins of |yaw|, degrees."""


@dataclass(frozen=True)
class Measure:
    """One number of the table.

    Attributes:
        value: the measure on everything.
        low, high: ends of its 95 % interval; NaN where there is none.
        count: how many things it was measured on; what they are is for the row to say.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    count: int = 0

    def json(self) -> dict[str, float | int | list[float | None] | None]:
        """Plain values; NaN becomes null, which JSON knows."""
        value, low, high = (None if not np.isfinite(x) else float(x) for x in (self.value, self.low, self.high))
        return {"value": value, "interval_95": [low, high], "count": int(self.count)}


def cube_errors(
    predicted: Float[np.ndarray, "*b 3"], truth: Float[np.ndarray, "*b 3"], where: Bool[np.ndarray, "*b"]
) -> Float[np.ndarray, "n"]:
    """Euclidean distances of the coordinates at the pixels ``where`` is true, cube units."""
    difference = np.asarray(predicted, np.float32)[where] - np.asarray(truth, np.float32)[where]
    return np.linalg.norm(difference, axis=-1)


def mask_iou(predicted: Bool[np.ndarray, "*b"], truth: Bool[np.ndarray, "*b"]) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


def pck(
    found: Float[np.ndarray, "n 2"], wanted: Float[np.ndarray, "n 2"], head_size: float, fraction: float = 0.05
) -> float:
    """Percentage of correct keypoints, as a share: how many lie within ``fraction * head_size`` of where they should.

    After Yang & Ramanan, *Articulated Human Detection with Flexible Mixtures of Parts* (PAMI 2013). NaN without points.
    """
    if not len(wanted):
        return float("nan")
    return float((np.linalg.norm(found - wanted, axis=1) <= fraction * head_size).mean())


def head_size(points: Float[np.ndarray, "n 2"]) -> float:
    """The longest side of the box around a face's landmarks, in the landmarks' own unit."""
    return float(np.ptp(points, axis=0).max())


@dataclass(frozen=True)
class Spread:
    """How well one landmark lands at one place of the cube, whoever shows it; cube units.

    Attributes:
        rms: root of the mean squared distance to the landmark's mean place, over landmarks, people and their frames.
        median: of that distance. offset: mean over landmarks of the distance from the mean place to the head model's.
        landmarks: how many took part.
    """

    rms: float
    median: float
    offset: float
    landmarks: int


def landmark_spread(
    places: Float[np.ndarray, "n landmarks 3"],
    visible: Bool[np.ndarray, "n landmarks"],
    people: Int[np.ndarray, "n"],
    reference: Float[np.ndarray, "landmarks 3"],
    counts: Float[np.ndarray, "people"] | None = None,
    min_people: int = 2,
) -> Spread:
    """Spread of every landmark's predicted place.

    A landmark's mean place is the mean over people of each one's own mean over the frames that show it, and each person's frames share
    one vote between them; so a person with many frames counts as much as one with few.

    Args:
        places: predicted cube coordinates of each landmark in each frame.
        visible: frames in which a landmark counts.
        people: number of the person in each frame, from 0.
        reference: where the landmark is on the head model, cube coordinates; NaN where unknown.
        counts: votes of each person; one each when None (the bootstrap gives others).
        min_people: landmarks that fewer people show are left out: one person cannot disagree.
    """
    number = int(people.max()) + 1 if counts is None else len(counts)
    counts = np.ones(number) if counts is None else np.asarray(counts, np.float64)
    frames_of = np.zeros((number, places.shape[1]))
    np.add.at(frames_of, people, visible)
    shown_by = (frames_of > 0) & (counts[:, None] > 0)
    used = shown_by.sum(0) >= min_people
    if not used.any():
        return Spread(float("nan"), float("nan"), float("nan"), 0)
    places, visible, frames_of, reference = places[:, used], visible[:, used], frames_of[:, used], reference[used]
    weight = visible * counts[people][:, None] / np.maximum(frames_of, 1)[people]
    weight = weight / weight.sum(0)
    mean = np.einsum("nl,nlc->lc", weight, places)
    distance = np.linalg.norm(places - mean, axis=-1)
    rms = float(np.sqrt((weight * distance**2).sum(0).mean()))
    offset = np.linalg.norm(mean - reference, axis=1)
    known = np.isfinite(offset)
    return Spread(rms, weighted_median(distance, weight), float(offset[known].mean()) if known.any() else float("nan"), int(used.sum()))


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value at which half of the weight is reached."""
    order = np.argsort(values, axis=None)
    reached = np.cumsum(weights.ravel()[order])
    return float(values.ravel()[order[np.searchsorted(reached, reached[-1] / 2)]])


def mean_over_people(values: Float[np.ndarray, "n"], people: Int[np.ndarray, "n"], counts: Float[np.ndarray, "people"]) -> float:
    """Mean of each person's own mean; people vote ``counts`` times. NaN values are left out."""
    good = np.isfinite(values)
    total = np.bincount(people[good], values[good], len(counts))
    number = np.bincount(people[good], minlength=len(counts))
    weight = counts * (number > 0)
    return float((weight * total / np.maximum(number, 1)).sum() / weight.sum()) if weight.sum() else float("nan")


def mean_over_pairs(
    values: Float[np.ndarray, "n"], pairs: Int[np.ndarray, "n 2"], counts: Float[np.ndarray, "people"]
) -> float:
    """Mean over pairs of people of each pair's own mean; a pair votes as often as the product of its people's ``counts``."""
    number = len(counts)
    votes = (counts[:, None] * counts[None, :]).ravel()
    return mean_over_people(values, pairs[:, 0] * number + pairs[:, 1], votes)
