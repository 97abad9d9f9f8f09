"""Which dense places the camera sees, by drawing the head where the network looked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import NEAR_PLANE_M, project
from tracker.fitting.dense import DenseBatch, DenseSurface
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
    surface: DenseSurface,
    batch: DenseBatch,
    values: Mapping[str, Tensor],
    principal_point: tuple[float, float],
    renderer: Renderer,
) -> Float[Tensor, "frames n"]:
    """1 for places that the camera sees, 0 for those behind other parts of the head.

    Args:
        head: the whole head, its identity as in ``surface``.
        surface: the head at its dense places.
        batch: gives the crops, at which the pictures are drawn.
        values: current parameters.
        principal_point: pixels.
        renderer: any backend on the tensors' device.
    """
    whole = HeadPoints.evaluate(head, values).positions
    places = HeadPoints.evaluate(surface.points, values).positions
    clip = _crop_clip_space(whole, batch, values, principal_point)
    rast = renderer.rasterize(clip, head.faces, (_RESOLUTION, _RESOLUTION))
    points = _crop_clip_space(places, batch, values, principal_point)
    return visible_points(points, rast, clip, head.faces, _TOLERANCE_M).to(places)


def _crop_clip_space(
    positions: Float[Tensor, "frames n 3"], batch: DenseBatch, values: Mapping[str, Tensor], principal_point: tuple[float, float]
) -> Float[Tensor, "frames n 4"]:
    """Clip space in which the crop that the network saw fills the picture; a crop may be turned."""
    pixels, per_metre = project(positions, values["log_focal"].exp().expand(len(positions)), principal_point)
    depth = (values["log_focal"].exp() / per_metre[..., 0, 0]).float()
    on_map = pixels @ batch.to_map[:, :, :2].mT + batch.to_map[:, None, :, 2]
    x = 2 * on_map[..., 0] / batch.maps.shape[3] - 1
    y = 1 - 2 * on_map[..., 1] / batch.maps.shape[2]
    near, far = NEAR_PLANE_M, _FAR_M
    z = depth * (far + near) / (far - near) - 2 * far * near / (far - near)
    return torch.stack([x * depth, y * depth, z, depth], dim=-1).float()
