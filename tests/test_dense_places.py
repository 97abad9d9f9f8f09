"""Places on the head, pixels averaged over them, the store between the passes, frames in between, and calibration."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from densemarks_model.crops import HeadCrop
from flame_assets.asset import AssetError
from flame_assets.load import load_head
from tests.observed import observed, reader
from tests.views import perfect_record
from tracker.head_model import HeadModel
from tracker.landmarks.detection import Detection
from tracker.observe.embedding_store import EmbeddingRecord, EmbeddingStore
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.pooling import pool
from tracker.observe.signed_distance import outline_error, signed_distance
from tracker.observe.sites import DenseSites, _farthest_points, spread_sites
from tracker.stages import calibration

CENTRE = (256.0, 256.0)


@pytest.fixture(scope="module")
def asset():
    return load_head(None)


@pytest.fixture(scope="module")
def sites(asset) -> DenseSites:
    return spread_sites(asset, 400)


def record_of(coordinates: np.ndarray, trust: np.ndarray, crop: HeadCrop, scale: float = 0.02) -> EmbeddingRecord:
    return EmbeddingRecord(
        crop, coordinates.astype(np.float32), trust.astype(np.float32), np.full(trust.shape, scale, np.float32),
        np.zeros(trust.shape, np.float32),
    )  # fmt: skip


# --- places ---------------------------------------------------------------------------------------------------------


def test_places_are_even_repeatable_and_off_lips_and_lids(asset, sites):
    again = spread_sites(asset, 400)
    assert np.array_equal(sites.canonical, again.canonical) and np.array_equal(sites.grid, again.grid)
    nearest = cKDTree(sites.canonical).query(sites.canonical, k=2)[0][:, 1]
    assert nearest.min() > 0.5 * nearest.max()  # farthest-point sampling: no clumps
    corners = asset.faces[sites.embedding.faces]
    for region in ("lips", "eyelids", "eyes", "teeth", "tongue"):
        assert not asset.regions[region][corners].all(1).any(), region
    for region in ("face", "scalp", "ears", "neck"):
        assert asset.regions[region][corners].any(1).sum() > 10, region


def test_grid_names_the_nearest_place(sites):
    cells = sites.grid.shape[0]
    rng = np.random.default_rng(0)
    points = sites.canonical[rng.integers(len(sites), size=500)] + rng.normal(0, 0.01, (500, 3))
    index = np.clip((points * cells).astype(int), 0, cells - 1)
    named = sites.grid[tuple(index.T)]
    distance = np.linalg.norm(sites.canonical[named] - points, axis=1)
    best = cKDTree(sites.canonical).query(points)[0]
    assert (named >= 0).all()
    assert (distance - best).max() < 1.75 / cells  # off by a cell's diagonal at most
    assert sites.grid[0, 0, 0] == -1  # an empty corner of the cube belongs to no place


def test_a_head_without_canonical_coordinates_is_refused(asset):
    with pytest.raises(AssetError, match="canonical"):
        spread_sites(dataclasses.replace(asset, canonical=None), 50)


# --- pooling --------------------------------------------------------------------------------------------------------


def test_pixels_are_averaged_with_their_trust(sites):
    place = 5
    coordinates, trust = np.zeros((8, 8, 3)), np.zeros((8, 8))
    coordinates[2, 3] = coordinates[2, 5] = sites.canonical[place]
    trust[2, 3], trust[2, 5] = 1.0, 0.5
    coordinates[6, 6], trust[6, 6] = sites.canonical[place], 0.2  # too doubtful to count
    crop = HeadCrop(np.array([100.0, 50.0]), 16.0)  # two frame pixels per map pixel; its corner lies at (92, 42)
    pooled = pool(record_of(coordinates, trust, crop), sites)
    assert np.flatnonzero(pooled.weight).tolist() == [place]
    assert pooled.weight[place] == pytest.approx(1.5)
    column = (1.0 * 3.5 + 0.5 * 5.5) / 1.5
    np.testing.assert_allclose(pooled.pixels[place], [92 + 2 * column, 42 + 2 * 2.5], atol=1e-4)
    np.testing.assert_allclose(pooled.offsets[place], 0, atol=1e-6)
    assert pooled.scale[place] == pytest.approx(0.02)


def test_errors_across_the_surface_are_dropped_those_along_it_kept(sites):
    place = 30
    normal = sites.normals[place].astype(np.float64)
    along = np.cross(normal, [0.3, 0.5, 0.8])
    along *= 0.004 / np.linalg.norm(along)
    coordinates, trust = np.zeros((4, 4, 3)), np.zeros((4, 4))
    coordinates[1, 1], trust[1, 1] = sites.canonical[place] + along + 0.008 * normal, 1
    pooled = pool(record_of(coordinates, trust, HeadCrop(np.zeros(2), 4.0)), sites)
    named = int(np.flatnonzero(pooled.weight)[0])
    assert named == place
    np.testing.assert_allclose(pooled.offsets[place], along, atol=1e-5)


def test_a_perfect_network_puts_every_place_where_it_is(asset, sites):
    """End to end: draw the head's coordinates, average them over places, compare with the places' projections."""
    from tracker.camera import project
    from tracker.head_points import HeadPoints

    head = HeadModel.from_asset(asset, "cpu", torch.float32)
    values = still(head, 1)
    record = perfect_record(asset, head, values, 0, CENTRE)
    pooled = pool(record, sites)
    seen = pooled.weight > 0.99
    assert seen.sum() > 100
    offsets = torch.as_tensor(pooled.offsets * sites.metres_per_cube)[None]
    positions = HeadPoints.evaluate(head.at_points(sites.embedding), values, offsets).positions
    wanted = project(positions, float(values["log_focal"].exp()), CENTRE)[0][0].numpy()
    map_pixel = record.crop.side / record.trust.shape[0]
    error = np.linalg.norm(pooled.pixels - wanted, axis=1)[seen] / map_pixel
    assert np.median(error) < 0.1 and np.percentile(error, 95) < 1.0


def still(head: HeadModel, frames: int) -> dict[str, torch.Tensor]:
    return {
        "rotation": torch.tensor([0.05, 0.3, 0.0]).expand(frames, 3).clone(),
        "translation": torch.tensor([0.0, 0.0, 0.4]).expand(frames, 3).clone(),
        "neck_pose": torch.zeros(frames, 3),
        "expr": torch.zeros(frames, head.n_expression),
        "shape": torch.zeros(head.n_identity),
        "log_focal": torch.tensor([math.log(720.0)]),
    }


# --- the store and what is read from it ------------------------------------------------------------------------------


def test_store_gives_back_what_was_put(tmp_path):
    rng = np.random.default_rng(0)

    def record(seed: int) -> EmbeddingRecord:
        return EmbeddingRecord(
            HeadCrop(np.array([1.5 * seed, -3.25]), 40.0 + seed, 0.1 * seed),
            *(rng.random((6, 6, *c), dtype=np.float32) for c in ((3,), (), (), ())),
        )

    records = {4: record(1), 0: record(2), 9: record(3)}
    with EmbeddingStore(tmp_path) as store:
        for frame, r in records.items():
            store.put(frame, r)
        assert len(store) == 3 and 4 in store and 5 not in store and store.read(5) is None
        for frame, wanted in records.items():
            got = store.read(frame)
            np.testing.assert_allclose(got.coordinates, wanted.coordinates, atol=8e-6)
            np.testing.assert_allclose(got.trust, wanted.trust, atol=0.002)
            np.testing.assert_allclose(got.surface, wanted.surface, atol=0.002)
            np.testing.assert_allclose(got.scale, wanted.scale, atol=5e-4)
            assert np.array_equal(got.crop.center, wanted.crop.center)
            assert (got.crop.side, got.crop.roll) == (wanted.crop.side, wanted.crop.roll)
        with pytest.raises(ValueError, match="already"):
            store.put(4, records[4])
    with EmbeddingStore(tmp_path) as again:
        assert len(again) == 3 and np.array_equal(again.read(9).coordinates, got.coordinates)


def test_frames_between_are_carried_by_the_landmarks(asset, sites, tmp_path):
    """The head shifts, grows and turns in the picture plane: what was seen on both sides is moved to where it is now."""
    head = HeadModel.from_asset(asset, "cpu", torch.float32)
    record = perfect_record(asset, head, still(head, 1), 0, CENTRE)
    marks = np.random.default_rng(0).uniform(150, 350, (478, 2))

    def moved(points: np.ndarray, step: float) -> np.ndarray:
        turn = Rotation.from_euler("z", 4 * step, degrees=True).as_matrix()[:2, :2]
        return (1 + 0.05 * step) * (points - 256) @ turn.T + 256 + np.array([10 * step, -4 * step])

    crop = HeadCrop(moved(record.crop.center[None], 2)[0], record.crop.side * 1.1, record.crop.roll + math.radians(8))
    records = {0: record, 2: dataclasses.replace(record, crop=crop)}
    detections = [Detection(moved(marks, s).astype(np.float32), np.zeros(478, np.float32), np.zeros(52, np.float32), 0.9) for s in range(3)]
    settings = ObserveSettings(stride=2)
    with observed(tmp_path, [*detections, None], records, settings) as observations:
        read = reader(observations, sites)
        batch, nothing = read(torch.arange(3)).dense, read(torch.tensor([3])).dense
        # looked at frame by frame, nothing is carried
        blind = reader(observations, sites, ObserveSettings(stride=1))(torch.tensor([0, 1])).dense
    assert nothing is None
    assert batch.seen.tolist() == [True] * 3 and blind.seen.tolist() == [True, False]
    everywhere = (batch.precision > 0).all(0)
    wanted = moved(batch.pixels[0, everywhere].numpy(), 1)
    assert everywhere.sum() > 100
    assert np.abs(batch.pixels[1, everywhere].numpy() - wanted).max() < 1.0
    assert (batch.trust[1] == 0).all() and (batch.trust[0] > 0).any()  # maps are not carried, places are


def test_every_place_is_the_farthest_from_those_before_it():
    points = np.random.default_rng(0).normal(size=(500, 3))
    chosen = _farthest_points(points, 40)
    distance = np.linalg.norm(points[:, None] - points[chosen], axis=2)
    assert chosen[0] == 0
    for k in range(1, 40):
        assert chosen[k] == distance[:, :k].min(1).argmax()


def test_distance_to_the_outline_of_a_disc():
    y, x = np.mgrid[0:64, 0:64] + 0.5
    radius = np.hypot(x - 30, y - 34)
    disc = np.clip(20 - radius + 0.5, 0, 1).astype(np.float32)
    near = np.abs(radius - 20) < 8
    assert np.abs(signed_distance(disc) - (radius - 20))[near].max() < 0.2
    assert (signed_distance(np.zeros((8, 8), np.float32)) == 0).all()
    assert (signed_distance(np.ones((8, 8), np.float32)) == 0).all()


def test_a_soft_outline_is_less_certain_than_a_sharp_one():
    x = np.arange(64) + 0.5
    soft, sharp = (np.tile(1 / (1 + np.exp((x - 32) / w)), (64, 1)).astype(np.float32) for w in (4.0, 0.5))
    assert outline_error(soft)[32, 32] > 4 * outline_error(sharp)[32, 32]


# --- calibration ----------------------------------------------------------------------------------------------------


def test_calibration_finds_another_networks_cube(asset):
    """Vertices seen often keep their own means, outliers aside; the unseen half follows from a similarity."""
    rng = np.random.default_rng(0)
    template = asset.v_template[::4].astype(np.float64)
    turn = Rotation.from_euler("xyz", [10, 5, -3], degrees=True).as_matrix()
    cube = 2.5 * template @ turn.T + 0.5
    seen_often = template[:, 0] > -0.03
    frames = 40
    locations = cube + rng.normal(0, 0.01, (frames, *cube.shape))
    weight = (rng.random((frames, len(cube))) < 0.6) * seen_often
    wild = rng.random((frames, len(cube))) < 0.1
    locations[wild] = rng.random((int(wild.sum()), 3))
    found = calibration.robust_means(asset.v_template[::4], locations, weight.astype(np.float64))
    error = np.linalg.norm(found - cube, axis=1)
    assert np.median(error[seen_often]) < 0.005 and error[seen_often].max() < 0.02
    assert error[~seen_often].max() < 0.01
    assert calibration.robust_means(asset.v_template[::4], locations, np.zeros_like(weight, dtype=float)) is None
