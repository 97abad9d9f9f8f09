"""Rasterising and interpolating on the CPU: conventions, coverage, clipping, bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from rendering_scenes import bumpy_ball, oracle, screen, soup, to_clip, triangles

from tracker.errors import UserError
from tracker.rendering import available_backends, get_renderer, jit, output_memory
from tracker.rendering.canvas import MeshCanvas

RENDERER = get_renderer("cpu")


def test_channels_and_rows_of_a_known_triangle():
    """Corners at the bottom left, bottom right and top left; row 0 is the bottom, u and v weight vertices 0 and 1."""
    pos = screen([(0, 0, -0.5), (8, 0, 0.5), (0, 8, 0.25)], 8, 8)
    rast = RENDERER.rasterize(pos, triangles((0, 1, 2)), (8, 8))[0]
    for row, column in ((0, 0), (2, 3), (6, 0)):
        x, y = (column + 0.5) / 8, (row + 0.5) / 8
        expected = (1 - x - y, x, (1 - x - y) * -0.5 + x * 0.5 + y * 0.25, 1)
        assert torch.allclose(rast[row, column], torch.tensor(expected), atol=1e-6)
    assert rast[7, 7].tolist() == [0, 0, 0, 0]
    assert (rast[0, :, 3] > 0).sum() > (rast[6, :, 3] > 0).sum()


def test_number_is_that_of_the_nearest_triangle_whatever_the_order():
    near = [(0, 0, -0.2), (8, 0, -0.2), (0, 8, -0.2)]
    far = [(0, 0, 0.2), (8, 0, 0.2), (0, 8, 0.2)]
    for corners, expected in ((near + far, 1), (far + near, 2)):
        rast = RENDERER.rasterize(screen(corners, 8, 8), triangles((0, 1, 2), (3, 4, 5)), (8, 8))
        assert rast[0, 1, 1, 3] == expected


def test_both_windings_are_drawn_with_the_weights_of_their_own_vertices():
    pos = screen([(0, 0), (8, 0), (0, 8)], 8, 8)
    one = RENDERER.rasterize(pos, triangles((0, 1, 2)), (8, 8))
    other = RENDERER.rasterize(pos, triangles((1, 0, 2)), (8, 8))
    assert torch.equal(one[..., 3], other[..., 3])
    assert torch.allclose(one[..., 0], other[..., 1], atol=1e-6)


def test_interpolation_is_perspective_correct():
    """A quad that recedes: the attribute is 1/w-linear in the picture, so its middle is not half-way."""
    height = width = 16
    pos = screen([(0, 0, 0, 1), (16, 0, 0, 3), (16, 16, 0, 3), (0, 16, 0, 1)], height, width)
    tri = triangles((0, 1, 2), (0, 2, 3))
    attr = torch.tensor([[[0.0], [1], [1], [0]]])
    out = RENDERER.interpolate(attr, RENDERER.rasterize(pos, tri, (height, width)), tri)[0, :, :, 0]
    s = (torch.arange(width) + 0.5) / width
    assert torch.allclose(out, ((s / 3) / ((1 - s) + s / 3)).expand(height, width), atol=1e-5)


def test_attributes_may_be_shared_or_per_picture():
    pos, tri = soup(6, 1)
    pos = torch.cat([pos, pos.flip(1)])
    rast = RENDERER.rasterize(pos, tri, (32, 24))
    attr = torch.rand(2, pos.shape[1], 5)
    out = RENDERER.interpolate(attr, rast, tri)
    assert torch.equal(out[1:], RENDERER.interpolate(attr[1:], rast[1:], tri))
    assert torch.equal(RENDERER.interpolate(attr[:1], rast, tri)[1:], RENDERER.interpolate(attr[:1], rast[1:], tri))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_definition_on_intersecting_triangles(seed):
    pos, tri = soup(40, seed)
    height, width = 48, 64
    rast = RENDERER.rasterize(pos, tri, (height, width))[0].double()
    truth = oracle(pos, tri, height, width)
    decided = truth["margin"] > 2e-3
    assert decided.float().mean() > 0.7
    assert torch.equal(rast[..., 3][decided], truth["rast"][..., 3][decided])
    assert torch.allclose(rast[decided][:, :2], truth["rast"][decided][:, :2], atol=2e-6)
    # depth is that of the snapped triangle, half a 256th of a pixel away at most
    assert torch.allclose(rast[decided][:, 2], truth["rast"][decided][:, 2], atol=2e-3)


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.37])
def test_shared_edges_leave_no_gap_and_no_overlap(offset):
    """Each pixel of a triangulated rectangle has one triangle, also where vertices and edges hit pixel centres."""
    rng, n, size = np.random.default_rng(3), 5, 24
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2) * 4.0 + 4
    inner = ((grid > 4) & (grid < 4 * n)).all(1)
    grid[inner] += rng.integers(-2, 3, (inner.sum(), 2)) * (0.5 if offset != 0.37 else 0.61)
    pos = screen([tuple(p + offset) for p in grid], size, size)
    cells = [i * n + j for i in range(n - 1) for j in range(n - 1)]
    quads = [(c, c + n, c + n + 1, c + 1) for c in cells]
    count = torch.zeros(size, size)
    for a, b, c, d in quads:
        for corners in ((a, b, c), (d, a, c)) if a % 2 else ((b, c, d), (a, b, d)):
            count += RENDERER.rasterize(pos, triangles(corners), (size, size))[0, :, :, 3] > 0
    assert count.max() == 1
    assert count.sum() == 16 * 16


def test_large_triangle_across_the_near_plane_keeps_exact_weights():
    """A floor that runs under and behind the camera is clipped, not dropped, with perspective-correct weights."""
    floor = torch.tensor([[-3.0, -0.4, 2], [3, -0.4, 2], [0, -0.5, -9]])
    pos, tri = to_clip(floor, 64), triangles((0, 1, 2))
    assert (pos[..., 3] < 0).any()
    rast = RENDERER.rasterize(pos, tri, (64, 64))[0].double()
    truth = oracle(pos, tri, 64, 64)
    decided = truth["margin"] > 1e-3
    covered = decided & (truth["rast"][..., 3] > 0)
    assert covered.sum() > 500
    assert torch.equal((rast[..., 3] > 0)[decided], (truth["rast"][..., 3] > 0)[decided])
    assert torch.allclose(rast[covered][:, :2], truth["rast"][covered][:, :2], atol=1e-5)


def test_nothing_shows_in_front_of_the_near_or_behind_the_far_plane():
    pos = screen([(0, 0, -2), (8, 0, 2), (8, 8, 2), (0, 8, -2)], 8, 8)
    rast = RENDERER.rasterize(pos, triangles((0, 1, 2), (0, 2, 3)), (8, 8))[0]
    assert (rast[:, 2:6, 3] > 0).all()
    assert (rast[:, :2, 3] == 0).all() and (rast[:, 6:, 3] == 0).all()


def test_triangle_far_larger_than_the_picture():
    pos = screen([(-1e7, -1e7), (1e7, -1e7), (0, 2e7)], 16, 16)
    rast = RENDERER.rasterize(pos, triangles((0, 1, 2)), (16, 16))[0]
    assert (rast[..., 3] == 1).all()
    assert torch.allclose(rast[..., :2], torch.tensor([1 / 3, 1 / 3]), atol=1e-3)


@pytest.mark.parametrize("corners", [
    [(2, 2), (2, 2), (2, 2)],
    [(1, 1), (4, 4), (7, 7)],
    [(20, 2), (30, 2), (20, 9)],
    [(2, 2, 0, -1), (7, 2, 0, -1), (2, 7, 0, -1)],
    [(2, 2, 0, 0), (7, 2, 0, 0), (2, 7, 0, 0)],
], ids=["point", "line", "off the picture", "behind the camera", "w is zero"])
def test_triangles_that_cover_nothing_draw_nothing(corners):
    pos = screen(corners, 8, 8).requires_grad_()
    rast = RENDERER.rasterize(pos, triangles((0, 1, 2)), (8, 8))
    rast[..., :2].sum().backward()
    assert (rast == 0).all() and (pos.grad == 0).all()


@pytest.mark.parametrize(("batch", "verts", "faces"), [(1, 0, 0), (1, 3, 0), (0, 3, 1), (2, 3, 0)])
def test_empty_meshes_and_batches(batch, verts, faces):
    tri = torch.arange(3 * faces, dtype=torch.int32).reshape(-1, 3)
    pos = torch.ones(batch, verts, 4)
    rast = RENDERER.rasterize(pos, tri, (4, 6))
    out = RENDERER.interpolate(torch.ones(1, verts, 2), rast, tri)
    smooth = RENDERER.antialias(out, rast, pos, tri)
    assert smooth.shape == (batch, 4, 6, 2) and (smooth == 0).all()


def test_slivers_and_needles_stay_finite_and_within_the_triangle():
    generator = torch.Generator().manual_seed(5)
    start = torch.rand(400, 1, 2, generator=generator) * 2 - 1
    spread = torch.tensor([1e-1, 1e-4, 1e-7])[torch.randint(0, 3, (400, 3, 1), generator=generator)]
    xy = start + torch.randn(400, 3, 2, generator=generator) * spread
    z = torch.rand(400, 3, 1, generator=generator) * 2 - 1
    pos = torch.cat([xy, z, torch.ones_like(z)], -1).reshape(1, -1, 4).requires_grad_()
    rast = RENDERER.rasterize(pos, torch.arange(1200, dtype=torch.int32).reshape(-1, 3), (128, 128))
    u, v, depth, _ = rast.detach().unbind(-1)
    assert torch.isfinite(rast).all()
    assert u.min() >= 0 and v.min() >= 0 and (u + v).max() <= 1 + 1e-6 and depth.abs().max() <= 1
    rast[..., 0].sum().backward()
    assert torch.isfinite(pos.grad).all()


def test_batch_and_threads_give_what_single_pictures_give():
    vertices, tri = bumpy_ball(3, 0.2)
    pos = torch.cat([to_clip(vertices + torch.tensor([0.01 * i, 0, 0])) for i in range(5)])
    alone = torch.cat([RENDERER.rasterize(p[None], tri, (96, 80)) for p in pos])
    assert torch.equal(RENDERER.rasterize(pos, tri, (96, 80)), alone)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(RENDERER.rasterize, pos[i % 5, None], tri, (96, 80)) for i in range(40)]
        assert all(torch.equal(job.result()[0], alone[i % 5]) for i, job in enumerate(jobs))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_positions_that_are_not_finite_are_refused_and_leave_no_trace(value):
    pos, tri = soup(5, 2)
    good = RENDERER.rasterize(pos, tri, (16, 16))
    bad = pos.clone()
    bad[0, 7, 1] = value
    with pytest.raises(ValueError, match=r"1 of 15 positions are NaN or infinite, first vertex 7"):
        RENDERER.rasterize(bad, tri, (16, 16))
    assert torch.equal(RENDERER.rasterize(pos, tri, (16, 16)), good)


@pytest.mark.parametrize("index", [-1, 15, 2**31 - 1])
def test_triangles_that_name_missing_vertices_are_refused(index):
    pos, tri = soup(5, 2)
    rast = RENDERER.rasterize(pos, tri, (16, 16))
    wrong = tri.clone()
    wrong[:, 1] = index
    with pytest.raises(ValueError, match="must belong together"):
        RENDERER.rasterize(pos, wrong, (16, 16))
    with pytest.raises(ValueError, match="must belong together"):
        RENDERER.interpolate(torch.rand(1, 15, 2), rast, wrong)
    with pytest.raises(ValueError, match="must belong together"):
        RENDERER.interpolate(torch.rand(1, 15, 2), rast, tri[:1])


@pytest.mark.parametrize("change", [
    {"pos": torch.zeros(1, 3, 4, dtype=torch.float64)},
    {"pos": torch.zeros(3, 4)},
    {"pos": torch.zeros(1, 3, 3)},
    {"tri": torch.zeros(1, 3, dtype=torch.int64)},
    {"resolution": (0, 8)},
])
def test_wrong_types_and_shapes_are_refused(change):
    arguments = {"pos": torch.zeros(1, 3, 4), "tri": triangles((0, 1, 2)), "resolution": (8, 8)}
    with pytest.raises(ValueError, match="rasterize: .* must"):
        RENDERER.rasterize(**{**arguments, **change})


def test_canvas_draws_the_same_and_paints_right_side_up():
    vertices, tri = bumpy_ball(3, 0.2)
    vertices[:, 1] += 0.05
    pos = to_clip(vertices)
    canvas = MeshCanvas(64, 64)
    rast = RENDERER.rasterize(pos, tri, (64, 64))
    assert np.array_equal(canvas.rasterize(pos[0].numpy(), tri.numpy()), rast[0].numpy())
    attr = torch.rand(1, len(vertices), 3)
    out = canvas.interpolate(attr[0].numpy(), tri.numpy())
    assert np.array_equal(out, RENDERER.interpolate(attr, rast, tri)[0].numpy())
    image = np.full((64, 64, 3), 40, np.uint8)
    canvas.paint(image, np.full((len(vertices), 3), 200, np.float32), tri.numpy(), opacity=0.25)
    covered = (rast[0, :, :, 3] > 0).flip(0).numpy()
    assert (image[covered] == 80).all() and (image[~covered] == 40).all()
    assert covered[:32].sum() > covered[32:].sum()
    with pytest.raises(ValueError, match="paint: image must be"):
        canvas.paint(image.astype(np.float32), np.zeros((len(vertices), 3), np.float32), tri.numpy())


def test_choosing_a_backend():
    assert get_renderer("cpu").name == "cpu" and "cpu" in available_backends()
    assert get_renderer("auto", "cpu").name == "cpu"
    with pytest.raises(UserError, match="unknown; choose one of auto, cpu, cuda, pytorch3d"):
        get_renderer("vulkan")
    with pytest.raises(UserError, match="cannot work on cuda"):
        get_renderer("cpu", "cuda")


def test_large_results_are_not_overwritten_while_in_use():
    """Memory of large results is used again, and only once nobody holds a tensor, view or array of it."""
    shape = (1, 1024, 1024, 4)
    first = output_memory.empty(*shape)
    place = first.data_ptr()
    view = first.fill_(7)[0, :2].numpy()
    del first
    second = output_memory.empty(*shape).fill_(8)
    assert second.data_ptr() != place and (view == 7).all()
    del view
    assert output_memory.empty(*shape).data_ptr() == place
    assert output_memory.empty(2, 3).shape == (2, 3)


def test_kernels_work_where_no_cache_can_be_written(monkeypatch):
    def refuse_cache(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **options)

    njit = jit.numba.njit
    monkeypatch.setattr(jit.numba, "njit", refuse_cache)
    assert jit.kernel(lambda x: x + 1)(2) == 3


def test_cached_kernels_are_found_by_the_next_process(tmp_path):
    """The cache of a folder of one's own fills at the first run; the second compiles nothing."""
    code = (
        "import torch; from tracker.rendering import get_renderer; from tracker.rendering import cpu_shading_kernels as k;"
        "tri = torch.tensor([[0, 1, 2]], dtype=torch.int32);"
        "get_renderer('cpu').interpolate(torch.rand(1, 3, 2), torch.zeros(1, 8, 8, 4), tri);"
        "print(sum(k.interpolate.stats.cache_hits.values()), sum(k.interpolate.stats.cache_misses.values()))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[1]
    run = [sys.executable, "-c", code]
    outputs = [
        subprocess.run(run, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert outputs == [["0", "1"], ["1", "0"]]
