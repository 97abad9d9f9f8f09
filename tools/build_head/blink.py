"""Lids that close, and that stay outside the eyeballs whenever an expression moves them.

Two things go wrong when the source's lid shapes are carried over. Its blink was drawn for a shorter eye, and the
upper lid would end some millimetres below the lower one: :func:`close_lids` stops it where the lids meet. And an
expression is a straight displacement, while a lid slides around a sphere, so that half way it would lie inside the
eyeball: :func:`clear_eyeballs` lifts the end of the movement until the whole path is clear.
"""

from __future__ import annotations

import numpy as np

from tools.build_head import eyes
from tools.build_head.morph import Morpher

CLEARANCE = 0.0010
"""Least distance of lid vertices from the eyeball on the whole path, about the thickness of a lid."""
MARGIN_CLEARANCE = -0.0008
"""The same for the margin, which is hidden behind the lash line as soon as the lid moves."""
OVERLAP = 0.0006
"""How far below the lower margin the upper one ends, so that lids also close on people with slightly wider eyes."""
STEPS = np.linspace(0.1, 1.0, 10)
CLOSING_DECAY = (1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.1)
"""Share of the closing correction that the lid loops take, from the margin outwards."""


def close_lids(morpher: Morpher, rest: np.ndarray, delta: np.ndarray, side: str, seat: eyes.Seat) -> np.ndarray:
    """Return the blink ``delta`` ``(V, 3)`` of one side, changed so that the upper margin ends on the lower one."""
    delta = delta.copy()
    rings = morpher.lid_rings[side]
    upper, lower = _halves(rest[rings[0]])
    delta *= np.median([_meeting(rest, delta, rings[0][k], rings[0][lower]) for k in upper])
    moved = rest + delta
    order = np.argsort(moved[rings[0][lower], 0])
    curve = moved[rings[0][lower]][order]
    for k in upper:
        point = moved[rings[0][k]]
        goal = np.array([point[0], np.interp(point[0], curve[:, 0], curve[:, 1]) - OVERLAP, 0.0])
        flat = goal[:2] - seat.centre[:2]
        # keep the depth that the lid has over the sphere, at the new height
        depth = np.sqrt(max((seat.radius + eyes.LID_CLEARANCE) ** 2 - flat @ flat, 0.0))
        goal[2] = max(seat.centre[2] + depth, np.interp(point[0], curve[:, 0], curve[:, 2]))
        for ring, share in zip(rings, CLOSING_DECAY):
            delta[ring[k]] += share * (goal - point)
    return delta


def _halves(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the margin ring of the upper lid (corners excluded) and of the lower lid (corners included)."""
    n = len(margin)
    first, last = int(margin[:, 0].argmin()), int(margin[:, 0].argmax())
    one = np.array([k % n for k in range(first, first + (last - first) % n + 1)])
    other = np.array([k % n for k in range(last, last + (first - last) % n + 1)])
    upper, lower = (one, other) if margin[one, 1].mean() > margin[other, 1].mean() else (other, one)
    return upper[1:-1], lower


def _meeting(rest: np.ndarray, delta: np.ndarray, vertex: int, lower: np.ndarray) -> float:
    """Share of ``delta`` at which ``vertex`` of the upper margin reaches the lower margin; at most 1."""
    for share in np.linspace(0.3, 1.0, 71):
        curve = rest[lower] + share * delta[lower]
        curve = curve[np.argsort(curve[:, 0])]
        x, y, _ = rest[vertex] + share * delta[vertex]
        if y <= np.interp(x, curve[:, 0], curve[:, 1]):
            return float(share)
    return 1.0


def clear_eyeballs(morpher: Morpher, rest: np.ndarray, delta: np.ndarray, seats: dict[str, eyes.Seat]) -> np.ndarray:
    """Return ``delta`` ``(V, 3)`` changed so that no skin vertex in front of an eye passes through the eyeball."""
    delta = delta.copy()
    skin = morpher.parts["skin"].indices
    for side, seat in seats.items():
        rings = morpher.lid_rings[side]
        near = skin[np.linalg.norm(rest[skin] - seat.centre, axis=1) < seat.radius + 0.006]
        near = near[(rest[near] - seat.centre)[:, 2] > 0]
        near = near[np.linalg.norm(delta[near], axis=1) > 1e-6]
        # nothing is pushed that is as near at rest
        clearance = np.minimum(np.linalg.norm(rest[near] - seat.centre, axis=1) - seat.radius, CLEARANCE)
        clearance = np.where(np.isin(near, rings[0]), MARGIN_CLEARANCE, clearance)[:, None]
        for _ in range(6):
            for t in STEPS:
                point = rest[near] + t * delta[near] - seat.centre
                distance = np.linalg.norm(point, axis=1, keepdims=True)
                lack = np.maximum(seat.radius + clearance - distance, 0)
                delta[near] += lack / t * point / distance
        socket = morpher.parts[f"{side}_socket"].indices
        delta[socket] = eyes.socket(seat, (rest + delta)[rings[0]]) - rest[socket]
    return delta
