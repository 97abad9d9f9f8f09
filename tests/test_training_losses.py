"""Losses and the canonical cube against values worked out by hand and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.train import losses
from densemarks_model.train.config import LossWeights
from densemarks_model.train.cube import CanonicalCube
from densemarks_model.train.objective import Objective, read_at


def test_coordinates_count_where_the_weight_is():
    predicted = torch.zeros(1, 3, 1, 2)
    target = torch.tensor([[0.1, 0.2, 0.3], [1.0, 1.0, 1.0]]).T.reshape(1, 3, 1, 2)
    weight = torch.tensor([[[[1.0, 0.0]]]])
    assert losses.coordinate_loss(predicted, target, weight).item() == pytest.approx(0.6)
    assert losses.coordinate_loss(predicted, target, 0 * weight).item() == 0


def test_hidden_pixels_count_a_tenth():
    head = torch.tensor([1.0, 0.0, 0.0, 0.5]).view(1, 1, 1, 4)
    surface = torch.tensor([1.0, 1.0, 0.0, 1.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(losses.pixel_weights(head, surface).flatten(), torch.tensor([1.0, 0.1, 0.0, 0.55]))


def test_the_best_scale_is_the_mean_error_per_axis_and_coordinates_get_no_gradient():
    target, weight = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    predicted = torch.full((1, 3, 4, 4), 0.02, requires_grad=True)
    log_scale = torch.zeros(1, 1, 4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([log_scale], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        losses.scale_loss(log_scale, predicted, target, weight).backward()
        optimizer.step()
    assert predicted.grad is None
    torch.testing.assert_close(log_scale.exp(), torch.full_like(log_scale, 0.02), atol=1e-3, rtol=0)


def test_contrastive_loss_of_known_features():
    eye = torch.eye(3)
    assert losses.contrastive_loss(2 * eye, 5 * eye).item() == pytest.approx(0)  # lengths do not matter
    # all features alike: six entries off the diagonal are one instead of zero
    assert losses.contrastive_loss(torch.ones(3, 4), torch.ones(3, 4)).item() == pytest.approx(6 / 9)
    # matches swapped: four of nine entries are off by one
    assert losses.contrastive_loss(eye, eye[[1, 0, 2]]).item() == pytest.approx(4 / 9)


def test_landmarks_are_pulled_to_their_anchors_where_visible():
    predicted = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 0.0]], requires_grad=True)
    anchors = torch.tensor([[0.4, 0.5, 0.7], [1.0, 1.0, 1.0]])
    loss = losses.landmark_loss(predicted, anchors, torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(0.3)
    loss.backward()
    torch.testing.assert_close(predicted.grad, torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]))


def test_segmentation_ignores_unlabelled_pixels():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2).requires_grad_()
    labels = torch.tensor([[[0, 255]]])
    assert losses.segmentation_loss(logits, labels).item() == pytest.approx(math.log(1 + math.exp(-2)))
    empty = losses.segmentation_loss(logits, torch.full((1, 1, 2), 255))
    assert empty.item() == 0 and empty.requires_grad


def test_mask_loss_is_least_at_the_coverage_itself():
    target = torch.tensor([[[[0.25]]]])
    best = losses.mask_loss(torch.logit(target), target)
    for other in (0.2, 0.3):
        assert losses.mask_loss(torch.logit(torch.full_like(target, other)), target) > best


@pytest.mark.parametrize("name", ["coordinate", "contrastive", "landmark"])
def test_gradients_match_finite_differences(name):
    torch.manual_seed(0)
    first, second = torch.rand(5, 3, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64)
    function = {
        "coordinate": lambda x: losses.coordinate_loss(x.T.reshape(1, 3, 1, 5), second.T.reshape(1, 3, 1, 5), torch.ones(1, 1, 1, 5).double()),
        "contrastive": lambda x: losses.contrastive_loss(x, second),
        "landmark": lambda x: losses.landmark_loss(x, second),
    }[name]
    assert torch.autograd.gradcheck(function, first.requires_grad_())


def test_the_cube_is_read_trilinearly():
    cube = CanonicalCube(size=4, channels=3, sigma=0)
    with torch.no_grad():
        centres = (torch.arange(4) + 0.5) / 4
        z, y, x = torch.meshgrid(centres, centres, centres, indexing="ij")
        cube.grid.copy_(torch.stack([x, y, z])[None])
    inside = torch.rand(50, 3) * 0.7 + 0.15
    torch.testing.assert_close(cube(inside), inside, atol=1e-6, rtol=0)
    torch.testing.assert_close(cube(torch.tensor([[0.0, 1.0, 0.5]])), torch.tensor([[0.125, 0.875, 0.5]]))


def test_smoothing_keeps_constants_and_spreads_peaks():
    cube = CanonicalCube(size=9, channels=1, sigma=1.0)
    with torch.no_grad():
        cube.grid.fill_(0.3)
        torch.testing.assert_close(cube.smoothed(), cube.grid.data)
        cube.grid.zero_()
        cube.grid[0, 0, 4, 4, 4] = 1.0
        smooth = cube.smoothed()[0, 0]
    assert smooth.sum().item() == pytest.approx(1.0, abs=1e-5)
    ratio = smooth[4, 4, 5] / smooth[4, 4, 4]
    assert ratio.item() == pytest.approx(math.exp(-0.5), rel=1e-4)
    torch.testing.assert_close(smooth, smooth.permute(2, 0, 1))  # the same along all axes


def test_cube_gradients_match_finite_differences():
    torch.manual_seed(0)
    cube = CanonicalCube(size=3, channels=2, sigma=0.7).double()
    points = torch.rand(4, 3, dtype=torch.float64) * 0.6 + 0.2
    assert torch.autograd.gradcheck(lambda p: cube(p), points.requires_grad_())
    value = cube(points.detach()).pow(2).sum()
    value.backward()
    index, step = (0, 1, 1, 2, 0), 1e-6
    with torch.no_grad():
        cube.grid[index] += step
        moved = cube(points.detach()).pow(2).sum()
    assert ((moved - value) / step).item() == pytest.approx(cube.grid.grad[index].item(), rel=1e-4)


def test_classes_need_a_cube_that_has_them():
    assert CanonicalCube(4, 3, classes=5).classify(torch.zeros(2, 3)).shape == (2, 5)
    with pytest.raises(ValueError, match="without classes"):
        CanonicalCube(4, 3).classify(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="size"):
        CanonicalCube(1, 3)


def test_maps_are_read_at_places_measured_in_sides():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    places = torch.tensor([[[0.125, 0.125], [0.875, 0.375], [0.25, 0.125]]])
    torch.testing.assert_close(read_at(maps, places)[0, :, 0], torch.tensor([0.0, 7.0, 0.5]))


def test_charbonnier_is_a_distance_far_away_and_a_square_nearby():
    target, weight = torch.zeros(1, 3, 1, 1), torch.ones(1, 1, 1, 1)
    far = torch.tensor([0.6, 0.0, 0.8]).view(1, 3, 1, 1)
    epsilon = losses.CHARBONNIER
    assert losses.charbonnier_loss(far, target, weight).item() == pytest.approx(math.sqrt(1 + epsilon**2) - epsilon)
    near = 0.001 * far
    assert losses.charbonnier_loss(near, target, weight).item() == pytest.approx(0.001**2 / (2 * epsilon), rel=0.01)
    assert losses.charbonnier_loss(far, target, 0 * weight).item() == 0


def test_gradient_loss_sees_steps_and_no_offset():
    target = torch.rand(2, 3, 4, 5)
    weight = torch.ones(2, 1, 4, 5)
    assert losses.gradient_loss(target + 0.3, target, weight).item() == pytest.approx(0, abs=1e-6)
    # one row of three pixels, the last one 0.2 too far in x: one of two pairs is off by 0.2, and no pair goes down
    predicted = torch.zeros(1, 3, 1, 3)
    predicted[0, 0, 0, 2] = 0.2
    row = torch.ones(1, 1, 1, 3)
    assert losses.gradient_loss(predicted, torch.zeros(1, 3, 1, 3), row).item() == pytest.approx(0.1)
    row[0, 0, 0, 2] = 0  # outside of the head, as its pair is
    assert losses.gradient_loss(predicted, torch.zeros(1, 3, 1, 3), row).item() == 0


def test_mirror_loss_of_a_map_and_its_mirror_image():
    maps = torch.rand(2, 3, 4, 4)
    mirrored = maps.flip(3).clone()
    mirrored[:, 0] = 1 - mirrored[:, 0]
    weight = torch.ones(2, 1, 4, 4)
    assert losses.mirror_loss(maps, mirrored, weight).item() == pytest.approx(0, abs=1e-6)
    mirrored[:, 1] += 0.1
    assert losses.mirror_loss(maps, mirrored, weight).item() == pytest.approx(0.1, abs=1e-6)


def test_extras_are_computed_when_they_count():
    torch.manual_seed(0)
    config = LiteConfig(image_size=28, hidden_size=32, layers=1, heads=2, position_grid=5, taps=(1,), widths=(16, 16, 16), stem_width=16)
    net = LiteNet(config)
    batch = {
        "image": torch.rand(2, 3, 28, 28), "coordinates": torch.rand(2, 3, 8, 8),
        "head": torch.ones(2, 1, 8, 8), "surface": torch.ones(2, 1, 8, 8),
    }  # fmt: skip
    plain = Objective(net, None, LossWeights())({"synthetic": batch})
    assert set(plain) == {"coordinate", "scale", "head", "surface", "total"}
    more = Objective(net, None, LossWeights(gradient=2.0, charbonnier=3.0, mirror=4.0))({"synthetic": batch})
    extra = 2 * more["gradient"] + 3 * more["charbonnier"] + 4 * more["mirror"]
    torch.testing.assert_close(more["total"], plain["total"] + extra)
    assert extra > 0
