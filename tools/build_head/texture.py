"""Pack the texture maps of the head's pieces into one unit square."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from flame_assets.asset import AssetError

SLOTS = {
    "skin0": (0.01, 0.47, 0.98, 0.52),
    "skin1": (0.01, 0.22, 0.38, 0.23),
    "skin2": (0.41, 0.22, 0.24, 0.23),
    "left_eyeball": (0.02, 0.01, 0.16, 0.16),
    "right_eyeball": (0.20, 0.01, 0.16, 0.16),
    "upper_teeth": (0.38, 0.10, 0.28, 0.07),
    "lower_teeth": (0.38, 0.01, 0.28, 0.07),
    "tongue": (0.69, 0.01, 0.14, 0.16),
    "left_socket": (0.86, 0.01, 0.05, 0.05),
    "right_socket": (0.93, 0.01, 0.05, 0.05),
}
"""Rectangle of each piece: left, bottom, width, height. Aspect ratios inside a piece are kept."""


class Atlas:
    """Collect pieces in the order of the head's triangles, then :meth:`pack` them."""

    def __init__(self) -> None:
        self._uv: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._count = 0

    def add(self, slot: str, uv: np.ndarray, uv_faces: np.ndarray) -> None:
        """Place the part of ``uv`` ``(T, 2)`` that ``uv_faces`` ``(F, 3)`` uses into the rectangle named ``slot``."""
        used, faces = np.unique(uv_faces, return_inverse=True)
        self._append(_fit(uv[used], SLOTS[slot]), faces.reshape(-1, 3))

    def add_skin(self, uv: np.ndarray, uv_faces: np.ndarray) -> None:
        """Place the skin, island by island (face and scalp, lining of the mouth, neck), turned upright.

        Raises:
            AssetError: the skin has more islands than there are rectangles.
        """
        used, faces = np.unique(uv_faces, return_inverse=True)
        faces = faces.reshape(-1, 3)
        edges = np.concatenate([faces[:, :2], faces[:, 1:]])
        graph = sp.coo_matrix((np.ones(len(edges)), edges.T), (len(used), len(used)))
        count, island = connected_components(graph, directed=False)
        if count > 3:
            raise AssetError(f"the skin's texture map falls into {count} islands; 3 rectangles are foreseen")
        upright = np.stack([uv[used, 1], -uv[used, 0]], -1)
        placed = np.empty_like(upright)
        for rank, number in enumerate(np.argsort(-np.bincount(island), kind="stable")):
            inside = island == number
            placed[inside] = _fit(upright[inside], SLOTS[f"skin{rank}"])
        self._append(placed, faces)

    def add_point(self, slot: str, count: int) -> None:
        """Give ``count`` triangles one common spot (plain colour, no texture)."""
        left, bottom, width, height = SLOTS[slot]
        corners = np.array([[0.4, 0.4], [0.6, 0.4], [0.5, 0.6]]) * [width, height] + [left, bottom]
        self._append(corners, np.tile([0, 1, 2], (count, 1)))

    def _append(self, uv: np.ndarray, faces: np.ndarray) -> None:
        self._uv.append(uv)
        self._faces.append(faces + self._count)
        self._count += len(uv)

    def pack(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ``uv`` ``(T, 2)`` float32 and ``uv_faces`` ``(F, 3)`` int32."""
        return np.concatenate(self._uv).astype(np.float32), np.concatenate(self._faces).astype(np.int32)


def _fit(points: np.ndarray, slot: tuple[float, float, float, float]) -> np.ndarray:
    """Scale ``points`` ``(T, 2)`` evenly and centre them in the rectangle ``slot``."""
    low, size = points.min(0), np.ptp(points, axis=0)
    left, bottom, width, height = slot
    scale = min(width / size[0], height / size[1])
    margin = (np.array([width, height]) - scale * size) / 2
    return np.array([left, bottom]) + margin + (points - low) * scale
