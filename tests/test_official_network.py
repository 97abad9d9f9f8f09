"""The authors' architecture against numbers of their own inference model with weights from a fixed filler."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from densemarks_model import ModelError, Prediction, load_network
from densemarks_model.confidence import nearness, regularity
from densemarks_model.official import OfficialNet, convert_published

GOLDEN = Path(__file__).parent / "data" / "official_golden.npz"


def _filled(key: str, shape: tuple[int, ...], periods: np.ndarray) -> np.ndarray:
    if key.endswith("pixel_mean"):
        return np.array([0.485, 0.456, 0.406], np.float32).reshape(shape)
    if key.endswith("pixel_std"):
        return np.array([0.229, 0.224, 0.225], np.float32).reshape(shape)
    if key.endswith("periods"):
        return periods
    if key.endswith("bias_mask"):
        return np.repeat(np.array([1, 0, 1], np.float32), shape[0] // 3)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
    weight = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        weight = weight / np.sqrt(np.prod(shape[1:]))
        return (0.02 * weight if key == "predictor.embed_lowres.weight" else weight).astype(np.float32)
    is_scale = key.endswith(("norm.weight", "norm1.weight", "norm2.weight"))
    return (1 + 0.1 * weight if is_scale else 0.1 * weight).astype(np.float32)


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, torch.Tensor], np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as archive:
        keys, shapes, periods, uvw = (archive[k] for k in ("keys", "shapes", "rope_periods", "uvw"))
    state = {str(k): torch.from_numpy(_filled(str(k), ast.literal_eval(str(s)), periods)) for k, s in zip(keys, shapes, strict=True)}
    return state, uvw


@pytest.fixture(scope="module")
def network(golden, tmp_path_factory):
    """Through the same door as the published file."""
    path = tmp_path_factory.mktemp("official") / "model.safetensors"
    save_file({k: v.contiguous() for k, v in golden[0].items()}, str(path))
    yield load_network(path)
    path.unlink()


def test_the_published_inference_model_is_reproduced(golden, network):
    pixels = (np.random.RandomState(7).rand(1, 512, 512, 3) * 255).astype(np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    got = network(images)
    assert isinstance(got, Prediction) and got.surface is None
    np.testing.assert_allclose(got.coordinates[:, :, ::8, ::8].numpy(), golden[1], atol=1e-4)
    assert got.confidence.shape == (1, 1, 512, 512) and got.confidence.min() >= 0 and got.confidence.max() <= 1


def test_all_258_entries_are_expected(golden):
    assert len(golden[0]) == 258
    lacking = {k: v for k, v in golden[0].items() if "blocks.3.norm1.weight" not in k}
    with pytest.raises(ModelError, match="1 missing"):
        OfficialNet.from_published(lacking)
    with pytest.raises(ModelError, match="decoder"):
        convert_published({**golden[0], "decoder.weight": torch.zeros(1)})


def test_a_bias_for_the_keys_is_refused(golden):
    key = "embedder.backbone.blocks.0.attn.qkv.bias"
    unmasked = {k: v for k, v in golden[0].items() if not k.endswith("bias_mask")}
    with pytest.raises(ModelError, match="masks it out"):
        convert_published({key: unmasked[key]})


def _ball_in_a_picture(size: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates of a ball's front as a head has them, and where it is."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, size),) * 2, indexing="ij")
    inside = x**2 + y**2 < 0.6**2
    z = (0.6**2 - x**2 - y**2).clamp(min=0).sqrt()
    coordinates = 0.5 + 0.5 * torch.stack([x, -y, z]) / 0.6 * 0.8
    return coordinates[None], inside[None, None]


@pytest.mark.parametrize("background", ["constant", "noise"])
def test_confidence_tells_a_head_from_its_background(background):
    coordinates, inside = _ball_in_a_picture()
    torch.manual_seed(0)
    other = torch.full_like(coordinates, 0.4) if background == "constant" else torch.rand_like(coordinates)
    confidence = regularity(torch.where(inside, coordinates, other))
    core = torch.nn.functional.max_pool2d(1 - inside.float(), 15, 1, 7) == 0
    far = torch.nn.functional.max_pool2d(inside.float(), 15, 1, 7) == 0
    assert confidence[core].mean() > 0.8
    assert confidence[far].mean() < 0.1


def test_nearness_is_one_on_the_surface_and_falls_with_the_square_of_distance():
    surface = torch.tensor([[0.5, 0.5, 0.5], [0.1, 0.1, 0.1]])
    coordinates = torch.tensor([[0.5, 0.5, 0.55], [0.1, 0.1, 0.1]]).T.reshape(1, 3, 1, 2)
    got = nearness(coordinates, surface, sigma=0.05)
    torch.testing.assert_close(got.flatten(), torch.tensor([np.exp(-1.0), 1.0], dtype=torch.float32))
