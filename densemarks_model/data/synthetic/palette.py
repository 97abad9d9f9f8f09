"""Colours, linear RGB in [0, 1]."""

from __future__ import annotations

import numpy as np

_SKIN = np.array([[240, 205, 188], [231, 186, 163], [214, 163, 134], [189, 133, 102], [151, 102, 75], [112, 73, 53], [74, 49, 38]])
_LIPS = np.array([[196, 116, 110], [186, 98, 95], [174, 90, 82], [156, 80, 70], [124, 68, 60], [96, 58, 52], [72, 44, 42]])
_HAIR = np.array(
    [[14, 11, 10], [28, 21, 17], [52, 36, 26], [84, 56, 36], [122, 84, 52], [176, 134, 86], [214, 182, 130], [232, 214, 178],
     [140, 66, 36], [172, 88, 44], [128, 124, 120], [206, 204, 200]]
)  # fmt: skip
_HAIR_SHARE = np.array([18, 18, 14, 12, 10, 8, 6, 4, 3, 3, 6, 5])
_IRIS = np.array([[58, 36, 22], [84, 54, 30], [112, 82, 46], [92, 104, 68], [98, 122, 138], [122, 150, 176], [70, 86, 92]])


def linear(srgb: np.ndarray) -> np.ndarray:
    """From 8-bit sRGB values (gamma taken as 2.2)."""
    return ((np.asarray(srgb, np.float32) / 255) ** 2.2).astype(np.float32)


def skin_and_lips(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """A skin colour, a lip colour to go with it, and how dark they are, 0 to 1."""
    tone = rng.uniform(0, len(_SKIN) - 1)
    low = min(int(tone), len(_SKIN) - 2)
    share = tone - low
    jitter = rng.normal(1.0, [0.04, 0.035, 0.05])
    skin = linear(_SKIN[low] * (1 - share) + _SKIN[low + 1] * share) * jitter
    lips = linear(_LIPS[low] * (1 - share) + _LIPS[low + 1] * share) * jitter
    if rng.random() < 0.2:  # lipstick
        lips = linear(rng.uniform([110, 10, 20], [225, 90, 110]))
    return np.clip(skin, 0.01, 0.95), np.clip(lips, 0.01, 0.95), tone / (len(_SKIN) - 1)


def hair(rng: np.random.Generator, darkness: float) -> np.ndarray:
    """A hair colour. Dark skins rarely have light hair of their own; a few people dye it."""
    if rng.random() < 0.05:
        return linear(rng.uniform(20, 230, 3))
    share = _HAIR_SHARE * np.where((np.arange(len(_HAIR)) > 4) & (np.arange(len(_HAIR)) < 10), 1 - 0.9 * darkness, 1.0)
    base = _HAIR[rng.choice(len(_HAIR), p=share / share.sum())]
    return np.clip(linear(base) * rng.normal(1.0, 0.12) * rng.normal(1.0, 0.04, 3), 0.002, 0.9)


def iris(rng: np.random.Generator) -> np.ndarray:
    """An iris' colour."""
    return linear(_IRIS[rng.choice(len(_IRIS), p=[0.3, 0.25, 0.12, 0.08, 0.1, 0.1, 0.05])]) * rng.uniform(0.7, 1.3)


def thing(rng: np.random.Generator) -> np.ndarray:
    """A colour of clothes and other made things: many dark and grey ones, some bright."""
    if rng.random() < 0.5:
        return linear(np.full(3, rng.uniform(8, 245)) * rng.normal(1, 0.05, 3))
    return linear(rng.uniform(10, 245, 3))
