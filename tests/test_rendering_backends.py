"""The other backends against the CPU's: values and gradients where they can run, clear errors where they cannot."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from rendering_scenes import bumpy_ball, soup, to_clip, triangles
from torch import Tensor

from tests.devices import missing_for_cuda, needs_cuda
from tracker.errors import UserError
from tracker.rendering import Renderer, backends, get_renderer

CPU = get_renderer("cpu")

def ball_scene() -> tuple[Tensor, Tensor]:
    vertices, tri = bumpy_ball(4, 0.2)
    return to_clip(torch.stack([vertices, vertices.roll(1, -1)])), tri


def soup_scene() -> tuple[Tensor, Tensor]:
    pos, tri = soup(30, 3)
    return torch.cat([pos, pos.flip(1)]), tri


def values_and_gradients(
    renderer: Renderer, pos: Tensor, tri: Tensor, size: tuple[int, int], method: str, keep: Tensor | None = None
) -> dict[str, Tensor]:
    """One pass through all four primitives; ``keep`` says which pixels the loss may look at."""
    generator = torch.Generator().manual_seed(0)
    attr, texture = torch.rand(1, pos.shape[1], 3, generator=generator), torch.rand(1, 9, 7, 2, generator=generator)
    pull = torch.randn(len(pos), *size, 5, generator=generator)
    if keep is not None:
        pull *= keep[..., None]
    on = renderer.device
    pos, attr, texture = (t.to(on).requires_grad_() for t in (pos.clone(), attr, texture))
    tri = tri.to(on)
    rast = renderer.rasterize(pos, tri, size)
    values = renderer.interpolate(attr, rast, tri)
    color = torch.cat([values, renderer.texture(texture, values[..., :2].contiguous())], dim=-1)
    out = renderer.antialias(color, rast, pos, tri, method=method) if method else color
    (out * pull.to(on)).sum().backward()
    results = {"rast": rast, "out": out, "pos": pos.grad, "attr": attr.grad, "texture": texture.grad}
    return {name: value.detach().cpu() for name, value in results.items()}


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@needs_cuda
@pytest.mark.parametrize("scene", [ball_scene, soup_scene])
@pytest.mark.parametrize("size", [(256, 256), (120, 200)])
def test_cuda_agrees_with_cpu(scene, size):
    pos, tri = scene()
    cuda = get_renderer("cuda")
    first = [values_and_gradients(r, pos, tri, size, "")["rast"] for r in (CPU, cuda)]
    same = first[0][..., 3] == first[1][..., 3]
    # the two snap vertices to different grids, so pixels whose centre an edge touches may go either way
    assert same.float().mean() > 0.98
    assert torch.allclose(first[0][same], first[1][same], atol=2e-3)
    cpu_side, cuda_side = (values_and_gradients(r, pos, tri, size, "", same) for r in (CPU, cuda))
    for name in ("pos", "attr", "texture"):
        assert relative(cuda_side[name], cpu_side[name]) < 1e-2, name


@needs_cuda
def test_cuda_antialias_is_the_same_code_and_nvdiffrasts_own_runs():
    pos, tri = ball_scene()
    cuda = get_renderer("cuda")
    cpu_side, cuda_side = (values_and_gradients(r, pos, tri, (256, 256), "edge") for r in (CPU, cuda))
    assert relative(cuda_side["out"], cpu_side["out"]) < 0.05
    cosine = torch.nn.functional.cosine_similarity(cuda_side["pos"].flatten(), cpu_side["pos"].flatten(), dim=0)
    assert cosine > 0.9
    own = values_and_gradients(cuda, pos, tri, (256, 256), "nvdiffrast")
    assert torch.isfinite(own["pos"]).all() and own["out"].shape == cpu_side["out"].shape


@pytest.mark.skipif(not missing_for_cuda, reason="the cuda backend can run here")
def test_missing_cuda_backend_says_what_to_do():
    with pytest.raises(UserError, match="use --device cpu"):
        get_renderer("cuda")
    assert get_renderer("auto").name == "cpu"


@pytest.mark.skipif(find_spec("pytorch3d") is None, reason="cpu/pytorch3d parity NOT CHECKED: no pytorch3d installed")
@pytest.mark.parametrize("size", [(48, 48), (40, 64), (64, 40)])
def test_pytorch3d_agrees_with_cpu(size):
    check_pytorch3d(get_renderer("pytorch3d"), size)


@pytest.mark.skipif(find_spec("pytorch3d") is not None, reason="pytorch3d is installed")
def test_missing_pytorch3d_says_what_to_do():
    with pytest.raises(UserError, match="needs pytorch3d .*; install it with: pip install git"):
        get_renderer("pytorch3d")


@pytest.mark.parametrize("size", [(48, 48), (40, 64), (64, 40)])
def test_conversion_to_pytorch3ds_conventions(monkeypatch, size):
    """With a stand-in that follows pytorch3d's documentation: x left, y up, row 0 on top, shorter side [−1, 1]."""
    renderer, structures = ModuleType("pytorch3d.renderer.mesh"), ModuleType("pytorch3d.structures")
    renderer.rasterize_meshes, structures.Meshes = documented_rasterize_meshes, SimpleNamespace
    for name in ("pytorch3d", "pytorch3d.renderer"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(backends, "_made", {})  # what is made from the stand-in must not outlive it
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer.mesh", renderer)
    monkeypatch.setitem(sys.modules, "pytorch3d.structures", structures)
    check_pytorch3d(get_renderer("pytorch3d"), size)


def check_pytorch3d(renderer: Renderer, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.rand(2, 60, 1, generator=generator) * 2 + 0.5
    pos = torch.cat([(torch.rand(2, 60, 3, generator=generator) * 1.8 - 0.9) * w, w], dim=-1)
    pos[:, 57:, 3] *= -1  # one triangle behind the camera, which both leave out
    tri = torch.arange(60, dtype=torch.int32).reshape(-1, 3)
    first = [values_and_gradients(r, pos, tri, size, "")["rast"] for r in (CPU, renderer)]
    same = first[0][..., 3] == first[1][..., 3]
    assert same.float().mean() > 0.98 and (first[0][..., 3] > 0).float().mean() > 0.4
    assert torch.allclose(first[0][same][:, :2], first[1][same][:, :2], atol=1e-4)
    assert torch.allclose(first[0][same][:, 2], first[1][same][:, 2], atol=2e-2)
    cpu_side, other = (values_and_gradients(r, pos, tri, size, "", same) for r in (CPU, renderer))
    for name in ("pos", "attr", "texture"):
        assert relative(other[name], cpu_side[name]) < 1e-2, name
    with pytest.raises(ValueError, match="NaN"):
        renderer.rasterize(pos * float("nan"), tri, size)
    with pytest.raises(ValueError, match="tri names vertices beyond"):
        renderer.rasterize(pos, triangles((0, 1, 60)), size)


def documented_rasterize_meshes(
    meshes, image_size, blur_radius, faces_per_pixel, bin_size, perspective_correct
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert (blur_radius, faces_per_pixel, bin_size, perspective_correct) == (0.0, 1, 0, False)
    (verts,), (faces,) = meshes.verts, meshes.faces
    height, width = image_size
    shorter = min(height, width)
    x = (width - (2 * torch.arange(width) + 1)) / shorter
    y = ((height - (2 * torch.arange(height) + 1)) / shorter)[:, None, None]
    p = verts[faces]
    x = x[None, :, None]
    areas = [
        (p[:, i, 0] - x) * (p[:, j, 1] - y) - (p[:, i, 1] - y) * (p[:, j, 0] - x) for i, j in ((1, 2), (2, 0), (0, 1))
    ]
    weights = torch.stack(areas, -1) / sum(areas)[..., None]
    depth = (weights * p[:, :, 2]).sum(-1)
    depth = torch.where((weights > 0).all(-1) & (depth >= 0), depth, torch.inf)
    nearest, face = depth.min(-1)
    chosen = weights.gather(2, face[..., None, None].expand(height, width, 1, 3))[:, :, 0]
    empty = nearest.isinf()
    return (
        torch.where(empty, -1, face)[None, ..., None],
        torch.where(empty, -1, nearest)[None, ..., None],
        torch.where(empty[..., None], -1, chosen)[None, :, :, None],
        torch.zeros(1, height, width, 1),
    )
