"""The pinhole camera and what may be said about its focal length."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tracker.camera import FOCAL_PRIOR_RATIO, focal_prior, project
from tracker.errors import UserError


def test_known_points_project_to_known_pixels():
    """At depth 0.5 m and focal 1000 px, one millimetre is two pixels; y up is row down."""
    points = torch.tensor([[0.0, 0.0, 0.5], [0.001, 0.0, 0.5], [0.0, 0.001, 0.5]], dtype=torch.float64)
    pixels, _ = project(points, 1000.0, (320.0, 180.0))
    expected = torch.tensor([[320, 180], [322, 180], [320, 178]], dtype=torch.float64)
    assert torch.allclose(pixels, expected)


def test_focal_length_may_be_any_number_or_a_tensor():
    points = torch.tensor([[[0.01, 0.02, 0.5]]])
    expected, _ = project(points, 1000.0, (320.0, 180.0))
    for focal in (1000, np.float64(1000), np.float32(1000), torch.tensor([1000.0])):
        assert torch.equal(project(points, focal, (320.0, 180.0))[0], expected)


def test_camera_matrix_agrees_with_opencv(tmp_path):
    """A point that OpenCV projects onto the middle of the first pixel is at (0.5, 0.5) of this program's picture."""
    cv2 = pytest.importorskip("cv2")
    k = np.array([[700, 0, 310], [0, 700, 170], [0, 0, 1.0]])
    np.savetxt(tmp_path / "k.txt", k)
    known = focal_prior(640, 360, intrinsics_file=tmp_path / "k.txt")
    ray = np.linalg.solve(k, [0.0, 0.0, 1.0])
    theirs = cv2.projectPoints(ray[None], np.zeros(3), np.zeros(3), k, None)[0].reshape(2)
    world = torch.tensor([[ray[0], -ray[1], 0.0]])  # one metre in front of the camera, y up
    ours, _ = project(world, known.focal_px, known.principal_point)
    assert theirs == pytest.approx([0, 0], abs=1e-9)
    assert ours[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-9)


def test_projection_derivative_equals_autograd():
    points = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.1
    _, analytic = project(points, 800.0, (10.0, 20.0))
    automatic = torch.autograd.functional.jacobian(lambda p: project(p, 800.0, (10.0, 20.0))[0], points)
    automatic = torch.stack([automatic[i, :, i] for i in range(5)])
    assert torch.allclose(analytic, automatic)


def test_points_behind_the_camera_stay_finite():
    pixels, jacobian = project(torch.tensor([[0.1, 0.1, 1.0], [0.1, 0.1, 5.0]]), 1000.0, (0.0, 0.0))
    assert torch.isfinite(pixels).all() and torch.isfinite(jacobian).all()


def test_focal_length_from_each_source(tmp_path):
    assert focal_prior(640, 360).focal_px == FOCAL_PRIOR_RATIO * 640
    assert focal_prior(640, 360).log_sigma > 0
    assert focal_prior(640, 360, focal_px=700).focal_px == 700
    assert focal_prior(640, 360, focal_px=700).log_sigma == 0
    assert focal_prior(640, 360, fov_deg=90).focal_px == pytest.approx(320)
    np.savetxt(tmp_path / "k.txt", [[700, 0, 310], [0, 700, 170], [0, 0, 1]])
    known = focal_prior(640, 360, intrinsics_file=tmp_path / "k.txt")
    assert (known.focal_px, known.principal_point, known.log_sigma) == (700, (310.5, 170.5), 0)  # OpenCV's pixel centres are at integers
    np.save(tmp_path / "k.npy", np.loadtxt(tmp_path / "k.txt"))
    assert focal_prior(640, 360, intrinsics_file=tmp_path / "k.npy").focal_px == 700


@pytest.mark.parametrize(
    "arguments",
    [
        {"focal_px": math.nan},
        {"focal_px": -5},
        {"focal_px": 0},
        {"focal_px": math.inf},
        {"focal_px": 1e7},
        {"focal_px": 3.0},
        {"fov_deg": math.nan},
        {"fov_deg": 0.0},
        {"fov_deg": 179},
        {"focal_px": 700, "fov_deg": 60},
    ],
)
def test_absurd_focal_lengths_are_refused(arguments):
    with pytest.raises(UserError) as error:
        focal_prior(640, 360, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(4),
        np.array([[700, 0, 320], [0, 900, 180], [0, 0, 1.0]]),
        np.array([[np.nan, 0, 320], [0, 900, 180], [0, 0, 1.0]]),
        np.array([[-700, 0, 320], [0, -700, 180], [0, 0, 1.0]]),
        np.array([[700, 0, 320], [0, 700, 180], [1, 0, 1.0]]),
    ],
)
def test_wrong_camera_matrices_are_refused(tmp_path, matrix):
    np.savetxt(tmp_path / "k.txt", matrix)
    with pytest.raises(UserError, match=r"k\.txt"):
        focal_prior(640, 360, intrinsics_file=tmp_path / "k.txt")


def test_missing_or_unreadable_camera_matrix_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        focal_prior(640, 360, intrinsics_file=tmp_path / "none.txt")
    (tmp_path / "words.txt").write_text("not numbers")
    with pytest.raises(UserError, match=r"words\.txt"):
        focal_prior(640, 360, intrinsics_file=tmp_path / "words.txt")
