"""Whether a landmark lands at one place of the cube for all people, and at the place where the head model has it."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from densemarks_model.evaluation.bootstrap import bootstrap_interval
from densemarks_model.evaluation.clips import FaceSample
from densemarks_model.evaluation.matchers import CubeMap
from densemarks_model.evaluation.metrics import Measure, Spread, landmark_spread
from densemarks_model.evaluation.network import CROP_SIZE
from densemarks_model.matching import sample_bilinear
from flame_assets.load import load_head
from tracker.landmarks.landmark_schemes import N_LANDMARKS, landmark_groups


@functools.cache
def model_places(cube: int) -> Float[np.ndarray, "478 3"]:
    """Coordinates of MediaPipe's landmarks on the default head in a version of the cube; NaN for those it does not have."""
    head = load_head().with_cube(cube)
    embedding = head.landmarks["mediapipe"]
    places = np.full((N_LANDMARKS, 3), np.nan)
    places[embedding.indices] = embedding.positions(head.canonical, head.faces)
    return places


def inner_landmarks() -> np.ndarray:
    """``(478,)`` bool: landmarks that expressions and gaze move least; irises, lips and lids are left out."""
    moving = landmark_groups()
    kept = np.ones(N_LANDMARKS, bool)
    kept[[i for name in ("irises", "lips", "lids") for i in moving[name]]] = False
    return kept


def predicted_places(samples: list[FaceSample], maps: list[CubeMap]) -> Float[np.ndarray, "n 478 3"]:
    """Cube coordinates that the network gives each landmark."""
    return np.stack(
        [sample_bilinear(m.coordinates, s.points * (m.coordinates.shape[0] / CROP_SIZE)) for s, m in zip(samples, maps, strict=True)]
    )


def evaluate_landmarks(samples: list[FaceSample], maps: list[CubeMap], rounds: int = 300, *, cube: int) -> dict[str, Measure]:
    """Spread over people and frames, see :func:`landmark_spread`; intervals over people.

    Args:
        cube: version of the cube that the maps are in.

    Returns:
        ``spread_rms``, ``spread_median``, ``offset`` and the same with ``_inner`` for :func:`inner_landmarks`, cube units;
        ``count`` is the number of landmarks.
    """
    names = sorted({s.person for s in samples})
    people = np.array([names.index(s.person) for s in samples])
    places = predicted_places(samples, maps)
    visible = np.stack([s.visible for s in samples])
    measures: dict[str, Measure] = {}
    for suffix, chosen in (("", np.ones(N_LANDMARKS, bool)), ("_inner", inner_landmarks())):
        part, seen, own = places[:, chosen], visible[:, chosen], model_places(cube)[chosen]
        whole = landmark_spread(part, seen, people, own)
        drawn: list[Spread] = []

        def statistic(counts: np.ndarray, part=part, seen=seen, own=own, drawn=drawn) -> float:
            drawn.append(landmark_spread(part, seen, people, own, counts))
            return drawn[-1].rms

        bootstrap_interval(statistic, len(names), rounds)
        for name, field in (("spread_rms", "rms"), ("spread_median", "median"), ("offset", "offset")):
            values = np.array([getattr(d, field) for d in drawn])
            values = values[np.isfinite(values)]
            low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
            measures[name + suffix] = Measure(getattr(whole, field), float(low), float(high), whole.landmarks)
    return measures


def worst_landmarks(samples: list[FaceSample], maps: list[CubeMap], number: int = 5) -> list[str]:
    """A line for each person: RMS distance to the landmarks' mean places, and the landmarks farthest away."""
    places, visible = predicted_places(samples, maps), np.stack([s.visible for s in samples])
    names = sorted({s.person for s in samples})
    shown = np.where(visible[..., None], places, np.nan)
    with np.errstate(invalid="ignore"):
        own = np.stack([_nanmean(shown[[s.person == name for s in samples]]) for name in names])
        mean = _nanmean(own)
    lines = []
    for name, mine in zip(names, own, strict=True):
        rows = [s.person == name for s in samples]
        distance = np.linalg.norm(shown[rows] - mean, axis=-1)
        away = np.linalg.norm(mine - mean, axis=-1)
        worst = [int(i) for i in np.argsort(np.where(np.isfinite(away), -away, np.inf))[:number] if np.isfinite(away[i])]
        rms = np.sqrt(np.nanmean(distance**2)) if np.isfinite(distance).any() else np.nan
        lines.append(f"{name}: {rms:.4f} over {sum(rows)} frames; worst " + ", ".join(f"{i} ({away[i]:.3f})" for i in worst))
    return lines


def _nanmean(values: np.ndarray) -> np.ndarray:
    number = np.isfinite(values).sum(0)
    return np.where(number > 0, np.nansum(values, 0) / np.maximum(number, 1), np.nan)
