"""Least-squares similarity between point sets (Umeyama, *Least-squares estimation of transformation parameters*, PAMI 1991)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def similarity(
    source: Float[np.ndarray, "n 3"],
    target: Float[np.ndarray, "n 3"],
    weight: Float[np.ndarray, "n"] | None = None,
    scaled: bool = True,
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Scale s, rotation R and shift t that minimise ``Σ w |s R source + t − target|²``.

    Args:
        source, target: points that belong together, in any unit.
        weight: of each; alike when None.
        scaled: solve for s; otherwise it is 1.
    """
    w = np.full(len(source), 1 / len(source)) if weight is None else weight / weight.sum()
    middle_s, middle_t = w @ source, w @ target
    s, t = source - middle_s, target - middle_t
    u, values, vt = np.linalg.svd((w[:, None] * t).T @ s)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((values * sign).sum() / (w @ (s**2).sum(1))) if scaled else 1.0
    return scale, rotation, middle_t - scale * rotation @ middle_s
