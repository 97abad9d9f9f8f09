"""Vertex normals of a triangle mesh."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

_NO_AREA = 1e-18  # square metres, far below what rounding leaves of a triangle without area


def vertex_normals(
    vertices: Float[np.ndarray, "verts 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "verts 3"]:
    """Unit normals, float64, outward where triangles are counter-clockwise seen from outside; a triangle counts by its area.

    A vertex without area around it gets zeros. ``tracker.rendering.clip_space.vertex_normals`` is the same for tensors.
    """
    # By area, as the renderer weighs them: trimesh's own vertex normals weigh by angle, and its import takes longer than a
    # second, which a head that is only loaded should not cost.
    a, b, c = vertices[faces].transpose(1, 0, 2)
    across = np.tile(np.cross(b - a, c - a), (3, 1))
    corner = faces.T.ravel()
    total = np.stack([np.bincount(corner, across[:, axis], len(vertices)) for axis in range(3)], axis=-1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > _NO_AREA, total / np.maximum(length, _NO_AREA), 0.0)
