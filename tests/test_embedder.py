"""The head embedded frame by frame and in batches, by a network with small maps or large ones, with a surface or without."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from densemarks_model.crops import HeadCrop
from densemarks_model.prediction import Prediction
from flame_assets.asset import HeadAsset
from flame_assets.load import load_head
from tests.colour_network import ColourReader, colour_embedder
from tests.observed import observed, reader
from tests.views import drawn
from tracker.camera import FocalPrior, project
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.landmarks.detection import Detection
from tracker.observe.embedder import HeadEmbedder
from tracker.observe.embedding_store import MAX_SIDE, EmbeddingRecord, EmbeddingStore
from tracker.observe.first_pass import _Looker
from tracker.observe.signed_distance import FINER, FINEST, finer, signed_distance
from tracker.observe.sites import DenseSites, spread_sites
from tracker.rendering.backends import get_renderer
from tracker.residuals import state as state_module
from tracker.residuals.fit_head import FitHead
from tracker.residuals.state import FitState
from tracker.settings import load_settings
from tracker.stages.recipe import terms_of

SIDE, FOCAL = 240, 420.0
CENTRE = (SIDE / 2, SIDE / 2)
WINDOW_BYTES = 300e6


@pytest.fixture(scope="module")
def asset() -> HeadAsset:
    return load_head(None)


@pytest.fixture(scope="module")
def sites(asset) -> DenseSites:
    return spread_sites(asset, 400)


@pytest.fixture
def make(asset, sites, monkeypatch) -> Callable[..., tuple[HeadEmbedder, ColourReader]]:
    return partial(colour_embedder, monkeypatch, asset, sites)


def values_of(head: HeadModel, frames: int) -> dict[str, torch.Tensor]:
    step = torch.arange(frames, dtype=torch.float32)[:, None]
    return {
        "rotation": torch.tensor([0.05, 0.2, 0.0]) + step * torch.tensor([0.0, 0.02, 0.01]),
        "translation": torch.tensor([-0.03, 0.0, 0.2]) + step * torch.tensor([0.004, 0.001, 0.0]),
        "neck_pose": torch.zeros(frames, 3),
        "expr": torch.zeros(frames, head.n_expression),
        "shape": torch.zeros(head.n_identity),
        "log_focal": torch.tensor([math.log(FOCAL)]),
    }


@pytest.fixture(scope="module")
def clip(asset) -> tuple[list[np.ndarray], list[Detection], dict[str, torch.Tensor]]:
    """Frames that show each point of a moving head in the colour of its location, and the landmarks on it."""
    head = HeadModel.from_asset(asset, "cpu", torch.float32)
    values = values_of(head, 12)
    embedding = asset.landmarks["mediapipe"]
    images, detections = [], []
    for frame in range(12):
        crop, colours, shown = drawn(asset, head, values, frame, CENTRE, asset.canonical, 400)
        whole = np.zeros((SIDE, SIDE, 3), np.uint8)
        x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
        at = crop.to_crop(np.stack([x, y], -1).reshape(-1, 2), 400)
        inside = ((at >= 0) & (at < 400)).all(1)
        column, row = at.clip(0, 399).astype(int).T
        whole.reshape(-1, 3)[:] = np.where((inside & shown[row, column])[:, None], np.round(255 * colours[row, column]), 0)
        images.append(whole)
        one = {k: v if k in ("shape", "log_focal") else v[frame : frame + 1] for k, v in values.items()}
        pixels = project(HeadPoints.evaluate(head.at_points(embedding), one).positions, FOCAL, CENTRE)[0][0].numpy()
        points = np.tile(pixels.mean(0), (478, 1))
        points[embedding.indices] = pixels
        detections.append(Detection(points.astype(np.float32), np.zeros(478, np.float32), np.zeros(52, np.float32), 1.0))
    return images, detections, values


def assert_same(got: EmbeddingRecord | None, wanted: EmbeddingRecord | None) -> None:
    assert (got is None) == (wanted is None)
    if got is not None and wanted is not None:
        for name in ("coordinates", "trust", "scale", "surface"):
            assert np.array_equal(getattr(got, name), getattr(wanted, name)), name
        assert np.array_equal(got.crop.center, wanted.crop.center)
        assert (got.crop.side, got.crop.roll) == (wanted.crop.side, wanted.crop.roll)


# --- batches --------------------------------------------------------------------------------------------------------


def test_batches_give_what_frames_one_by_one_give(clip, make):
    """With frames that no detector found, a detection on the wall, an empty picture, and a head that is lost before it comes back."""
    images, detections, _ = clip
    images, detections = list(images), list(detections)
    detections[0] = detections[4] = detections[5] = None  # nothing is known of frame 0
    detections[7] = dataclasses.replace(detections[7], points=detections[7].points * 0.3)
    images[9] = np.zeros_like(images[9])
    single, reader = make()
    wanted = [single.embed(image, detection) for image, detection in zip(images, detections, strict=True)]
    looked = reader.calls
    many, reader = make(batch=4)
    got = many.embed_many(images, detections)
    for (record, kept), (record_wanted, kept_wanted) in zip(got, wanted, strict=True):
        assert_same(record, record_wanted)
        assert kept is kept_wanted
    assert wanted[0] == (None, None) and wanted[4][0] is not None and wanted[7][0] is not None and wanted[7][1] is None
    assert wanted[9][1] is None and wanted[11][1] is not None
    # the same crops, in fewer calls: nine at detections make three, the others are one each
    assert all(len(crops) == 1 for crops in looked) and [len(c) for c in reader.calls[:4]] == [4, 4, 1, 1]
    assert sorted(c.tobytes() for calls in looked for c in calls) == sorted(c.tobytes() for calls in reader.calls for c in calls)
    follow_single, follow_many = (e.embed(images[11], None)[0] for e in (single, many))
    assert_same(follow_many, follow_single)  # both look at the same place next


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_pass_in_groups_finds_what_frame_by_frame_finds(clip, make, stride):
    """With a frame that no detector found, which the network looks at whatever the stride, and a detection on the wall."""
    images, detections, _ = clip
    detections = list(detections)
    detections[5] = None
    detections[6] = dataclasses.replace(detections[6], points=detections[6].points * 0.3)
    found = []
    for batch in (1, 2, 16):
        embedder, reader = make(batch=batch)
        looker = _Looker(embedder, stride)
        looked = []
        for start in range(0, len(images), looker.group):
            looked += [(k.record, k.detection) for k in looker(images[start : start + looker.group], detections[start : start + looker.group])]
        found.append(looked)
        assert (max(len(crops) for crops in reader.calls) > 1) == (batch > 1)
    for other in found[1:]:
        for (record, kept), (wanted, kept_wanted) in zip(other, found[0], strict=True):
            assert_same(record, wanted)
            assert kept is kept_wanted
    assert [r is not None for r, _ in found[0]][5] and sum(r is not None for r, _ in found[0]) >= 12 / stride


@pytest.mark.parametrize("batch", [1, 2])
def test_another_looker_goes_on_where_one_stopped(clip, make, batch):
    """At every frame, those without a face and with a wrong one included; only the state is handed over."""
    images, detections, _ = clip
    detections = [None if f in (3, 4, 7) else d for f, d in enumerate(detections)]
    detections[8] = dataclasses.replace(detections[8], points=detections[8].points * 0.3)
    whole = _Looker(make(batch=batch)[0], 2)
    step, wanted = whole.group, []
    for start in range(0, len(images), step):
        wanted += whole(images[start : start + step], detections[start : start + step])
    assert len({(k.state.misses, k.state.since, k.state.crop is None) for k in wanted}) > 2
    for stopped in range(step, len(images), step):
        fresh = _Looker(make(batch=batch)[0], 2)
        fresh.state = wanted[stopped - 1].state
        for look, other in zip(fresh(images[stopped : stopped + step], detections[stopped : stopped + step]), wanted[stopped:], strict=False):
            assert_same(look.record, other.record)
            assert look.detection is other.detection and (look.state.misses, look.state.since) == (other.state.misses, other.state.since)
            assert (look.state.crop is None) == (other.state.crop is None)


def test_looking_ahead_notes_nothing(clip, make):
    images, detections, _ = clip
    embedder, reader = make(batch=4)
    ahead = embedder.look_ahead(images[:3], [detections[0], None, detections[2]])
    assert [r is None for r in ahead] == [False, True, False] and [len(c) for c in reader.calls] == [2]
    assert embedder.embed(images[1], None) == (None, None)  # where the head was is not known yet
    assert len(reader.calls) == 1
    record, _ = embedder.embed(images[0], detections[0], ahead[0])
    assert record is ahead[0] and len(reader.calls) == 1


# --- networks with large maps and without a mask ----------------------------------------------------------------------


def test_small_maps_are_kept_as_they_are(clip, make):
    images, detections, _ = clip
    embedder, reader = make()
    record, _ = embedder.embed(images[0], detections[0])
    said = reader(reader.calls[0])
    assert np.array_equal(record.coordinates, said.coordinates[0]) and np.array_equal(record.surface, said.surface[0])
    assert np.array_equal(record.trust, said.confidence[0] * said.surface[0]) and np.array_equal(record.scale, said.scale[0])


def test_large_maps_are_reduced_and_background_does_not_pull(clip, make):
    images, detections, _ = clip
    small, _ = make()
    large, _ = make(side=512)
    wanted, got = small.embed(images[0], detections[0])[0], large.embed(images[0], detections[0])[0]
    assert got.trust.shape == got.scale.shape == got.surface.shape == (MAX_SIDE, MAX_SIDE) and got.coordinates.dtype == np.float32
    np.testing.assert_allclose(got.coordinates, wanted.coordinates.repeat(2, 0).repeat(2, 1), atol=1e-5)
    np.testing.assert_allclose(got.trust, wanted.trust.repeat(2, 0).repeat(2, 1), atol=1e-5)
    # a pixel of the reduced map that is half head has the head's location and half the trust
    coordinates, trust = np.full((1, 256, 256, 3), 0.2, np.float32), np.zeros((1, 256, 256), np.float32)
    coordinates[:, :, 101:], trust[:, :, 101:] = 0.8, 1.0
    edge = EmbeddingRecord.of(HeadCrop(np.zeros(2), 64.0), Prediction(coordinates, trust))
    np.testing.assert_allclose(edge.coordinates[:, 49:52, 0], [[0.2, 0.8, 0.8]] * MAX_SIDE, atol=1e-5)
    np.testing.assert_allclose(edge.trust[:, 49:52], [[0, 0.5, 1]] * MAX_SIDE, atol=1e-6)
    odd = EmbeddingRecord.of(HeadCrop(np.zeros(2), 64.0), Prediction(coordinates[:, :200, :200], trust[:, :200, :200]))
    assert odd.trust.shape == (MAX_SIDE, MAX_SIDE) and abs(odd.trust.mean() - trust[:, :200, :200].mean()) < 1e-4


@pytest.mark.parametrize("surface", [True, False])
def test_a_window_of_large_maps_fits_in_memory(clip, make, asset, sites, tmp_path, monkeypatch, surface):
    """Counted by shapes: on disk, what a window of the longest preset holds, and what drawing its outlines takes."""
    images, detections, values = clip
    embedder, _ = make(side=512, surface=surface)
    head = FitHead.build(asset, sites=sites)
    frames = len(images)
    records = {frame: record for frame, (record, _) in enumerate(embedder.embed_many(images, detections))}
    with observed(tmp_path, detections, records) as observations:
        assert (observations.embeddings.read(0).surface is None) == (not surface)
        per_record = (tmp_path / "embeddings.journal").stat().st_size / frames
        seen = reader(observations, sites)(torch.arange(frames))
    batch = seen.dense
    assert per_record <= MAX_SIDE**2 * (10 if surface else 9) + 512
    held = sum(t.numel() * t.element_size() for t in (getattr(batch, f.name) for f in dataclasses.fields(batch)))
    assert held / frames * 96 < WINDOW_BYTES

    sizes, draw = [], get_renderer("auto", "cpu")
    monkeypatch.setattr(state_module, "get_renderer", lambda *_: Noting(draw, sizes))
    camera = FocalPrior(FOCAL, 0.0, CENTRE)
    state = FitState(head, seen, values, frozenset(), torch.full((frames,), FOCAL), camera)
    terms = [t for said in terms_of(("look_up", "outline"), state, load_settings("best")).values() for t in said]
    assert [t.name for t in terms] == (["dense look-up", "outline"] if surface else ["dense look-up"])
    assert sizes == ([(FINEST, FINEST)] if surface else [])
    assert bool(batch.outline.any()) == surface


class Noting:
    """A renderer that notes the sizes of what it draws."""

    def __init__(self, renderer, sizes: list) -> None:
        self._renderer, self._sizes = renderer, sizes

    def rasterize(self, pos, tri, resolution):
        self._sizes.append(tuple(resolution))
        return self._renderer.rasterize(pos, tri, resolution)


def test_a_store_refuses_maps_of_another_kind(tmp_path):
    def record(side: int, surface: bool = True) -> EmbeddingRecord:
        flat = np.ones((side, side), np.float32)
        return EmbeddingRecord(HeadCrop(np.zeros(2), 64.0), np.ones((side, side, 3), np.float32), flat, flat, flat if surface else None)

    with EmbeddingStore(tmp_path) as store:
        with pytest.raises(ValueError, match="larger than 128"):
            store.put(0, record(129))
        store.put(0, record(16))
        for other in (record(17), record(16, surface=False)):
            with pytest.raises(ValueError, match="other ones than"):
                store.put(1, other)
        assert len(store) == 1


def test_outlines_of_any_map_are_measured_on_pictures_of_a_bounded_size():
    assert [finer((side, side)) for side in (16, 48, 64, 65, 128, 256)] == [FINER, FINER, FINER, 3, 2, 1]
    side = 128
    y, x = np.mgrid[0:side, 0:side] + 0.5
    radius = np.hypot(x - 60, y - 68)
    got = signed_distance(np.clip(40 - radius + 0.5, 0, 1).astype(np.float32))
    assert np.abs(got - (radius - 40))[np.abs(radius - 40) < 8].max() < 0.35  # 0.2 of a map half as large is 0.4 of this one


def test_a_network_is_told_where_the_head_lies_once_that_is_known(make, asset, sites):
    embedder, reader = make(doubt=math.inf, surface=False)
    assert reader.told == [None]
    measured = dataclasses.replace(asset, canonical=np.clip(asset.canonical * 0.9, 0, 1))
    embedder.for_head(measured, sites, 0.15)
    assert len(reader.told) == 2 and reader.told[1] is measured.canonical
