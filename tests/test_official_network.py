"""The authors' architecture against numbers of their own inference model with weights from a fixed filler."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from densemarks_model import ModelError, Prediction, inference, load_network, loading
from densemarks_model.confidence import nearness, regularity
from densemarks_model.official import OfficialNet, published_layout

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


def test_the_layout_is_the_published_one(golden, network):
    assert published_layout(network.network) == {k: tuple(v.shape) for k, v in golden[0].items()} and len(golden[0]) == 258


def test_what_does_not_fit_is_named_as_in_the_file(golden):
    key = "embedder.backbone.blocks.3.attn.qkv.bias_mask"
    state = {k: v for k, v in golden[0].items() if k != key}
    state["decoder.weight"] = torch.zeros(1)
    state["predictor.embed_lowres.bias"] = torch.zeros(4)
    with pytest.raises(ModelError) as found:
        OfficialNet.from_published(state, "some.safetensors")
    message = str(found.value)
    assert f"1 missing (first: {key})" in message and "1 unknown (first: decoder.weight)" in message
    assert "predictor.embed_lowres.bias is (4,), not (3,)" in message and message.startswith("some.safetensors")


def test_a_mask_that_lets_the_keys_bias_pass_is_refused(golden):
    key = "embedder.backbone.blocks.0.attn.qkv.bias_mask"
    with pytest.raises(ModelError, match="bias of the keys"):
        OfficialNet.from_published({**golden[0], key: torch.ones(2304)})


def test_constants_of_the_file_count(golden):
    changed = {**golden[0], "embedder.pixel_mean": torch.full((1, 3, 1, 1), 0.25)}
    changed["embedder.backbone.rope_embed.periods"] = 2 * golden[0]["embedder.backbone.rope_embed.periods"]
    net = OfficialNet.from_published(changed)
    assert (net.image_mean == 0.25).all()
    torch.testing.assert_close(1 / net.backbone.rope_embeddings.inv_freq, changed["embedder.backbone.rope_embed.periods"])


def test_a_known_surface_lowers_confidence_away_from_it(network, monkeypatch):
    coordinates = _ball_in_a_picture(64)[0]
    net = network.network
    monkeypatch.setattr(net, "forward", lambda images: torch.nn.functional.interpolate(coordinates, size=512, mode="nearest"))
    without = network(torch.zeros(1, 3, 512, 512))
    surface = coordinates[0, :, 20, 30][None]
    try:
        net.set_surface(surface)
        got = network(torch.zeros(1, 3, 512, 512))
    finally:
        net.set_surface(None)
    torch.testing.assert_close(got.confidence, without.confidence * nearness(got.coordinates, surface))
    assert got.confidence[0, 0, 164, 244] > 0.5 > 10 * got.confidence[0, 0, 256, 330]
    with pytest.raises(ModelError, match="finite points"):
        net.set_surface(torch.zeros(3))


def test_fast_inference_keeps_each_heads_surface_apart(network, monkeypatch):
    """Two of it share the weights; what one was told does not reach the other, and none claims to see the bald head."""
    coordinates = _ball_in_a_picture(64)[0]
    monkeypatch.setattr(network.network, "forward", lambda images: torch.nn.functional.interpolate(coordinates, size=512, mode="nearest"))
    monkeypatch.setattr(loading, "load_network", lambda *_: network)
    surface = coordinates[0, :, 20, 30][None].numpy()
    plain = inference.fast_network("official", device="cpu")
    told = plain.with_surface(surface)
    crops = np.zeros((1, 512, 512, 3), np.uint8)
    try:
        for fast, known in ((told, surface), (plain, None), (told, surface), (told.with_surface(None), None)):
            got = fast(crops)
            assert got.surface is None and got.coordinates.shape == (1, 512, 512, 3)
            near = 1.0 if known is None else nearness(torch.from_numpy(got.coordinates).permute(0, 3, 1, 2), torch.from_numpy(known))[:, 0].numpy()
            steady = regularity(torch.from_numpy(got.coordinates).permute(0, 3, 1, 2))[:, 0].numpy()
            np.testing.assert_allclose(got.confidence, steady * near, atol=1e-6)
        with pytest.raises(ModelError, match="finite points"):
            plain.with_surface(np.zeros(3))
    finally:
        network.network.set_surface(None)


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


def test_confidence_does_not_depend_on_the_pictures_resolution():
    small, large = (regularity(_ball_in_a_picture(size)[0]) for size in (128, 512))
    reduced = torch.nn.functional.avg_pool2d(large, 4)
    assert (small - reduced).abs().mean() < 0.02


def test_a_smooth_but_restless_background_gets_no_confidence():
    """A decoder's maps are smooth from pixel to pixel everywhere; away from the head they turn within a patch or two."""
    coordinates, inside = _ball_in_a_picture(512)
    y, x = torch.meshgrid(*(torch.arange(512.0),) * 2, indexing="ij")
    waves = torch.stack([torch.sin(x / 11 + k) * torch.cos(y / 12 - k) for k in range(3)])
    confidence = regularity(torch.where(inside, coordinates, 0.5 + 0.15 * waves))
    core = torch.nn.functional.max_pool2d(1 - inside.float(), 81, 1, 40) == 0
    far = torch.nn.functional.max_pool2d(inside.float(), 81, 1, 40) == 0
    assert confidence[core].mean() > 0.8 and confidence[far].mean() < 0.15


def test_nearness_is_the_same_with_a_tree_and_with_all_distances():
    draw = torch.Generator().manual_seed(0)
    coordinates, surface = torch.rand(2, 3, 24, 16, generator=draw), torch.rand(300, 3, generator=draw)
    tree, distances = nearness(coordinates, surface), nearness(coordinates.requires_grad_(), surface)
    assert distances.requires_grad and tree.dtype == distances.dtype
    torch.testing.assert_close(tree, distances.detach(), atol=2e-4, rtol=0)  # cdist takes differences of squares
    distances.sum().backward()
    assert coordinates.grad.abs().max() > 0


def test_nearness_is_one_on_the_surface_and_falls_with_the_square_of_distance():
    surface = torch.tensor([[0.5, 0.5, 0.5], [0.1, 0.1, 0.1]])
    coordinates = torch.tensor([[0.5, 0.5, 0.55], [0.1, 0.1, 0.1]]).T.reshape(1, 3, 1, 2)
    got = nearness(coordinates, surface, sigma=0.05)
    torch.testing.assert_close(got.flatten(), torch.tensor([np.exp(-1.0), 1.0], dtype=torch.float32))
