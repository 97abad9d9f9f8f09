"""What the embedding answers about a picture: this face's texture on that one, and where a region of the head is."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial import cKDTree

from densemarks_model.errors import ModelError
from densemarks_model.evaluation.still_pictures import HeadMaps, paste
from densemarks_model.matching import CONFIDENCE, CubeIndex, sample_bilinear
from flame_assets.asset import HeadAsset

MARK = (255.0, 72.0, 0.0)
"""Colour of highlights, RGB."""

_SUBDIVISION = 4


def warp_texture(
    source: UInt8[np.ndarray, "h w 3"], source_maps: HeadMaps, target: UInt8[np.ndarray, "k m 3"], target_maps: HeadMaps, reach: float = 0.02
) -> UInt8[np.ndarray, "k m 3"]:
    """The target's picture with the source's texture on its head.

    Every pixel of the target's head takes the colour of the source's pixel that is nearest in the cube. Where the source shows
    nothing within ``reach`` (its hidden side), the texture fades out until ``2 reach``; so it does where either network
    confidence fades.

    Args:
        reach: cube units.
    """
    index = CubeIndex(source_maps.coordinates, source_maps.confidence > CONFIDENCE)
    wanted = target_maps.confidence > 0.1
    colour = np.zeros((*wanted.shape, 3), np.float32)
    opacity = np.zeros(wanted.shape, np.float32)
    if wanted.any():
        found = index.query(target_maps.coordinates[wanted], workers=-1)
        frame = source_maps.crop.to_frame(found.points, source_maps.size)
        colour[wanted] = sample_bilinear(source, frame)
        sure = sample_bilinear(source_maps.confidence, found.points)
        inside = ((frame >= 0) & (frame <= source.shape[1::-1])).all(1)
        near = np.clip(2 - found.distance / reach, 0, 1)
        opacity[wanted] = _ramp(target_maps.confidence[wanted]) * _ramp(sure) * near * inside
    return paste(target, target_maps.crop, colour, opacity)


def highlight(
    image: UInt8[np.ndarray, "h w 3"], maps: HeadMaps, places: Float[np.ndarray, "n 3"], surface: Float[np.ndarray, "m 3"], reach: float = 0.02
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with :data:`MARK` over what lies near ``places`` in the cube, see :func:`heat`."""
    warm = heat(maps, places, surface, reach)
    colour = np.broadcast_to(np.float32(MARK), (*warm.shape, 3))
    return paste(image, maps.crop, colour, 0.75 * warm)


def heat(
    maps: HeadMaps, places: Float[np.ndarray, "n 3"], surface: Float[np.ndarray, "m 3"], reach: float = 0.02
) -> Float[np.ndarray, "size size"]:
    """How surely each pixel shows one of ``places``: a Gaussian of its distance in the cube, times confidence.

    Predictions lie a little beside the model's surface. So what counts is how much farther ``places`` are than the nearest point of
    the ``surface``, with standard deviation ``reach``; the distance to the surface itself counts with five times that.

    Args:
        places, surface: cube coordinates. reach: cube units.
    """
    shown = maps.confidence > 0
    warm = np.zeros(maps.confidence.shape, np.float32)
    if shown.any():
        query = maps.coordinates[shown]
        distance, _ = cKDTree(places).query(query, workers=-1)
        off, _ = cKDTree(surface).query(query, workers=-1)
        farther = np.maximum(distance - off, 0)
        warm[shown] = np.exp(-0.5 * (farther / reach) ** 2 - 0.5 * (off / (5 * reach)) ** 2) * _ramp(maps.confidence[shown])
    return warm


def region_places(head: HeadAsset, names: list[str] | None) -> Float[np.ndarray, "n 3"]:
    """Cube coordinates of points all over regions of the head model, a few millimetres apart; of all of it for None.

    Raises:
        ModelError: a region that the head does not have, or a head without canonical coordinates.
    """
    if head.canonical is None:
        raise ModelError(f"head {head.name!r} has no canonical coordinates")
    unknown = [n for n in names or [] if n not in head.regions]
    if unknown:
        raise ModelError(f"--region: the head has no {', '.join(unknown)}; it has {', '.join(sorted(head.regions))}")
    mask = np.ones(head.n_vertices, bool) if names is None else np.any([head.regions[n] for n in names], axis=0)
    corners = head.canonical[head.faces[mask[head.faces].all(1)]]
    steps = [(i, j, _SUBDIVISION - i - j) for i in range(_SUBDIVISION + 1) for j in range(_SUBDIVISION + 1 - i)]
    inside = np.einsum("sk,fkc->fsc", np.array(steps) / _SUBDIVISION, corners).reshape(-1, 3)
    return np.concatenate([head.canonical[mask], inside]).astype(np.float32)


def vertex_places(head: HeadAsset, vertices: list[int]) -> Float[np.ndarray, "n 3"]:
    """Cube coordinates of vertices of the head model.

    Raises:
        ModelError: a vertex that does not exist, or a head without canonical coordinates.
    """
    if head.canonical is None:
        raise ModelError(f"head {head.name!r} has no canonical coordinates")
    wrong = [v for v in vertices if not 0 <= v < head.n_vertices]
    if wrong:
        raise ModelError(f"--vertices: {wrong[0]} is not one of the head's vertices, 0 to {head.n_vertices - 1}")
    return head.canonical[vertices]


def _ramp(confidence: np.ndarray) -> np.ndarray:
    """0 below 0.3, 1 above 0.7, smooth between (Hermite)."""
    t = np.clip((confidence - 0.3) / 0.4, 0, 1)
    return t * t * (3 - 2 * t)


def side_by_side(*images: UInt8[np.ndarray, "h w 3"], height: int | None = None) -> UInt8[np.ndarray, "k m 3"]:
    """Pictures in a row, brought to one height (that of the last when None)."""
    height = height or images[-1].shape[0]
    scaled = [cv2.resize(i, (max(round(i.shape[1] * height / i.shape[0]), 1), height), interpolation=cv2.INTER_AREA) for i in images]
    return np.concatenate(scaled, 1)
