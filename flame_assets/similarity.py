"""Least-squares rigid motions and similarities between point sets (Umeyama, *Least-squares estimation of transformation
parameters*, PAMI 1991), one or many at once. SciPy's ``Rotation.align_vectors`` finds one rotation at a time, and no scale."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def similarity(
    source: Float[np.ndarray, "*batch n 3"],
    target: Float[np.ndarray, "*batch n 3"],
    weight: Float[np.ndarray, "*batch n"] | None = None,
    scaled: bool = True,
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch 3 3"], Float[np.ndarray, "*batch 3"]]:
    """Scale s, rotation R and shift t that minimise ``Σ w |s R source + t − target|²``.

    Args:
        source, target: points that belong together, in any unit; batches are broadcast against each other.
        weight: of each; alike when None.
        scaled: solve for s; otherwise it is 1.
    """
    w = np.ones(source.shape[-2]) if weight is None else weight
    w = (w / w.sum(-1, keepdims=True))[..., None, :]
    middle_s, middle_t = w @ source, w @ target
    s, t = source - middle_s, target - middle_t
    u, values, vt = np.linalg.svd(np.swapaxes(t, -1, -2) * w @ s)
    sign = np.ones(values.shape)
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    rotation = u * sign[..., None, :] @ vt
    scale = np.ones(values.shape[:-1])
    if scaled:
        scale = (values * sign).sum(-1) / (w @ (s**2).sum(-1)[..., None])[..., 0, 0]
    shift = middle_t - scale[..., None, None] * (middle_s @ np.swapaxes(rotation, -1, -2))
    return scale[()], rotation, shift[..., 0, :]


def rigid_alignment(
    source: Float[np.ndarray, "*batch n 3"], target: Float[np.ndarray, "*batch n 3"], weight: Float[np.ndarray, "*batch n"] | None = None
) -> tuple[Float[np.ndarray, "*batch 3 3"], Float[np.ndarray, "*batch 3"]]:
    """Rotation R and shift t that minimise ``Σ w |R source + t − target|²``; arguments as for :func:`similarity`."""
    return similarity(source, target, weight, scaled=False)[1:]
