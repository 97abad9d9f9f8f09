"""What every embedding network of this package gives for a picture."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """Canonical coordinates of every pixel, and how far to trust them.

    Attributes:
        coordinates: location of each pixel in the canonical unit cube, [0, 1]. Channels are the cube's axes: x to the
            subject's left, y up, z out of the face (see :mod:`flame_assets.canonical`).
        confidence: [0, 1], near zero where the pixel shows no head (background, clothes, hands, hats). Hair counts as head.
        surface: [0, 1], whether the line of sight through the pixel meets the bald head, behind hair or not; None for
            networks that do not tell. A pixel of hair that stands off the silhouette has confidence and no surface.
        scale: expected error of the coordinates, cube units (the scale of a Laplace distribution); None for networks that
            do not tell.
    """

    coordinates: Float[Tensor, "batch 3 height width"]
    confidence: Float[Tensor, "batch 1 height width"]
    surface: Float[Tensor, "batch 1 height width"] | None = None
    scale: Float[Tensor, "batch 1 height width"] | None = None
