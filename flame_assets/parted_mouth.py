"""How far version 2 of the canonical cube moves the points around the mouth of the neutral head.

With the mouth closed the lips' rims, the teeth's edges and the tongue nearly coincide, so that a location of cube version 1
cannot say whose pixel it is. Version 2 parts them by the head's own shapes: the jaw joint, with its pose correctives, is opened
by a small angle, and the upper lip rises as in the ARKit shapes ``mouthUpperUp…``, where the head has them. Both fade out
smoothly with the distance from the line where the lips meet, so that everything farther away keeps its place exactly.

Distances are straight ones: over the few centimetres that count here, chin and cheeks are nearly flat, and a straight
distance is as symmetric as the head, whichever way its triangles are cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from flame_assets.similarity import similarity

if TYPE_CHECKING:
    from flame_assets.asset import HeadAsset

JAW_ANGLE = 0.053
"""How far the jaw is opened, rad; with the upper lip's share it makes 9.8 mm between the lips' inner rims on the default head."""

LIP_RAISE = 0.5
"""Of ``mouthUpperUpLeft`` and ``mouthUpperUpRight``."""

REACH = 0.03
"""Distance from the line where the lips meet at which nothing moves any more, metres: short of chin tip and nose tip."""

_JAW = 2
_INNER_LIPS = range(60, 68)
"""Of the 68 points, in order around the opening of the mouth."""


def mouth_parting(asset: HeadAsset) -> Float[np.ndarray, "verts 3"]:
    """Displacement of each vertex of the neutral head, metres; zero away from the mouth.

    A head whose mouth cannot be found (neither ``lip_inner_rim`` among its regions nor the 68 points) is not moved.
    """
    line = _meeting_line(asset)
    if line is None:
        return np.zeros((asset.n_vertices, 3))
    from scipy.spatial import cKDTree

    template = asset.v_template.astype(np.float64)
    distance = cKDTree(line).query(template)[0]
    return _fade(distance / REACH)[:, None] * (_jaw_opening(asset) + _lip_raise(asset))


def cube_parting(asset: HeadAsset) -> Float[np.ndarray, "verts 3"]:
    """:func:`mouth_parting` in cube lengths, along the axes of the head's ``canonical`` (which need not be the cube's usual ones)."""
    moved = mouth_parting(asset)
    away = ~moved.any(1)
    if not away.any() or asset.canonical is None:
        return moved * 0
    scale, rotation, _ = similarity(asset.v_template[away].astype(np.float64), asset.canonical[away].astype(np.float64))
    return scale * moved @ rotation.T


def _fade(t: np.ndarray) -> np.ndarray:
    """1 at 0, 0 from 1 on, between them the quintic whose first two derivatives vanish at both ends."""
    t = np.minimum(t, 1)
    return 1 - t**3 * (10 - 15 * t + 6 * t**2)


def _meeting_line(asset: HeadAsset) -> np.ndarray | None:
    """Points of the lips' inner rims."""
    if "lip_inner_rim" in asset.regions:
        return asset.v_template[asset.regions["lip_inner_rim"]].astype(np.float64)
    embedding = asset.landmarks.get("ibug68")
    if embedding is None or not set(_INNER_LIPS) <= set(embedding.indices.tolist()):
        return None
    row = {int(number): k for k, number in enumerate(embedding.indices)}
    corners = embedding.positions(asset.v_template.astype(np.float64), asset.faces)[[row[k] for k in _INNER_LIPS]]
    along = np.linspace(0, 1, 10, endpoint=False)[:, None, None]
    return ((1 - along) * corners + along * np.roll(corners, -1, axis=0)).reshape(-1, 3)


def _jaw_opening(asset: HeadAsset) -> np.ndarray:
    """By linear blend skinning of the jaw joint alone, with its pose correctives (FLAME, Li et al. 2017, equations 1 to 3)."""
    cos, sin = np.cos(JAW_ANGLE), np.sin(JAW_ANGLE)
    turn = np.array([[0, 0, 0], [0, cos - 1, -sin], [0, sin, cos - 1]])  # R - I about x, which opens the mouth
    first = 9 * (_JAW - 1)
    corrective = asset.posedirs[:, :, first : first + 9].astype(np.float64) @ turn.reshape(-1)
    joint = asset.joint_regressor[_JAW].astype(np.float64) @ asset.v_template
    weight = asset.weights[:, _JAW, None].astype(np.float64)
    return corrective + weight * ((asset.v_template + corrective - joint) @ turn.T)


def _lip_raise(asset: HeadAsset) -> np.ndarray:
    columns = [asset.n_identity + k for k, name in enumerate(asset.expression_names) if name in ("mouthUpperUpLeft", "mouthUpperUpRight")]
    return LIP_RAISE * asset.shapedirs[:, :, columns].astype(np.float64).sum(-1)
