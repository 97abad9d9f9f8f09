"""What is silently wrong when it is wrong: a training sample's coordinates are those of the very points that its picture shows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from densemarks_model.train.augment import MARGIN, vary

STORED, CELLS = 256, 64
"""Sides of what shards hold."""

SIZES = (168, 196, 224)


def _in_sides(size: int) -> np.ndarray:
    """Middles of the pixels of a square, (size, size, 2), in sides from its top-left corner."""
    middles = (np.arange(size) + 0.5) / size
    return np.stack(np.meshgrid(middles, middles), -1)


def _ball(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the line of sight through ``points`` (..., 2), in sides of the crop, meets a ball: cube coordinates, and whether it does."""
    camera = np.array([0.0, 0.0, 3.0])
    rays = np.concatenate([(points - 0.5) * 1.15, np.full((*points.shape[:-1], 1), -1.0)], -1)
    a, b, c = (rays**2).sum(-1), 2 * rays @ camera, camera @ camera - 1.0
    root = b**2 - 4 * a * c
    nearest = (-b - np.sqrt(np.maximum(root, 0))) / (2 * a)
    return 0.5 + 0.4 * (camera + nearest[..., None] * rays), root > 0


def _project(cube: np.ndarray) -> np.ndarray:
    """The inverse for points of the ball that are seen: cube coordinates to sides of the crop."""
    point = (cube - 0.5) / 0.4
    return 0.5 + point[..., :2] / (3.0 - point[..., 2:]) / 1.15


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A ball as a shard would hold it: picture coloured by its coordinates, map, masks."""
    fine = 4
    colours, inside = _ball(_in_sides(STORED * fine))
    colours = (colours * inside[..., None]).reshape(STORED, fine, STORED, fine, 3).mean((1, 3))
    places, _ = _ball(_in_sides(CELLS))
    cover = inside.reshape(CELLS, -1, CELLS, inside.shape[0] // CELLS).mean((1, 3))
    masks = np.round(255 * np.stack([cover, cover], -1)).astype(np.uint8)
    return np.round(255 * colours).astype(np.uint8), places.astype(np.float16), masks


@pytest.mark.parametrize("size", SIZES)
def test_coordinates_lie_at_the_pixels_that_show_them(ball, size):
    """Every map cell holds the coordinates that the camera sees at the cell's middle, at the resolutions that networks are taught at."""
    cells = 4 * size // 14
    sample = vary(*ball, size, cells, None)
    assert sample["image"].shape == (3, size, size) and sample["coordinates"].shape == (3, cells, cells)
    where = 0.5 + (_in_sides(cells) - 0.5) / MARGIN
    expected, _ = _ball(where)
    inside = np.linalg.norm(where - 0.5, axis=-1) < 0.25  # not at the rim, where a cell spans much of the ball
    got = sample["coordinates"].transpose(1, 2, 0)
    assert np.abs(got - expected)[inside].max() < 0.004
    # known points of the ball, projected into the sample, read there
    points = expected[inside][::7]
    at = (0.5 + (_project(points) - 0.5) * MARGIN) * cells - 0.5
    read = cv2.remap(got, at[None, :, 0].astype(np.float32), at[None, :, 1].astype(np.float32), cv2.INTER_LINEAR)[0]
    assert np.abs(read - points).max() < 0.004
    # and the picture shows them there
    colours = cv2.resize(sample["image"].transpose(1, 2, 0), (cells, cells), interpolation=cv2.INTER_AREA)
    assert np.abs(colours - expected)[inside].max() < 0.012


@pytest.mark.parametrize("strength", ["plain", "strong"])
@pytest.mark.parametrize("size", SIZES)
def test_a_point_is_where_the_coordinates_say_after_every_change(strength, size):
    """One bright dot; the map's first two coordinates are places in the stored picture, so what is read at the dot must be its place."""
    rng = np.random.default_rng([4, size])
    cells, mirrored, worst = 4 * size // 14, 0, []
    places = np.concatenate([_in_sides(CELLS), np.full((CELLS, CELLS, 1), 0.5)], -1).astype(np.float16)
    for k in range(60):
        dot = rng.uniform(0.3, 0.7, 2)
        distance = np.linalg.norm(_in_sides(STORED) - dot, axis=-1)
        image = np.repeat((255 * np.exp(-0.5 * (distance / 0.012) ** 2)).astype(np.uint8)[..., None], 3, -1)
        cover = np.full((CELLS, CELLS, 2), 255, np.uint8)
        sample = vary(image, places, cover, size, cells, np.random.default_rng([k, size]), strength)
        if ((sample["surface"] > 0.99) & (sample["head"] == 0)).any():
            continue  # something is in front, which may be brighter than the dot
        bright = sample["image"].mean(0)
        bright = np.where(bright > 0.5 * bright.max(), bright, 0)
        found = (_in_sides(size) * bright[..., None]).sum((0, 1)) / bright.sum()
        if np.abs(found - 0.5).max() > 0.45:
            continue  # moved out of the picture
        at = (found * cells - 0.5).astype(np.float32)
        read = cv2.remap(sample["coordinates"].transpose(1, 2, 0), at[None, None, :1], at[None, None, 1:], cv2.INTER_LINEAR)[0, 0]
        # a mirrored head's left is its right: x counts from the other side
        straight, mirror = np.abs(read[:2] - dot).max(), np.abs([1 - read[0] - dot[0], read[1] - dot[1]]).max()
        mirrored += mirror < straight
        worst.append(min(straight, mirror))
    assert len(worst) > 35 and max(worst) < 0.006, max(worst)
    assert 0.3 < mirrored / len(worst) < 0.7


def test_a_mirrored_sample_is_the_sample_of_the_mirrored_head(ball):
    """The ball is its own mirror image, coordinates with it: mirrored or not, colours are the coordinates in y and z."""
    for k in range(6):
        sample = vary(*ball, 168, 48, np.random.default_rng(k))
        x = sample["coordinates"][0]
        assert sample["head"][0, 24, 24] == 1
        assert (np.diff(x[20:28, 12:36].mean(0)) > 0).all()  # to the right is the head's left, mirrored or not


def test_plain_changes_are_what_they_were(ball):
    """Runs begun before there was a choice must see the same samples: numbers noted then."""
    sample = vary(*ball, 168, 48, np.random.default_rng(3))
    assert np.array_equal(sample["image"], vary(*ball, 168, 48, np.random.default_rng(3), "plain")["image"])
    got = [float(sample[name].mean(dtype=np.float64)) for name in ("image", "coordinates", "head", "surface")]
    np.testing.assert_allclose(got, PLAIN, rtol=1e-5)


PLAIN = (0.16153729473083078, 0.5814531313296243, 0.26870915078466673, 0.26870915078466673)


def test_things_in_front_take_the_mask_and_leave_the_surface(ball):
    image, places, _ = ball
    full = np.full((CELLS, CELLS, 2), 255, np.uint8)
    covered = 0
    for k in range(60):
        strong = vary(image, places, full, 168, 48, np.random.default_rng(k), "strong")
        inside = strong["surface"][0] > 0.99
        erased = inside & (strong["head"][0] == 0)
        covered += bool(erased.any())
        assert np.isfinite(strong["image"]).all() and 0 <= strong["image"].min() and strong["image"].max() <= 1
        assert strong["image"].dtype == strong["coordinates"].dtype == strong["head"].dtype == np.float32
        if erased.any():
            rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
            assert len(rows) <= 17 and len(columns) <= 17
            assert strong["surface"][0][erased].min() > 0.99
    assert 5 <= covered <= 20  # a fifth
    again = vary(image, places, full, 168, 48, np.random.default_rng(59), "strong")
    assert all(np.array_equal(again[k], strong[k]) for k in again)
