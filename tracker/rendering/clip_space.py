"""Between the project's camera and the renderer's clip space, with one flip of rows on the way out.

The camera looks down −z, y up (OpenGL). Pixels are full-frame, origin at the top-left corner, pixel centres at
(i + 0.5, j + 0.5): u = cx + f x / (−z), v = cy − f y / (−z). The renderer's pictures have row 0 at the bottom;
:func:`to_image` turns them over.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tracker.camera import CAMERA_POSITION

NEAR_M = 0.05
"""Default distance of the near plane, metres."""

FAR_M = 20.0
"""Default distance of the far plane, metres."""


def perspective(
    focal_px: float | Float[Tensor, "*batch"],
    cx: float,
    cy: float,
    width: int,
    height: int,
    near: float = NEAR_M,
    far: float = FAR_M,
) -> Float[Tensor, "*batch 4 4"]:
    """Camera space to clip space, as OpenGL's projection matrix.

    Clip-space w is the distance along the viewing direction, in metres.

    Args:
        focal_px: focal length, pixels; differentiable.
        cx, cy: principal point, pixels from the top-left corner.
        width, height: picture size, pixels.
        near, far: distances of the clipping planes, metres.

    Raises:
        ValueError: planes that are not 0 < near < far.
    """
    if not 0 < near < far:
        raise ValueError(f"perspective: planes must satisfy 0 < near < far, got near {near} and far {far}")
    focal = torch.as_tensor(focal_px, dtype=None if isinstance(focal_px, Tensor) else torch.float32)
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    # NDC x = 2u/W − 1 and NDC y = 1 − 2v/H, both multiplied by w = −z
    rows = [
        [2 * focal / width, zero, one * (1 - 2 * cx / width), zero],
        [zero, 2 * focal / height, one * (2 * cy / height - 1), zero],
        [zero, zero, one * (-(far + near) / (far - near)), one * (-2 * far * near / (far - near))],
        [zero, zero, -one, zero],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def camera_to_clip(
    points: Float[Tensor, "*batch n 3"], projection: Float[Tensor, "*batch 4 4"]
) -> Float[Tensor, "*batch n 4"]:
    """Apply :func:`perspective`'s matrix to points in camera space, metres."""
    return points @ projection[..., :3].mT + projection[..., None, :, 3]


def world_to_clip(
    points: Float[Tensor, "*batch n 3"], projection: Float[Tensor, "*batch 4 4"]
) -> Float[Tensor, "*batch n 4"]:
    """Apply :func:`perspective`'s matrix to points in the world, metres, seen by the project's fixed camera."""
    return camera_to_clip(points - points.new_tensor(CAMERA_POSITION), projection)


def clip_to_pixels(clip: Float[Tensor, "*batch n 4"], width: int, height: int) -> Float[Tensor, "*batch n 2"]:
    """Full-frame pixels (u right, v down, from the top-left corner) of clip-space points in front of the camera."""
    ndc = clip[..., :2] / clip[..., 3:]
    return torch.stack([(ndc[..., 0] + 1) * (width / 2), (1 - ndc[..., 1]) * (height / 2)], dim=-1)


def to_image(picture: Float[Tensor, "*batch height width channels"]) -> Float[Tensor, "*batch height width channels"]:
    """Turn a rendered picture over: row 0 on top. The one place where rows are flipped."""
    return picture.flip(-3)


def vertex_normals(
    vertices: Float[Tensor, "*batch verts 3"], tri: Int[Tensor, "faces 3"]
) -> Float[Tensor, "*batch verts 3"]:
    """Unit normals, outward where triangles are counter-clockwise seen from outside; a triangle counts by its area.

    A vertex without area around it gets zeros.
    """
    a, b, c = tri.long().unbind(1)
    corner = vertices.index_select(-2, a)
    across = torch.linalg.cross(vertices.index_select(-2, b) - corner, vertices.index_select(-2, c) - corner)
    normals = torch.zeros_like(vertices)
    for index in (a, b, c):
        normals = normals.index_add(-2, index, across)
    return torch.nn.functional.normalize(normals, dim=-1, eps=1e-20)
