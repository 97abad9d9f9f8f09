"""Places spread evenly over the outside of a head, at which dense correspondence is measured.

A network gives thousands of pixels a location in the canonical cube. Pixels that belong to the same place of the surface are
averaged (:mod:`tracker.observe.pooling`), so that the solver sees as many residuals as there are places, evenly over the head,
whatever the size of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int16
from scipy.spatial import cKDTree

from flame_assets.asset import AssetError, HeadAsset, LandmarkEmbedding
from flame_assets.parted_mouth import mouth_parting
from tracker.rendering.jit import kernel

GRID_CELLS = 48
"""Cells of the look-up grid along each side of the cube: 6 mm on an adult's head; three times as many where there are lips."""

_LIP_MARGIN = 0.04

_OUTSIDE = ("face", "scalp", "neck", "ears")
_LEFT_TO_LANDMARKS = ("lips", "mouth_interior", "eyelids", "eyes", "teeth", "tongue")
_CANDIDATES = 30_000

LIP_SITES = 12
"""Places on each lip, where they are wanted."""

_PARTED = 0.001
"""Places of the lips that cube version 2 moves by less than this, metres, are too near a corner of the mouth to tell the lips apart."""


@dataclass(frozen=True)
class DenseSites:
    """n places on the surface.

    Attributes:
        embedding: triangle and barycentrics of each.
        canonical: their locations in the cube.
        normals: outward unit normals of the canonical surface there.
        grid: ``grid[x, y, z]`` is the place nearest to that cell of the cube, −1 where none is near.
        spacing: typical distance between neighbours, cube units.
        metres_per_cube: length of the cube's side on the head.
    """

    embedding: LandmarkEmbedding
    canonical: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    grid: Int16[np.ndarray, "cells cells cells"]
    spacing: float
    metres_per_cube: float

    def __len__(self) -> int:
        return len(self.canonical)


def spread_sites(asset: HeadAsset, count: int, reach: float = 0.1, lips: bool = False) -> DenseSites:
    """Choose ``count`` places by farthest-point sampling; always the same for one head.

    Lids and eyes have none, and lips only where they are asked for: there landmarks are better.

    Args:
        asset: a head with canonical coordinates. Its regions, where it names them, tell inside from outside.
        count: at most 32,767.
        reach: cells of the cube farther than this from any place belong to none, cube units.
        lips: put ``LIP_SITES`` more on the upper lip and as many on the lower one, after the others in this order; none on a head
            whose regions do not name ``lips``.

    Raises:
        AssetError: the head has no canonical coordinates, or ``lips`` are wanted in version 1 of the cube, where they touch.
    """
    if asset.canonical is None:
        raise AssetError(f"head {asset.name!r} has no canonical coordinates, which the dense term needs")
    embedding = spread_points(asset, surface_triangles(asset), count)
    if lips:
        embedding = _joined(embedding, *(spread_points(asset, part, LIP_SITES) for part in lip_triangles(asset) if len(part)))
    faces, weights = asset.faces[embedding.faces], embedding.barycentrics
    canonical_corners = asset.canonical[faces].astype(np.float64)
    canonical = np.einsum("nk,nkc->nc", weights, canonical_corners)
    normals = np.cross(canonical_corners[:, 1] - canonical_corners[:, 0], canonical_corners[:, 2] - canonical_corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    tree = cKDTree(canonical)
    spacing = float(np.median(cKDTree(canonical[:count]).query(canonical[:count], k=2)[0][:, 1]))
    metres = _metres_per_cube(asset)
    return DenseSites(
        embedding, canonical.astype(np.float32), normals.astype(np.float32), _grid(tree, reach, canonical[count:]), spacing, metres
    )


def spread_points(asset: HeadAsset, triangles: Int[np.ndarray, "n"], count: int) -> LandmarkEmbedding:
    """``count`` points on some triangles of the template, by farthest-point sampling; always the same."""
    corners = asset.v_template[asset.faces[triangles]].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    rng = np.random.default_rng(0)
    picked = rng.choice(len(triangles), _CANDIDATES, p=area / area.sum())
    u, v = rng.random((2, _CANDIDATES))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], axis=1)
    chosen = _farthest_points(np.einsum("nk,nkc->nc", weights, corners[picked]), count)
    numbers = triangles[picked[chosen]].astype(np.int32)
    return LandmarkEmbedding(np.arange(count, dtype=np.int32), numbers, weights[chosen].astype(np.float32))


def surface_triangles(asset: HeadAsset) -> Int[np.ndarray, "n"]:
    """Numbers of the triangles that the network can see and landmarks do not cover better."""
    return _triangles_of(asset, _OUTSIDE, _LEFT_TO_LANDMARKS)


def skin_triangles(asset: HeadAsset) -> Int[np.ndarray, "n"]:
    """Numbers of the triangles of bare skin: face and ears with lips and lids, no eyeballs, no inside of the mouth."""
    return _triangles_of(asset, ("face", "ears"), ("mouth_interior", "eyes", "teeth", "tongue"))


def rigid_triangles(asset: HeadAsset) -> Int[np.ndarray, "n"]:
    """Numbers of the triangles of bare skin that move with the skull: face and ears without lips and lids."""
    return _triangles_of(asset, ("face", "ears"), (*_LEFT_TO_LANDMARKS, "neck"))


def lip_triangles(asset: HeadAsset) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
    """Numbers of the triangles of the upper lip and of the lower lip: their outside up to the rim, without the mouth's corners.

    Raises:
        AssetError: the head is in version 1 of the cube, where the lips touch.
    """
    if asset.cube < 2:
        raise AssetError(f"head {asset.name!r}: in version {asset.cube} of the canonical cube the lips touch, so that sites on them mean nothing")
    numbers = _triangles_of(asset, ("lips",), ("mouth_interior", "teeth", "tongue")) if "lips" in asset.regions else np.empty(0, int)
    up = mouth_parting(asset)[asset.faces[numbers], 1]
    return numbers[(up > _PARTED).all(1)], numbers[(up < -_PARTED).all(1)]


def _joined(*parts: LandmarkEmbedding) -> LandmarkEmbedding:
    faces = np.concatenate([p.faces for p in parts])
    return LandmarkEmbedding(np.arange(len(faces), dtype=np.int32), faces, np.concatenate([p.barycentrics for p in parts]))


def _triangles_of(asset: HeadAsset, inside: tuple[str, ...], outside: tuple[str, ...]) -> np.ndarray:
    regions = asset.regions
    if any(name in regions for name in inside):
        keep = np.any([regions[n] for n in inside if n in regions], axis=0)
    else:
        keep = np.ones(asset.n_vertices, bool)
    for name in outside:
        if name in regions:
            keep &= ~regions[name]
    keep &= asset.weights[:, 3:].sum(1) < 0.5  # eyeballs, whoever named the regions
    return np.flatnonzero(keep[asset.faces].all(1))


@kernel
def _farthest_points(points, count):
    """Numbers of ``count`` of the points, each the farthest from those before it; the first is point 0."""
    chosen = np.empty(count, np.int64)
    distance = np.full(len(points), np.inf)
    index = 0
    for k in range(count):
        chosen[k] = index
        x, y, z = points[index, 0], points[index, 1], points[index, 2]
        farthest = 0
        for n in range(len(points)):
            dx, dy, dz = points[n, 0] - x, points[n, 1] - y, points[n, 2] - z
            distance[n] = min(distance[n], (dx * dx + dy * dy) + dz * dz)
            if distance[n] > distance[farthest]:
                farthest = n
        index = farthest
    return chosen


def _grid(tree: cKDTree, reach: float, lips: Float[np.ndarray, "n 3"]) -> np.ndarray:
    """Place of each cell; of cells a third the size where there are ``lips``, whose rims are less than two usual cells apart."""
    every = [np.arange(GRID_CELLS)] * 3
    grid = _nearest(tree, reach, every, GRID_CELLS)
    if not len(lips):
        return grid
    finer = 3 * GRID_CELLS
    grid = grid.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    low, high = ((lips.min(0) - _LIP_MARGIN) * finer).astype(int), ((lips.max(0) + _LIP_MARGIN) * finer).astype(int)
    around = [np.arange(max(a, 0), min(b, finer)) for a, b in zip(low, high, strict=True)]
    grid[np.ix_(*around)] = _nearest(tree, reach, around, finer)
    return grid


def _nearest(tree: cKDTree, reach: float, along: list[np.ndarray], cells: int) -> np.ndarray:
    """Place nearest to the centre of each of a box of cells, of ``cells`` along each side of the cube; −1 where none is near."""
    centres = np.stack(np.meshgrid(*((k + 0.5) / cells for k in along), indexing="ij"), axis=-1)
    distance, nearest = tree.query(centres.reshape(-1, 3), distance_upper_bound=reach)
    return np.where(np.isfinite(distance), nearest, -1).astype(np.int16).reshape(centres.shape[:3])


def _metres_per_cube(asset: HeadAsset) -> float:
    """Least-squares scale from the head's canonical coordinates to its template."""
    canonical = asset.canonical - asset.canonical.mean(0)
    template = asset.v_template - asset.v_template.mean(0)
    return float(np.sqrt((template.astype(np.float64) ** 2).sum() / (canonical.astype(np.float64) ** 2).sum()))
