"""Synthetic pictures: exact coordinates, masks that mean what they say, repeatable, shards that resume."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from densemarks_model.crops import HeadCrop
from densemarks_model.data.synthetic import accessories, hair, palette
from densemarks_model.data.synthetic.__main__ import main
from densemarks_model.data.synthetic.mesh import strip_faces, tube, vertex_normals
from densemarks_model.data.synthetic.people import Pose, head_kit, pose_head, random_expression, random_person
from densemarks_model.data.synthetic.repertoire import FULL
from densemarks_model.data.synthetic.scene import SceneRenderer, View, extended


@pytest.fixture(scope="module")
def renderer() -> SceneRenderer:
    return SceneRenderer(image_size=128, map_size=32)


def test_the_same_number_gives_the_same_picture(renderer):
    first, again, other = renderer.sample(3, 7), SceneRenderer(128, 32).sample(3, 7), renderer.sample(3, 8)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.coordinates, again.coordinates)
    assert np.abs(first.image.astype(float) - other.image).mean() > 5


def test_coordinates_are_those_of_the_projected_vertices():
    """Vertices that face the camera, projected by hand, find their own canonical coordinates in the map."""
    rng = np.random.default_rng(0)
    person, kit = random_person(rng), head_kit()
    head, _, _ = pose_head(person, random_expression(rng), Pose(np.zeros(3), np.zeros(6)))
    view = View(np.eye(3), np.array([0.02, 0.01, -0.8]), HeadCrop(np.array([0.02, 0.0]), 0.5, 0.2), 0.0, 0.0)
    posed = head.moved(view.rotation, view.translation)
    coordinates, surface = SceneRenderer(256, 64)._truth(posed, view)
    normals = vertex_normals(posed.vertices, posed.faces)
    nose = kit.asset.regions["forehead"] | kit.asset.regions["cheeks"]
    facing = np.flatnonzero(nose & (normals[:, 2] > 0.7))
    x, y, z = posed.vertices[facing].T
    pixels = view.crop.to_crop(np.stack([x / -z, -y / -z], 1), 64)
    read = cv2.remap(np.dstack([coordinates, surface]), *(pixels - 0.5).astype(np.float32).T[..., None], cv2.INTER_LINEAR)[:, 0]
    error = np.linalg.norm(read[:, :3] - kit.asset.canonical[facing], axis=1)
    assert len(facing) > 60 and (read[:, 3] == 1).all()
    assert np.median(error) < 0.0025 and error.max() < 0.008  # a cell of the map is 0.02 of the cube wide
    assert np.abs(np.median(read[:, :2] - kit.asset.canonical[facing, :2], axis=0)).max() < 3e-4  # no shift of half a cell


def test_head_mask_means_skin_and_hair(renderer):
    for index in range(4):
        sample = renderer.sample(11, index)
        assert sample.head.min() >= 0 and sample.head.max() <= 1
        assert sample.coordinates.min() >= 0 and sample.coordinates.max() <= 1
        assert 0.02 < sample.surface.mean() < 0.9


def test_a_few_pictures_show_no_head(renderer, monkeypatch):
    monkeypatch.setattr("densemarks_model.data.synthetic.scene.EMPTY_SHARE", 1.1)
    sample = renderer.sample(11, 0)
    assert sample.image.shape == (128, 128, 3) and sample.image.std() > 1
    assert sample.head.max() == 0 and sample.surface.max() == 0


def test_values_continue_from_the_nearest_known_one():
    values = np.zeros((5, 5, 2), np.float32)
    known = np.zeros((5, 5), bool)
    values[1, 1], known[1, 1] = [1, 2], True
    values[4, 4], known[4, 4] = [3, 4], True
    got = extended(values, known)
    np.testing.assert_array_equal(got[0, 0], [1, 2])
    np.testing.assert_array_equal(got[4, 3], [3, 4])
    np.testing.assert_array_equal(extended(values, np.zeros((5, 5), bool)), np.full((5, 5, 2), 0.5))


def test_bends_leave_the_identity_basis():
    """Held-out people must not be people that a fit could reach exactly."""
    kit = head_kit()
    person = random_person(np.random.default_rng(5))
    basis = kit.asset.shapedirs[:, :, : kit.asset.n_identity].reshape(-1, kit.asset.n_identity).astype(np.float64)
    bend = person.bend.reshape(-1).astype(np.float64)
    left = bend - basis @ np.linalg.lstsq(basis, bend, rcond=None)[0]
    assert np.linalg.norm(left) > 0.1 * np.linalg.norm(bend) > 0


def test_hair_starts_on_the_scalp_and_stays_outside():
    kit = head_kit()
    rng = np.random.default_rng(2)
    person = random_person(rng)
    style = hair.HairStyle(0.25, None, 0.2, 25, 0, 0, 0.1, 0.01, 0.0, (0, 0, -1), None, 0, 400, 0.003)
    obstacles = person.rest[kit.outside], person.normals[kit.outside]
    strands, along = hair.grow(style, person.rest, person.normals, kit.asset.faces, person.hair_density, obstacles, rng)
    assert strands.shape == (400, along.shape[1], 3) and np.isfinite(strands).all()
    assert np.allclose(along[:, 0], 0) and np.allclose(along[:, -1], 1)
    _, nearest = cKDTree(obstacles[0]).query(strands[:, 4:])
    depth = np.sum((strands[:, 4:] - obstacles[0][nearest]) * obstacles[1][nearest], -1)
    assert (depth < -0.004).mean() < 0.01
    lengths = np.linalg.norm(np.diff(strands, axis=1), axis=-1).sum(1)
    assert 0.15 < np.median(lengths) < 0.35


def test_ribbons_face_the_eye():
    strand = np.stack([np.zeros(5), np.linspace(0, -0.1, 5), np.zeros(5)], 1)[None]
    mesh = hair.ribbons(strand, np.linspace(0, 1, 5)[None], np.array([0, 0, 1.0]), 0.01, np.ones(3), 0.5, np.random.default_rng(0))
    assert np.ptp(mesh.vertices[:, 2]) < 1e-6 and np.ptp(mesh.vertices[:, 0]) > 0.005


@pytest.mark.parametrize("make", [accessories.glasses, accessories.hat, accessories.headphones, accessories.shoulders])
def test_worn_things_are_near_the_head_and_finite(make):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for mesh in make(random_person(rng), rng):
            assert np.isfinite(mesh.vertices).all() and mesh.faces.max() < len(mesh.vertices)
            assert np.abs(mesh.vertices).max() < 0.6


def test_a_hand_has_a_hands_size():
    mesh = accessories.hand(np.ones(3) * 0.5, np.zeros(3), np.random.default_rng(0))
    assert 0.14 < np.linalg.norm(np.ptp(mesh.vertices, axis=0)) < 0.45


def test_blink_closes_eyes_only_when_asked():
    values = np.stack([random_expression(np.random.default_rng(k)) for k in range(60)])
    assert values.min() >= 0 and values.max() <= 1
    names = head_kit().asset.expression_names
    assert (values[:, names.index("mouthClose")] <= values[:, names.index("jawOpen")] + 1e-6).all()


def test_tubes_are_closed_and_point_outwards():
    vertices, faces = tube(np.array([[0, 0, 0], [0, 0, 1.0], [0, 0, 2.0]]), 0.1, sides=8)
    radial = vertices[:, :2] / np.linalg.norm(vertices[:, :2], axis=1, keepdims=True)
    outward = np.sum(vertex_normals(vertices, faces)[:, :2] * radial, 1)
    assert (np.abs(outward) > 0.9).all() and len(set(np.sign(outward))) == 1
    assert len(strip_faces(3, 4, closed_columns=False)) == 2 * 2 * 3


def test_skins_and_hair_stay_colours():
    rng = np.random.default_rng(0)
    for _ in range(50):
        skin, lips, darkness = palette.skin_and_lips(rng)
        assert 0 <= darkness <= 1 and skin.min() > 0 and lips.max() < 1
        assert 0 < palette.hair(rng, darkness).min() and palette.hair(rng, darkness).max() <= 1


def test_shards_are_written_once_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("densemarks_model.data.synthetic.__main__.SHARD", 2)
    arguments = ["--out", str(tmp_path), "--count", "4", "--image-size", "64", "--map-size", "16", "--no-panoramas"]
    monkeypatch.setattr("densemarks_model.data.synthetic.__main__.ProcessPoolExecutor", _Inline)
    assert main(arguments) == 0
    meta = json.loads((tmp_path / "shard_0001" / "meta.json").read_text())
    assert meta["first_index"] == 2 and len(meta["yaw_deg"]) == 2
    images = np.fromfile(tmp_path / "shard_0001" / "images.u8", np.uint8).reshape(2, 64, 64, 3)
    np.testing.assert_array_equal(images[1], SceneRenderer(64, 16, replace(FULL, panorama_share=0.0)).sample(1, 3).image)
    assert main(arguments) == 0
    assert "2 of 2 shards are there" in capsys.readouterr().out
    assert not list(tmp_path.glob(".shard-*"))


class _Inline:
    """Runs jobs in this process, so that the patched shard size holds for them."""

    def __init__(self, workers: int) -> None:
        pass

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)
