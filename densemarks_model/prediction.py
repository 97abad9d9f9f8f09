"""What every embedding network of this package gives for a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

M = TypeVar("M")
"""What the maps are: ``torch.Tensor`` or ``numpy.ndarray``."""


@dataclass(frozen=True)
class Prediction(Generic[M]):
    """Canonical coordinates of every pixel, and how far to trust them.

    Maps are tensors with channels first, ``(batch, 3, height, width)`` and ``(batch, 1, height, width)``, as networks compute
    them; or arrays with channels last, ``(batch, height, width, 3)`` and ``(batch, height, width)``, as fast inference hands
    them out (:func:`arrays`). Pixel (i, j) of a map of side m covers pixels s·j/m to s·(j+1)/m across and s·i/m to s·(i+1)/m
    down of a picture of side s.

    Attributes:
        coordinates: location of each pixel in the canonical unit cube, [0, 1]. Channels are the cube's axes: x to the
            subject's left, y up, z out of the face (see :mod:`flame_assets.canonical`).
        confidence: [0, 1], near zero where the pixel shows no head (background, clothes, hands, hats). Hair counts as head.
        surface: [0, 1], whether the line of sight through the pixel meets the bald head, behind hair or not; None for
            networks that do not tell. A pixel of hair that stands off the silhouette has confidence and no surface.
        scale: expected error of the coordinates, cube units (the scale of a Laplace distribution); None for networks that
            do not tell.
    """

    coordinates: M
    confidence: M
    surface: M | None = None
    scale: M | None = None


def arrays(prediction: Prediction[Tensor]) -> Prediction[np.ndarray]:
    """The same as float32 arrays, channels last."""

    def array(values: Tensor) -> np.ndarray:
        return values.float().movedim(1, -1).cpu().numpy()

    one_channel = (prediction.confidence, prediction.surface, prediction.scale)
    return Prediction(array(prediction.coordinates), *(None if x is None else array(x)[..., 0] for x in one_channel))
