"""The wider set of synthetic pictures: plain pictures stay as they are, and every addition is where and what it says it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from densemarks_model.crops import HeadCrop
from densemarks_model.data.synthetic import dressing, faults, hair_styles, looks, mouths, scene, short_hair, worn
from densemarks_model.data.synthetic.mesh import HAIR_PART, OTHER, Mesh
from densemarks_model.data.synthetic.people import Person, Pose, head_kit, pose_head, random_expression, random_person
from densemarks_model.data.synthetic.repertoire import FULL, PLAIN, Repertoire
from densemarks_model.data.synthetic.scene import SceneRenderer
from densemarks_model.data.synthetic.views import View, axis, random_pose, wide_pose, wide_view

EYE = np.array([0.0, 0.0, 0.8])


@pytest.fixture(scope="module")
def someone() -> tuple[Person, Mesh]:
    rng = np.random.default_rng(4)
    person = random_person(rng)
    head, _, _ = pose_head(person, np.zeros(len(head_kit().asset.expression_names), np.float32), Pose(np.array([0.1, 0.3, 0.0]), np.zeros(6)))
    return person, head


def depth_in_head(points: np.ndarray, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """How far ``points`` lie outside the tangent plane of the nearest vertex of the head's outside, metres; below zero is inside.

    Points further than 12 mm from any vertex count as outside: beyond the jaw's edge its plane says nothing.
    """
    outside = head_kit().outside
    distance, nearest = cKDTree(vertices[outside]).query(points)
    depth = np.sum((points - vertices[outside][nearest]) * normals[outside][nearest], -1)
    return np.where(distance < 0.012, depth, 1.0)


def only(**shares: float) -> Repertoire:
    return replace(PLAIN, **shares)


def test_shares_are_shares():
    with pytest.raises(ValueError, match="blur_share"):
        Repertoire(blur_share=1.5)
    assert not any(vars(PLAIN).values()) and all(vars(FULL).values())


def test_plain_pictures_do_not_depend_on_the_additions(monkeypatch):
    """Whatever numbers the additions' stream gives, a plain picture is the same; a picture of the full set is not."""
    genuine = np.random.default_rng

    def other(seed=None):
        return genuine([*seed[:2], 99]) if isinstance(seed, list) and len(seed) == 3 and seed[2] == 2 else genuine(seed)

    plain = [SceneRenderer(64, 16, PLAIN).sample(3, k) for k in (7, 8)]
    full = SceneRenderer(64, 16, replace(FULL, panorama_share=0.0)).sample(3, 7)
    monkeypatch.setattr(scene.np.random, "default_rng", other)
    for first, index in zip(plain, (7, 8), strict=True):
        again = SceneRenderer(64, 16, PLAIN).sample(3, index)
        np.testing.assert_array_equal(first.image, again.image)
        np.testing.assert_array_equal(first.coordinates, again.coordinates)
        np.testing.assert_array_equal(first.head, again.head)
    assert (SceneRenderer(64, 16, replace(FULL, panorama_share=0.0)).sample(3, 7).image != full.image).any()


def test_a_full_picture_is_the_same_every_time():
    everything = only(**{name: 1.0 for name in vars(FULL) if name != "panorama_share"})
    first, again = (SceneRenderer(64, 16, everything).sample(5, 3) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.head, again.head)


@pytest.mark.parametrize("kind", list(hair_styles.KINDS))
def test_loose_hair_grows_from_the_scalp_and_stays_outside_of_the_head(kind, someone):
    person, _ = someone
    kit, rng = head_kit(), np.random.default_rng(len(kind))
    style = replace(hair_styles.wide_style(rng, kind), strands=2400)
    obstacles = person.rest[kit.outside], person.normals[kit.outside]
    strands, along = hair_styles.grow_wide(style, person.rest, person.normals, kit.asset.faces, person.hair_density, obstacles, rng)
    assert strands.shape == (2400, along.shape[1], 3) and np.isfinite(strands).all()
    assert np.allclose(along[:, 0], 0) and np.allclose(along[:, -1], 1)
    grows = person.rest[person.hair_density > 0]
    root, _ = cKDTree(grows).query(strands[:, 0])
    assert root.max() < 0.025
    late = strands[:, strands.shape[1] // 3 :].reshape(-1, 3)
    assert (depth_in_head(late, person.rest, person.normals) < -0.005).mean() < 0.03
    assert np.abs(strands).max() < 0.8


def test_hair_across_covers_the_face(someone):
    person, _ = someone
    kit = head_kit()
    obstacles = person.rest[kit.outside], person.normals[kit.outside]

    def share_before(kind: str, mask: np.ndarray) -> float:
        """Share of the vertices of ``mask`` with a strand before them, within 8 mm sideways and up."""
        style = replace(hair_styles.wide_style(np.random.default_rng(1), kind), strands=1500)
        strands, _ = hair_styles.grow_wide(
            style, person.rest, person.normals, kit.asset.faces, person.hair_density, obstacles, np.random.default_rng(2)
        )  # fmt: skip
        points = strands[strands[..., 2] > 0.02]
        distance, _ = cKDTree(points[:, :2]).query(person.rest[mask, :2])
        return float((distance < 0.008).mean())

    face = kit.asset.regions["nose"] | kit.asset.regions["eyelids"]
    assert share_before("across", face) > 0.5 > 0.1 > share_before("mohawk", face)


def test_hairlines_only_take_hair_away():
    person = random_person(np.random.default_rng(8))
    for kind in hair_styles.HAIRLINES:
        kept = hair_styles.hairline(person.hair_density, person.rest, np.random.default_rng(0), kind)
        assert (kept <= person.hair_density + 1e-6).all() and kept.min() >= 0
        assert (kept.sum() < 0.97 * person.hair_density.sum()) == (kind != "full")


@pytest.mark.parametrize("kind", list(short_hair.BEARDS))
def test_beards_start_on_the_beards_mask_and_count_as_head(kind, someone):
    person, head = someone
    mesh, density = short_hair.beard(person, head, EYE, np.random.default_rng(3), kind)
    assert mesh.part == HAIR_PART and np.isfinite(mesh.vertices).all()
    roots = mesh.vertices[np.isclose(mesh.details[:, 0], mesh.details[:, 0].min())]
    distance, _ = cKDTree(head.vertices[density > 0]).query(roots)
    assert len(roots) > 300 and distance.max() < 0.014  # edges of triangles with one such corner
    kit = head_kit()
    assert density[kit.asset.regions["ears"]].max() == 0 and density[kit.masks["eyes"] > 0].max() == 0
    allowed = np.asarray(kit.masks["beard"]) > 0
    upper = (kit.asset.v_template[:, 1] > -0.048) & (kit.asset.v_template[:, 2] > 0.04)  # the moustache's place
    assert not (density[~(allowed | upper)] > 0).any() and density.max() <= 1


def test_brows_and_lashes_are_on_brows_and_lids(someone):
    person, head = someone
    region = head_kit().asset.regions
    brows = short_hair.brows(person, head, EYE, np.random.default_rng(0))
    distance, _ = cKDTree(head.vertices[region["brows"]]).query(brows.vertices)
    assert distance.max() < 0.03 and np.median(distance) < 0.008
    lashes = short_hair.lashes(head, EYE, np.random.default_rng(0))
    distance, _ = cKDTree(head.vertices[region["left_lid_rim"] | region["right_lid_rim"]]).query(lashes.vertices)
    assert distance.max() < 0.014


def test_strong_mouths_are_wide_and_settled():
    names = head_kit().asset.expression_names
    at = {name: k for k, name in enumerate(names)}
    rngs = [np.random.default_rng(k) for k in range(300)]
    values = np.stack([mouths.strong_expression(random_expression(rng), rng) for rng in rngs])
    assert values.min() >= 0 and values.max() <= 1
    assert (values[:, at["mouthClose"]] <= values[:, at["jawOpen"]] + 1e-6).all()
    assert (values[:, at["jawOpen"]] > 0.7).mean() > 0.1 and (values[:, at["tongueOut"]] > 0.5).mean() > 0.03
    assert (np.minimum(values[:, at["jawLeft"]], values[:, at["jawRight"]]) <= 0.5).all()
    out = values[:, at["tongueOut"]] > 0.5
    assert (values[out, at["jawOpen"]] > 0.1).all()


def test_steep_poses_and_any_roll_come_in_their_shares():
    rngs = [np.random.default_rng(k) for k in range(400)]
    poses = [wide_pose(random_pose(rng), only(steep_share=0.5, turned_share=0.5), rng) for rng in rngs]
    yaw, pitch, roll = np.array([pose[:3] for pose in poses]).T
    assert 0.15 < (np.abs(pitch) > 45).mean() < 0.4 and np.abs(pitch).max() < 75
    assert 0.15 < (np.abs(roll) > 90).mean() < 0.4 and (np.abs(yaw) > 90).mean() > 0.1
    for _, _, _, pose in poses:  # necks do not break
        assert np.abs(np.rad2deg(pose.neck)).max() <= 50 + 1e-6
    rng = np.random.default_rng(1)
    plain = random_pose(np.random.default_rng(1))
    assert wide_pose(plain, PLAIN, rng)[:3] == plain[:3]


def test_far_crops_are_up_to_twice_as_large(someone):
    _, head = someone
    view = View(np.eye(3), np.array([0.0, 0.0, -1.0]), HeadCrop(np.zeros(2), 0.4), 0.0, 0.0)
    sides = [wide_view(view, head, only(far_share=1.0), np.random.default_rng(k)).crop.side for k in range(100)]
    usual = wide_view(replace(view, pitch=60.0), head, only(steep_share=1e-9), np.random.default_rng(0)).crop.side
    assert max(sides) > 1.6 * usual and min(sides) < 0.8 * usual and max(sides) < 2.3 * usual
    assert wide_view(view, head, PLAIN, np.random.default_rng(0)).crop.side == 0.4


def test_only_the_crops_own_head_is_labelled(someone, monkeypatch):
    _, head = someone
    view = View(axis(0, 0.2, 0), np.array([0.0, 0.0, -1.0]), HeadCrop(np.zeros(2), 0.5), 0.0, 0.0)
    centre = head.vertices[head_kit().outside].mean(0) + view.translation
    for seed in range(3):
        meshes = dressing.companion(view, centre, np.random.default_rng(seed))
        assert all(m.part == OTHER for m in meshes) and all(np.isfinite(m.vertices).all() for m in meshes)
    # in whole pictures: the second head changes no coordinate, and can only take mask away
    monkeypatch.setattr(SceneRenderer, "_finish", lambda self, linear, parts, hands, rng, extra: (np.zeros((64, 64, 3), np.uint8), parts))
    changed = 0
    for index in range(5, 11):
        alone, both = (SceneRenderer(64, 32, only(companion_share=share)).sample(3, index) for share in (0.0, 1.0))
        np.testing.assert_array_equal(alone.coordinates, both.coordinates)
        np.testing.assert_array_equal(alone.surface, both.surface)
        assert (both.head <= alone.head).all()
        changed += (both.head < alone.head).any()
    assert changed >= 1


WORN = {
    "turtleneck": lambda p, h, r: worn.turtleneck(h, np.ones(3), r), "shirt": lambda p, h, r: worn.open_collar(h, np.ones(3), r),
    "coat": lambda p, h, r: worn.open_collar(h, np.ones(3), r, coat=True), "scarf": lambda p, h, r: worn.scarf(h, r),
    "hood": lambda p, h, r: worn.hood_down(h, np.ones(3), r), "mask": lambda p, h, r: worn.face_mask(h, r),
    "rings": lambda p, h, r: worn.ear_rings(p, r), "band": lambda p, h, r: worn.head_band(p, r), "headset": lambda p, h, r: worn.headset(p, r),
}  # fmt: skip
PLACES = {"turtleneck": "neck", "shirt": "neck", "coat": "neck", "scarf": "neck", "hood": "neck", "mask": "lips", "rings": "ears", "band": "scalp"}


@pytest.mark.parametrize("name", list(WORN))
def test_worn_things_are_where_they_are_worn_and_not_head(name, someone):
    person, head = someone
    for seed in range(3):
        meshes = WORN[name](person, head, np.random.default_rng(seed))
        assert meshes and all(m.part == OTHER for m in meshes)
        points = np.concatenate([m.vertices[np.unique(m.faces)] for m in meshes])
        assert np.isfinite(points).all() and np.abs(points).max() < 0.6
        if name in PLACES:
            own = head.vertices if name in ("turtleneck", "shirt", "coat", "scarf", "hood", "mask") else person.rest
            distance, _ = cKDTree(points).query(own[head_kit().asset.regions[PLACES[name]]])
            assert np.min(distance) < 0.035


def test_borders_repeat_or_mirror_the_picture_and_are_not_head():
    kinds = set()
    for seed in range(12):
        image = np.random.default_rng(9).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        before = image.copy()
        kept = faults.continue_border(image, np.ones((128, 128), np.float32), np.random.default_rng(seed))
        inside = kept[::2, ::2] * kept[1::2, 1::2] > 0
        assert 0.2 < inside.mean() < 0.98 and (kept[0] * kept[-1] * kept[:, 0] * kept[:, -1] == 0).any()
        safe = np.zeros_like(inside)
        safe[1:-1, 1:-1] = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        np.testing.assert_array_equal(image[safe], before[safe])  # what is inside the frame stays
        outside = image[~inside].astype(float)
        assert outside.mean() > 30  # not black
        kinds.add(bool(outside.std() > 62))
    assert kinds == {True, False} or len(kinds) == 1


def test_motion_blur_keeps_the_middle_of_the_exposure():
    size = 64
    picture = np.zeros((size, size, 3), np.float32)
    picture[:, size // 2 :] = 1.0
    motion = np.tile(np.array([8.0, 0.0], np.float32), (size, size, 1))
    blurred = faults.blur_along(picture, motion, np.ones((size, size), bool))[size // 2, :, 0]
    assert blurred[size // 2 - 2] > 0.05 and blurred[size // 2 + 1] < 0.95  # 8 pixels wide
    np.testing.assert_allclose(np.sum(1 - blurred), size / 2, atol=0.51)  # the edge's centre has not moved
    np.testing.assert_allclose(blurred[:26], 0, atol=1e-6)
    still = faults.blur_along(picture, 0 * motion, np.ones((size, size), bool))
    np.testing.assert_allclose(still, picture, atol=1e-6)


def test_motion_is_that_of_a_rigid_head(someone):
    _, head = someone
    view = View(np.eye(3), np.array([0.0, 0.0, -1.0]), HeadCrop(np.zeros(2), 0.4), 0.0, 0.0)
    posed = head.vertices + view.translation
    motion = faults.random_motion(posed, view, np.random.default_rng(0), 256)
    assert motion.shape == (len(posed), 2) and 1 < np.percentile(np.linalg.norm(motion, axis=1), 90) < 15
    # screen motion of a rigid body is smooth: neighbours move alike
    a, b = head.faces[:, 0], head.faces[:, 1]
    assert np.abs(motion[a] - motion[b]).max() < 3


@pytest.mark.parametrize("age", looks.AGES)
def test_ages_change_faces_but_not_eyes(age, someone):
    person, _ = someone
    kit = head_kit()
    for seed in range(4):
        other = looks.aged(person, age, np.random.default_rng(seed))
        eyes = np.asarray(kit.masks["eyes"]) > 0
        np.testing.assert_array_equal(other.rest[eyes], person.rest[eyes])
        moved = np.linalg.norm(other.rest - person.rest, axis=1)
        assert moved.max() < 0.03 and np.isfinite(other.albedo).all()
        np.testing.assert_allclose(other.bend - person.bend, other.rest - person.rest, atol=1e-6)  # posing makes the same face
    chin = np.asarray(kit.asset.regions["chin"])
    if age == "child":
        assert other.rest[chin, 1].mean() > person.rest[chin, 1].mean()  # a shorter face


def test_paint_and_marks_stay_colours():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        person, age = looks.with_look(random_person(rng), rng)
        assert age in looks.AGES and person.albedo.min() >= 0 and person.albedo.max() <= 1.5
        assert person.details.min() >= 0 and person.details[:, :2].max() <= 1 + 1e-6
