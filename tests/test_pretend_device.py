"""No tensor is left on the CPU by code that works on a GPU: the fit, drawing and exports on a pretended device.

Every run is compared with the CPU's; see :mod:`tests.pretend_device` for what this cannot catch.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from flame_assets.load import load_head
from tests.heads import tiny_head
from tests.pretend_device import DEVICE, FarRenderer, FarTensor, PretendDevice, fetch, send
from tests.tracks import talking_track
from tests.views import lit_picture, perfect_record
from tracker.camera import Camera, FocalPrior, project
from tracker.config import load_config
from tracker.dense.embedding_store import EmbeddingStore
from tracker.dense.reading import read_dense
from tracker.dense.sites import skin_triangles, spread_points, spread_sites
from tracker.export.vertices import track_vertices, vertices_on_device
from tracker.fitting import keyframes, sequence
from tracker.fitting.block_tridiagonal import CyclicReduction, factorise
from tracker.fitting.kinematics import HeadPoints
from tracker.fitting.objective import FaceLandmarks
from tracker.fitting.observations import FrameBatch
from tracker.fitting.residuals import DifferenceResidual, PriorResidual, SmoothnessResidual
from tracker.fitting.robust import GemanMcClure
from tracker.fitting.solver import SolverConfig, Term, Variable, solve
from tracker.overlay import painter_for
from tracker.photometric.light import Appearance
from tracker.photometric.picture_store import PictureStore
from tracker.photometric.reading import read_pictures
from tracker.photometric.texture import texture_builder
from tracker.rendering import clip_to_pixels, perspective, registry, vertex_normals, visible_points, world_to_clip

CENTRE, FOCAL, FRAMES = (256.0, 256.0), 720.0, 5


@pytest.fixture
def far(monkeypatch):
    monkeypatch.setitem(registry._made, ("cpu", DEVICE), FarRenderer())
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
    """A small head before the camera: landmarks, what a network would say, and pictures, as the stores give them."""
    asset = tiny_head()
    config = load_config("best")
    # every kind of term is solved with, but not for long
    config = replace(
        config,
        tracking=replace(config.tracking, window=4, lookahead=1, iterations=2),
        keyframes=replace(config.keyframes, iterations=3),
        dense=replace(config.dense, sites=60, keyframe_iterations=2, refine_iterations=2, compare_iterations=2),
        photometric=replace(config.photometric, iterations=2),
    )
    sites, skin = spread_sites(asset, 60), spread_points(asset, skin_triangles(asset), 50)
    face = FaceLandmarks.build(asset, config.landmarks, "cpu", sites, skin)
    time = torch.linspace(0, 1, FRAMES)
    values = {
        "rotation": torch.stack([0.1 * time, 0.5 * time - 0.2, 0 * time], 1),
        "translation": torch.stack([0.02 * time, 0.01 * time, 0.4 + 0 * time], 1),
        "expr": 0.2 * torch.rand(FRAMES, face.head.n_expression, generator=torch.Generator().manual_seed(0)),
        "shape": 0.5 * torch.ones(face.head.n_identity),
        "log_focal": torch.tensor([math.log(FOCAL)]),
    }
    light = torch.zeros(9, 3)
    light[0] = 1
    albedo = np.full((asset.n_vertices, 3), 0.5) + 0.2 * np.sin(90 * asset.v_template)
    folder = tmp_path_factory.mktemp("stores")
    with EmbeddingStore(folder) as embeddings, PictureStore(folder, 96) as pictures:
        for frame in range(FRAMES):
            embeddings.put(frame, perfect_record(asset, face.head, values, frame, CENTRE))
            crop, picture = lit_picture(asset, face.head, values, frame, CENTRE, albedo, light, 512)
            shifted = crop.matrix(512)
            shifted[:, 2] += shifted[:, :2] @ [0.5, 0.5] - 0.5
            whole = cv2.warpAffine(picture, shifted, (512, 512), borderValue=(0.5, 0.5, 0.5))
            pictures.put(frame, crop, (255 * whole.clip(0, 1)).astype(np.uint8))
        yield asset, config, sites, skin, values, embeddings, pictures


def observe(face: FaceLandmarks, scene) -> FrameBatch:
    """What a run would read, on the head's device."""
    _, _, sites, _, values, embeddings, pictures = scene
    like = {"dtype": face.head.dtype, "device": face.head.device}
    here = FaceLandmarks.build(scene[0], scene[1].landmarks)
    positions = HeadPoints.evaluate(here.points, values).positions
    points, depth = torch.zeros(FRAMES, 478, 2), torch.zeros(FRAMES, 478)
    points[:, here.numbers], _ = project(positions, FOCAL, CENTRE)
    depth[:, here.numbers] = -1200 * (positions[..., 2] - positions[..., 2].mean(1, keepdim=True))
    frames = np.arange(FRAMES)
    found = torch.ones(FRAMES, dtype=torch.bool)
    found[3] = False
    return FrameBatch(
        points=points.to(**like),
        depth=depth.to(**like),
        timestamps=torch.arange(FRAMES, dtype=torch.float64, device=face.head.device) / 25,
        found=found.to(face.head.device),
        dense=read_dense(embeddings, frames, points.numpy(), {}, sites, 0.003, like),
        pictures=read_pictures(pictures, embeddings, frames, face.head),
    )


def fit(scene, device) -> dict[str, Tensor]:
    """Both parts of the fit by a whole objective: keyframes with identity, focal length and light; windows with all terms."""
    asset, config, sites, skin = scene[:4]
    face = FaceLandmarks.build(asset, config.landmarks, device, sites, skin)
    batch = observe(face, scene)

    def read(frames: Tensor, dense: bool = True, places_only: bool = False) -> FrameBatch:
        chosen = batch.select(frames.to(face.head.device))
        return chosen if dense else replace(chosen, dense=None, pictures=None)

    shared = keyframes.fit_shared(face, torch.arange(FRAMES), read, FocalPrior(FOCAL, 0.2, CENTRE), config)
    assert shared.appearance is not None
    windows = list(sequence.fit_frames(face, torch.arange(FRAMES), read, shared, CENTRE, config))
    values = {name: torch.cat([w.values[name] for w in windows]) for name in windows[0].values}
    return fetch({**values, "identity": shared.identity, "error": torch.cat([w.error_percent for w in windows])})


def test_the_whole_fit_stays_on_the_device(scene, far, monkeypatch):
    """And inside a solve nothing is sent or fetched: a GPU would wait for it at every iteration."""
    inside = []

    def watched(*args, **kwargs):
        before = len(far.sent), len(far.fetched)
        result = solve(*args, **kwargs)
        inside.extend(far.sent[before[0] :] + far.fetched[before[1] :])
        return result

    for module in (keyframes, sequence):
        monkeypatch.setattr(module, "solve", watched)
    found, expected = fit(scene, DEVICE), fit(scene, "cpu")
    assert not inside
    assert expected["error"].median() < 5
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=2e-3), name


# --- drawing -------------------------------------------------------------------------------------------------------


def test_camera_and_visibility(far):
    asset = tiny_head()
    vertices, faces = torch.as_tensor(asset.v_template).float(), torch.as_tensor(asset.faces, dtype=torch.int32)
    results = []
    for move, renderer in ((lambda value: value, registry.get_renderer("cpu")), (send, FarRenderer())):
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
