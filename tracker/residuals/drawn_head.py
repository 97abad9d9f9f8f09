"""What the camera sees of a head, by drawing it where the network looked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import NEAR_PLANE_M, project
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.rendering.renderer import Renderer
from tracker.rendering.visibility import visible_points

_RESOLUTION = 128
_FAR_M = 100.0
_TOLERANCE_M = 0.008  # places lie on the flat triangles of a coarse scalp; ears and noses hide by more than this


@torch.no_grad()
def visible_places(
    head: HeadModel,
    points: HeadModel,
    to_map: Float[Tensor, "frames 2 3"],
    map_size: tuple[int, int],
    values: Mapping[str, Tensor],
    principal_point: tuple[float, float],
    renderer: Renderer,
) -> Float[Tensor, "frames n"]:
    """1 for places that the camera sees, 0 for those behind other parts of the head.

    Args:
        head: the whole head.
        points: the head restricted to the places, of the same identity.
        to_map: affine maps from full-frame pixels to the maps that the pictures are drawn for; a crop may be turned.
        map_size: (height, width) of those maps.
        values: current parameters.
        principal_point: pixels.
        renderer: any backend on the tensors' device.
    """

    mesh = clip_space_on_map(head, to_map, map_size, values, principal_point)
    rast = renderer.rasterize(mesh, head.faces, (_RESOLUTION, _RESOLUTION))
    return visible_points(clip_space_on_map(points, to_map, map_size, values, principal_point), rast, mesh, head.faces, _TOLERANCE_M).to(mesh)


@torch.no_grad()
def coverage(
    head: HeadModel,
    to_map: Float[Tensor, "frames 2 3"],
    map_size: tuple[int, int],
    values: Mapping[str, Tensor],
    principal_point: tuple[float, float],
    renderer: Renderer,
    finer: int,
) -> Float[Tensor, "frames h w"]:
    """Share of each map pixel that the head covers, from a picture ``finer`` times as fine; row 0 on top."""
    height, width = map_size
    mesh = clip_space_on_map(head, to_map, map_size, values, principal_point)
    rast = renderer.rasterize(mesh, head.faces, (finer * height, finer * width))
    covered = (rast[..., 3] > 0).to(mesh).flip(1)
    return torch.nn.functional.avg_pool2d(covered[:, None], finer)[:, 0]


def clip_space_on_map(
    model: HeadModel,
    to_map: Float[Tensor, "frames 2 3"],
    map_size: tuple[int, int],
    values: Mapping[str, Tensor],
    principal_point: tuple[float, float],
) -> Float[Tensor, "frames verts 4"]:
    """Clip space of pictures that show just the map, whose crop may be turned in the frame."""
    positions = HeadPoints.evaluate(model, values).positions
    focal = values["log_focal"].exp()
    pixels, per_metre = project(positions, focal.expand(len(positions)), principal_point)
    depth = focal / per_metre[..., 0, 0]
    on_map = pixels @ to_map[:, :, :2].mT + to_map[:, None, :, 2]
    x, y = 2 * on_map[..., 0] / map_size[1] - 1, 1 - 2 * on_map[..., 1] / map_size[0]
    near, far = NEAR_PLANE_M, _FAR_M
    z = depth * (far + near) / (far - near) - 2 * far * near / (far - near)
    return torch.stack([x * depth, y * depth, z, depth], dim=-1).float()
