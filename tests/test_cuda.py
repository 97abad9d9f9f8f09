"""The GPU against the CPU: linear algebra, the fit, and whole runs. Skipped, with the reason, where there is none.

The renderer's own comparisons are in ``test_rendering_backends.py``, those of pictures in ``test_drawing_on_device.py``.
All of them: ``pytest -m cuda``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flame_assets.load import load_head
from tests.devices import needs_cuda
from tests.small_scene import small_scene
from tests.test_block_tridiagonal import normal_matrix, reference
from tracker.cli import main
from tracker.export.flame_params import load_track
from tracker.rendering import get_renderer, resolve_device
from tracker.solver.block_tridiagonal import CyclicReduction, factorise
from tracker.solver.normal_equations import NormalEquations
from tracker.track_vertices import track_vertices
from tracker.video.packaged_clips import EXCERPT

FRAMES = 24


@pytest.fixture
def no_waiting():
    """torch raises where the program would wait for the GPU. (Not for waits inside of CUDA's own libraries.)"""

    def switch(on: bool) -> None:
        torch.cuda.set_sync_debug_mode("error" if on else "default")

    yield switch
    switch(False)


@needs_cuda
@pytest.mark.parametrize("f", [1, 2, 7, 32, 96])
def test_block_cholesky_is_that_of_the_cpu_and_waits_for_nothing(no_waiting, f):
    diagonal, below = normal_matrix(f, 65)
    rhs = torch.randn(f, 65, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    there = [t.cuda() for t in (diagonal, below, rhs)]
    factorise(*there[:2]).solve(there[2])  # libraries are loaded at the first call
    no_waiting(True)
    factor = factorise(*there[:2])
    found = factor.solve(there[2])
    no_waiting(False)
    assert isinstance(factor, CyclicReduction) and bool(factor.sound)
    expected = reference(diagonal, below, rhs)
    assert ((found.cpu() - expected).norm() / expected.norm()).item() < 1e-10
    there[0][f // 2, 3, 3] = -1e-3
    assert not bool(factorise(*there[:2]).sound)


@needs_cuda
def test_normal_equations_are_those_of_the_cpu_and_wait_for_nothing(no_waiting):
    draw = torch.Generator().manual_seed(0)
    f, n, d, s = 9, 40, 12, 5
    here, common, r, weight = (torch.randn(*shape, generator=draw) for shape in ((f, n, 2, d), (f, n, 2, s), (f, n, 2), (f, n)))
    change = torch.ones(f, d)
    change[0] = 0

    def step(device: str):
        jacobians = {"x": here.to(device), "s": common.to(device)}
        arguments = (r.to(device), jacobians, {}, weight.square().to(device))
        smooth = (torch.ones(f, d, 1, device=device), {"x": change.to(device)}, {"x": -change.to(device)}, None)

        def once():
            equations = NormalEquations({"x": (f, d)}, {"s": s}, arguments[0])
            equations.add(*arguments)
            equations.add_diagonal(*smooth)
            return equations.solve(1e-3, {})

        once()  # libraries are loaded at the first call
        no_waiting(device == "cuda")
        found = once()
        no_waiting(False)
        return found

    expected, found = step("cpu"), step("cuda")
    assert bool(found.sound) and bool(expected.sound)
    for name, value in expected.values.items():
        assert torch.allclose(found.values[name].cpu(), value, rtol=1e-8, atol=1e-12), name


@needs_cuda
def test_the_fit_is_that_of_the_cpu(tmp_path):
    with small_scene(tmp_path) as scene:
        found, expected = scene.fit("cuda"), scene.fit("cpu")
    for name, value in expected.items():
        # which places count as visible may differ at single pixels of an outline
        assert torch.allclose(found[name], value, atol=2e-2), name


@needs_cuda
def test_the_gpu_is_what_auto_means_here_and_one_renderer_serves_it():
    device = resolve_device("auto", needs_renderer=True)
    assert device.compute.type == "cuda" and device.renderer == "cuda"
    assert get_renderer("auto", device.draw) is get_renderer("cuda") is get_renderer("auto")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Folders of runs of the excerpt by preset and device."""
    found = {}
    for preset in ("balanced", "best"):
        for device in ("cpu", "cuda"):
            out = tmp_path_factory.mktemp(f"{preset}_{device}")
            command = ["--video", str(EXCERPT), "--out", str(out), "--max-frames", str(FRAMES), "--quiet"]
            assert main([*command, "--preset", preset, "--device", device]) == 0
            found[preset, device] = out / EXCERPT.stem
    return found


@needs_cuda
@pytest.mark.parametrize("preset", ["balanced", "best"])
def test_whole_runs_agree(runs, preset):
    here, there = (load_track(runs[preset, device] / "flame_params.npz") for device in ("cpu", "cuda"))
    assert (here.valid == there.valid).all() and here.valid.all()
    assert abs(np.log(there.focal_px / here.focal_px)) < 0.02
    turned = [Rotation.from_rotvec(t.rotation) * Rotation.from_rotvec(t.neck_pose) for t in (here, there)]
    assert np.rad2deg((turned[0].inv() * turned[1]).magnitude()).max() < 1.0
    asset = load_head(None)
    apart = [np.linalg.norm(a - b, axis=1).mean() for a, b in zip(track_vertices(here, asset), track_vertices(there, asset), strict=True)]
    distance = np.median(1 - here.translation[:, 2])
    assert max(apart) < 0.02 * distance  # a focal length that differs by as much moves the head by as much
    for device in ("cpu", "cuda"):
        names = {p.name for p in runs[preset, device].iterdir()}
        assert "overlay.mp4" in names and ("texture.png" in names) == (preset == "best")


@needs_cuda
def test_the_summary_says_where_the_run_was(runs):
    for preset in ("balanced", "best"):
        assert "cuda" in json.loads((runs[preset, "cuda"] / "summary.json").read_text())["device"]["fit"]
