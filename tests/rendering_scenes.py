"""Meshes, cameras and a slow, obvious rasteriser for the tests of the renderer."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from torch import Tensor

from tracker.rendering import perspective, world_to_clip


def screen(points_px: list[tuple[float, ...]], height: int, width: int) -> Tensor:
    """Clip-space positions (1, V, 4) from (x, y[, z/w[, w]]) with x, y in pixels from the bottom-left corner."""
    rows = []
    for x, y, *rest in points_px:
        z = rest[0] if rest else 0.0
        w = rest[1] if len(rest) > 1 else 1.0
        rows.append([(2 * x / width - 1) * w, (2 * y / height - 1) * w, z * w, w])
    return torch.tensor([rows], dtype=torch.float32)


def triangles(*rows: tuple[int, int, int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 3)


def bumpy_ball(subdivisions: int, bumps: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A head-sized ball with hills and dents, float64 metres; ``bumps`` is their height relative to the radius."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    rng = np.random.default_rng(seed)
    radius = np.ones(len(ball.vertices))
    for _ in range(12):
        radius += bumps / 3 * np.sin(ball.vertices @ (rng.normal(size=3) * 4) + rng.uniform(0, 6))
    vertices = ball.vertices * radius[:, None] * (0.09, 0.12, 0.10)
    return torch.tensor(np.array(vertices)), torch.tensor(np.array(ball.faces, np.int32))


def to_clip(vertices: Tensor, size: int = 256) -> Tensor:
    """World positions (V, 3) or (B, V, 3) to float32 clip space (B, V, 4) in a square picture that a head fills."""
    projection = perspective(3.6 * size, size / 2, size / 2, size, size).to(vertices.dtype)
    clip = world_to_clip(vertices, projection).float()
    return clip if clip.ndim == 3 else clip[None]


def soup(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random large triangles in perspective that pierce each other: (1, 3 count, 4), (count, 3)."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.rand(3 * count, generator=generator) * 3 + 0.5
    xyz = (torch.rand(3 * count, 3, generator=generator) * 2.4 - 1.2) * torch.tensor([1, 1, 0.8])
    pos = torch.cat([xyz * w[:, None], w[:, None]], dim=1)[None]
    return pos, torch.arange(3 * count, dtype=torch.int32).reshape(-1, 3)


def oracle(pos: Tensor, tri: Tensor, height: int, width: int) -> dict[str, Tensor]:
    """Every triangle against every pixel centre, float64, straight from the definition.

    A point λ₀P₀ + λ₁P₁ + λ₂P₂ of the triangle lies behind pixel centre (X, Y) if its x = X w and y = Y w; the λ that
    add up to one follow from a 3×3 system.

    Returns:
        ``rast`` (H, W, 4); ``margin`` (H, W), the smallest distance of any triangle's λ from 0 or of its depth from the
        winner's, which tells how safely the pixel is decided.
    """
    p = pos[0].double()[tri.long()]  # F 3 4
    x = (torch.arange(width, dtype=torch.float64) * 2 + 1) / width - 1
    y = (torch.arange(height, dtype=torch.float64) * 2 + 1) / height - 1
    x, y = x[None, :, None, None], y[:, None, None, None]
    zero = 0 * x * y
    px, py = p[..., 0] - x * p[..., 3], p[..., 1] - y * p[..., 3]
    system = torch.stack([px + zero, py + zero, torch.ones_like(px + zero)], -2)
    weights = torch.linalg.solve(system, torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(system.shape[:-1]))
    hit = (weights[..., None] * p).sum(-2)
    ratio = hit[..., 2] / hit[..., 3]
    inside = (weights.amin(-1) > 0) & (hit[..., 3] > 0) & (ratio.abs() < 1)
    depth = torch.where(inside, ratio, torch.inf)
    nearest, winner = depth.min(-1)
    chosen = weights.gather(-2, winner[..., None, None].expand(*winner.shape, 1, 3))[..., 0, :]
    covered = nearest < torch.inf
    rast = torch.cat([chosen[..., :2], nearest[..., None], winner[..., None] + 1], -1)
    others = (depth - nearest[..., None]).abs().scatter(-1, winner[..., None], torch.inf)
    near_edge = weights.abs().amin(-1).amin(-1)
    near_plane = (ratio.abs() - 1).abs().amin(-1)
    margin = torch.minimum(torch.minimum(near_edge, near_plane), torch.where(covered, others.amin(-1), torch.inf))
    return {"rast": torch.where(covered[..., None], rast, 0), "margin": margin}
