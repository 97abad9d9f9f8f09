"""Cycles pictures: the camera is the view's, hairs keep their roots, shards resume picture by picture; and, with bpy, exact coordinates."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from densemarks_model.crops import HeadCrop
from densemarks_model.data import panoramas
from densemarks_model.data.cycles import camera, shelf, strands, studio
from densemarks_model.data.cycles.blender import load_bpy
from densemarks_model.data.cycles.photographer import VISITS, neckwear, person_of, pictures_of
from densemarks_model.data.cycles.studio import even_rims
from densemarks_model.data.cycles.wardrobe import NECKWEAR, Wardrobe, random_wardrobe
from densemarks_model.data.synthetic import accessories
from densemarks_model.data.synthetic.mesh import strip_faces
from densemarks_model.data.synthetic.people import Pose, head_kit, pose_head, random_person
from densemarks_model.data.synthetic.scene import Sample, SceneRenderer
from densemarks_model.data.synthetic.views import View
from densemarks_model.errors import ModelError

needs_bpy = pytest.mark.skipif(find_spec("bpy") is None, reason="Cycles' camera and coverage NOT CHECKED: no bpy installed (extra [cycles])")

ROOT = Path(__file__).resolve().parent.parent
OFF_AXIS = HeadCrop(np.array([0.05, -0.03]), 0.42, 0.5)
BODY = cv2.Rodrigues(np.array([0.15, 0.5, -0.1]))[0]
VIEW = View(BODY, np.array([0.03, 0.02, -0.9]), OFF_AXIS, 0.0, 0.0)


@pytest.fixture(scope="module")
def person():
    return random_person(np.random.default_rng(5))


def test_blender_is_not_imported_before_a_studio_opens():
    script = "import sys, densemarks_model.data.cycles.photographer, densemarks_model.data.cycles.__main__; sys.exit('bpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_without_blender_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "bpy", None)
    with pytest.raises(ModelError, match="pip install bpy"):
        load_bpy()


def test_lens_projects_like_the_view():
    """Blender's pinhole written out by hand: turn by roll, divide, shift in widths."""
    points = np.random.default_rng(0).normal(0, 0.1, (40, 3)) - [0, 0, 0.8]
    clip = VIEW.clip(points)
    lens = camera.lens_of(OFF_AXIS)
    cos, sin = np.cos(lens.roll), np.sin(lens.roll)
    local = points @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])  # the inverse of the camera's turn
    plane = local[:, :2] / -local[:, 2:] * lens.focal / camera.SENSOR - [lens.shift_x, lens.shift_y]
    np.testing.assert_allclose(2 * plane, clip[:, :2] / clip[:, 3:], atol=1e-6)


def test_background_shows_where_the_camera_looks():
    """A panorama whose colours are its own directions."""
    world = cv2.Rodrigues(np.array([0.2, 1.1, -0.3]))[0]
    picture = camera.background(panoramas.directions(256, 512) + 1, camera.OPENGL_TO_BLENDER @ world, OFF_AXIS, 32, 0.0) - 1
    position = np.arange(32) + 0.5
    plane = OFF_AXIS.to_frame(np.stack(np.meshgrid(position, position), -1).reshape(-1, 2), 32)
    rays = np.concatenate([plane * [1, -1], -np.ones((len(plane), 1))], 1)
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True) @ world.T
    np.testing.assert_allclose(picture.reshape(-1, 3), rays, atol=2e-3)


def test_upright_panorama_has_the_horizon_level():
    axes = camera.panorama_axes(np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(axes, camera.OPENGL_TO_BLENDER, atol=1e-12)
    up = np.array([0.2, 0.9, 0.4])
    tilted = camera.panorama_axes(up)
    np.testing.assert_allclose(tilted @ tilted.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(tilted @ up / np.linalg.norm(up), [0, 0, 1], atol=1e-12)
    assert np.linalg.det(tilted) > 0 and np.isfinite(camera.panorama_axes(np.array([0.0, 0.0, 1.0]))).all()


def test_short_hairs_follow_the_skin(person):
    rng = np.random.default_rng(1)
    names = head_kit().asset.expression_names
    blink = np.array([n in ("eyeBlinkLeft", "eyeBlinkRight", "browInnerUp") for n in names], np.float32)
    blinking = pose_head(person, blink, Pose(np.zeros(3), np.zeros(6)))[0].vertices
    turn = cv2.Rodrigues(np.array([0.3, -0.8, 0.2]))[0]
    for hairs in (strands.brows(person, rng), strands.lashes(person, rng), strands.beard(person, 0.01, rng, "full")):
        at_rest = hairs.on(person.rest)
        np.testing.assert_allclose(hairs.on(person.rest @ turn.T + [0.1, 0, -1]), at_rest @ turn.T + [0.1, 0, -1], atol=2e-6)
        roots = np.einsum("nk,nkc->nc", hairs.barycentrics, blinking[hairs.corners])
        np.testing.assert_allclose(hairs.on(blinking)[:, 0], roots, atol=1e-6)
        if hairs.barycentrics[:, 2].max() > 0:  # lashes stand on rims, whose normals point across the eye
            outwards = np.einsum("nk,nkc->nc", hairs.barycentrics, person.normals[hairs.corners])
        else:
            ball = np.abs(person.rest[head_kit().asset.regions["left_eyeball"]].mean(0))
            outwards = at_rest[:, 0] - ball * np.stack([np.sign(at_rest[:, 0, 0]), *np.ones((2, len(at_rest)))], 1)
        assert (np.sum((at_rest[:, -1] - at_rest[:, 0]) * outwards, 1) > 0).mean() > 0.9  # out of the skin, not into it
    lashes = strands.lashes(person, np.random.default_rng(1))
    upper = lashes.on(person.rest)[:, -1, 1] > lashes.on(person.rest)[:, 0, 1] + 0.001
    assert np.abs(lashes.on(blinking)[upper, 0, 1] - lashes.on(person.rest)[upper, 0, 1]).max() > 0.004  # lids take them along


def test_many_strands_from_few_stay_near_them_and_keep_the_parting():
    """Guides to the left and right of a parting: nothing grows straight down between them."""
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.uniform(0.001, 0.02, 60), -rng.uniform(0.001, 0.02, 60)])
    root = np.stack([x, 0 * x, rng.uniform(-0.02, 0.02, 120)], 1)
    t = np.linspace(0, 0.1, 8)
    guides = root[:, None] + t[None, :, None] * np.stack([np.sign(x), 0 * x - 0.2, 0 * x], 1)[:, None]
    grown = strands.thicken(guides, 3000, 0.0001, rng)
    assert grown.points.shape == (3000, 8, 3) and grown.radius[-1] < grown.radius[0]
    tip = grown.points[:, -1, 0] - grown.points[:, 0, 0]
    assert (np.abs(tip) > 0.05).mean() > 0.99
    nearest = np.linalg.norm(grown.points[:, :1] - root[None], axis=-1).min(1)
    assert np.percentile(nearest, 99) < 0.008


def test_cut_cloth_is_straight():
    """The open edge of a sheet cut along triangles loses its teeth; the inside stays."""
    x, y = np.meshgrid(np.arange(20.0), np.arange(5.0))
    sheet = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    sheet[1:20:2, 1] -= 0.8
    smooth = even_rims(sheet, strip_faces(5, 20, closed_columns=False))
    assert np.ptp(smooth[4:16, 1]) < 0.1 and np.ptp(sheet[4:16, 1]) == 0.8
    np.testing.assert_allclose(smooth[21:39], sheet[21:39], atol=1e-6)


def test_wardrobes_are_drawn_like_the_fast_generators(person):
    drawn = [random_wardrobe(np.random.default_rng([1, k])) for k in range(300)]
    assert drawn[7] == random_wardrobe(np.random.default_rng([1, 7]))
    assert 0.2 < np.mean([w.glasses is not None for w in drawn]) < 0.36
    assert 0.06 < np.mean([w.hat is not None for w in drawn]) < 0.18
    assert {w.neckwear for w in drawn} == {None, *NECKWEAR}
    assert all(w.beard is None and w.beard_kind is None for w in (random_wardrobe(np.random.default_rng(k), adult=False) for k in range(9)))
    head = pose_head(person, np.zeros(52, np.float32), Pose(np.zeros(3), np.zeros(6)))[0]
    for kind in NECKWEAR:
        assert neckwear(head, Wardrobe(neckwear=kind, clothes=4))
    assert neckwear(head, Wardrobe()) == []


def test_every_picture_belongs_to_one_person():
    seen = [i for k in range(3 * len(VISITS)) for i in pictures_of(k)]
    assert seen == list(range(3 * sum(VISITS)))
    assert all(person_of(i) == (k, n) for k in range(9) for n, i in enumerate(pictures_of(k)))


def _sample(number: int) -> Sample:
    full = np.full((4, 4), number / 100, np.float32)
    return Sample(np.full((16, 16, 3), number, np.uint8), np.full((4, 4, 3), 0.5, np.float32), full, full, float(number), -1.0)


def test_shards_grow_picture_by_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "SHARD", 4)
    first = shelf.Shelf(tmp_path, 3, 16, 4, 8)
    for index in (4, 6, 5):
        first.put(index, _sample(index))
    again = shelf.Shelf(tmp_path, 3, 16, 4, 8)  # another process, or after an interruption
    assert [again.has(i) for i in range(4, 8)] == [True, True, True, False]
    assert not again.join(1) and not (tmp_path / "shard_0001").exists()
    again.put(7, _sample(7))
    assert again.join(1) and again.join(1) and again.has(5)
    folder = tmp_path / "shard_0001"
    images = np.fromfile(folder / "images.u8", np.uint8).reshape(4, 16, 16, 3)
    masks = np.fromfile(folder / "masks.u8", np.uint8).reshape(4, 4, 4, 2)
    assert images[:, 0, 0, 0].tolist() == [4, 5, 6, 7] and masks[3, 0, 0].tolist() == [18, 18]
    assert np.fromfile(folder / "coordinates.f16", np.float16).size == 4 * 4 * 4 * 3
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["generator"] == "densemarks_model.data.cycles" and meta["first_index"] == 4 and meta["yaw_deg"] == [4, 5, 6, 7]
    with pytest.raises(ModelError, match="other settings"):
        shelf.Shelf(tmp_path, 4, 16, 4, 8)
    again.clear_up()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard_0001"]


@pytest.mark.skipif(shelf.fcntl is None, reason="locks of files are POSIX'")
def test_a_person_is_taken_by_one_process_at_a_time(tmp_path):
    pictures = shelf.Shelf(tmp_path, 3, 16, 4, 8)
    with pictures.taken("person-1") as ours, pictures.taken("person-1") as too, pictures.taken("person-2") as other:
        assert ours and not too and other
    with pictures.taken("person-1") as ours:
        assert ours


_BLENDER = """
import sys, numpy as np, torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
from test_cycles import GLASSES, VIEW, bald_head
from densemarks_model.data.cycles.studio import Studio
from densemarks_model.data.cycles.wardrobe import Wardrobe
from densemarks_model.data.synthetic.hair import HairStyle
person, head, rotation, offset = bald_head()
room = np.ones((8, 16, 3), np.float32) * [1, 0.9, 0.8]
room[2, 3] = 50
truth = Studio(96, 2, 1, canonical=True)
truth.set_up(person, Wardrobe(), room)
places = truth.photograph(head, rotation, offset, VIEW)
studio = Studio(64, 2, 1)
style = HairStyle(0.05, None, 0.4, 8.0, 0, 0, 0.2, 0.01, None, (0.0, -0.2, -1.0), None, 0, 1500, 0.002)
pictures = []
everything = Wardrobe(style, 0.01, GLASSES, 1, 2, 3, 3, beard_kind="full")
for wardrobe in (Wardrobe(seed=3), everything, Wardrobe(seed=3)):
    studio.set_up(person, wardrobe, room)
    pictures.append(studio.frame(head, rotation, offset, VIEW))
    studio.frame(head, rotation, offset, type(VIEW)(VIEW.rotation.T, VIEW.translation, VIEW.crop, 0, 0))
    pictures.append(studio.frame(head, rotation, offset, VIEW))
np.savez(sys.argv[1], places=places.linear, head=places.head, pictures=np.stack(pictures))
"""

GLASSES = 6
"""Seed of a pair of sunglasses."""


def test_rims_and_dark_lenses_are_known_by_their_size(person):
    """The studio puts panes into rims; the fast generator's glasses do not say which of their parts are rims."""
    sizes = [[len(m.vertices) for m in accessories.glasses(person, np.random.default_rng([k, 2]))] for k in range(12)]
    assert all(found.count(studio._RIM) == 2 and found.count(studio._DARK_LENS) in (0, 2) for found in sizes)
    assert sizes[GLASSES].count(studio._DARK_LENS) == 2


def bald_head():
    """A person with an open mouth, turned neck; also called in Blender's process."""
    someone = random_person(np.random.default_rng(5))
    names = head_kit().asset.expression_names
    expression = np.array([0.6 if n == "jawOpen" else 0.0 for n in names], np.float32)
    return someone, *pose_head(someone, expression, Pose(np.array([0.1, -0.3, 0.05]), np.zeros(6)))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Made in a process of its own: Blender keeps one state a process, and need not share it with the other tests."""
    path = tmp_path_factory.mktemp("cycles") / "rendered.npz"
    done = subprocess.run([sys.executable, "-c", _BLENDER, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert path.is_file(), done.stderr[-2000:]
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@needs_bpy
def test_coordinates_of_the_picture_are_those_of_the_rasteriser(rendered):
    """The path tracer writes each vertex' place in the cube into the picture it makes; our rasteriser draws the same map."""
    _, head, _, _ = bald_head()
    coordinates, surface = SceneRenderer(96, 96)._truth(head.moved(VIEW.rotation, VIEW.translation), VIEW)
    covered = (surface == 1) & (rendered["head"] == 1)  # shoulders hide a part of the neck
    difference = rendered["places"] - coordinates
    error = np.linalg.norm(difference, axis=-1)[covered]
    assert covered.sum() > 1500
    assert np.percentile(error, 99.5) < 0.004 and np.median(error) < 2e-4  # the rest: pixels on folds, where a ray meets the other side
    assert np.abs(np.median(difference[covered], axis=0)).max() < 1e-4  # no shift: a pixel is 0.012 of the cube


@needs_bpy
def test_coverage_is_the_heads(rendered):
    _, head, _, _ = bald_head()
    _, surface = SceneRenderer(96, 96)._truth(head.moved(VIEW.rotation, VIEW.translation), VIEW)
    shown = rendered["head"]
    assert shown.max() <= 1 and (shown > surface + 0.75).mean() < 0.01
    visible = surface * (np.arange(96)[:, None] < 60)  # further down shoulders hide the neck
    assert np.minimum(shown, visible).sum() / visible.sum() > 0.98


@needs_bpy
def test_studios_keep_nothing_of_earlier_people_and_poses(rendered):
    bald, bald_again, hairy, hairy_again, last, _ = rendered["pictures"].astype(int)
    assert np.abs(bald - bald_again).max() <= 1 and np.abs(hairy - hairy_again).max() <= 1 and np.abs(bald - last).max() <= 1
    assert np.abs(bald - hairy).mean() > 2 and bald.std() > 10
