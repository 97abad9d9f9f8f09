"""Steps of a run on made-up data: reading for the fit, judging frames, and settings that must reach what they name."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from densemarks_model.crops import HeadCrop
from tests.heads import tiny_head
from tests.observed import observed, reader
from tracker.camera import FocalPrior
from tracker.landmarks.detection import Detection
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.frame_batch import FrameBatch
from tracker.observe.landmark_store import LandmarkStore
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.sites import spread_sites
from tracker.residuals import priors
from tracker.residuals.fit_head import FitHead
from tracker.residuals.state import FitState
from tracker.settings import load_settings
from tracker.stages.fit import assemble
from tracker.stages.keyframes import choose_keyframes
from tracker.stages.recipe import variables
from tracker.stages.windows import FrameFits

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
    detections = [None if frame == 5 else detection(frame) for frame in range(8)]
    records = {frame: record(asset, frame) for frame in range(0, 8, 2)}
    with observed(tmp_path, detections, records, ObserveSettings(stride=2)) as observations:

        def whole(self):
            raise AssertionError("an array of the whole video was made")

        for name in ("found", "timestamps", "confidence"):
            monkeypatch.setattr(LandmarkStore, name, property(whole))
        batch = reader(observations, sites)(torch.tensor([2, 3, 4, 5]))
    assert batch.found.tolist() == [True, True, True, False]
    assert batch.timestamps.tolist() == pytest.approx([0.08, 0.12, 0.16, 0.2])
    assert batch.dense.seen.tolist() == [True, True, True, False]


def test_keyframe_candidates_without_landmarks_are_read_little_by_little(asset):
    """Only their poses are wanted: a thousand of them with pictures and outlines would take a gigabyte."""
    settings = load_settings("balanced").changed({"keyframes": {"count": 4}})
    face = FitHead.build(asset)
    found = torch.arange(300) % 10 == 0
    points = torch.stack([torch.as_tensor(detection(n).points) for n in range(300)])
    everything = FrameBatch(points, torch.zeros(300, 478), torch.arange(300, dtype=torch.float64) / 25, found=found)
    heavy, light = [], []

    def read(frames, reads):
        if reads:
            (light if reads == {"dense"} else heavy).append(len(frames))
        return everything.select(frames)

    chosen = choose_keyframes(face, torch.arange(300), read, FocalPrior(700.0, 0.0, (200.0, 200.0)), settings.keyframes.count)
    assert len(chosen) == 4
    assert sum(light) == 270 and max(light) <= 64 and not heavy


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
def test_min_trust_reaches_the_look_up(asset, sites, tmp_path, stride):
    """Frames that the network looked at, and those between, which take their neighbours' places."""
    records = {frame: record(asset, frame, trust=0.5) for frame in range(0, 4, stride)}
    seen = []
    with observed(tmp_path, [detection(frame) for frame in range(4)], records) as observations:
        for wanted in (0.3, 0.7):
            changed = ObserveSettings(min_trust=wanted, stride=stride)
            seen.append(reader(observations, sites, changed)(torch.arange(3)).dense.precision > 0)
    assert seen[0].any(1).all()  # pixels of trust 0.5 count at 0.3 …
    assert not seen[1].any()  # … and not at 0.7


@pytest.mark.parametrize(("names", "unit"), [(("jawOpen", "browInnerUp"), 1.0), (("expr000", "expr001"), 1 / 0.35)])
def test_the_expression_prior_holds_every_head(names, unit):
    """FLAME's expressions have unit variance: the default keeps one standard deviation, and half of it holds twice as hard."""
    head = tiny_head(expressions=names)
    if names[0] == "expr000":
        head = dataclasses.replace(head, expression_range=(-np.inf, np.inf))
    face = FitHead.build(head)
    camera = FocalPrior(700.0, 0.0, (320.0, 180.0))
    free = variables(("pose", "face"), face.model, camera, load_settings("fast"))
    values = {v.name: torch.zeros(1, 6) for v in free} | {"expr": torch.ones(1, 2)}
    state = FitState(face, None, values, frozenset(values), torch.ones(1), camera)
    for sigma in (0.35, 0.175):
        term = next(t for t in priors.terms(state, priors.PriorSettings(expression=sigma)) if t.name == "expr prior")
        residual = term.residual(values, frozenset()).residual
        assert residual.flatten().tolist() == pytest.approx([1 / (sigma * unit)] * 2)


@pytest.mark.parametrize("limit", [20.0, 5.0, 2.0, 1.0, 0.5])
def test_strict_limits_keep_the_confidence_of_good_frames(asset, tmp_path, limit):
    """A frame that fits perfectly has the detector's confidence whatever the limit, and one near the limit hardly any."""
    errors = torch.tensor([0.0, 0.05 * limit, 0.5 * limit, 0.99 * limit, 2 * limit])
    count = len(errors)
    sizes = {"rotation": 3, "neck_pose": 3, "translation": 3, "expr": asset.n_expression, "eyes_pose": 6}
    fits = [FrameFits(torch.arange(count), {k: torch.zeros(count, n) for k, n in sizes.items()}, errors)]
    shared = SimpleNamespace(identity=torch.zeros(asset.n_identity), focal_px=700.0, focal_log_sigma=0.0, appearance=None)
    with observed(tmp_path, [detection(frame) for frame in range(count)], {}) as observations, np.errstate(all="raise"):
        track = assemble(observations, fits, shared, FocalPrior(700.0, 0.0, (320.0, 180.0)), asset, limit).track
    assert track.valid.tolist() == [True] * 4 + [False]
    assert track.confidence[:2] == pytest.approx([0.9, 0.9])
    assert 0.4 < track.confidence[2] < 0.6 and 0 < track.confidence[3] < 0.02 and track.confidence[4] == 0
