"""Changes to a synthetic sample before it is learned from: a slightly other crop, a mirror image, other colours."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

MARGIN = 1.12
"""How much larger stored pictures are than crops, see ``densemarks_model.data.synthetic.scene``."""


def vary(
    image: UInt8[np.ndarray, "s s 3"], coordinates: Float[np.ndarray, "m m 3"], masks: UInt8[np.ndarray, "m m 2"],
    image_size: int, map_size: int, rng: np.random.Generator | None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A training sample from a stored one.

    Args:
        image, coordinates, masks: as a shard holds them.
        image_size, map_size: sides of what comes out, pixels.
        rng: of the changes; None to only cut the margin off, for validation.

    Returns:
        ``image`` (3, S, S) float32 in [0, 1]; ``coordinates`` (3, M, M) float32; ``head``, ``surface`` (1, M, M) float32.
    """
    scale, turn, shift = 1 / MARGIN, 0.0, np.zeros(2)
    if rng is not None:
        scale *= np.exp(rng.normal(0, 0.08))
        turn, shift = np.deg2rad(rng.normal(0, 8)), rng.normal(0, 0.04, 2)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    picture = _warp(image, image_size, rotation, shift, cv2.BORDER_CONSTANT)
    places = _warp(np.asarray(coordinates, np.float32), map_size, rotation, shift, cv2.BORDER_REPLICATE)
    cover = _warp(np.ascontiguousarray(masks), map_size, rotation, shift, cv2.BORDER_CONSTANT)
    if rng is not None and rng.random() < 0.5:
        picture, places, cover = picture[:, ::-1], places[:, ::-1].copy(), cover[:, ::-1]
        places[..., 0] = 1 - places[..., 0]  # the cube's middle is the head's plane of symmetry
    colours = picture.astype(np.float32) / 255
    if rng is not None:
        colours = np.clip(colours * (rng.uniform(0.7, 1.3) * rng.normal(1, 0.05, 3)), 0, 1) ** rng.uniform(0.8, 1.25)
    head, surface = np.moveaxis(cover.astype(np.float32) / 255, 2, 0)
    return {
        "image": np.ascontiguousarray(np.moveaxis(colours, 2, 0), np.float32),
        "coordinates": np.ascontiguousarray(np.moveaxis(places, 2, 0), np.float32),
        "head": head[None],
        "surface": surface[None],
    }


def _warp(array: np.ndarray, size: int, rotation: np.ndarray, shift: np.ndarray, border: int) -> np.ndarray:
    """Resample a square: the result's middle shows the place ``shift`` (in sides) off the source's middle."""
    source = array.shape[0]
    linear = rotation * (source / size)
    # pixel centres at halves here, at whole numbers in OpenCV
    offset = (0.5 + shift) * source - linear @ np.full(2, size / 2) + linear @ np.full(2, 0.5) - 0.5
    matrix = np.concatenate([linear, offset[:, None]], 1)
    return cv2.warpAffine(array, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)
