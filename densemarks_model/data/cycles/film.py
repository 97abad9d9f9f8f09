"""From light to 8 bits: the development of :func:`~densemarks_model.data.synthetic.effects.develop`, held still over a clip."""

from __future__ import annotations

import numpy as np


class Film:
    """One camera's settings: drawn once, exposed for the subject of the first picture, then left as they are."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._target = rng.uniform(0.12, 0.36)
        self._white = rng.normal(1, 0.05, 3).clip(0.75, 1.3).astype(np.float32)
        self._shoulder = rng.random() < 0.8
        self._gamma = rng.uniform(1.9, 2.4)
        self._contrast, self._saturation = rng.uniform(0.85, 1.15), rng.uniform(0.7, 1.2)
        self._gain: float | None = None

    def develop(self, linear: np.ndarray, subject: np.ndarray) -> np.ndarray:
        """Linear RGB ``(h, w, 3)`` to uint8; ``subject`` ``(h, w)`` bool is what the first picture is exposed for."""
        if self._gain is None:
            level = float(linear[subject].mean()) if subject.any() else float(linear.mean())
            self._gain = self._target / max(level, 1e-4)
        picture = linear * (self._gain * self._white)
        if self._shoulder:
            picture = 1 - np.exp(-1.3 * picture)
        picture = np.clip(picture, 0, 1) ** (1 / self._gamma)
        picture = 0.5 + (picture - 0.5) * self._contrast
        grey = picture.mean(2, keepdims=True)
        picture = grey + (picture - grey) * self._saturation
        return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
