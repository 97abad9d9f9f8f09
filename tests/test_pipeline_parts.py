"""Steps of a run on made-up data: reading for the fit, judging frames, and settings that must reach what they name."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from densemarks_model.crops import HeadCrop
from tests.heads import tiny_head
from tracker.camera import FocalPrior
from tracker.config import load_config
from tracker.dense.embedding_store import EmbeddingRecord, EmbeddingStore
from tracker.dense.sites import spread_sites
from tracker.fitting.keyframes import fit_shared
from tracker.fitting.objective import FaceLandmarks, frame_variables, prior_terms
from tracker.fitting.observations import FrameBatch
from tracker.fitting.sequence import FrameFits
from tracker.landmarks.detection import Detection
from tracker.landmarks.store import LandmarkStore
from tracker.pipeline import assemble, read_batch

MAP = 24


@pytest.fixture(scope="module")
def asset():
    return tiny_head()


@pytest.fixture(scope="module")
def sites(asset):
    return spread_sites(asset, 60)


def detection(number: int) -> Detection:
    rng = np.random.default_rng(number)
    points = rng.uniform(100, 300, (478, 2)).astype(np.float32)
    return Detection(points, rng.normal(size=478).astype(np.float32), rng.random(52).astype(np.float32), 0.9)


def record(asset, number: int, trust: float = 0.9) -> EmbeddingRecord:
    """A map whose pixels show vertices of the head at random."""
    rng = np.random.default_rng(number)
    coordinates = asset.canonical[rng.integers(0, asset.n_vertices, (MAP, MAP))].astype(np.float32)
    flat = np.full((MAP, MAP), trust, np.float32)
    return EmbeddingRecord(HeadCrop(np.array([200.0, 200.0]), 150.0), coordinates, flat, 0.02 * flat, flat)


# --- reading --------------------------------------------------------------------------------------------------------


def test_reading_some_frames_does_not_touch_all_of_them(asset, sites, tmp_path, monkeypatch):
    """Or the time of a run grows with the square of the video's length."""
    config = load_config("balanced")
    face = FaceLandmarks.build(asset, config.landmarks)
    with LandmarkStore(tmp_path) as store, EmbeddingStore(tmp_path) as embeddings:
        for frame in range(8):
            store.append(frame / 25, None if frame == 5 else detection(frame))
            if frame % 2 == 0:
                embeddings.put(frame, record(asset, frame))

        def whole(self):
            raise AssertionError("an array of the whole video was made")

        for name in ("found", "timestamps", "confidence"):
            monkeypatch.setattr(LandmarkStore, name, property(whole))
        batch = read_batch(store, np.array([2, 3, 4, 5]), face, embeddings, sites, config)
    assert batch.found.tolist() == [True, True, True, False]
    assert batch.timestamps.tolist() == pytest.approx([0.08, 0.12, 0.16, 0.2])
    assert batch.dense.seen.tolist() == [True, True, True, False]


def test_keyframe_candidates_without_landmarks_are_read_little_by_little(asset):
    """Only their poses are wanted: a thousand of them with pictures and outlines would take a gigabyte."""
    config = load_config("fast")
    config = dataclasses.replace(config, keyframes=dataclasses.replace(config.keyframes, count=4, iterations=1))
    face = FaceLandmarks.build(asset, config.landmarks)
    found = torch.arange(300) % 10 == 0
    points = torch.stack([torch.as_tensor(detection(n).points) for n in range(300)])
    everything = FrameBatch(points, torch.zeros(300, 478), torch.arange(300, dtype=torch.float64) / 25, found=found)
    heavy, light = [], []

    def read(frames, dense=True, places_only=False):
        if dense:
            (light if places_only else heavy).append(len(frames))
        return everything.select(frames)

    shared = fit_shared(face, torch.arange(300), read, FocalPrior(700.0, 0.0, (200.0, 200.0)), config)
    assert sum(light) == 270 and max(light) <= 64
    assert heavy == [len(shared.keyframes)]


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
def test_min_trust_reaches_the_look_up(asset, sites, tmp_path, stride):
    """Frames that the network looked at, and those between, which take their neighbours' places."""
    config = load_config("balanced")
    face = FaceLandmarks.build(asset, config.landmarks)
    with LandmarkStore(tmp_path) as store, EmbeddingStore(tmp_path) as embeddings:
        for frame in range(4):
            store.append(frame / 25, detection(frame))
            if frame % stride == 0:
                embeddings.put(frame, record(asset, frame, trust=0.5))
        seen = []
        for wanted in (0.3, 0.7):
            dense = dataclasses.replace(config.dense, min_trust=wanted, stride=stride)
            changed = dataclasses.replace(config, dense=dense)
            seen.append(read_batch(store, np.arange(3), face, embeddings, sites, changed).dense.precision > 0)
    assert seen[0].any(1).all()  # pixels of trust 0.5 count at 0.3 …
    assert not seen[1].any()  # … and not at 0.7


@pytest.mark.parametrize(("names", "unit"), [(("jawOpen", "browInnerUp"), 1.0), (("expr000", "expr001"), 1 / 0.35)])
def test_the_expression_prior_holds_every_head(names, unit):
    """FLAME's expressions have unit variance: the default keeps one standard deviation, and half of it holds twice as hard."""
    head = tiny_head(expressions=names)
    if names[0] == "expr000":
        head = dataclasses.replace(head, expression_range=(-np.inf, np.inf))
    config = load_config("fast")
    face = FaceLandmarks.build(head, config.landmarks)
    values = {v.name: torch.zeros(1, 6) for v in frame_variables(face.head, config)} | {"expr": torch.ones(1, 2)}
    for sigma in (0.35, 0.175):
        priors = dataclasses.replace(config.priors, expression=sigma)
        term = next(t for t in prior_terms(frame_variables(face.head, config), priors, face.head) if t.name == "expr prior")
        residual = term.residual(values, frozenset()).residual
        assert residual.flatten().tolist() == pytest.approx([1 / (sigma * unit)] * 2)


@pytest.mark.parametrize("limit", [20.0, 5.0, 2.0, 1.0, 0.5])
def test_strict_limits_keep_the_confidence_of_good_frames(asset, tmp_path, limit):
    """A frame that fits perfectly has the detector's confidence whatever the limit, and one near the limit hardly any."""
    config = load_config("fast")
    config = dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, max_error_percent=limit))
    errors = torch.tensor([0.0, 0.05 * limit, 0.5 * limit, 0.99 * limit, 2 * limit])
    count = len(errors)
    sizes = {"rotation": 3, "neck_pose": 3, "translation": 3, "expr": asset.n_expression, "eyes_pose": 6}
    fits = [FrameFits(torch.arange(count), {k: torch.zeros(count, n) for k, n in sizes.items()}, errors)]
    facts = SimpleNamespace(width=640, height=360, frame_rate=25.0)
    shared = SimpleNamespace(identity=torch.zeros(asset.n_identity), focal_px=700.0)
    with LandmarkStore(tmp_path) as store:
        for frame in range(count):
            store.append(frame / 25, detection(frame))
        with np.errstate(all="raise"):
            track, _ = assemble(store, facts, fits, shared, FocalPrior(700.0, 0.0, (320.0, 180.0)), asset, config)
    assert track.valid.tolist() == [True] * 4 + [False]
    assert track.confidence[:2] == pytest.approx([0.9, 0.9])
    assert 0.4 < track.confidence[2] < 0.6 and 0 < track.confidence[3] < 0.02 and track.confidence[4] == 0
