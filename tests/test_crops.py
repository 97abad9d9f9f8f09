"""Head crops: maps between crop and frame, resampling without shifts, invariance to rolled faces."""

from __future__ import annotations

import numpy as np
import pytest

from densemarks_model.crops import HeadCrop, center_crop, crop_around_landmarks
from flame_assets.load import load_head


def _gradient(width: int, height: int) -> np.ndarray:
    """A picture whose red is the column and whose green is the row of the pixel's centre."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x, y, 0 * x], -1).astype(np.uint8)


def test_there_and_back():
    crop = HeadCrop(np.array([40.0, 70.0]), 55.0, 0.3)
    points = np.random.default_rng(0).uniform(0, 64, (20, 2))
    np.testing.assert_allclose(crop.to_crop(crop.to_frame(points, 64), 64), points, atol=1e-9)
    np.testing.assert_allclose(crop.to_frame(np.array([32.0, 32.0]), 64), crop.center)


def test_clockwise_roll_turns_the_crops_x_axis_down():
    crop = HeadCrop(np.array([50.0, 50.0]), 40.0, np.pi / 2)
    right = crop.to_frame(np.array([[20.0, 20.0], [40.0, 20.0]]), 40)
    np.testing.assert_allclose(right[1] - right[0], [0, 20], atol=1e-9)


@pytest.mark.parametrize("side, size", [(64.0, 64), (128.0, 64), (48.0, 96)])
def test_pixels_come_from_where_the_map_says(side, size):
    image = _gradient(220, 200)
    crop = HeadCrop(np.array([110.0, 100.0]), side, 0.2)
    picture = crop.extract(image, size).astype(float)
    rows, columns = np.mgrid[5 : size - 5 : 7, 5 : size - 5 : 7]
    centres = np.stack([columns, rows], -1) + 0.5
    wanted = crop.to_frame(centres.reshape(-1, 2), size).reshape(*centres.shape) - 0.5
    assert np.abs(picture[rows, columns, :2] - wanted).max() < 0.8  # half a grey level of rounding, twice


def test_a_strong_reduction_averages_instead_of_skipping_pixels():
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, ::2] = 200  # stripes one pixel wide
    picture = crop = center_crop(400, 400).extract(image, 50)
    assert crop.shape == (50, 50, 3)
    assert np.abs(picture.astype(float) - 100).max() <= 2


def test_beyond_the_frame_is_black():
    crop = HeadCrop(np.array([0.0, 50.0]), 60.0)
    picture = crop.extract(np.full((100, 100, 3), 255, np.uint8), 60)
    assert (picture[:, :28] == 0).all() and (picture[:, 32:] == 255).all()


@pytest.mark.parametrize("roll", [-1.2, 0.4, 2.5])
def test_a_rolled_face_gets_the_same_crop_rolled(roll):
    head = load_head()
    points = head.landmarks["mediapipe"].positions(head.v_template, head.faces)[:, :2] * [1000, -1000]
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    upright = crop_around_landmarks(points)
    rolled = crop_around_landmarks(points @ turn.T + [300, 200])
    np.testing.assert_allclose(rolled.center, turn @ upright.center + [300, 200], atol=1e-6)
    assert rolled.side == pytest.approx(upright.side)
    assert np.angle(np.exp(1j * (rolled.roll - upright.roll - roll))) == pytest.approx(0, abs=1e-9)


def test_the_crop_holds_the_whole_head():
    head = load_head()
    flat = head.v_template[:, :2] * [1000, -1000]
    points = head.landmarks["mediapipe"].positions(head.v_template, head.faces)[:, :2] * [1000, -1000]
    inside = crop_around_landmarks(points).to_crop(flat[~head.regions["neck"]], 1)
    assert inside.min() > 0.05 and inside.max() < 0.95


@pytest.mark.parametrize("center, side", [([np.nan, 0.0], 10.0), ([0.0, 0.0], 0.0), ([0.0, 0.0, 0.0], 5.0)])
def test_impossible_crops_are_refused(center, side):
    with pytest.raises(ValueError, match="crop"):
        HeadCrop(np.array(center), side)
