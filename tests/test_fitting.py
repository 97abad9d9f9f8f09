"""The landmark fit on projections of a known head: what went in must come out."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from flame_assets.asset import AssetError
from flame_assets.load import load_head
from tracker.camera import FocalPrior, project
from tracker.head_points import HeadPoints
from tracker.observe.frame_batch import FrameBatch
from tracker.residuals.fit_head import FitHead
from tracker.residuals.landmarks import visibility
from tracker.residuals.smoothness import TurnSmoothnessResidual
from tracker.residuals.state import FitState
from tracker.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from tracker.settings import load_settings
from tracker.stages.keyframes import SharedFit, fit_shared, spread_frames
from tracker.stages.rigid import align_scaled_orthographic, first_poses
from tracker.stages.windows import fit_frames, time_steps

CENTRE = (320.0, 180.0)
FOCAL = 700.0
FRAMES = 40


@pytest.fixture(scope="module")
def config():
    return load_settings("fast")  # the preset of landmarks alone; the others free the neck for the dense term to see


@pytest.fixture(scope="module")
def face() -> FitHead:
    return FitHead.build(load_head(None))


@pytest.fixture(scope="module")
def truth(face) -> dict[str, Tensor]:
    """A head that turns, speaks, blinks and looks about."""
    t = torch.linspace(0, 1, FRAMES)
    generator = torch.Generator().manual_seed(0)
    expression = torch.zeros(FRAMES, face.model.n_expression)
    names = face.model.expression_names
    expression[:, names.index("jawOpen")] = 0.4 * (1 - torch.cos(12 * t)) / 2
    expression[:, names.index("eyeBlinkLeft")] = torch.exp(-(((t - 0.5) / 0.04) ** 2))
    expression[:, names.index("eyeBlinkRight")] = expression[:, names.index("eyeBlinkLeft")]
    expression[:, names.index("mouthSmileLeft")] = 0.6 * t
    gaze = torch.zeros(FRAMES, 6)
    gaze[:, 1] = gaze[:, 4] = 0.25 * torch.sin(5 * t)
    return {
        "rotation": torch.stack([0.2 * torch.sin(5 * t), 0.6 * torch.sin(4 * t), 0.1 * torch.cos(3 * t)], 1),
        "translation": torch.stack([0.03 * torch.sin(3 * t), 0.01 * t, 0.4 + 0.03 * t], 1),
        "expr": expression,
        "eyes_pose": gaze,
        "shape": 0.8 * torch.randn(face.model.n_identity, generator=generator),
        "log_focal": torch.tensor([math.log(FOCAL)]),
    }


@pytest.fixture(scope="module")
def batch(face, truth) -> FrameBatch:
    return observe(face, truth)


def observe(face: FitHead, truth: dict[str, Tensor], noise_px: float = 0.0) -> FrameBatch:
    positions = HeadPoints.evaluate(face.landmarks, truth).positions
    pixels, _ = project(positions, FOCAL, CENTRE)
    generator = torch.Generator().manual_seed(1)
    pixels = pixels + noise_px * torch.randn(pixels.shape, generator=generator)
    scale = FOCAL / (1 - positions[..., 2]).mean(1, keepdim=True)
    depth = -(positions[..., 2] - positions[..., 2].mean(1, keepdim=True)) * scale
    return FrameBatch(pixels, depth, torch.arange(len(pixels), dtype=torch.float64) / 25)


def angle_deg(a: Tensor, b: Tensor) -> Tensor:
    relative = axis_angle_to_matrix(a).mT @ axis_angle_to_matrix(b)
    return torch.rad2deg(((relative.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1).acos())


def share(face, batch, camera, config) -> SharedFit:
    return fit_shared(face, torch.arange(len(batch)), reader(batch), camera, config)


def reader(batch):
    return lambda frames, reads: batch.select(frames)


def track(face, batch, config, camera) -> tuple[SharedFit, SimpleNamespace]:
    shared = share(face, batch, camera, config)
    windows = list(fit_frames(face, torch.arange(len(batch)), reader(batch), shared, CENTRE, config))
    values = {k: torch.cat([w.values[k] for w in windows]) for k in windows[0].values}
    frames = torch.cat([w.frames for w in windows])
    return shared, SimpleNamespace(frames=frames, error=torch.cat([w.error_percent for w in windows]), **values)


def test_known_head_is_recovered(face, batch, truth, config):
    shared, found = track(face, batch, config, FocalPrior(FOCAL, 0.0, CENTRE))
    assert found.frames.tolist() == list(range(FRAMES))
    assert found.error.median() < 0.5  # percent of the inter-ocular distance
    # A constant turn of the head can hide in the identity (whose heads lean differently on their necks); what the
    # video determines is how the head moves.
    relative = axis_angle_to_matrix(found.rotation).mT @ axis_angle_to_matrix(truth["rotation"])
    u, _, vt = torch.linalg.svd(relative.mean(0))  # the mean rotation
    steady = matrix_to_axis_angle(axis_angle_to_matrix(found.rotation) @ (u @ vt))
    assert angle_deg(steady, truth["rotation"]).median() < 0.7
    assert angle_deg(found.rotation, truth["rotation"]).median() < 2.0
    names = face.model.expression_names
    for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft"):
        column = names.index(name)
        wanted, got = truth["expr"][:, column], found.expr[:, column]
        assert torch.corrcoef(torch.stack([wanted, got]))[0, 1] > 0.95, name
    assert torch.corrcoef(torch.stack([truth["eyes_pose"][:, 1], found.eyes_pose[:, 1]]))[0, 1] > 0.95
    assert ((found.expr >= 0) & (found.expr <= 1)).all()
    vertices = face.model.with_shape(truth["shape"]).vertices
    mean_distance = (face.model.with_shape(torch.zeros(1)).vertices - vertices).norm(dim=1).mean()
    fitted = face.model.with_shape(shared.identity).vertices
    # up to size: one camera cannot tell a large head far away from a small one nearby
    fitted = (fitted - fitted.mean(0)) * ((vertices - vertices.mean(0)).norm() / (fitted - fitted.mean(0)).norm())
    assert (fitted - (vertices - vertices.mean(0))).norm(dim=1).mean() < 0.6 * mean_distance


@pytest.mark.parametrize("factor", [1.4, 0.7])
def test_unknown_focal_length_moves_towards_the_truth_and_reports_its_doubt(face, batch, config, factor):
    shared = share(face, batch, FocalPrior(FOCAL * factor, 0.3, CENTRE), config)
    before, after = math.log(factor), math.log(shared.focal_px / FOCAL)
    assert abs(after) < abs(before) - 0.01  # a little only: perspective is a weak cue, and identity explains most of it
    # the fit's own doubt is below the prior's; the stated one is wider, since detectors' errors are not independent
    own = math.sqrt(float(shared.solution.shared_covariance[-1, -1]))
    assert 0 < own < 0.3
    assert own < shared.focal_log_sigma < math.inf


@pytest.mark.parametrize("seed", [0, 1])
def test_the_stated_doubt_covers_a_detector_that_errs_alike_in_every_frame(face, truth, config, seed):
    seen = observe(face, truth)
    off = 0.02 * seen.inter_ocular_px().mean() * torch.randn(seen.points.shape[1:], generator=torch.Generator().manual_seed(seed))
    wrong = FrameBatch(seen.points + off, seen.depth, seen.timestamps)
    shared = share(face, wrong, FocalPrior(1.15 * FOCAL, 0.2, CENTRE), config)
    own = math.sqrt(float(shared.solution.shared_covariance[-1, -1]))
    assert shared.focal_log_sigma > 1.5 * own
    assert abs(math.log(shared.focal_px / FOCAL)) < 2 * shared.focal_log_sigma


def test_given_focal_length_stays(face, batch, config):
    shared = share(face, batch, FocalPrior(650.0, 0.0, CENTRE), config)
    assert shared.focal_px == pytest.approx(650.0, rel=1e-5)
    assert shared.focal_log_sigma == 0


def test_smoothing_lowers_jitter_without_lag(face, truth, config):
    noisy = observe(face, truth, noise_px=1.0)
    camera = FocalPrior(FOCAL, 0.0, CENTRE)
    loose = config.changed(
        {"smoothness": dict.fromkeys(("rotation_rad", "translation_m", "expression", "eyes_rad"), math.inf)}
    )

    def jitter(rotation: Tensor) -> float:
        return float(rotation.diff(n=2, dim=0).norm(dim=1).median())

    _, smooth = track(face, noisy, config, camera)
    _, rough = track(face, noisy, loose, camera)
    assert jitter(smooth.rotation) < 0.9 * jitter(rough.rotation)
    # best alignment in time is no shift at all
    yaw, wanted = smooth.rotation[:, 1], truth["rotation"][:, 1]
    differences = {k: (yaw[3:-3] - wanted[3 + k : FRAMES - 3 + k]).diff().abs().mean() for k in (-1, 0, 1)}
    assert min(differences, key=differences.get) == 0


def test_gross_outliers_hardly_move_the_fit(face, batch, config):
    camera = FocalPrior(FOCAL, 0.0, CENTRE)
    _, clean = track(face, batch, config, camera)
    spoilt = batch.points.clone()
    spoilt[:, 100:130] += 60.0
    _, robust = track(face, dataclasses.replace(batch, points=spoilt), config, camera)
    assert angle_deg(clean.rotation, robust.rotation).median() < 1.0


def test_closed_form_pose_is_exact_for_orthographic_views(face):
    rotation = torch.tensor([[0.1, -0.5, 0.2], [0.0, 0.9, 0.0]])
    points, root = face.landmarks.template, face.landmarks.joint_template[0]
    turned = torch.einsum("fab,nb->fna", axis_angle_to_matrix(rotation), points)
    pixels = turned[..., :2] * torch.tensor([900.0, -900.0]) + torch.tensor(CENTRE)
    pose = align_scaled_orthographic(points, root, pixels, -900 * turned[..., 2], FOCAL, CENTRE)
    assert angle_deg(pose.rotation, rotation).max() < 0.1
    assert torch.allclose(pose.pixels_per_metre, torch.tensor(900.0), rtol=1e-4)


def test_landmarks_that_face_away_are_ignored(face, batch, config):
    still, yaw = torch.zeros(1, 3), torch.tensor([[0.0, 1.2, 0.0]])
    left_cheek, right_cheek = ((face.numbers == n).nonzero()[0, 0] for n in (454, 234))
    # a head turned to its left shows its right cheek, whichever joint turns it
    for turns in ({"rotation": yaw}, {"rotation": still, "neck_pose": yaw}, {"rotation": yaw / 2, "neck_pose": yaw / 2}):
        values = {"translation": still, **turns}
        state = FitState(face, batch, values, frozenset(), torch.ones(1), FocalPrior(FOCAL, 0.0, CENTRE))
        trust = visibility(state, config.cue("landmarks"))[0]
        assert trust[right_cheek] > 0.9
        assert trust[left_cheek] == 0


def test_closed_eyes_take_the_irises_out(batch):
    trust = batch.iris_trust()
    assert trust[0, 468:].min() > 0.9
    assert trust[FRAMES // 2, 468:].max() < 0.5
    assert (trust[:, :468] == 1).all()


def test_gaps_and_cuts_are_not_smoothed_over(face, batch, config):
    stamps = batch.timestamps.clone()
    stamps[10:] += 2.0
    jumped = batch.points.clone()
    jumped[20:] += 400.0
    changed = dataclasses.replace(batch, timestamps=stamps, points=jumped)
    steps = time_steps(face, changed, first_poses(face, changed, FOCAL, CENTRE), FOCAL, config.windows.gap_seconds)
    assert torch.isinf(steps).nonzero()[:, 0].tolist() == [0, 10, 20]
    assert steps[5].item() == pytest.approx(0.04)


def test_a_head_that_turns_through_upside_down_is_followed(face, truth, config):
    """At half a turn axis-angle vectors change their sign, and neighbours differ by a full turn."""
    roll = torch.deg2rad(torch.linspace(150, 210, FRAMES))
    upright = axis_angle_to_matrix(0.2 * truth["rotation"])
    rolled = axis_angle_to_matrix(torch.stack([0 * roll, 0 * roll, roll], 1)) @ upright
    turned = truth | {"rotation": matrix_to_axis_angle(rolled), "shape": 0 * truth["shape"]}
    assert (turned["rotation"].diff(dim=0).norm(dim=1) > 5).sum() == 1
    _, found = track(face, observe(face, turned), config, FocalPrior(FOCAL, 0.0, CENTRE))
    assert angle_deg(found.rotation, turned["rotation"]).max() < 2.0
    steps = angle_deg(found.rotation[1:], found.rotation[:-1])
    assert steps.max() < 2 * angle_deg(turned["rotation"][1:], turned["rotation"][:-1]).max()


@pytest.mark.parametrize("size", [0.0, 0.3, 2.5, 3.1])
def test_smoothness_of_turns_has_its_derivatives(size):
    generator = torch.Generator().manual_seed(3)
    axis = torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
    value = size * axis + 0.1 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    value[3] *= 1 - 2 * math.pi / value[3].norm()  # the same rotation in the other way of writing it
    steps = torch.tensor([math.inf, 0.04, 0.04, 0.08, math.inf, 0.04], dtype=torch.float64)
    residual = TurnSmoothnessResidual("rotation", 0.07, steps)
    found = residual({"rotation": value}, frozenset({"rotation"}))
    assert not found.residual[[0, 4]].any()
    moved = axis_angle_to_matrix(value[2]).mT @ axis_angle_to_matrix(value[3])
    assert found.residual[3, :, 0].norm() == pytest.approx(float(matrix_to_axis_angle(moved).norm()) / (0.07 * math.sqrt(0.08)))
    for frame in range(6):
        for entry in range(3):
            change = torch.zeros_like(value)
            change[frame, entry] = 1e-6
            high, low = (residual({"rotation": value + sign * change}, frozenset()).residual[..., 0] for sign in (1, -1))
            numeric = (high - low) / 2e-6
            assert numeric[frame] == pytest.approx(found.jacobians["rotation"][frame, :, 0, entry], abs=1e-3)
            if frame < 5:
                assert numeric[frame + 1] == pytest.approx(found.previous["rotation"][frame + 1, :, 0, entry], abs=1e-3)


def test_keyframes_are_spread():
    features = torch.cat([torch.zeros(50, 2), torch.tensor([[5.0, 0.0], [0.0, 7.0], [-6.0, 0.0]])])
    chosen = spread_frames(features, 4).tolist()
    assert set(chosen) >= {50, 51, 52} and len(chosen) == 4
    assert len(spread_frames(torch.zeros(9, 2), 4)) == 1  # nothing to spread over


def test_one_frame_is_enough(face, batch, config):
    _, found = track(face, batch.select(torch.tensor([0])), config, FocalPrior(FOCAL, 0.2, CENTRE))
    assert found.rotation.shape == (1, 3) and found.error[0] < 1.0


def test_a_head_without_landmarks_is_refused(config):
    bare = dataclasses.replace(load_head(None), landmarks={})
    with pytest.raises(AssetError, match="landmark"):
        FitHead.build(bare)
