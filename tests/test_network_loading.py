"""The door to networks: files recognised, wrong ones refused in one line; fast inference and exports agree with torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from densemarks_model import ModelError, load_network
from densemarks_model.checkpoint_files import save_network
from densemarks_model.export import export_onnx, main
from densemarks_model.inference import fast_network
from densemarks_model.lite import LiteConfig, LiteNet

TINY = LiteConfig(image_size=56, hidden_size=32, layers=2, heads=2, position_grid=5, taps=(1, 2), widths=(32, 32, 16), stem_width=16)


@pytest.fixture(scope="module")
def tiny() -> LiteNet:
    torch.manual_seed(0)
    net = LiteNet(TINY).eval()
    torch.nn.init.normal_(net.last.weight, std=0.2)
    return net


@pytest.fixture(scope="module")
def tiny_file(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("net") / "tiny.safetensors"
    save_network(path, tiny, {"data": "none"})
    return path


def test_what_is_saved_is_loaded(tiny, tiny_file):
    images = torch.rand(2, 3, 80, 60)
    got = load_network(tiny_file)(images)
    with torch.no_grad():
        expected = tiny.predict(images)
    # half-precision weights
    torch.testing.assert_close(got.coordinates, expected.coordinates, atol=3e-3, rtol=0)
    assert got.coordinates.shape == (2, 3, 80, 60) and got.surface.shape == got.confidence.shape == (2, 1, 80, 60)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((1, 3, 64, 64), np.float32), "torch tensor"),
        (torch.zeros(1, 64, 64, 3), "channel-last"),
        (torch.zeros(3, 64, 64), "B, 3, H, W"),
        (torch.zeros(1, 1, 64, 64), "B, 3, H, W"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "divide 8-bit values"),
        (torch.full((1, 3, 64, 64), 200.0), r"0, 1"),
        (torch.full((1, 3, 64, 64), float("nan")), "not finite"),
        (torch.zeros(1, 3, 8, 64), "64 x 8"),
    ],
)
def test_wrong_pictures_are_named(tiny_file, images, message):
    with pytest.raises(ModelError, match=message):
        load_network(tiny_file)(images)


def test_wrong_files_are_named(tiny, tiny_file, tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        load_network(tmp_path / "missing.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny_file.read_bytes()[:5000])
    with pytest.raises(ModelError, match="not a complete"):
        load_network(cut)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelError, match="not a complete"):
        load_network(tmp_path / "text.safetensors")
    save_file({"conv.weight": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ModelError, match=r"conv\.weight"):
        load_network(tmp_path / "other.safetensors")
    state = {k: v for k, v in tiny.state_dict().items() if k != "join.bias"}
    save_file(state, str(tmp_path / "part.safetensors"), {"architecture": "densemarks-lite", "config": json.dumps(TINY.to_dict())})
    with pytest.raises(ModelError, match=r"1 missing \(first: join\.bias\)"):
        load_network(tmp_path / "part.safetensors")
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match="not a checkpoint"):
        load_network(tmp_path / "bad.pt")


def test_the_authors_weights_name_their_licence_and_a_way_without_network(monkeypatch, capsys):
    import huggingface_hub

    def offline(*_: str) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ModelError, match="give its path"):
        load_network("official")
    assert "CC BY-NC 4.0" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="not installed"):
        load_network("official")


@pytest.mark.parametrize("precision, tolerance", [("f32", 2e-3), ("bf16", 0.05)])
def test_openvino_agrees_with_torch(tiny_file, tmp_path, precision, tolerance):
    crops = np.random.default_rng(0).integers(0, 255, (2, 56, 56, 3), dtype=np.uint8)
    fast = fast_network(tiny_file, device="cpu", precision=precision, cache=tmp_path)
    assert fast.runtime == f"OpenVINO {precision}" and fast.image_size == 56
    got = fast(crops)
    network = load_network(tiny_file).network
    with torch.no_grad():
        expected = network.native(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(got.coordinates, expected.coordinates.permute(0, 2, 3, 1).numpy(), atol=tolerance)
    np.testing.assert_allclose(got.confidence, expected.confidence[:, 0].numpy(), atol=tolerance)
    again = fast_network(tiny_file, device="cpu", precision=precision, cache=tmp_path)(crops)  # from the cache
    np.testing.assert_allclose(again.coordinates, got.coordinates, atol=tolerance)


def test_a_damaged_cache_is_replaced(tiny_file, tmp_path):
    crops = np.zeros((1, 56, 56, 3), np.uint8)
    first = fast_network(tiny_file, device="cpu", precision="f32", cache=tmp_path)(crops)
    for file in tmp_path.glob("*.xml"):
        file.write_text("<broken")
    second = fast_network(tiny_file, device="cpu", precision="f32", cache=tmp_path)(crops)
    np.testing.assert_allclose(first.coordinates, second.coordinates, atol=1e-6)


def test_without_openvino_torch_takes_over(tiny_file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    fast = fast_network(tiny_file, device="cpu")
    assert fast.runtime.startswith("torch") and "openvino is not installed" in capsys.readouterr().err
    assert fast(np.zeros((1, 56, 56, 3), np.uint8)).coordinates.shape == (1, 16, 16, 3)


def test_wrong_crops_and_settings_are_named(tiny_file, tmp_path):
    fast = fast_network(tiny_file, device="cpu", cache=tmp_path)
    with pytest.raises(ModelError, match=r"uint8 \(B, 56, 56, 3\)"):
        fast(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ModelError, match="float32"):
        fast(np.zeros((1, 56, 56, 3), np.float32))
    with pytest.raises(ModelError, match="no such device"):
        fast_network(tiny_file, device="tpu")


def test_exports_agree_with_torch(tiny, tmp_path, capsys):
    assert export_onnx(tiny, tmp_path / "tiny.onnx") < 1e-4
    assert (tmp_path / "tiny.onnx").stat().st_size > 10_000
    assert main(["--network", str(tmp_path / "none.safetensors"), "--out", str(tmp_path / "x.onnx")]) == 2
    assert "no such file" in capsys.readouterr().err and not (tmp_path / "x.onnx").exists()
