"""The head's surface as glTF wants it: one index per corner, normals, materials by region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from flame_assets.asset import HeadAsset
from flame_assets.normals import vertex_normals

# Visible parts, from the innermost: a triangle belongs to the first part that holds all its corners, else to the skin.
# Heads name some regions for both sides together and some for each side; a part is the union of those that exist.
_PARTS = {
    "pupil": ("pupils",),
    "iris": ("irises", "left_iris", "right_iris"),
    "eye": ("eyes",),
    "teeth": ("teeth",),
    "tongue": ("tongue",),
    "lips": ("lips",),
}
_SKIN = "skin"
TEXTURED = (_SKIN, "lips")
"""Parts that take the clip's texture."""

# sRGB colour and roughness
_LOOKS = {
    "pupil": ((0.03, 0.03, 0.04), 0.1),
    "iris": ((0.27, 0.42, 0.52), 0.15),
    "eye": ((0.93, 0.92, 0.90), 0.15),
    "teeth": ((0.92, 0.90, 0.84), 0.35),
    "tongue": ((0.72, 0.38, 0.37), 0.5),
    "lips": ((0.76, 0.50, 0.47), 0.5),
    _SKIN: ((0.84, 0.67, 0.58), 0.65),
}


@dataclass(frozen=True)
class SplitSurface:
    """The mesh with vertices on uv seams doubled. The first V vertices are the head's own, in order.

    Attributes:
        source: head vertex that each split vertex repeats.
        faces: triangles of split vertices.
        uv: per split vertex, v up; None when the head has no uv.
    """

    source: Int[np.ndarray, "split"]
    faces: Int[np.ndarray, "faces 3"]
    uv: Float[np.ndarray, "split 2"] | None


def split_at_seams(asset: HeadAsset) -> SplitSurface:
    """Give every (vertex, uv) pair that a triangle uses a vertex of its own."""
    count = asset.n_vertices
    if asset.uv is None or asset.uv_faces is None:
        return SplitSurface(np.arange(count), asset.faces.astype(np.int64), None)
    # pairs sorted by vertex; a vertex's first pair keeps the vertex's number, further ones go to the end
    keys = asset.faces.astype(np.int64) * len(asset.uv) + asset.uv_faces
    pairs, inverse = np.unique(keys.ravel(), return_inverse=True)
    vertex, uv_index = np.divmod(pairs, len(asset.uv))
    is_first = np.diff(vertex, prepend=-1) != 0
    number = np.where(is_first, vertex, count + np.cumsum(~is_first) - 1)
    source = np.concatenate([np.arange(count), vertex[~is_first]])
    uv = np.zeros((len(source), 2), np.float32)
    uv[number] = asset.uv[uv_index]
    return SplitSurface(source, number[inverse].reshape(asset.faces.shape), uv)


def unit_normals(
    vertices: Float[np.ndarray, "verts 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "verts 3"]:
    """Vertex normals; +z for vertices without a triangle, because glTF wants unit length everywhere."""
    normals = vertex_normals(vertices, faces)
    return np.where((normals == 0).all(axis=1, keepdims=True), (0.0, 0.0, 1.0), normals)


def surface_parts(asset: HeadAsset) -> dict[str, Int[np.ndarray, "n"]]:
    """Triangles of each visible part that the head has: pupil, iris, eye, teeth, tongue, lips, skin."""
    left = np.ones(len(asset.faces), bool)
    parts = {}
    for name, regions in _PARTS.items():
        mask = np.zeros(asset.n_vertices, bool)
        for region in regions:
            mask |= asset.regions.get(region, False)
        if name == "pupil":
            mask |= _inside_pupil_rings(asset)
        parts[name] = np.flatnonzero(left & mask[asset.faces].all(axis=1))
        left[parts[name]] = False
    parts[_SKIN] = np.flatnonzero(left)
    return {name: triangles for name, triangles in parts.items() if len(triangles)}


def part_colour(part: str) -> tuple[float, float, float]:
    """Plain sRGB colour of a part of :func:`surface_parts`, 0 to 1."""
    return _LOOKS[part][0]


def material(part: str, texture: int | None = None) -> dict[str, Any]:
    """A glTF material for a part of :func:`surface_parts`; skin and lips take the texture of that number."""
    srgb, roughness = _LOOKS[part]
    if texture is not None and part in TEXTURED:
        return {
            "name": part,
            "pbrMetallicRoughness": {"baseColorTexture": {"index": texture}, "metallicFactor": 0, "roughnessFactor": roughness},
            "doubleSided": True,
        }
    linear = [round(((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92, 4) for c in srgb]
    return {
        "name": part,
        "pbrMetallicRoughness": {"baseColorFactor": [*linear, 1], "metallicFactor": 0, "roughnessFactor": roughness},
        "doubleSided": True,  # heads are open at the neck, and the mouth is seen from inside
    }


def _inside_pupil_rings(asset: HeadAsset) -> Bool[np.ndarray, "verts"]:
    """Vertices on or within a ring that the head names as the edge of a pupil."""
    inside = np.zeros(asset.n_vertices, bool)
    for side in ("left", "right"):
        ring = asset.regions.get(f"{side}_pupil_ring")
        if ring is not None:
            centre = asset.v_template[ring].mean(axis=0)
            distance = np.linalg.norm(asset.v_template - centre, axis=1)
            inside |= distance <= 1.01 * distance[ring].max()
    return inside
