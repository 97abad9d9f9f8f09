"""What the synthetic pictures are made of: coloured triangles with a material."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flame_assets import normals

SKIN, EYE, HAIR, CLOTH, PLASTIC = range(5)
"""How a triangle answers light."""

HEAD, HAIR_PART, OTHER = range(3)
"""What a triangle counts as: the head's surface, its hair, or anything else (clothes, shoulders, hats, hands, glasses)."""


@dataclass(frozen=True)
class Mesh:
    """Triangles of one body.

    Attributes:
        vertices: ``(V, 3)`` metres, in the head's frame or in the camera's as the stage has it.
        faces: ``(F, 3)`` int32.
        rest: ``(V, 3)`` where the vertex is in a frame that does not move; textures are looked up there.
        albedo: ``(V, 3)`` linear RGB in [0, 1].
        details: ``(V, 4)``: openness to ambient light, density of short hairs (brows, stubble), gloss, strength of bumps;
            all 0 to 1.
        material: one of this module's codes, for all triangles or ``(F,)``.
        part: one of this module's codes.
        directions: ``(V, 3)`` normals or, for hair, tangents; None for normals computed from the triangles.
    """

    vertices: np.ndarray
    faces: np.ndarray
    rest: np.ndarray
    albedo: np.ndarray
    details: np.ndarray
    material: int | np.ndarray
    part: int
    directions: np.ndarray | None = None

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> Mesh:
        """Turned by ``rotation`` ``(3, 3)``, then shifted by ``translation`` ``(3,)``."""
        directions = None if self.directions is None else self.directions @ rotation.T
        return replace(self, vertices=self.vertices @ rotation.T + translation, directions=directions)


def plain(vertices: np.ndarray, faces: np.ndarray, albedo: np.ndarray, material: int, gloss: float = 0.1, bump: float = 0.0) -> Mesh:
    """A body of one colour that counts as :data:`OTHER`. ``albedo`` is ``(3,)`` or ``(V, 3)``."""
    vertices = np.asarray(vertices, np.float32)
    details = np.tile(np.array([1.0, 0.0, gloss, bump], np.float32), (len(vertices), 1))
    colours = np.broadcast_to(np.asarray(albedo, np.float32), vertices.shape).copy()
    return Mesh(vertices, np.asarray(faces, np.int32), vertices.copy(), colours, details, material, OTHER)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """:func:`flame_assets.normals.vertex_normals` in float32, as everything of a mesh here."""
    return normals.vertex_normals(vertices, faces).astype(np.float32)


def tube(path: np.ndarray, radius: float | np.ndarray, sides: int = 6, closed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A tube around a polyline ``(n, 3)``: vertices and faces. ``closed`` joins its ends."""
    n = len(path)
    ahead = (np.roll(path, -1, 0) - np.roll(path, 1, 0)) if closed else np.gradient(path, axis=0)
    ahead = ahead / np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(ahead[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    side = np.cross(ahead, helper)
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    up = np.cross(side, ahead)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * up[:, None]
    radii = np.broadcast_to(np.asarray(radius, float).reshape(-1, 1, 1), (n, 1, 1))
    vertices = (path[:, None] + radii * ring).reshape(-1, 3)
    return vertices.astype(np.float32), strip_faces(n, sides, closed_rows=closed)


def strip_faces(rows: int, columns: int, closed_rows: bool = False, closed_columns: bool = True) -> np.ndarray:
    """Faces of a grid of ``rows`` × ``columns`` vertices, joined around where asked."""
    i = np.arange(rows if closed_rows else rows - 1)
    j = np.arange(columns if closed_columns else columns - 1)
    i, j = np.meshgrid(i, j, indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = (i + 1) % rows * columns + (j + 1) % columns, (i + 1) % rows * columns + j
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)]).astype(np.int32)
