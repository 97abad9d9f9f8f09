"""Changes to a synthetic sample before it is learned from: a slightly other crop, a mirror image, other colours.

``strong`` adds what users' cameras, trackers and surroundings do: boxes that are far off, heads lying on their side, low resolution,
blur, noise, compression, black and white, and things in front of the head. Coordinates stay true under all of it.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

MARGIN = 1.12
"""How much larger stored pictures are than crops, see ``densemarks_model.data.synthetic.scene``."""


def vary(
    image: UInt8[np.ndarray, "s s 3"], coordinates: Float[np.ndarray, "m m 3"], masks: UInt8[np.ndarray, "m m 2"],
    image_size: int, map_size: int, rng: np.random.Generator | None, strength: str = "plain",
) -> dict[str, np.ndarray]:  # fmt: skip
    """A training sample from a stored one.

    Args:
        image, coordinates, masks: as a shard holds them.
        image_size, map_size: sides of what comes out, pixels.
        rng: of the changes; None to only cut the margin off, for validation.
        strength: ``"plain"`` or ``"strong"``.

    Returns:
        ``image`` (3, S, S) float32 in [0, 1]; ``coordinates`` (3, M, M) float32; ``head``, ``surface`` (1, M, M) float32.
    """
    strong = strength == "strong" and rng is not None
    scale, turn, shift = 1 / MARGIN, 0.0, np.zeros(2)
    if strong:
        scale *= np.exp(rng.normal(0, 0.12))
        turn = np.deg2rad(rng.normal(0, 40 if rng.random() < 0.1 else 10))
        shift = rng.normal(0, 0.06, 2)
    elif rng is not None:
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
    cover = cover.astype(np.float32) / 255
    if strong:
        colours = _optics(colours, rng)
    if rng is not None:
        colours = np.clip(colours * (rng.uniform(0.7, 1.3) * rng.normal(1, 0.05, 3)), 0, 1) ** rng.uniform(0.8, 1.25)
    if strong:
        colours = _camera(colours, rng)
        colours, cover = _cover_up(colours, cover, rng)
    head, surface = np.moveaxis(cover, 2, 0)
    return {
        "image": np.ascontiguousarray(np.moveaxis(colours, 2, 0), np.float32),
        "coordinates": np.ascontiguousarray(np.moveaxis(places, 2, 0), np.float32),
        "head": np.ascontiguousarray(head[None]),
        "surface": np.ascontiguousarray(surface[None]),
    }


def _warp(array: np.ndarray, size: int, rotation: np.ndarray, shift: np.ndarray, border: int) -> np.ndarray:
    """Resample a square: the result's middle shows the place ``shift`` (in sides) off the source's middle."""
    source = array.shape[0]
    linear = rotation * (source / size)
    # pixel centres at halves here, at whole numbers in OpenCV
    offset = (0.5 + shift) * source - linear @ np.full(2, size / 2) + linear @ np.full(2, 0.5) - 0.5
    matrix = np.concatenate([linear, offset[:, None]], 1)
    return cv2.warpAffine(array, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)


def _optics(colours: Float[np.ndarray, "s s 3"], rng: np.random.Generator) -> Float[np.ndarray, "s s 3"]:
    """Before the sensor: out of focus, or a head that covered few pixels."""
    size = colours.shape[0]
    if rng.random() < 0.2:
        colours = cv2.GaussianBlur(colours, (0, 0), size * rng.uniform(0.002, 0.012))
    if rng.random() < 0.15:
        small = int(size * np.exp(rng.uniform(np.log(0.2), np.log(0.7))))
        colours = cv2.resize(cv2.resize(colours, (small, small), interpolation=cv2.INTER_AREA), (size, size), interpolation=cv2.INTER_LINEAR)
    return colours


def _camera(colours: Float[np.ndarray, "s s 3"], rng: np.random.Generator) -> Float[np.ndarray, "s s 3"]:
    """The sensor and what follows: faded colours, an exposure curve, noise, JPEG."""
    if rng.random() < 0.25:
        grey = colours @ np.array([0.299, 0.587, 0.114], np.float32)
        faded = 1.0 if rng.random() < 0.3 else rng.uniform(0.2, 0.8)
        colours = colours + faded * (grey[..., None] - colours)
    if rng.random() < 0.3:
        colours = np.clip(colours, 0, 1) ** np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.3:
        colours = colours + rng.normal(0, rng.uniform(0.005, 0.05), colours.shape)
    colours = np.clip(colours, 0, 1).astype(np.float32)
    if rng.random() < 0.3:
        coded = np.round(255 * colours).astype(np.uint8)
        quality = int(rng.integers(20, 90))
        colours = cv2.imdecode(cv2.imencode(".jpg", coded, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR).astype(np.float32) / 255
    return colours


def _cover_up(
    colours: Float[np.ndarray, "s s 3"], cover: Float[np.ndarray, "m m 2"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "m m 2"]]:
    """Now and then a rectangle in front (random erasing, Zhong et al., AAAI 2020): the head's mask ends there, the surface behind does not."""
    if rng.random() >= 0.2:
        return colours, cover
    size, cells = colours.shape[0], cover.shape[0]
    extent = np.round(cells * rng.uniform(0.08, 0.35, 2)).astype(int)
    low = np.array([rng.integers(0, cells - e + 1) for e in extent])
    high = low + extent
    # on whole cells, so that the mask is exact
    rows, columns = (slice(size * a // cells, size * b // cells) for a, b in zip(low, high, strict=True))
    colours, cover = colours.copy(), cover.copy()
    shape = colours[rows, columns].shape
    colours[rows, columns] = rng.uniform(0, 1, 3) if rng.random() < 0.5 else rng.uniform(0, 1, shape)
    cover[low[0] : high[0], low[1] : high[1], 0] = 0
    return colours, cover
