"""The benchmark's measures: hand-computed cases, and synthetic clips that are what their truth says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from densemarks_model.data.synthetic.sequences import Script, render_sequence, suite
from densemarks_model.evaluation.bootstrap import mean_and_interval
from flame_assets.similarity import rigid_alignment, similarity
from tracker.evaluation.geometry import rotation_angles_deg, vertex_errors
from tracker.evaluation.synthetic_suite import render_clip
from tracker.video import open_video


def cloud(frames: int = 3, n: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (frames, n, 3)) + np.array([0.0, 0.0, -1.0])


def masks(n: int = 60) -> dict[str, np.ndarray]:
    half = np.arange(n) < n // 2
    return {"all": np.ones(n, bool), "left": half, "right": ~half}


def test_rotation_angles_by_hand():
    angles = [0.0, 10.0, 90.0, 180.0]
    turned = Rotation.from_euler("y", np.array(angles), degrees=True).as_matrix()
    np.testing.assert_allclose(rotation_angles_deg(turned, np.eye(3)[None]), angles, atol=1e-4)


def test_similarities_of_a_batch_are_those_of_each_and_weights_count():
    rng = np.random.default_rng(2)
    source, turns = rng.normal(size=(2, 1, 40, 3)), Rotation.random(6, random_state=1).as_matrix().reshape(2, 3, 3, 3)
    scales, shifts = rng.uniform(0.3, 3, (2, 3)), rng.normal(size=(2, 3, 3))
    target = scales[..., None, None] * source @ turns.swapaxes(-1, -2) + shifts[..., None, :]
    scale, rotation, shift = similarity(source, target)
    np.testing.assert_allclose(scale, scales, rtol=1e-10)
    np.testing.assert_allclose(rotation, turns, atol=1e-10)
    np.testing.assert_allclose(shift, shifts, atol=1e-10)
    # points that count for nothing may lie anywhere
    weight = np.where(np.arange(40) < 10, 0.0, rng.uniform(0.5, 2, (2, 3, 40)))
    target[..., :10, :] += rng.normal(size=(10, 3))
    found = similarity(source, target, weight)
    np.testing.assert_allclose(found[0], scales, rtol=1e-10)
    # and where noise is left, none does better nearby, in a batch or alone
    target += rng.normal(0, 0.1, target.shape)
    scale, rotation, shift = similarity(source, target, weight)
    alone = similarity(source[1, 0], target[1, 2], weight[1, 2])
    for many, one in zip((scale, rotation, shift), alone, strict=True):
        np.testing.assert_allclose(many[1, 2], one, atol=1e-12)

    def cost(s, r, t):
        return (weight[1, 2] * ((s * source[1, 0] @ r.T + t - target[1, 2]) ** 2).sum(1)).sum()

    least = cost(*alone)
    for axis in np.eye(3):
        for step in (-1e-3, 1e-3):
            assert cost(alone[0], alone[1] @ Rotation.from_rotvec(step * axis).as_matrix(), alone[2]) > least
            assert cost(alone[0], alone[1], alone[2] + step * axis) > least
            assert cost(alone[0] + step, *alone[1:]) > least


def test_rigid_alignment_undoes_a_motion():
    points, turn = cloud(), Rotation.from_rotvec([[0.3, -1.0, 0.2]] * 3).as_matrix()
    moved = points @ turn.swapaxes(1, 2) + np.array([0.2, -0.1, 0.4])
    rotation, shift = rigid_alignment(points, moved)
    np.testing.assert_allclose(rotation, turn, atol=1e-10)
    np.testing.assert_allclose(points @ rotation.swapaxes(1, 2) + shift[:, None], moved, atol=1e-10)
    # a mirror image is no motion: it must not be explained by one
    mirrored = points * np.array([-1.0, 1, 1])
    assert np.linalg.det(rigid_alignment(points, mirrored)[0]).min() > 0.99


def test_vertex_errors_by_hand():
    truth = cloud()
    errors = vertex_errors(truth + np.array([0.003, 0.004, 0.0]), truth, masks())
    np.testing.assert_allclose(errors.absolute["all"], 5.0, atol=1e-9)
    np.testing.assert_allclose(errors.aligned["all"], 0, atol=1e-9)
    half = truth.copy()
    half[:, :30, 0] += 0.002
    errors = vertex_errors(half, truth, masks())
    np.testing.assert_allclose(errors.absolute["left"], 2.0, atol=1e-9)
    np.testing.assert_allclose(errors.absolute["right"], 0.0, atol=1e-9)
    assert (errors.aligned["all"] <= 1.01).all()  # a shift by half of it, at best


def test_distance_that_no_camera_can_tell_does_not_count_as_posed_error():
    truth = cloud()
    centre = truth.mean(1, keepdims=True)
    further = truth + 0.2 * centre  # the same head at 1.2 times the distance
    errors = vertex_errors(further, truth, masks())
    assert (errors.absolute["all"] > 150).all()
    assert (errors.posed["all"] < 1e-6).all()
    # but a wrong distance in one frame alone is one
    further[0] = truth[0]
    assert vertex_errors(further, truth, masks()).posed["all"][0] > 100


def test_a_turned_track_is_wrong_by_the_turn():
    truth = cloud()
    bias = Rotation.from_euler("y", 10, degrees=True).as_matrix()
    centre = truth.mean(1, keepdims=True)
    off, _ = rigid_alignment((truth - centre) @ bias.T + centre, truth)
    np.testing.assert_allclose(rotation_angles_deg(off, np.eye(3)[None]), 10, atol=1e-6)


def test_intervals_hold_the_mean_and_have_the_width_of_theory():
    values = list(np.random.default_rng(0).normal(5, 1, 200))
    mean, low, high = mean_and_interval(values)
    assert mean == pytest.approx(np.mean(values)) and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.15)
    assert mean_and_interval([3.0]) == (3.0, 3.0, 3.0)


def test_clips_repeat_and_their_truth_projects_onto_the_head():
    script = Script(seed=5, frames=2, size=128, yaw_deg=40)
    first, second = list(render_sequence(script)), list(render_sequence(script))
    for (image, truth), (again, same) in zip(first, second, strict=True):
        assert np.array_equal(image, again) and np.array_equal(truth.vertices, same.vertices)
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        pixels = truth.focal_px * truth.vertices[:, :2] / -truth.vertices[:, 2:] * [1, -1] + 64
        assert ((pixels > -20) & (pixels < 148)).mean() > 0.9
        assert truth.expression.min() >= 0 and truth.expression.max() <= 1
        forward = truth.skull_rotation @ [0, 0, 1]
        assert truth.yaw == pytest.approx(np.degrees(np.arctan2(forward[0], forward[2])), abs=1e-6)
    assert not np.array_equal(first[0][0], first[1][0])


def test_a_rendered_clip_is_read_at_its_script_s_own_clock(tmp_path):
    script = Script(seed=5, frames=4, size=64, frame_rate=40 / 4.8)
    truth = render_clip(script, tmp_path / "clip.mov")
    with open_video(tmp_path / "clip.mov") as video:
        frames = list(video)
    assert [f.timestamp for f in frames] == pytest.approx(script.timestamps, abs=1e-6)
    assert script.timestamps == pytest.approx([0, 0.12, 0.24, 0.36]) and video.frame_rate == pytest.approx(40 / 4.8)
    for frame, (image, known) in zip(frames, render_sequence(script), strict=True):
        assert np.array_equal(frame.image, image)
        assert np.array_equal(truth.vertices[frame.index], known.vertices)


def test_a_suite_has_strong_and_mild_turns():
    scripts = suite(9000, 6)
    assert len({s.seed for s in scripts}) == 6
    assert max(s.yaw_deg for s in scripts) == 80 and min(s.yaw_deg for s in scripts) <= 30
    assert suite(9000, 6) == scripts
