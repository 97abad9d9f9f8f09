"""No tensor is left on the CPU by code that works on a GPU: the fit, drawing and exports on a pretended device.

Every run is compared with the CPU's; see :mod:`tests.pretend_device` for what this cannot catch.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flame_assets.load import load_head
from tests.heads import tiny_head
from tests.pretend_device import DEVICE, FarRenderer, FarTensor, PretendDevice, fetch, send
from tests.small_scene import CENTRE, FOCAL, small_scene
from tests.tracks import talking_track
from tracker.camera import Camera
from tracker.overlay import painter_for
from tracker.rendering import backends, clip_to_pixels, perspective, vertex_normals, visible_points, world_to_clip
from tracker.residuals.appearance import Appearance
from tracker.residuals.priors import DifferenceResidual, PriorResidual
from tracker.residuals.smoothness import SmoothnessResidual
from tracker.solver.block_tridiagonal import CyclicReduction, factorise
from tracker.solver.levenberg_marquardt import SolverConfig, Term, Variable, solve
from tracker.solver.robust import GemanMcClure
from tracker.stages import recipe
from tracker.stages.calibration import measure
from tracker.stages.texture import texture_builder
from tracker.track_vertices import track_vertices, vertices_on_device


@pytest.fixture
def far(monkeypatch):
    monkeypatch.setitem(backends._made, ("cpu", DEVICE), FarRenderer())
    with PretendDevice() as pretended:
        yield pretended


# --- the pretended device itself -----------------------------------------------------------------------------------


def test_mixing_is_refused_and_waiting_is_noticed(far):
    x = torch.tensor([1.0, 2.0], device=DEVICE)
    assert isinstance(x.new_tensor((3.0,)), FarTensor) and isinstance(torch.as_tensor(np.ones(2), device=DEVICE), FarTensor)
    far.sent.clear()
    assert fetch(x * 2 + torch.tensor(1.0)).tolist() == [3, 5]
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(2)
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([x, torch.zeros(1)])
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    assert not far.reads and not far.sent and not far.fetched
    assert bool((x > 1).any()) and float(x.sum()) == 3 and len(x[x > 1]) == 1
    assert len(far.reads) == 3
    assert x.cpu().tolist() == [1, 2] and far.fetched == [(2,)]
    assert fetch(x + torch.ones(2).to(x)).tolist() == [2, 3] and far.sent == [(2,)]


# --- linear algebra ------------------------------------------------------------------------------------------------


def test_solver_reads_one_number_a_trial(far):
    data = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = {"v": torch.zeros_like(data), "s": torch.zeros(2, dtype=torch.float64)}
    results = []
    for move in (lambda value: value, send):
        terms = [
            Term("data", PriorResidual("v", 0.5, move(data)), GemanMcClure(2.0)),
            Term("shared", PriorResidual("s", 0.5, 1.0)),
            Term("smooth", SmoothnessResidual("v", 2.0, move(torch.full((9,), 0.04)))),
            Term("zero sum", DifferenceResidual("v", move(torch.ones(1, 3, dtype=torch.float64)), 0.3)),
        ]
        limited = Variable("v", upper=move(torch.full((3,), 0.5, dtype=torch.float64)))
        far.reads.clear(), far.sent.clear()
        found = solve(terms, [limited, Variable("s", shared=True)], move(start), SolverConfig(4, relative_tolerance=0.0))
        results.append(fetch(found.values))
        trials = len(far.reads) - 2
    assert far.reads[:-1] == ["aten::_local_scalar_dense"] * len(far.reads[:-1]) and 4 <= trials <= 10
    assert not far.sent and not far.fetched
    for name, value in results[0].items():
        assert torch.allclose(value, results[1][name], atol=1e-9)


def test_the_gpu_eliminates_in_batches(far):
    eye = torch.eye(4, dtype=torch.float64).expand(5, 4, 4)
    factor = factorise(send(eye), send(eye * -0.3))
    assert isinstance(factor, CyclicReduction)
    factor.solve(send(torch.ones(5, 4, 2, dtype=torch.float64)))
    assert not far.reads and not far.sent and bool(factor.sound)


# --- the fit -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with small_scene(tmp_path_factory.mktemp("stores")) as made:
        yield made


def test_the_whole_fit_stays_on_the_device(scene, far, monkeypatch):
    """And inside a solve nothing is sent or fetched: a GPU would wait for it at every iteration."""
    inside = []

    def watched(*args, **kwargs):
        before = len(far.sent), len(far.fetched)
        result = solve(*args, **kwargs)
        inside.extend(far.sent[before[0] :] + far.fetched[before[1] :])
        return result

    monkeypatch.setattr(recipe, "solve", watched)
    found, expected = scene.fit(DEVICE), scene.fit("cpu")
    assert not inside
    assert expected["error"].median() < 5
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=2e-3), name


def test_calibration_of_a_foreign_head(scene, far):
    results = []
    for device in ("cpu", DEVICE):
        head = scene.head(device)
        values = {name: value.to(device) for name, value in scene.values.items()}
        results.append(measure(scene.asset, head.model, scene.batch(head).dense, values, CENTRE))
    assert results[0] is not None
    assert np.allclose(*results, atol=1e-5)


# --- drawing -------------------------------------------------------------------------------------------------------


def test_camera_and_visibility(far):
    asset = tiny_head()
    vertices, faces = torch.as_tensor(asset.v_template).float(), torch.as_tensor(asset.faces, dtype=torch.int32)
    results = []
    for move, renderer in ((lambda value: value, backends.get_renderer("cpu")), (send, FarRenderer())):
        world, tri = move(vertices + torch.tensor([0.0, 0, 0.4])), move(faces)
        for focal in (FOCAL, move(torch.tensor(FOCAL))):
            camera = perspective(focal, *CENTRE, 512, 512).to(world)
            pos = world_to_clip(world, camera)[None]
            rast = renderer.rasterize(pos, tri, (64, 64))
            smooth = renderer.antialias((rast[..., 3:] > 0).float(), rast, pos, tri)
            seen = visible_points(pos, rast, pos, tri)
            coloured = renderer.texture(move(torch.rand(1, 5, 5, 3, generator=torch.Generator().manual_seed(0))), rast[..., :2].contiguous())
            results.append(fetch([clip_to_pixels(pos, 512, 512), rast, smooth, seen, coloured, vertex_normals(world, tri)]))
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            assert torch.allclose(found.double(), expected.double(), atol=1e-5)


def test_vertices_overlay_and_texture(far):
    asset = load_head(None)
    track = talking_track(asset, 2)
    camera = Camera(350.0, 160.0, 90.0, 320, 180)
    appearance = Appearance(torch.zeros(1, 3), torch.eye(9, 3), torch.zeros(1))
    picture = np.random.default_rng(0).integers(0, 256, (180, 320, 3), np.uint8)
    texture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    results = []
    for device in ("cpu", DEVICE):
        painter = painter_for(asset, track, (320, 180), 0.75, texture, device)
        builder = texture_builder(asset, camera, 32, appearance, device)
        far.sent.clear(), far.fetched.clear()
        drawn = []
        for vertices in vertices_on_device(track, asset, device):
            drawn.append(painter.pictures(picture, vertices))
            builder.add(picture, vertices)
        fetched = list(far.fetched)
        results.append([*track_vertices(track, asset, device), *np.array(drawn).astype(float), builder.finish().astype(float)])
    assert fetched == [(2, 180, 320, 3)] * 2  # the finished pictures, and nothing else
    for found, expected in zip(*results, strict=True):
        assert np.isclose(found, expected, atol=6).mean() > 0.99
