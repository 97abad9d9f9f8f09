"""Volumes of noise that tile, and reading them."""

from __future__ import annotations

import functools

import numpy as np

SIZE = 64


@functools.cache
def volume(seed: int = 5) -> np.ndarray:
    """``(SIZE, SIZE, SIZE, 4)`` float32: two channels with many octaves, two with the finest only; mean 0, spread 1."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(SIZE) * SIZE
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(frequency, frequency, frequency, indexing="ij")))
    channels = []
    for power, low in ((-1.9, 1.0), (-1.9, 1.0), (-0.6, 8.0), (-0.6, 8.0)):
        spectrum = np.fft.fftn(rng.standard_normal((SIZE,) * 3))
        gain = np.where(radius >= low, np.maximum(radius, 1.0) ** power, 0.0)
        field = np.fft.ifftn(spectrum * gain).real
        channels.append((field - field.mean()) / field.std())
    return np.ascontiguousarray(np.stack(channels, -1), dtype=np.float32)


def read(points: np.ndarray, frequency: float, offset: np.ndarray) -> np.ndarray:
    """Noise ``(n, 4)`` at ``points`` ``(n, 3)``, nearest cell; for vertices, where trilinear would not be seen.

    Args:
        frequency: tiles per metre.
        offset: ``(3,)`` shift in tiles, so that every person has noise of their own.
    """
    cell = ((points * frequency + offset) * SIZE).astype(np.int64) % SIZE
    return volume()[cell[:, 0], cell[:, 1], cell[:, 2]]
