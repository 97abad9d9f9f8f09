"""Where exactly the lids and the lips of a head are: targets for the landmarks that lie on them.

A head that names its rims (regions such as ``left_lid_rim``) is taken at its word. Otherwise the rims are found by looking
at it from the front: the lids end where the eyeball begins, and closed lips meet in the valley between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from flame_assets.asset import HeadAsset
from flame_assets.registration_views import DepthMap, depth_map, eye_opening

LIDS = {
    # outer corner, then towards the inner corner
    "right": {"upper": (33, 246, 161, 160, 159, 158, 157, 173, 133), "lower": (7, 163, 144, 145, 153, 154, 155)},
    "left": {"upper": (263, 466, 388, 387, 386, 385, 384, 398, 362), "lower": (249, 390, 373, 374, 380, 381, 382)},
}
_BESIDE_TEAR_DUCT = (173, 133, 154, 155, 398, 362, 381, 382)  # the eyeball is not seen up to the inner corner
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LIPS_INNER_LOWER = (95, 88, 178, 87, 14, 317, 402, 318, 324)

_FARTHEST_LID_M = 4e-3
_FARTHEST_LIP_M = 3e-3
_LID_ROUNDS = 12
_CORNER_WEIGHT = 3.0
_KEEP_WIDTH_M2 = 3e-5
_VALLEY_PIXEL_M = 2.5e-4
_VALLEY_REACH_M = 7e-3
_LIP_SIDE_M = 4e-4
"""Distance from the line between closed lips at which a point belongs to one lip for certain."""


@dataclass(frozen=True)
class Targets:
    """Places for some landmarks: ``landmarks`` (N,) numbers, ``points`` (N, 3)."""

    landmarks: np.ndarray
    points: np.ndarray


def rim_targets(asset: HeadAsset, outer: np.ndarray, eyes: np.ndarray, fitted: np.ndarray) -> Targets:
    """Where the landmarks of lids and lips belong on a head.

    Args:
        asset: the head.
        outer: ``(F,)`` bool, its outer skin.
        eyes: ``(2, 3)`` centres of the left and the right eye.
        fitted: ``(468, 3)`` where the face model puts the landmarks, a few millimetres off.
    """
    parts = [_lids(asset, side, centre, fitted) for side, centre in zip(("left", "right"), eyes, strict=True)]
    parts += [_outer_lips(asset, fitted), _inner_lips(asset, outer, fitted)]
    found = {number: point for part in parts for number, point in part.items()}
    numbers = sorted(found)
    return Targets(np.array(numbers, np.int64), np.array([found[n] for n in numbers]).reshape(-1, 3))


def ordered_loop(faces: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The vertices of ``mask`` in the order of the single closed edge loop that they form; None if they form none."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges[mask[edges].all(1)], axis=1), axis=0)
    count = int(mask.sum())
    if len(edges) != count or count < 3 or (np.bincount(edges.ravel(), minlength=len(mask))[mask] != 2).any():
        return None
    neighbours: dict[int, list[int]] = {}
    for a, b in edges.tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    start = int(edges.min())
    loop, before = [start], -1
    while True:
        onward = next(n for n in sorted(neighbours[loop[-1]]) if n != before)
        if onward == start:
            return np.array(loop) if len(loop) == count else None
        before = loop[-1]
        loop.append(onward)


class _Curve:
    """Nearest points on a polyline."""

    def __init__(self, points: np.ndarray, closed: bool) -> None:
        following = np.roll(points, -1, axis=0) if closed else points[1:]
        first = points if closed else points[:-1]
        steps = np.linspace(0, 1, 12, endpoint=False)[None, :, None]
        self.points = (first[:, None] * (1 - steps) + following[:, None] * steps).reshape(-1, 3)
        if not closed:
            self.points = np.vstack([self.points, points[-1:]])
        self._tree = cKDTree(self.points)

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        return self.points[self._tree.query(queries)[1]]


def _region_loop(asset: HeadAsset, name: str) -> np.ndarray | None:
    mask = asset.regions.get(name)
    loop = None if mask is None else ordered_loop(asset.faces, mask)
    return None if loop is None else asset.v_template[loop].astype(np.float64)


def _halves(loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower half of a loop between its extremes in x, both including these and running towards larger x."""
    n, low, high = len(loop), int(loop[:, 0].argmin()), int(loop[:, 0].argmax())
    one = loop[(low + np.arange((high - low) % n + 1)) % n]
    other = loop[(high + np.arange((low - high) % n + 1)) % n][::-1]
    return (one, other) if one[:, 1].mean() > other[:, 1].mean() else (other, one)


def _lids(asset: HeadAsset, side: str, centre: np.ndarray, fitted: np.ndarray) -> dict[int, np.ndarray]:
    loop = _region_loop(asset, f"{side}_lid_rim")
    if loop is not None:
        upper, lower = _halves(loop)
        free: tuple[int, ...] = ()
    else:
        joint = 3 if side == "left" else 4
        opening = eye_opening(asset.v_template, asset.faces, (asset.weights[:, joint] > 0.5)[asset.faces].all(1), centre)
        if opening is None:
            return {}
        upper, lower = opening.upper, opening.lower
        free = _BESIDE_TEAR_DUCT
    curves = {"upper": _Curve(upper, False), "lower": _Curve(lower, False)}
    everyone = [n for part in curves for n in LIDS[side][part]]
    corners = {LIDS[side]["upper"][0]: 0 if side == "right" else -1, LIDS[side]["upper"][-1]: -1 if side == "right" else 0}
    start = fitted[everyone]
    placed, seen = start, np.array([n not in free for n in everyone])
    for _ in range(_LID_ROUNDS):  # the eye as a whole first, so that neighbours keep their order and spacing
        targets = np.array(
            [
                upper[corners[n]] if n in corners else curves["upper" if n in LIDS[side]["upper"] else "lower"].nearest(p)
                for n, p in zip(everyone, placed, strict=True)
            ]
        )
        placed = _stretched(start, targets, seen, np.array([_CORNER_WEIGHT if n in corners else 1.0 for n in everyone]))
    targets = np.where(seen[:, None], targets, placed)
    return _within(everyone, placed, targets, _FARTHEST_LID_M)


def _stretched(start: np.ndarray, targets: np.ndarray, seen: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``start``, shifted and stretched in width so that the ``seen`` points come close to their targets."""
    w = weight[seen] / weight[seen].sum()
    middle, goal = w @ start[seen], w @ targets[seen]
    x, wanted = start[seen, 0] - middle[0], targets[seen, 0] - goal[0]
    width = (w @ (x * wanted) + _KEEP_WIDTH_M2) / (w @ (x * x) + _KEEP_WIDTH_M2)
    placed = start - middle
    placed[:, 0] *= width
    return placed + goal


def _outer_lips(asset: HeadAsset, fitted: np.ndarray) -> dict[int, np.ndarray]:
    loop = _region_loop(asset, "lip_outer_rim")
    if loop is None:
        return {}
    rows = list(LIPS_OUTER)
    return _within(rows, fitted[rows], _Curve(loop, True).nearest(fitted[rows]), _FARTHEST_LIP_M)


def _inner_lips(asset: HeadAsset, outer: np.ndarray, fitted: np.ndarray) -> dict[int, np.ndarray]:
    loop = _region_loop(asset, "lip_inner_rim")
    if loop is None:
        return _valley_between_lips(asset, outer, fitted)
    upper, lower = _halves(loop)
    found = {}
    for numbers, half in ((LIPS_INNER_UPPER, upper), (LIPS_INNER_LOWER, lower)):
        rows = list(numbers)
        found |= _within(rows, fitted[rows], _Curve(half, False).nearest(fitted[rows]), _FARTHEST_LIP_M)
    return found


def _valley_between_lips(asset: HeadAsset, outer: np.ndarray, fitted: np.ndarray) -> dict[int, np.ndarray]:
    mouth = fitted[[*LIPS_INNER_UPPER, *LIPS_INNER_LOWER]]
    low, high = mouth.min(0) - 0.012, mouth.max(0) + 0.012
    corners = asset.v_template[asset.faces].astype(np.float64)
    near = np.flatnonzero((corners.max(1) > low).all(1) & (corners.min(1) < high).all(1))
    view = depth_map(corners[near], (*low[:2], *high[:2]), _VALLEY_PIXEL_M, near)
    found = {}
    for above, below in zip(LIPS_INNER_UPPER[1:-1], LIPS_INNER_LOWER, strict=True):
        middle = (fitted[above] + fitted[below]) / 2
        line = _valley(view, middle)
        if line is None:
            continue
        for number, step in ((above, 1), (below, -1)):
            point = _first_skin(view, outer, np.array([middle[0], line + step * _LIP_SIDE_M]), step)
            if point is not None and np.linalg.norm(point - fitted[number]) < _VALLEY_REACH_M:
                found[number] = point
    return found


def _valley(view: DepthMap, middle: np.ndarray) -> float | None:
    """Height of the deepest place of the skin's vertical profile near ``middle``; None where there is no valley."""
    column = int((middle[0] - view.origin[0]) / view.pixel)
    reach = int(_VALLEY_REACH_M / view.pixel)
    row = int((middle[1] - view.origin[1]) / view.pixel)
    rows = np.arange(max(row - reach, 0), min(row + reach + 1, view.depth.shape[0]))
    profile = view.depth[rows, column]
    if len(rows) < reach or not np.isfinite(profile).all():
        return None
    inner = slice(reach // 4, -(reach // 4))
    # lips bulge to both sides of where they meet
    ridge_below, ridge_above = np.maximum.accumulate(profile), np.maximum.accumulate(profile[::-1])[::-1]
    drop = np.minimum(ridge_below, ridge_above) - profile
    best = int(drop[inner].argmax()) + inner.start
    if drop[best] < 2e-4:
        return None
    return float(view.origin[1] + (rows[best] + 0.5) * view.pixel)


def _first_skin(view: DepthMap, outer: np.ndarray, place: np.ndarray, step: int) -> np.ndarray | None:
    """The first point of the outer skin from ``place`` upwards or downwards; parted lips show what is behind them."""
    column, start = ((place - view.origin) / view.pixel).astype(int)
    for row in range(start, start + step * int(_FARTHEST_LIP_M / view.pixel), step):
        if not (0 <= row < view.depth.shape[0] and 0 <= column < view.depth.shape[1]):
            return None
        if view.triangle[row, column] >= 0 and outer[view.triangle[row, column]]:
            return np.append(view.centres(np.array(row), np.array(column)), view.depth[row, column])
    return None


def _within(rows: list[int], start: np.ndarray, targets: np.ndarray, reach: float) -> dict[int, np.ndarray]:
    distance = np.linalg.norm(targets - start, axis=1)
    return {n: t for n, t, d in zip(rows, targets, distance, strict=True) if d < reach}
