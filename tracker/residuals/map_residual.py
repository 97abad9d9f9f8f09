"""Looks at a map (locations, distances, colours) where points of the head are projected, as a residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tracker.camera import from_principal_point, project
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.solver import Linearization


@dataclass(frozen=True)
class MapResidual:
    """What a map holds where a place is projected to, minus what it should hold, in units of the expected error.

    Attributes:
        points: the head restricted to n points.
        expected: what the map should hold there: the points' own locations for a map of locations, their distance to the
            head's own outline for a map of distances, colours for a picture.
        precision: 1 / (expected error in the map's units); 0 leaves a point out (hidden, off the map).
        maps: channels first. to_map: affine maps from full-frame pixels to the maps' pixels.
        principal_point: pixels.
    """

    points: HeadModel
    expected: Float[Tensor, "*frames n c"]
    precision: Float[Tensor, "frames n"]
    maps: Float[Tensor, "frames c h w"]
    to_map: Float[Tensor, "frames 2 3"]
    principal_point: tuple[float, float]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        head = HeadPoints.evaluate(self.points, values)
        focal = values["log_focal"].exp()
        pixels, per_metre = project(head.positions, focal.expand(len(head.positions)), self.principal_point)
        linear, shift = self.to_map[:, :, :2], self.to_map[:, None, :, 2]
        predicted, slope = sample_map(self.maps, pixels @ linear.mT + shift)
        weight = self.precision[..., None]
        residual = (predicted - self.expected) * weight
        if not wanted:
            return Linearization(residual)
        per_pixel = (slope @ linear[:, None]) * weight[..., None]
        jacobians = head.jacobians(per_pixel @ per_metre, wanted)
        if "log_focal" in wanted:
            offset = from_principal_point(pixels, self.principal_point)
            jacobians["log_focal"] = per_pixel @ offset[..., None]
        return Linearization(residual, jacobians, used=self.precision != 0)


def sample_map(
    maps: Float[Tensor, "frames c h w"], points: Float[Tensor, "frames n 2"]
) -> tuple[Float[Tensor, "frames n c"], Float[Tensor, "frames n c 2"]]:
    """Bilinear samples at map pixels (centres at halves), and their derivatives with respect to x and y.

    Beyond the outermost pixel centres the map continues straight.
    """
    _, channels, height, width = maps.shape
    x, y = points[..., 0] - 0.5, points[..., 1] - 0.5
    left, top = x.detach().floor().clamp(0, width - 2), y.detach().floor().clamp(0, height - 2)
    a, b = (x - left)[..., None], (y - top)[..., None]
    flat = maps.flatten(2).mT  # (F, h w, c)
    start = (top * width + left).long()

    def corner(step: int) -> Tensor:
        return flat.gather(1, (start + step)[..., None].expand(-1, -1, channels))

    p00, p01, p10, p11 = corner(0), corner(1), corner(width), corner(width + 1)
    upper, lower = p00 + a * (p01 - p00), p10 + a * (p11 - p10)
    along_x = (1 - b) * (p01 - p00) + b * (p11 - p10)
    return upper + b * (lower - upper), torch.stack([along_x, lower - upper], dim=-1)


def on_map(
    head: HeadPoints, values: Mapping[str, Tensor], to_map: Float[Tensor, "frames 2 3"], principal_point: tuple[float, float]
) -> Float[Tensor, "frames n 2"]:
    """Where points of the head are projected to, in the maps' pixels."""
    pixels, _ = project(head.positions, values["log_focal"].exp().expand(len(head.positions)), principal_point)
    return pixels @ to_map[:, :, :2].mT + to_map[:, None, :, 2]


def within(points: Float[Tensor, "frames n 2"], size: tuple[int, int], margin: float) -> Bool[Tensor, "frames n"]:
    """Which map pixels lie farther than ``margin`` inside a map of ``size`` (height, width)."""
    height, width = size
    return ((points > margin) & (points < points.new_tensor([width, height]) - margin)).all(-1)
