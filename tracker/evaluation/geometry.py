"""How far a tracked head is from the true one, where the truth is known exactly.

Both heads have the default head's mesh. Positions are in camera space or in the world, the same for both, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from flame_assets.similarity import rigid_alignment

REGIONS = {
    "face": ("face",),
    "ears": ("ears",),
    "scalp": ("scalp",),
    "neck": ("neck",),
    "lips": ("lips",),
    "eyes": ("eyelids",),
}
"""Reported part of the head -> regions of the head asset."""


@dataclass(frozen=True)
class VertexErrors:
    """Mean distances per frame and part, millimetres.

    Attributes:
        aligned: after the rigid motion (no scale) that brings the whole head closest: shape and expression alone.
        posed: after one factor for the whole clip on the distance from the camera, which no single camera can tell: shape,
            expression, rotation and place in the picture.
        absolute: as they are.
    """

    aligned: dict[str, Float[np.ndarray, "frames"]]
    posed: dict[str, Float[np.ndarray, "frames"]]
    absolute: dict[str, Float[np.ndarray, "frames"]]


def part_masks(regions: dict[str, Bool[np.ndarray, "verts"]]) -> dict[str, Bool[np.ndarray, "verts"]]:
    """Masks of the reported parts; "all" is the outside of the head, with lids and lips, without teeth and eyeballs."""
    masks = {name: np.any([regions[r] for r in parts], axis=0) for name, parts in REGIONS.items()}
    inside = np.any([regions[r] for r in ("mouth_interior", "teeth", "tongue", "left_eyeball", "right_eyeball")], axis=0)
    masks = {name: mask & ~inside for name, mask in masks.items()}
    return {"all": np.any(list(masks.values()), axis=0), **masks}


def vertex_errors(
    tracked: Float[np.ndarray, "frames verts 3"],
    truth: Float[np.ndarray, "frames verts 3"],
    masks: dict[str, Bool[np.ndarray, "verts"]],
) -> VertexErrors:
    """Compare meshes in camera space (camera at the origin).

    Args:
        tracked, truth: vertices, metres.
        masks: from :func:`part_masks`; "all" decides the alignment.
    """
    whole = masks["all"]
    rotation, shift = rigid_alignment(tracked[:, whole].astype(np.float64), truth[:, whole].astype(np.float64))
    aligned = tracked @ np.swapaxes(rotation, 1, 2) + shift[:, None]
    factor = float(np.median(truth[:, whole, 2].mean(1) / tracked[:, whole, 2].mean(1)))

    def by_part(vertices: np.ndarray) -> dict[str, np.ndarray]:
        distance = 1000 * np.linalg.norm(vertices - truth, axis=-1)
        return {name: distance[:, mask].mean(1) for name, mask in masks.items()}

    # a head of the same size that stands nearer by `factor` looks the same but for perspective: shift along the line of sight
    centre = tracked[:, whole].mean(1, keepdims=True)
    posed = tracked + (factor - 1) * centre
    return VertexErrors(by_part(aligned), by_part(posed), by_part(tracked))


def rotation_angles_deg(a: Float[np.ndarray, "*batch 3 3"], b: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch"]:
    """Angles between rotations, degrees."""
    trace = np.einsum("...ij,...ij->...", a, b)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
