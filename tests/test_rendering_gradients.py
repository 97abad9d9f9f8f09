"""Derivatives of rasterise, interpolate and texture against finite differences and a float64 twin."""

from __future__ import annotations

import pytest
import torch
from rendering_scenes import bumpy_ball, screen, soup, to_clip, triangles
from torch import Tensor

from tracker.rendering import get_renderer

RENDERER = get_renderer("cpu")


def weights_twin(pos: Tensor, tri: Tensor, rast: Tensor) -> tuple[Tensor, Tensor]:
    """u and v for the triangles that rast shows, in float64 torch, and how far inside they are."""
    height, width = rast.shape[1:3]
    corners = tri.long()[(rast[..., 3].long() - 1).clamp_min(0)]
    picture = torch.arange(len(rast))[:, None, None, None]
    p = pos[picture, corners]
    x = ((torch.arange(width, dtype=torch.float64) * 2 + 1) / width - 1)[None, None, :, None]
    y = ((torch.arange(height, dtype=torch.float64) * 2 + 1) / height - 1)[None, :, None, None]
    px, py = p[..., 0] - x * p[..., 3], p[..., 1] - y * p[..., 3]
    edge = px.roll(-1, -1) * py.roll(-2, -1) - py.roll(-1, -1) * px.roll(-2, -1)
    weights = edge / edge.sum(-1, keepdim=True)
    return weights[..., :2], weights.detach().amin(-1)


@pytest.mark.parametrize("scene", ["soup", "ball", "floor"])
def test_position_gradient_equals_float64_twin(scene):
    if scene == "soup":
        pos, tri = soup(20, 7)
        pos = torch.cat([pos, pos.flip(1)])
    elif scene == "ball":
        vertices, tri = bumpy_ball(3, 0.2)
        pos = to_clip(vertices)
    else:
        pos, tri = to_clip(torch.tensor([[-3.0, -0.4, 2], [3, -0.4, 2], [0, -0.5, -9]])), triangles((0, 1, 2))
    pos = pos.clone().requires_grad_()
    rast = RENDERER.rasterize(pos, tri, (96, 80))
    twin = pos.detach().double().requires_grad_()
    weights, inside = weights_twin(twin, tri, rast.detach())
    shown = (rast[..., 3] > 0) & (inside > 1e-4)
    pull = torch.randn(rast.shape, generator=torch.Generator().manual_seed(0)) * shown[..., None]
    (rast * pull).sum().backward()
    (weights * pull[..., :2])[shown].sum().backward()
    assert shown.sum() > 500
    assert torch.allclose(rast[..., :2].double()[shown], weights[shown], atol=1e-6)
    assert (pos.grad - twin.grad).norm() < 1e-5 * twin.grad.norm()
    assert (pos.grad[..., 2] == 0).all()


def test_position_gradient_equals_finite_differences_of_the_renderer():
    """A loss over pixels well inside two triangles, so that coverage does not change under the steps."""
    pos = screen([(2, 3, 0, 1), (60, 8, 0.1, 2), (30, 58, 0.2, 1.5), (62, 60, 0, 3)], 64, 64)
    tri = triangles((0, 1, 2), (1, 3, 2))
    attr = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    covered = RENDERER.rasterize(pos, tri, (64, 64))[..., 3]
    safe = torch.ones_like(covered, dtype=torch.bool)
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        safe &= (covered == covered.roll(shift, (1, 2))) & (covered > 0)

    def loss(pos: Tensor) -> Tensor:
        out = RENDERER.interpolate(attr, RENDERER.rasterize(pos, tri, (64, 64)), tri)
        return (out.double() ** 2)[safe].sum()

    leaf = pos.clone().requires_grad_()
    loss(leaf).backward()
    for vertex in range(4):
        for axis in (0, 1, 3):
            step = torch.zeros_like(pos)
            step[0, vertex, axis] = 2e-3
            expected = (loss(pos + step) - loss(pos - step)) / 4e-3
            assert leaf.grad[0, vertex, axis].item() == pytest.approx(expected.item(), rel=5e-3, abs=0.05)


@pytest.mark.parametrize("channels", [1, 3, 8, 11])
@pytest.mark.parametrize("shared", [True, False])
def test_interpolation_gradients_equal_float64_twin(channels, shared):
    pos, tri = soup(10, 3)
    pos = torch.cat([pos, pos.flip(1)])
    rast = RENDERER.rasterize(pos, tri, (40, 32)).requires_grad_()
    generator = torch.Generator().manual_seed(channels)
    attr = torch.randn(1 if shared else 2, pos.shape[1], channels, generator=generator).requires_grad_()
    pull = torch.randn(2, 40, 32, channels, generator=generator)
    (RENDERER.interpolate(attr, rast, tri) * pull).sum().backward()

    attr64, rast64 = attr.detach().double().requires_grad_(), rast.detach().double().requires_grad_()
    corners = tri.long()[(rast64[..., 3].detach().long() - 1).clamp_min(0)]
    values = attr64.expand(2, -1, -1)[torch.arange(2)[:, None, None, None], corners]
    u, v = rast64[..., 0, None], rast64[..., 1, None]
    out = (u * values[..., 0, :] + v * values[..., 1, :] + (1 - u - v) * values[..., 2, :]) * (rast64[..., 3:] > 0)
    (out * pull).sum().backward()
    assert torch.allclose(attr.grad.double(), attr64.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(rast.grad.double(), rast64.grad, rtol=1e-4, atol=1e-4)


def test_only_the_gradients_asked_for_are_computed():
    pos, tri = soup(5, 3)
    rast = RENDERER.rasterize(pos, tri, (16, 16))
    attr = torch.rand(1, 15, 2, requires_grad=True)
    RENDERER.interpolate(attr, rast, tri).sum().backward()
    assert attr.grad.abs().sum() > 0 and rast.grad is None
    leaf = pos.clone().requires_grad_()
    RENDERER.interpolate(attr.detach(), RENDERER.rasterize(leaf, tri, (16, 16)), tri).sum().backward()
    assert leaf.grad.abs().sum() > 0


def lookup(texture: Tensor, u: float, v: float, boundary: str) -> Tensor:
    """One bilinear sample, written out."""
    height, width = texture.shape[:2]
    x, y = u * width - 0.5, v * height - 0.5
    x0, y0 = int(torch.tensor(x).floor()), int(torch.tensor(y).floor())

    def texel(i: int, j: int) -> Tensor:
        if boundary == "wrap":
            return texture[j % height, i % width]
        if boundary == "zero" and not (0 <= i < width and 0 <= j < height):
            return torch.zeros_like(texture[0, 0])
        return texture[min(max(j, 0), height - 1), min(max(i, 0), width - 1)]

    fx, fy = x - x0, y - y0
    low = (1 - fx) * texel(x0, y0) + fx * texel(x0 + 1, y0)
    return (1 - fy) * low + fy * ((1 - fx) * texel(x0, y0 + 1) + fx * texel(x0 + 1, y0 + 1))


@pytest.mark.parametrize("boundary", ["wrap", "clamp", "zero"])
def test_texture_values(boundary):
    texture = torch.rand(1, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    places = [(0.5 / 7, 0.5 / 5), (0.3, 0.7), (0.0, 0.0), (1.0, 1.0), (0.99, 0.02), (1.3, -0.4), (-2.2, 3.6)]
    out = RENDERER.texture(texture, torch.tensor(places)[None, None], boundary)[0, 0]
    expected = torch.stack([lookup(texture[0], u, v, boundary) for u, v in places])
    assert torch.allclose(out, expected, atol=1e-5)
    assert torch.allclose(out[0], texture[0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("boundary", ["wrap", "clamp", "zero"])
def test_texture_gradients_equal_finite_differences(boundary):
    generator = torch.Generator().manual_seed(4)
    texture = torch.rand(1, 5, 6, 2, generator=generator)
    # away from texel centres, where bilinear interpolation has kinks
    cells = torch.stack([torch.randint(-2, 9, (2, 4, 3), generator=generator) for _ in range(2)], -1)
    uv = (cells + 0.7 + 0.6 * torch.rand(cells.shape, generator=generator)) / torch.tensor([6, 5])
    pull = torch.randn(2, 4, 3, 2, generator=generator)

    def loss(texture: Tensor, uv: Tensor) -> Tensor:
        return (RENDERER.texture(texture, uv, boundary).double() * pull).sum()

    leaves = [texture.clone().requires_grad_(), uv.clone().requires_grad_()]
    loss(*leaves).backward()
    for which, leaf in enumerate(leaves):
        flat = leaf.grad.flatten()
        for index in range(0, flat.numel(), 5):
            step = torch.zeros(flat.numel())
            step[index] = 1e-3
            ends = []
            for sign in (1, -1):
                values = [texture, uv]
                values[which] = values[which] + sign * step.view(leaf.shape)
                ends.append(loss(*values))
            assert flat[index].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-3, rel=5e-3, abs=5e-3)


def test_texture_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="boundary must be one of wrap, clamp, zero"):
        RENDERER.texture(torch.rand(1, 2, 2, 1), torch.rand(1, 2, 2, 2), "mirror")
    with pytest.raises(ValueError, match="batch size 3, uv has 2"):
        RENDERER.texture(torch.rand(3, 2, 2, 1), torch.rand(2, 2, 2, 2))
