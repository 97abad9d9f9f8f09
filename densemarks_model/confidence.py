"""Confidence for networks that have no mask: how much a predicted map looks like a head.

The authors' network gives coordinates everywhere, background included. Two things tell a head apart. Coordinates on one
move steadily from pixel to pixel, by about one cube over the head's size: a constant moves too little and noise too much
and in no direction. And they lie on the head's surface in the cube, where that surface is known for the network (it is
calibrated from tracked frames, or given).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

SLOWEST, FASTEST = 0.5, 12.0
"""Cube lengths per picture side by which coordinates move on heads: one that fills the picture, and one that is a tenth of it."""

GRID = 64
"""Side of the map that steadiness is judged on, pixels: at a finer one every network's map is smooth, on the background too."""

SURFACE_SIGMA = 0.05
"""Distance from the surface, cube lengths, at which confidence falls to 1/e."""


def regularity(coordinates: Float[Tensor, "batch 3 height width"], window: int = 7) -> Float[Tensor, "batch 1 height width"]:
    """How steadily coordinates move around each pixel, [0, 1].

    A larger map is first reduced to about :data:`GRID` pixels, so that the result does not depend on the picture's resolution. In a
    window around the pixel, coordinates are fitted by a linear function of the pixel's place. The result is the share
    of their variance that the function explains, times a soft test that its slope is a head's (:data:`SLOWEST` to
    :data:`FASTEST`).

    Args:
        coordinates: cube coordinates.
        window: side of the window, pixels of the grid, odd.
    """
    own = [int(side) for side in coordinates.shape[-2:]]
    # whole cells and plain averages, which ONNX knows
    cell = max(round(max(own) / GRID), 1)
    coordinates = F.avg_pool2d(F.pad(coordinates, (0, -own[1] % cell, 0, -own[0] % cell), mode="replicate"), cell)
    reach = window // 2
    padded = F.pad(coordinates, (reach,) * 4, mode="replicate")

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=1)

    steps = torch.arange(-reach, reach + 1, dtype=coordinates.dtype, device=coordinates.device)
    variance_of_steps = float((steps**2).mean())
    kernel_x = (steps / (window * window * variance_of_steps)).view(1, 1, 1, -1).expand(3, 1, window, window)
    slope_x = F.conv2d(padded, kernel_x, groups=3)
    slope_y = F.conv2d(padded, kernel_x.transpose(2, 3), groups=3)
    variance = (mean(padded**2) - mean(padded) ** 2).sum(1, keepdim=True)
    explained = variance_of_steps * (slope_x**2 + slope_y**2).sum(1, keepdim=True)
    share = explained / (variance + 1e-8)
    slope = (slope_x**2 + slope_y**2).sum(1, keepdim=True).sqrt() * (max(own) / cell)
    fast_enough = torch.sigmoid(6 * torch.log((slope + 1e-6) / SLOWEST))
    slow_enough = torch.sigmoid(-6 * torch.log((slope + 1e-6) / FASTEST))
    steady = (share.clamp(0, 1) ** 2 * fast_enough * slow_enough).clamp(0, 1)
    rows, columns = (-(-side // cell) * cell for side in own)
    return F.interpolate(steady, size=(rows, columns), mode="bilinear", align_corners=False)[..., : own[0], : own[1]]


def nearness(
    coordinates: Float[Tensor, "batch 3 height width"], surface: Float[Tensor, "points 3"], sigma: float = SURFACE_SIGMA
) -> Float[Tensor, "batch 1 height width"]:
    """``exp(-(d/sigma)²)`` of every pixel's distance d from the nearest of the ``surface``'s points in the cube."""
    batch, _, height, width = coordinates.shape
    points = coordinates.permute(0, 2, 3, 1).reshape(-1, 3)
    if points.device.type == "cpu" and not points.requires_grad and not torch.jit.is_tracing():
        # a tree takes a twelfth of the time for 512 x 512 pixels and 5,400 points
        nearest = torch.from_numpy(cKDTree(surface.double().numpy()).query(points.double().numpy())[0]).to(points)
    else:
        # in pieces: all distances at once would take gigabytes
        nearest = torch.cat([torch.cdist(part, surface).amin(1) for part in points.split(8192)])
    return torch.exp(-((nearest / sigma) ** 2)).view(batch, 1, height, width)
