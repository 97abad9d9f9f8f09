"""Which points of a mesh the camera sees, judged by what was rasterised."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor


@torch.no_grad()
def visible_points(
    points: Float[Tensor, "batch n 4"],
    rast: Float[Tensor, "batch height width 4"],
    pos: Float[Tensor, "batch verts 4"],
    tri: Int32[Tensor, "faces 3"],
    tolerance: float = 0.003,
) -> Bool[Tensor, "batch n"]:
    """Compare the depth of points with that of the surfaces around them.

    A point counts as visible if at one of the four pixel centres around it nothing, or a surface no nearer than
    ``tolerance`` in front of the point, shows. Points on the outline are therefore visible. Points off the picture, in
    front of the near plane or behind the far plane are not.

    Args:
        points: clip space, on the mesh or off it; pass ``pos`` for the vertices themselves.
        rast, pos, tri: the picture, and the mesh that it shows.
        tolerance: in units of clip-space w: metres, with :func:`tracker.rendering.clip_space.perspective`.
    """
    batch, height, width = rast.shape[:3]
    x, y, z, w = points.unbind(-1)
    inside = (w > 0) & (z.abs() <= w) & (x.abs() <= w) & (y.abs() <= w)
    if tri.shape[0] == 0:
        return inside
    safe = torch.where(inside, w, 1)
    column = ((x / safe + 1) * (width / 2) - 0.5).floor().long()
    row = ((y / safe + 1) * (height / 2) - 0.5).floor().long()
    picture = torch.arange(batch, device=points.device)[:, None]
    seen = torch.zeros_like(inside)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        shown = rast[picture, (row + down).clamp(0, height - 1), (column + right).clamp(0, width - 1)]
        corners = tri.long()[(shown[..., 3].long() - 1).clamp_min(0)]
        corner_w = pos[..., 3][picture[..., None], corners]
        u, v = shown[..., 0], shown[..., 1]
        surface = u * corner_w[..., 0] + v * corner_w[..., 1] + (1 - u - v) * corner_w[..., 2]
        seen |= (shown[..., 3] == 0) | (w <= surface + tolerance)
    return seen & inside
