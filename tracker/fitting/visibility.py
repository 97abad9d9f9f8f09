"""Which places of a head the camera sees, by drawing the head where the network looked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import NEAR_PLANE_M, project
from tracker.fitting.kinematics import HeadPoints
from tracker.head_model import HeadModel
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

    def clip_space(model: HeadModel) -> Tensor:
        positions = HeadPoints.evaluate(model, values).positions
        focal = values["log_focal"].exp()
        pixels, per_metre = project(positions, focal.expand(len(positions)), principal_point)
        depth = focal / per_metre[..., 0, 0]
        on_map = pixels @ to_map[:, :, :2].mT + to_map[:, None, :, 2]
        x, y = 2 * on_map[..., 0] / map_size[1] - 1, 1 - 2 * on_map[..., 1] / map_size[0]
        near, far = NEAR_PLANE_M, _FAR_M
        z = depth * (far + near) / (far - near) - 2 * far * near / (far - near)
        return torch.stack([x * depth, y * depth, z, depth], dim=-1).float()

    mesh = clip_space(head)
    rast = renderer.rasterize(mesh, head.faces, (_RESOLUTION, _RESOLUTION))
    return visible_points(clip_space(points), rast, mesh, head.faces, _TOLERANCE_M).to(mesh)
