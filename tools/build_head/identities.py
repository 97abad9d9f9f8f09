"""Draw people: random weights of the source's identity targets.

A person is a mix of *macro* targets (ancestry × gender × age, and build by gender × age × muscle × weight) plus a few
hundred *local* sliders (nose width, chin height, ear shape …). Everything is linear in the weights, so a person is one
row of a weight matrix. (Mirror images of the people are added later, by the component analysis.)
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from tools.build_head.source import Source

FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears", "neck", "asym")
RACES, GENDERS, AGES = ("caucasian", "african", "asian"), ("female", "male"), ("child", "young", "old")
MUSCLE = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHT = ("minweight", "averageweight", "maxweight")

SLIDER_SIGMA = 0.27
"""Standard deviation of a two-sided slider; 1 is the strongest setting the source's authors drew."""
FOLDER_SIGMA = {"head": 0.2, "neck": 0.2, "asym": 0.18, "ears": 0.32, "nose": 0.26}
TARGET_SIGMA = {
    "head-trans": 0.1, "head-angle": 0.15, "neck-trans": 0.12, "neck-double": 0.12, "ear-shape": 0.2,
    "laugh-lines": 0.15, "eye-height": 0.2, "eyefold": 0.15, "epicanthus": 0.15, "eyebrows-angle": 0.18,
    "nose-scale-depth": 0.2, "flaring": 0.18, "nostrils": 0.18, "mouth-trans-forward": 0.18,
}  # fmt: skip
"""Smaller spreads for targets that fold the surface over when several of them meet."""
SLIDER_MEAN = {
    "eyes/l-eye-push2-out": 0.90, "eyes/r-eye-push2-out": 0.90,
    "eyes/l-eye-push1-out": 0.45, "eyes/r-eye-push1-out": 0.45,
    "eyes/l-eye-trans-out": 0.18, "eyes/r-eye-trans-out": 0.18,
    "head/head-back-scale-depth-decr": 0.15, "head/head-scale-vert-decr": 0.15,
}  # fmt: skip
"""Shifts of the average, towards adult anthropometry: the source's eyes are too short (25 mm from corner to corner,
people's 29-31 mm) and too close-set, its skull too deep and too high for them."""
SIDE_DIFFERENCE = 0.12
"""Standard deviation of the difference between a left slider and its right twin, as a share of the slider's own."""

_OPPOSITES = (
    ("decr", "incr"), ("in", "out"), ("down", "up"), ("backward", "forward"), ("concave", "convex"),
    ("compress", "uncompress"), ("l", "r"),
)  # fmt: skip


@dataclass(frozen=True)
class Slider:
    """One signed control: names (``folder/name``) of the targets for negative and positive values.

    A target without an opposite (``negative`` None) is used with both signs, so that it does not shift the mean.
    """

    negative: str | None
    positive: str
    sigma: float


def local_sliders(source: Source) -> list[Slider]:
    """Pair opposite targets of the local folders into signed sliders, in a fixed order."""
    sliders = []
    for folder in FOLDERS:
        names = [n for n in source.target_names(folder) if "breast" not in n and "trunk" not in n]
        rest = set(names)
        for name in names:
            if name not in rest:
                continue
            partner = next((p for p in _partners(name) if p in rest and p != name), None)
            sigma = next((s for key, s in TARGET_SIGMA.items() if key in name), FOLDER_SIGMA.get(folder, SLIDER_SIGMA))
            rest -= {name, partner}
            sliders.append(Slider(f"{folder}/{partner}" if partner else None, f"{folder}/{name}", sigma))
    return sliders


def _partners(name: str) -> list[str]:
    stem, _, ending = name.rpartition("-")
    return [f"{stem}-{b if ending == a else a}" for a, b in _OPPOSITES if ending in (a, b)]


def _side_twin(name: str) -> str:
    """The target ``l-…`` or ``r-…`` of the other side of the face; ``name`` itself for a target of both sides."""
    folder, _, rest = name.partition("/")
    if rest[:2] in ("l-", "r-"):
        return f"{folder}/{'r' if rest[0] == 'l' else 'l'}{rest[1:]}"
    return name


def macro_names() -> list[str]:
    """Names of the macro targets that samples use."""
    ancestry = [f"macrodetails/{r}-{g}-{a}" for r, g, a in itertools.product(RACES, GENDERS, AGES)]
    build = [
        f"macrodetails/universal-{g}-{a}-{m}-{w}" for g, a, m, w in itertools.product(GENDERS, AGES, MUSCLE, WEIGHT)
    ]
    return ancestry + build


def sample_weights(source: Source, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Target names (K) and weights ``(count, K)`` of ``count`` people.

    ``RandomState`` is used because numpy promises that its streams never change.
    """
    rng = np.random.RandomState(seed)
    sliders = local_sliders(source)
    names = macro_names() + sorted({n for s in sliders for n in (s.negative, s.positive) if n is not None})
    column = {name: k for k, name in enumerate(names)}
    weights = np.zeros((count, len(names)))
    for person in weights:
        _sample_macros(rng, person, column)
    _sample_locals(rng, weights, column, sliders)
    return names, weights


def _sample_macros(rng: np.random.RandomState, person: np.ndarray, column: dict[str, int]) -> None:
    race = rng.dirichlet([0.6] * len(RACES))
    male = rng.beta(0.4, 0.4)
    gender = np.array([1 - male, male])
    age = np.zeros(len(AGES))
    if rng.random_sample() < 0.06:  # adults mostly; some adolescents
        age[0] = rng.uniform(0.1, 0.5)
        age[1] = 1 - age[0]
    else:
        age[2] = rng.beta(1.0, 1.6)
        age[1] = 1 - age[2]
    muscle, weight = _three_way(rng.uniform(0.1, 0.9)), _three_way(rng.uniform(0.1, 0.9))
    for (r, wr), (g, wg), (a, wa) in itertools.product(zip(RACES, race), zip(GENDERS, gender), zip(AGES, age)):
        person[column[f"macrodetails/{r}-{g}-{a}"]] = wr * wg * wa
    for (g, wg), (a, wa), (m, wm), (w, ww) in itertools.product(
        zip(GENDERS, gender), zip(AGES, age), zip(MUSCLE, muscle), zip(WEIGHT, weight)
    ):
        person[column[f"macrodetails/universal-{g}-{a}-{m}-{w}"]] = wg * wa * wm * ww


def _three_way(value: float) -> np.ndarray:
    """Linear interpolation weights of (min, average, max) at ``value`` in [0, 1]."""
    low, high = max(0.0, 1 - 2 * value), max(0.0, 2 * value - 1)
    return np.array([low, 1 - low - high, high])


def _sample_locals(
    rng: np.random.RandomState, weights: np.ndarray, column: dict[str, int], sliders: list[Slider]
) -> None:
    drawn: dict[str, np.ndarray] = {}
    for slider in sliders:
        value = rng.standard_normal(len(weights)) * slider.sigma
        twin = _side_twin(slider.positive)
        value = drawn[twin] + SIDE_DIFFERENCE * value if twin in drawn else value
        drawn[slider.positive] = value
        value = value + SLIDER_MEAN.get(slider.positive, 0.0) - SLIDER_MEAN.get(slider.negative or "", 0.0)
        value = np.clip(value, -1.3, 1.3)
        if slider.negative is None:
            weights[:, column[slider.positive]] = value
        else:
            weights[:, column[slider.positive]] = np.maximum(value, 0)
            weights[:, column[slider.negative]] = np.maximum(-value, 0)
