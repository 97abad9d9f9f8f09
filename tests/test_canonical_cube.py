"""Version 2 of the canonical cube: the lips are parted, nothing else moves, and networks are read in the cube that they speak."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from densemarks_model.checkpoint_files import read_header, read_training_checkpoint, save_network
from densemarks_model.crops import HeadCrop
from densemarks_model.errors import ModelError
from densemarks_model.evaluation.cubes import in_cube
from densemarks_model.evaluation.landmarks import model_places
from densemarks_model.evaluation.network import Network
from densemarks_model.evaluation.synthetic import evaluate_synthetic, open_shards
from densemarks_model.inference import fast_network
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.loading import SHIPPED, load_network, network_cube
from flame_assets.asset import AssetError, HeadAsset, load_npz, save_npz
from flame_assets.canonical import CUBE_VERSION, canonical_coordinates, canonical_frame
from flame_assets.load import DEFAULT_HEAD, load_head
from flame_assets.parted_mouth import mouth_parting
from tests.heads import tiny_head
from tracker.observe.embedder import HeadEmbedder
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.pooling import pool
from tracker.observe.sites import LIP_SITES, DenseSites, lip_triangles, spread_sites

TINY = LiteConfig(image_size=28, hidden_size=24, layers=2, heads=2, position_grid=4, taps=(1, 2), widths=(8, 8, 8), stem_width=4)


@pytest.fixture(scope="module")
def head() -> HeadAsset:
    return load_head()


@pytest.fixture(scope="module")
def sites(head) -> DenseSites:
    return spread_sites(head, 400, lips=True)


@pytest.fixture(scope="module")
def rims(head) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of the upper and of the lower lip's inner rim, without the mouth's corners."""
    rim = np.flatnonzero(head.regions["lip_inner_rim"] & (abs(head.v_template[:, 0]) < 0.016))
    up = mouth_parting(head)[rim, 1] > 0
    return rim[up], rim[~up]


def crossed(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = points[faces].astype(np.float64).swapaxes(0, 1)
    return np.cross(b - a, c - a)


# --- the surface ----------------------------------------------------------------------------------------------------


def test_version_1_is_the_template_in_the_unit_cube(head):
    first = head.with_cube(1)
    assert head.cube == CUBE_VERSION == 2 and first.cube == 1
    assert np.array_equal(first.canonical, canonical_coordinates(head.v_template))
    assert np.array_equal(first.canonical, load_npz(DEFAULT_HEAD).canonical)
    assert np.array_equal(first.with_cube(2).canonical, head.canonical) and head.with_cube(2) is head
    apart = dataclasses.replace(head, name="copy").with_cube(1)  # has forgotten where it came from
    assert abs(apart.canonical - first.canonical).max() < 1e-6


def test_only_the_surroundings_of_the_mouth_move(head):
    old, new = head.with_cube(1).canonical, head.canonical
    moved = (new != old).any(1)
    rim = head.v_template[head.regions["lip_inner_rim"]]
    distance = cKDTree(rim).query(head.v_template)[0]
    assert not moved[distance >= 0.03].any() and moved[distance < 0.01].mean() > 0.7  # upper teeth stay
    for name in ("scalp", "neck", "ears", "eyes", "eyelids", "forehead"):
        assert not moved[head.regions[name]].any(), name
    nose_tip = head.v_template[:, 2].argmax()
    middle = (abs(head.v_template[:, 0]) < 1e-4) & head.regions["face"] & (head.v_template[:, 2] > 0)
    below = middle & (head.v_template[:, 1] < -0.076)  # the chin from its most forward point on down
    assert not moved[nose_tip] and below.sum() >= 5 and not moved[below].any()
    assert np.array_equal(new.min(0), old.min(0)) and np.array_equal(new.max(0), old.max(0))


def test_the_lips_are_parted_in_the_middle_and_meet_at_the_corners(head, rims):
    upper, lower = rims
    gap, _ = cKDTree(head.canonical[upper]).query(head.canonical[lower])
    assert gap.min() > 0.02
    scale = canonical_frame(head.v_template).scale
    middle = abs(head.v_template[:, 0]) < 1e-4
    up, down = (next(v for v in side if middle[v]) for side in rims)
    assert 0.009 < np.linalg.norm(head.canonical[up] - head.canonical[down]) / scale < 0.0102
    shift = head.canonical - head.with_cube(1).canonical
    assert shift[up, 1] > 0.006 and shift[down, 1] < -0.018 and shift[down, 2] < -0.005  # down and back, as the jaw goes
    corner = np.flatnonzero(head.regions["lip_inner_rim"] & (head.v_template[:, 0] > 0.0223))
    assert len(corner) >= 3 and np.ptp(head.canonical[corner], axis=0).max() < 0.006


@pytest.mark.parametrize("part", ["outer skin", "mouth_interior"])
def test_nothing_folds_over(head, part):
    inside = head.regions["mouth_interior"]
    mask = inside if part == "mouth_interior" else head.regions["face"] & ~inside
    faces = head.faces[mask[head.faces].all(1)]
    old, new = (crossed(points, faces) for points in (head.with_cube(1).canonical, head.canonical))
    before, after = np.linalg.norm(old, axis=1), np.linalg.norm(new, axis=1)
    assert ((old * new).sum(1) / (before * after)).min() > 0.9
    ratio = after / before
    assert 0.6 < ratio.min() and ratio.max() < 1.6


def test_what_hangs_on_the_jaw_follows_the_lower_lip(head):
    shift = (head.canonical - head.with_cube(1).canonical)[:, 1]
    front = head.v_template[:, 2] > 0.045
    assert shift[head.regions["lower_teeth"] & front].max() < -0.006 and shift[head.regions["tongue"]].min() < -0.005
    assert not shift[head.regions["upper_teeth"]].any()


def test_left_and_right_are_mirror_images(head):
    mirrored = head.canonical * [-1, 1, 1] + [1, 0, 0]
    pairs = cKDTree(head.v_template).query(head.v_template * [-1, 1, 1])[1]
    assert abs(head.canonical[pairs] - mirrored).max() < 1e-4


# --- heads ----------------------------------------------------------------------------------------------------------


def test_files_say_which_cube_they_are_in(tmp_path):
    head = tiny_head().with_cube(2)
    assert not np.array_equal(head.canonical, tiny_head().canonical)
    save_npz(head, tmp_path / "new.npz")
    read = load_npz(tmp_path / "new.npz")
    assert read.cube == 2 and np.array_equal(read.canonical, head.canonical)
    assert np.array_equal(load_head(tmp_path / "new.npz").canonical, head.canonical)  # not parted twice
    save_npz(head.with_cube(1), tmp_path / "old.npz")
    assert load_npz(tmp_path / "old.npz").cube == 1


def test_a_head_without_named_rims_is_parted_at_its_landmarks(head):
    """As FLAME: no ARKit names, no rims; the jaw joint and the 68 points remain."""
    bare = dataclasses.replace(head.with_cube(1), regions={}, expression_names=tuple(f"expr{k:03d}" for k in range(head.n_expression)))
    new = bare.with_cube(2).canonical - bare.canonical
    lower = head.regions["lips"] & (mouth_parting(head)[:, 1] < -0.004)
    usual = head.canonical - head.with_cube(1).canonical
    assert abs(new - usual)[lower].max() < 0.003
    nowhere = dataclasses.replace(bare, landmarks={})
    assert np.array_equal(nowhere.with_cube(2).canonical, bare.canonical)


def test_a_cube_with_other_axes_is_parted_along_them(head):
    first = head.with_cube(1)
    turned = dataclasses.replace(first, canonical=0.5 * first.canonical[:, [1, 2, 0]] + 0.2).with_cube(2)
    np.testing.assert_allclose(turned.canonical, 0.5 * head.canonical[:, [1, 2, 0]] + 0.2, atol=1e-5)


def test_unknown_versions_are_refused(head):
    with pytest.raises(AssetError, match="no version 3"):
        head.with_cube(3)


# --- networks -------------------------------------------------------------------------------------------------------


def test_old_networks_speak_version_1_and_new_ones_say_what_they_speak(tmp_path):
    assert "cube" not in read_header(SHIPPED)[1] or int(read_header(SHIPPED)[1]["cube"]) == network_cube("lite")
    assert network_cube("official") == 1
    net = LiteNet(TINY)
    for name, given, wanted in (("new", {}, 2), ("told", {"cube": 1}, 1)):
        path = tmp_path / f"{name}.safetensors"
        save_network(path, net, **given)
        assert network_cube(path) == wanted == load_network(path).cube == fast_network(path, device="cpu", cache=tmp_path).cube
    from safetensors.torch import save_file

    about = {"architecture": "densemarks-lite", "config": json.dumps(TINY.to_dict())}
    save_file(dict(net.state_dict()), str(tmp_path / "old.safetensors"), about)
    assert network_cube(tmp_path / "old.safetensors") == 1 == load_network(tmp_path / "old.safetensors").cube
    save_file(dict(net.state_dict()), str(tmp_path / "later.safetensors"), about | {"cube": "7"})
    with pytest.raises(ModelError, match="version 7 of the canonical cube"):
        load_network(tmp_path / "later.safetensors")


def test_checkpoints_of_the_trainer_say_it_too(tmp_path):
    state = {"average": LiteNet(TINY).state_dict(), "network": TINY.to_dict()}
    for name, entry, wanted in (("old", {}, 1), ("new", {"cube": 2}, 2)):
        path = tmp_path / f"{name}.pt"
        torch.save(state | entry, path)
        assert read_training_checkpoint(path)[2] == wanted == load_network(path).cube == network_cube(path)


def test_a_head_in_another_cube_than_the_networks_is_refused(head, tmp_path):
    save_network(tmp_path / "old.safetensors", LiteNet(TINY), cube=1)
    with pytest.raises(ModelError, match="head is in 2"):
        HeadEmbedder(tmp_path / "old.safetensors", "cpu", head, spread_sites(head, 20))


# --- comparing ------------------------------------------------------------------------------------------------------


def test_locations_go_back_to_version_1(head):
    rng = np.random.default_rng(0)
    old = head.with_cube(1).canonical
    faces = head.faces[head.regions["face"][head.faces].all(1)]
    weights, corners = rng.dirichlet([1, 1, 1], 3000), rng.choice(faces, 3000)
    new, first = (np.einsum("nk,nkc->nc", weights, c[corners]) for c in (head.canonical, old))
    back = in_cube(new, 2, 1)
    error = np.linalg.norm(back - first, axis=1)
    assert error.max() < 0.002 < np.linalg.norm(new - first, axis=1).max()
    assert in_cube(new, 2, 2) is new
    with pytest.raises(ModelError, match="render them again"):
        in_cube(first, 1, 2)


def test_synthetic_pictures_of_another_cube_are_converted_or_refused(head, rims, tmp_path):
    """A network of version 1 that is right is found right on pictures of version 2; the other way is refused."""
    places = head.canonical[rims[1]][:4]
    truth = np.repeat(places, 4, 0).reshape(4, 4, 1, 3).repeat(4, 2).astype(np.float16)
    np.zeros((4, 8, 8, 3), np.uint8).tofile(tmp_path / "images.u8")
    truth.tofile(tmp_path / "coordinates.f16")
    np.full((4, 4, 4, 2), 255, np.uint8).tofile(tmp_path / "masks.u8")
    known = {2: truth.astype(np.float32), 1: np.broadcast_to(head.with_cube(1).canonical[rims[1]][:4, None, None], truth.shape)}

    def error(shard: int | None, cube: int) -> float:
        meta = {"count": 4, "image_size": 8, "map_size": 4} | ({} if shard is None else {"cube": shard})
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        answers = iter([dataclasses.make_dataclass("Maps", ["coordinates", "confidence"])(known[cube], np.ones((4, 4, 4)))])
        network = Network("right", "numpy", lambda images: next(answers), 8, cube)
        return evaluate_synthetic(network, open_shards(tmp_path), rounds=0)["mean_error"].value

    assert error(2, 2) < 1e-3 and error(2, 1) < 2e-3
    assert error(None, 1) > 0.015  # version 2 read as version 1 would be off by as much as the lips moved
    with pytest.raises(ModelError, match="render them again"):
        error(None, 2)


def test_landmarks_are_compared_in_the_networks_cube():
    lower_rim = [14, 17, 87, 317]  # MediaPipe's, of the lower lip
    assert (model_places(1)[lower_rim, 1] - model_places(2)[lower_rim, 1]).min() > 0.012
    assert np.array_equal(model_places(1)[1], model_places(2)[1])  # the nose's tip


# --- sites ----------------------------------------------------------------------------------------------------------


def test_sites_on_the_lips_come_after_the_others(head, sites):
    without = spread_sites(head, 400)
    assert len(without) == 400 and len(sites) == 400 + 2 * LIP_SITES
    assert np.array_equal(sites.canonical[:400], without.canonical) and sites.spacing == without.spacing
    upper, lower = sites.canonical[400 : 400 + LIP_SITES], sites.canonical[400 + LIP_SITES :]
    assert cKDTree(upper).query(lower)[0].min() > 0.015
    for part in (upper, lower):
        assert cKDTree(part).query(part, k=2)[0][:, 1].min() > 0.008 and np.ptp(part[:, 0]) > 0.09


@pytest.mark.parametrize("lower", [False, True])
def test_pixels_of_one_lip_are_never_given_to_the_other(head, sites, lower, rims):
    """Pixels all over a lip, its rim included, one to a crop's row."""
    rng = np.random.default_rng(1)
    triangles = rng.choice(lip_triangles(head)[lower], 4000)
    points = np.einsum("nk,nkc->nc", rng.dirichlet([1, 1, 1], 4000), head.canonical[head.faces[triangles]])
    points = np.concatenate([points[: 4096 - len(rims[lower])], head.canonical[rims[lower]]])
    points = np.concatenate([points, points[: 4096 - len(points)]]).reshape(64, 64, 3).astype(np.float32)
    ones = np.ones((64, 64), np.float32)
    pooled = pool(EmbeddingRecord(HeadCrop(np.zeros(2), 64.0), points, ones, 0.01 * ones, 0 * ones), sites)
    own, other = (pooled.weight[400 + k * LIP_SITES :][:LIP_SITES] for k in (int(lower), 1 - int(lower)))
    assert (own > 0).all() and not other.any() and own.sum() > 0.95 * 4096


def test_a_lower_rims_pixel_belongs_to_a_lower_lips_site(head, rims, sites):
    cells = sites.grid.shape[0]
    for side, first in ((0, 400), (1, 400 + LIP_SITES)):
        named = sites.grid[tuple((head.canonical[rims[side]] * cells).astype(int).T)]
        assert ((named >= first) & (named < first + LIP_SITES)).all()


def test_lips_of_version_1_cannot_be_sites(head):
    with pytest.raises(AssetError, match="the lips touch"):
        spread_sites(head.with_cube(1), 50, lips=True)
    unnamed = dataclasses.replace(tiny_head().with_cube(2), regions={})
    assert len(spread_sites(unnamed, 50, lips=True)) == 50
