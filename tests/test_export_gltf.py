"""``head.glb`` against the head model, by a glTF player that shares no code with the writer."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from flame_assets.asset import HeadAsset
from tests.gltf_evaluator import GltfPlayer
from tests.heads import tiny_head
from tests.tracks import talking_track
from tools.validate_gltf import find_validator, validate
from tracker.errors import UserError
from tracker.export.gltf import write_glb
from tracker.export.rig import corrective_basis, joint_quaternions, unit_weights
from tracker.export.surface import split_at_seams, surface_parts, unit_normals
from tracker.head_track import HeadTrack
from tracker.track_vertices import track_vertices

TOLERANCE_M = 1e-5  # 0.01 mm, ten times finer than what is asked for


def signed_head() -> HeadAsset:
    """Like FLAME: expression coefficients of any sign and size, correctives on every joint."""
    asset = tiny_head(1, 10, [f"expr{i:03d}" for i in range(12)])
    correctives = 0.002 * np.random.default_rng(0).normal(size=asset.posedirs.shape).astype(np.float32)
    return dataclasses.replace(asset, name="flame-like", expression_range=(-np.inf, np.inf), posedirs=correctives)


def open_glb(path: Path, track: HeadTrack, asset: HeadAsset) -> GltfPlayer:
    write_glb(path / "head.glb", track, asset)
    return GltfPlayer(path / "head.glb")


def worst_error(player: GltfPlayer, track: HeadTrack, asset: HeadAsset) -> float:
    """Largest distance, metres, over all frames and vertices; the file repeats the head's vertices first, in order."""
    frames = zip(player.key_times, track_vertices(track, asset), strict=True)
    return max(
        np.linalg.norm(player.vertices(time)[: asset.n_vertices] - expected, axis=1).max() for time, expected in frames
    )


@pytest.mark.parametrize("asset", [tiny_head(), signed_head()], ids=["arkit", "flame"])
def test_plays_the_head_models_vertices(asset, tmp_path):
    track = talking_track(asset)
    assert worst_error(open_glb(tmp_path, track, asset), track, asset) < TOLERANCE_M


@pytest.mark.parametrize("asset", [tiny_head(), signed_head()], ids=["arkit", "flame"])
def test_weights_stay_where_blender_does_not_clamp_them(asset, tmp_path):
    """Blender's importer limits animated shape keys to [0, 1], so that a valid file can play wrongly."""
    player = open_glb(tmp_path, talking_track(asset), asset)
    _, weights = player.channel("head", "weights")
    assert weights.min() >= 0 and weights.max() <= 1


def test_named_weights_are_the_coefficients(tmp_path):
    asset = signed_head()
    track = talking_track(asset)
    player = open_glb(tmp_path, track, asset)
    extras = player.gltf.meshes[0].extras
    _, weights = player.channel("head", "weights")
    for number, name in enumerate(asset.expression_names):
        rebuilt = sum(
            weights[:, i] * scale
            for i, (target, scale) in enumerate(zip(extras["targetNames"], extras["targetScales"], strict=True))
            if target in (name, f"{name}_negative")
        )
        np.testing.assert_allclose(rebuilt, track.expr[:, number], atol=1e-6)


def test_arkit_weights_keep_their_meaning(tmp_path):
    asset = tiny_head()
    track = talking_track(asset)
    player = open_glb(tmp_path, track, asset)
    names = player.gltf.meshes[0].extras["targetNames"]
    _, weights = player.channel("head", "weights")
    np.testing.assert_allclose(weights[:, names.index("jawOpen")], track.expr[:, 0], atol=1e-6)


def test_unused_expressions_are_left_out(tmp_path):
    asset = tiny_head()
    expr = np.zeros((20, 6))
    expr[:, 1] = 0.5
    names = open_glb(tmp_path, talking_track(asset, expr=expr), asset).gltf.meshes[0].extras["targetNames"]
    assert [n for n in names if not n.startswith("pose")] == ["eyeBlinkLeft"]


def test_true_times_from_zero(tmp_path):
    asset = tiny_head()
    track = talking_track(asset)
    times = open_glb(tmp_path, track, asset).key_times
    assert np.ptp(np.diff(times)) > 0.01  # the fixture's frame rate does vary
    np.testing.assert_allclose(times, track.timestamps - track.timestamps[0], atol=1e-6)


def test_times_too_close_for_float32_are_merged(tmp_path):
    asset = tiny_head()
    times = np.arange(6) / 25.0
    times[3] = times[2] + 1e-12
    player = open_glb(tmp_path, talking_track(asset, 6, timestamps=times), asset)
    assert len(player.key_times) == 5 and (np.diff(player.key_times) > 0).all()


def test_full_turns_do_not_jump(tmp_path):
    """Axis-angle vectors that pass π, or are wrapped there, are one smooth motion."""
    asset = tiny_head()
    angle = np.linspace(0, 3 * np.pi, 40)
    wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
    rotation = np.stack([np.zeros(40), wrapped, np.zeros(40)], axis=-1)
    track = talking_track(asset, 40, rotation=rotation)
    quaternions = joint_quaternions(track)
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=-1), 1, atol=1e-12)
    assert (quaternions[1:, 0] * quaternions[:-1, 0]).sum(-1).min() > 0.98
    player = open_glb(tmp_path, track, asset)
    assert worst_error(player, track, asset) < TOLERANCE_M
    # halfway between the two frames where the wrap is, the head is halfway between them, not turned round
    wrap = int(np.flatnonzero(np.diff(wrapped) < 0)[0])
    middle = player.vertices(player.key_times[wrap : wrap + 2].mean())
    ends = (player.vertices(player.key_times[wrap]) + player.vertices(player.key_times[wrap + 1])) / 2
    assert np.linalg.norm(middle - ends, axis=1).max() < 0.01


def test_frames_without_a_head_hold_and_are_listed(tmp_path):
    asset = tiny_head()
    track = talking_track(asset)
    player = open_glb(tmp_path, track, asset)
    extras = player.gltf.animations[0].extras
    assert extras["invalid_frames"] == np.flatnonzero(~track.valid).tolist() != []
    assert extras["frame_rate"] == 25.0
    assert len(player.key_times) == track.n_frames


def test_camera_sees_what_the_video_saw(tmp_path):
    asset = tiny_head()
    player = open_glb(tmp_path, talking_track(asset), asset)
    camera = player.gltf.cameras[0].perspective
    assert camera.yfov == pytest.approx(2 * np.arctan(180 / 700))
    assert camera.aspectRatio == pytest.approx(640 / 360)
    (node,) = (n for n in player.gltf.nodes if n.camera is not None)
    assert node.translation == [0.0, 0.0, 1.0] and not node.rotation


def test_one_frame_and_a_head_without_uv_regions_or_motion(tmp_path):
    asset = dataclasses.replace(
        tiny_head(), uv=None, uv_faces=None, regions={}, posedirs=np.zeros((984, 3, 36), np.float32)
    )
    track = talking_track(asset, 1, expr=np.zeros((1, 6)), valid=np.array([True]))
    player = open_glb(tmp_path, track, asset)
    assert worst_error(player, track, asset) < TOLERANCE_M
    assert not player.gltf.meshes[0].primitives[0].targets


def test_more_than_four_joints_per_vertex(tmp_path):
    weights = np.full((984, 5), 0.2, np.float32)
    asset = dataclasses.replace(tiny_head(), weights=weights)
    track = talking_track(asset, 5)
    player = open_glb(tmp_path, track, asset)
    assert player.gltf.meshes[0].primitives[0].attributes.JOINTS_1 is not None
    assert worst_error(player, track, asset) < TOLERANCE_M


def test_joints_follow_the_expression(tmp_path):
    """FLAME's joints are regressed from shaped vertices, so an expression may move the pivot it turns about."""
    asset = tiny_head()
    dirs = asset.shapedirs.copy()
    dirs[:, 2, asset.n_identity] += 0.02  # jawOpen pushes the whole head forward, joints included
    asset = dataclasses.replace(asset, shapedirs=dirs)
    track = talking_track(asset)
    player = open_glb(tmp_path, track, asset)
    assert player.channel("jaw", "translation") is not None
    assert worst_error(player, track, asset) < TOLERANCE_M


def test_seams_are_split_and_every_triangle_has_one_material():
    asset = tiny_head()
    surface = split_at_seams(asset)
    assert len(surface.source) > asset.n_vertices
    np.testing.assert_array_equal(surface.source[: asset.n_vertices], np.arange(asset.n_vertices))
    np.testing.assert_array_equal(surface.source[surface.faces], asset.faces)
    np.testing.assert_array_equal(surface.uv[surface.faces], asset.uv[asset.uv_faces])
    parts = surface_parts(asset)
    assert set(parts) == {"pupil", "iris", "eye", "teeth", "lips", "skin"}
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(asset.faces)))


def test_pupils_are_found_by_their_ring():
    asset = tiny_head()
    left, right = (asset.regions["pupils"] & asset.regions[f"{side}_eye"] for side in ("left", "right"))
    rings = {}
    for side, pupil in (("left", left), ("right", right)):
        x, y, _ = (asset.v_template - asset.v_template[pupil].mean(0)).T
        rings[f"{side}_pupil_ring"] = pupil & (np.hypot(x, y) > 0.9 * np.hypot(x, y)[pupil].max())
    regions = {k: v for k, v in asset.regions.items() if k != "pupils"} | rings
    by_ring = surface_parts(dataclasses.replace(asset, regions=regions))["pupil"]
    np.testing.assert_array_equal(by_ring, surface_parts(asset)["pupil"])


def test_normals_of_a_sphere_point_outwards(tmp_path):
    asset = tiny_head()
    eye = asset.regions["left_eye"]
    outwards = asset.v_template[eye] - asset.v_template[eye].mean(axis=0)
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    assert (unit_normals(asset.v_template, asset.faces)[eye] * outwards).sum(axis=1).min() > 0.999


def test_texture_coordinates_run_down(tmp_path):
    asset = tiny_head()
    player = open_glb(tmp_path, talking_track(asset, 2), asset)
    stored = player.accessor(player.gltf.meshes[0].primitives[0].attributes.TEXCOORD_0)
    surface = split_at_seams(asset)
    np.testing.assert_allclose(stored, np.stack([surface.uv[:, 0], 1 - surface.uv[:, 1]], -1), atol=1e-7)


def test_corrective_basis_keeps_its_bound_with_few_targets():
    rng = np.random.default_rng(0)
    dirs = 0.005 * rng.normal(size=(300, 3, 36))
    features = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 36)) + 1e-6 * rng.normal(size=(200, 36))
    weights, targets = corrective_basis(features, dirs)
    assert len(targets) == 3 and np.abs(weights).max() <= 1 + 1e-12
    error = np.einsum("tr,rvc->tvc", weights, targets) - np.einsum("tk,vck->tvc", features, dirs)
    assert np.linalg.norm(error, axis=-1).max() < 1e-5
    for quiet in (np.zeros_like(dirs), dirs):
        assert len(corrective_basis(np.zeros((4, 36)), quiet)[1]) == 0


def test_signed_coefficients_as_weights():
    coefficients = np.array([[0.5, -2.0, 0.3], [0.0, 3.0, 0.1], [0.2, 0.5, 0.0]])
    source, scales, weights = unit_weights(coefficients)
    assert source.tolist() == [0, 1, 1, 2] and scales.tolist() == [1, 3, -2, 1]
    assert weights.min() >= 0 and weights.max() <= 1
    rebuilt = np.zeros_like(coefficients)
    np.add.at(rebuilt.T, source, (weights * scales).T)
    np.testing.assert_allclose(rebuilt, coefficients)


def test_another_head_is_refused(tmp_path):
    with pytest.raises(UserError, match="made with head 'tiny-0'"):
        write_glb(tmp_path / "head.glb", talking_track(tiny_head(0)), tiny_head(1))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_writer_leaves_nothing(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    asset = tiny_head()
    with pytest.raises(OSError):
        write_glb(tmp_path / "head.glb", talking_track(asset, 3), asset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asset", [tiny_head(), signed_head()], ids=["arkit", "flame"])
def test_valid_under_khronos_validator(asset, tmp_path):
    validator = find_validator()
    if isinstance(validator, str):
        pytest.skip(validator)
    for frames in (1, 20):
        write_glb(tmp_path / "head.glb", talking_track(asset, frames), asset)
        issues = validate(tmp_path / "head.glb", validator)["issues"]
        assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]
