"""Antialiasing: known coverage, what may and may not be smoothed, and its Jacobian against a far finer picture."""

from __future__ import annotations

import pytest
import torch
from rendering_scenes import bumpy_ball, screen, to_clip, triangles
from torch import Tensor

from tracker.rendering import build_topology, get_renderer

RENDERER = get_renderer("cpu")
QUAD = triangles((0, 1, 2), (0, 2, 3))


def mask_of(rast: Tensor) -> Tensor:
    return (rast[..., 3:] > 0).float()


def smooth_mask(pos: Tensor, tri: Tensor, resolution: tuple[int, int]) -> Tensor:
    rast = RENDERER.rasterize(pos, tri, resolution)
    return RENDERER.antialias(mask_of(rast), rast, pos, tri)


@pytest.mark.parametrize("edge", [3.0, 3.2, 3.5, 3.501, 3.8, 4.0])
@pytest.mark.parametrize("turned", [False, True])
def test_straight_edge_gives_exact_coverage_and_gradient(edge, turned):
    corners = [(-4, -4), (edge, -4), (edge, 12), (-4, 12)]
    corners = [(y, x) for x, y in corners] if turned else corners
    pos = screen(corners, 8, 8).requires_grad_()
    mask = smooth_mask(pos, QUAD, (8, 8))[0, :, :, 0]
    line = mask[:, 4] if turned else mask[4]
    expected = (torch.tensor(edge) - torch.arange(8)).clamp(0, 1)
    assert torch.allclose(line, expected, atol=1e-5)
    mask.sum().backward()
    # the area of the picture's 8 rows grows by 8 px per px; a px is 1/4 of the NDC's 2
    moved = pos.grad[0, [1, 2], 0] if not turned else pos.grad[0, [1, 2], 1]
    assert moved.sum().item() == pytest.approx(8 * 4, rel=1e-4)


def test_colours_mix_in_proportion_and_carry_gradients():
    pos = screen([(-4, -4), (3.2, -4), (3.2, 12), (-4, 12)], 8, 8)
    rast = RENDERER.rasterize(pos, QUAD, (8, 8))
    color = torch.rand(1, 8, 8, 3, requires_grad=True)
    out = RENDERER.antialias(color, rast, pos, QUAD)
    assert torch.allclose(out[0, 4, 3], 0.2 * color[0, 4, 2] + 0.8 * color[0, 4, 3], atol=1e-5)
    untouched = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(out[:, :, untouched], color[:, :, untouched])
    out[0, 4, 3, 0].backward()
    assert color.grad[0, 4, 2, 0].item() == pytest.approx(0.2, abs=1e-5)
    assert color.grad[0, 4, 3, 0].item() == pytest.approx(0.8, abs=1e-5)
    assert color.grad.abs().sum().item() == pytest.approx(1, abs=1e-5)


def test_edges_between_visible_neighbours_and_hidden_ones_change_nothing():
    """A closed ball behind a wall, and the wall's own diagonal: every pixel keeps its colour."""
    vertices, ball = bumpy_ball(3, 0.2)
    wall = screen([(-9, -9, 0.2, 0.5), (80, -9, 0.2, 0.5), (80, 80, 0.2, 0.5), (-9, 80, 0.2, 0.5)], 64, 64)
    pos = torch.cat([wall, to_clip(vertices)], dim=1)
    tri = torch.cat([QUAD, ball + 4])
    rast = RENDERER.rasterize(pos, tri, (64, 64))
    assert (rast[..., 3] <= 2).all() and (rast[..., 3] > 0).all()
    color = torch.rand(1, 64, 64, 3)
    assert torch.equal(RENDERER.antialias(color, rast, pos, tri), color)


def test_mesh_unwelded_along_a_seam_differs_only_in_its_topology():
    """Welded topology keeps a seam silent; the seam's own split vertices would make an outline of it."""
    corners = [(1, 1, 0.5), (15, 1, 0.2), (15, 15, 0.1), (1, 15, 0.4)]
    pos = screen([corners[i] for i in (0, 1, 2, 0, 2, 3)], 16, 16)
    split = triangles((0, 1, 2), (3, 4, 5))
    rast = RENDERER.rasterize(pos, split, (16, 16))
    color = torch.rand(1, 16, 16, 2)
    welded = build_topology(triangles((0, 1, 2), (0, 2, 5)))
    out = RENDERER.antialias(color, rast, pos, split, welded)
    inner = (slice(None), slice(2, 14), slice(2, 14))
    assert torch.equal(out[inner], color[inner])
    assert len(build_topology(split).edges) == 6 and len(welded.edges) == 5


def test_picture_s_border_and_points_behind_the_camera_are_left_alone():
    pos = screen([(-3, 2, 0, 1), (11, 2.3, 0, 1), (4, 7, 0, -1)], 8, 8).requires_grad_()
    out = smooth_mask(pos, triangles((0, 1, 2)), (8, 8))
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(pos.grad).all()
    full = screen([(-9, -9), (20, -9), (20, 20), (-9, 20)], 8, 8)
    assert (smooth_mask(full, QUAD, (8, 8)) == 1).all()


def test_pictures_of_a_batch_do_not_mix():
    vertices, tri = bumpy_ball(3, 0.3, seed=1)
    pos = torch.cat([to_clip(vertices + torch.tensor([0.03 * i, 0.01 * i, 0])) for i in range(3)]).requires_grad_()
    pull = torch.randn(3, 72, 64, 1, generator=torch.Generator().manual_seed(0))
    out = smooth_mask(pos, tri, (72, 64))
    (out * pull).sum().backward()
    for i in range(3):
        leaf = pos.detach()[i : i + 1].clone().requires_grad_()
        alone = smooth_mask(leaf, tri, (72, 64))
        (alone * pull[i]).sum().backward()
        assert torch.allclose(alone[0], out[i], atol=1e-6)
        assert torch.allclose(leaf.grad[0], pos.grad[i], atol=1e-4)


def test_topology_is_remembered_until_the_triangles_change():
    tri = QUAD.clone()
    first = RENDERER._topologies.of(tri)
    assert RENDERER._topologies.of(tri) is first
    tri[1, 2] = 1
    assert RENDERER._topologies.of(tri) is not first
    pair = build_topology(QUAD)
    shared = pair.edges.tolist().index([0, 2])
    assert sorted(pair.opposite[shared].tolist()) == [1, 3]
    fan = build_topology(triangles((0, 1, 2), (0, 1, 3), (0, 1, 4), (2, 2, 3)))
    assert fan.edges.tolist().count([0, 1]) == 3 and len(fan.edges) == 9


def test_other_method_names_are_refused():
    pos = screen([(0, 0), (4, 0), (0, 4)], 8, 8)
    tri = triangles((0, 1, 2))
    rast = RENDERER.rasterize(pos, tri, (8, 8))
    with pytest.raises(ValueError, match="needs the cuda backend"):
        RENDERER.antialias(mask_of(rast), rast, pos, tri, method="nvdiffrast")
    with pytest.raises(ValueError, match="must be 'edge' or 'nvdiffrast'"):
        RENDERER.antialias(mask_of(rast), rast, pos, tri, method="fxaa")


class Scene:
    """A mesh moved by eight parameters (shift, turn, two smooth waves) and drawn in per-vertex colours."""

    def __init__(self, vertices: Tensor, tri: Tensor, colors: Tensor, moving: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        self.vertices, self.tri, self.colors, self.moving = vertices, tri, colors[None], moving[:, None]
        waves = torch.randn(2, 3, generator=generator, dtype=torch.float64) * 15
        phase = torch.rand(2, generator=generator, dtype=torch.float64) * 6
        along = torch.randn(2, 3, generator=generator, dtype=torch.float64) * 0.01
        self.modes = torch.sin(vertices @ waves.T + phase).T[..., None] * along[:, None]
        self.steps = torch.tensor([0.001] * 3 + [0.01] * 3 + [0.1] * 2, dtype=torch.float64)

    def draw(self, parameters: Tensor, size: int, antialias: bool) -> Tensor:
        x, y, z = parameters[3:6]
        zero = torch.zeros_like(x)
        turn = torch.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3))
        centre = (self.vertices * self.moving).sum(0) / self.moving.sum()
        moved = self.vertices + torch.einsum("p,pvd->vd", parameters[6:], self.modes)
        moved = (moved - centre) @ turn.T + centre + parameters[:3]
        pos = to_clip(torch.where(self.moving > 0, moved, self.vertices), size)
        rast = RENDERER.rasterize(pos, self.tri, (size, size))
        color = RENDERER.interpolate(self.colors, rast, self.tri)
        return (RENDERER.antialias(color, rast, pos, self.tri) if antialias else color)[0]

    def jacobian(self, size: int) -> Tensor:
        """Moments by parameters of the antialiased picture, (moments, 8), per step."""
        parameters = torch.zeros(8, dtype=torch.float64, requires_grad=True)
        values = moments(self.draw(parameters, size, True))
        rows = [torch.autograd.grad(value, parameters, retain_graph=True)[0] for value in values]
        return torch.stack(rows) * self.steps

    def finite_differences(self) -> Tensor:
        """The same by central differences of hard pictures so fine that their steps average out."""
        ends = [
            [moments(self.draw(sign * step, 2048, False)) for sign in (1, -1)] for step in torch.diag(self.steps)
        ]
        return torch.stack([(plus - minus) / 2 for plus, minus in ends], dim=1)


def moments(picture: Tensor) -> Tensor:
    """Mean of the first channel times 1, x, y, x², xy and y², with x and y from −1 to 1."""
    size = len(picture)
    x = (torch.arange(size, dtype=torch.float64) * 2 + 1) / size - 1
    powers = torch.stack([torch.ones_like(x), x, x * x], dim=1) / size
    products = powers.T @ (picture[..., 0] @ powers.to(picture.dtype)).double()
    return torch.stack([products[i, j] for i, j in ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))])


def compare(found: Tensor, expected: Tensor) -> tuple[float, float]:
    cosine = (found * expected).sum() / found.norm() / expected.norm()
    return cosine.item(), (found.norm() / expected.norm()).item()


def coverage_errors(scene: Scene, size: int) -> tuple[float, float]:
    """Mean error of hard and antialiased colours over the pixels that an outline crosses."""
    still = torch.zeros(8, dtype=torch.float64)
    fine = scene.draw(still, 8 * size, False)[..., 0]
    fine = fine.view(size, 8, size, 8).mean((1, 3))
    mixed = (fine > 0.01) & (fine < 0.99)
    return tuple((scene.draw(still, size, aa)[..., 0] - fine).abs()[mixed].mean().item() for aa in (False, True))


@pytest.mark.parametrize("bumps", [0.0, 0.25], ids=["smooth", "bumpy"])
def test_outline_gradient_of_the_mask(bumps):
    """20,480 triangles, smaller than pixels at the limb, without and with hills that hide each other."""
    vertices, tri = bumpy_ball(5, bumps, seed=2)
    scene = Scene(vertices, tri, torch.ones(len(vertices), 1), torch.ones(len(vertices), dtype=torch.float64))
    cosine, ratio = compare(scene.jacobian(256), scene.finite_differences())
    hard, smooth = coverage_errors(scene, 256)
    assert cosine > 0.995 and abs(ratio - 1) < 0.03
    assert hard > 0.2 and smooth < 0.05


def test_outline_gradient_of_a_nose_before_a_cheek():
    """A small ball moves in front of a still head: both show mesh on either side of the outline between them."""
    head, tri = bumpy_ball(5, 0.2, seed=2)
    nose, nose_tri = bumpy_ball(4, 0.2, seed=3)
    vertices = torch.cat([head, nose * 0.25 + torch.tensor([0.03, 0.01, 0.15])])
    front = torch.cat([torch.zeros(len(head)), torch.ones(len(nose))])
    scene = Scene(vertices, torch.cat([tri, nose_tri + len(head)]).int(), front[:, None].clone(), front.double())
    cosine, ratio = compare(scene.jacobian(256), scene.finite_differences())
    hard, smooth = coverage_errors(scene, 256)
    assert cosine > 0.99 and abs(ratio - 1) < 0.05
    assert hard > 0.2 and smooth < 0.06
