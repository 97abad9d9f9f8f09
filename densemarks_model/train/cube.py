"""The canonical cube: a learnable grid of features, smoothed, read at predicted coordinates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class CanonicalCube(nn.Module):
    """Latent features E ∈ R^(N³×D) of the paper, smoothed by a 3-D Gaussian and interpolated trilinearly.

    Cell (i, j, k) of an axis of N cells lies at (i + 0.5) / N. The Gaussian is cut at three sigmas, sums to one, and repeats
    the outermost cells beyond the cube.

    Args:
        size: N, cells along each axis. channels: D. sigma: of the Gaussian, in cells; 0 switches it off.
        classes: outputs of the 1 × 1 layer for face-parsing classes; 0 for none.
    """

    def __init__(self, size: int = 32, channels: int = 64, sigma: float = 1.0, classes: int = 0) -> None:
        super().__init__()
        if size < 2 or channels < 1 or sigma < 0:
            raise ValueError(f"cube: size {size} must be at least 2, channels {channels} at least 1, sigma {sigma} not negative")
        self.grid = nn.Parameter(torch.randn(1, channels, size, size, size))
        self.classifier = nn.Linear(channels, classes) if classes else None
        reach = max(int(3 * sigma + 0.5), 0)
        steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (steps / sigma) ** 2) if sigma > 0 else torch.ones(1)
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def smoothed(self) -> Float[Tensor, "1 channels depth height width"]:
        """The grid after the Gaussian, axes z, y, x as ``grid_sample`` has them; one axis after the other."""
        grid, reach = self.grid, len(self.kernel) // 2
        if not reach:
            return grid
        channels = grid.shape[1]
        for axis in range(3):
            shape, pad = [1, 1, 1], [0] * 6
            shape[axis] = -1
            pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = reach
            weight = self.kernel.view(1, 1, *shape).expand(channels, 1, *shape)
            grid = F.conv3d(F.pad(grid, pad, mode="replicate"), weight, groups=channels)
        return grid

    def forward(self, coordinates: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
        """Features at cube coordinates (x, y, z) in [0, 1]; beyond the outermost cells their values continue."""
        where = (2 * coordinates - 1).view(1, 1, 1, -1, 3)
        read = F.grid_sample(self.smoothed(), where, mode="bilinear", padding_mode="border", align_corners=False)
        return read[0, :, 0, 0].T

    def classify(self, features: Float[Tensor, "n channels"]) -> Float[Tensor, "n classes"]:
        """Logits of the face-parsing classes.

        Raises:
            ValueError: the cube was made without classes.
        """
        if self.classifier is None:
            raise ValueError("cube: made without classes")
        return self.classifier(features)
