"""Locations from one version of the canonical cube in another, so that networks and pictures of different ages can be compared."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from densemarks_model.errors import ModelError
from flame_assets.load import load_head

_STEPS = 6
"""Parts of a triangle's side, so that known places are about half a millimetre apart around the mouth."""


def in_cube(places: Float[np.ndarray, "*shape 3"], source: int, target: int) -> Float[np.ndarray, "*shape 3"]:
    """Locations on the default head in version ``source`` of the cube, in version ``target``.

    From version 2 to version 1 every location moves like the nearest place of the head's surface.

    Raises:
        ModelError: from version 1 to version 2: of two lips that touch, nothing says which one is meant.
    """
    if source == target:
        return places
    if source < target:
        raise ModelError(
            f"pictures in version {source} of the canonical cube do not say which lip is which, as a network of version {target} does; "
            "render them again"
        )
    tree, moves, low, high = _moves()
    moved = places.copy()
    near = ((places > low) & (places < high)).all(-1)
    moved[near] -= moves[tree.query(places[near])[1]].astype(places.dtype)
    return moved


@functools.cache
def _moves() -> tuple[cKDTree, np.ndarray, np.ndarray, np.ndarray]:
    """Places of version 2 around the mouth, how far each lies from where version 1 has it, and the box around those that moved."""
    new = load_head().with_cube(2)
    old = new.with_cube(1)
    moves = (new.canonical - old.canonical).astype(np.float64)
    moving = moves.any(1)[new.faces].any(1)
    ring = np.isin(new.faces, new.faces[moving]).any(1)  # with the triangles around, which stay
    steps = np.array([(i, j, _STEPS - i - j) for i in range(_STEPS + 1) for j in range(_STEPS + 1 - i)]) / _STEPS
    corners = new.faces[ring]
    places, shifts = (np.einsum("sk,fkc->fsc", steps, values[corners]).reshape(-1, 3) for values in (new.canonical, moves))
    inside = new.canonical[np.unique(new.faces[moving])]
    return cKDTree(places), shifts, inside.min(0) - 0.01, inside.max(0) + 0.01
