"""The door to networks: files recognised, wrong ones and pictures refused in one line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from densemarks_model import ModelError, load_network
from densemarks_model.checkpoint_files import DEFAULT_HEAD, HEAD, read_tensors, save_network
from densemarks_model.inference import fast_network
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.loading import ARCHITECTURES, SHIPPED, speaks_default_cube
from densemarks_model.prediction import Prediction

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


def test_networks_say_whose_cube_they_speak(tiny, tiny_file, tmp_path):
    save_network(tmp_path / "ours.safetensors", tiny, {HEAD: DEFAULT_HEAD})
    save_network(tmp_path / "theirs.safetensors", tiny, {HEAD: "somebody's scans"})
    shutil.copy(SHIPPED, tmp_path / "copy.safetensors")
    assert all(map(speaks_default_cube, ("lite", tmp_path / "copy.safetensors", tmp_path / "ours.safetensors", str(tmp_path / "ours.safetensors"))))
    # older files say nothing, and are measured as before
    assert not any(map(speaks_default_cube, ("official", tiny_file, tmp_path / "theirs.safetensors")))
    for name, entry in (("old", {}), ("new", {HEAD: DEFAULT_HEAD})):
        torch.save({"average": tiny.state_dict(), "network": TINY.to_dict()} | entry, tmp_path / f"{name}.pt")
        assert speaks_default_cube(tmp_path / f"{name}.pt") == bool(entry)
    with pytest.raises(ModelError, match="no such file"):
        speaks_default_cube(tmp_path / "none.safetensors")


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_pictures_of_other_precisions_are_taken(tiny_file, dtype):
    images = torch.rand(1, 3, 64, 64).to(dtype)
    network = load_network(tiny_file)
    torch.testing.assert_close(network(images).coordinates, network(images.float()).coordinates)


@pytest.mark.parametrize("config", [None, "{", "[1]", "null", '{"patch_size": 0}', '{"hidden_size": "x"}', '{"widths": [1, 2]}', '{"colour": 3}'])
def test_unusable_settings_are_refused_with_the_files_name(tiny, tmp_path, config):
    path = tmp_path / "odd.safetensors"
    save_file(tiny.state_dict(), str(path), {"architecture": "densemarks-lite", **({} if config is None else {"config": config})})
    with pytest.raises(ModelError, match=r"odd\.safetensors"):
        load_network(path)


def test_weights_that_are_no_numbers_are_neither_loaded_nor_saved(tiny, tmp_path):
    state = {k: v.clone() for k, v in tiny.state_dict().items()}
    state["join.bias"][0] = float("nan")
    save_file(state, str(tmp_path / "nan.safetensors"), {"architecture": "densemarks-lite", "config": json.dumps(TINY.to_dict())})
    with pytest.raises(ModelError, match=r"join\.bias has values that are not finite"):
        load_network(tmp_path / "nan.safetensors")
    large = LiteNet(TINY)
    with torch.no_grad():
        large.join.bias[0] = 1e6  # beyond half precision
    with pytest.raises(ModelError, match="not written"):
        save_network(tmp_path / "large.safetensors", large)
    assert not (tmp_path / "large.safetensors").exists()


def test_training_checkpoints_are_loaded(tiny, tmp_path):
    torch.save({"average": tiny.state_dict(), "network": TINY.to_dict()}, tmp_path / "good.pt")
    images = torch.rand(1, 3, 56, 56)
    torch.testing.assert_close(load_network(tmp_path / "good.pt")(images).coordinates, tiny.predict(images).coordinates)
    for name, content in (("list", [1]), ("half", {"average": tiny.state_dict()}), ("number", {"average": 3, "network": {}})):
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(ModelError, match=f"{name}.pt: not a checkpoint"):
            load_network(tmp_path / f"{name}.pt")


def test_devices_that_are_not_there_are_named(tiny_file):
    with pytest.raises(ModelError, match="no such device"):
        load_network(tiny_file, "warp")
    with pytest.raises(ModelError, match="CUDA device"):
        load_network(tiny_file, f"cuda:{max(torch.cuda.device_count(), 0)}")


class OneColour(torch.nn.Module):
    """An architecture of somebody else's: every pixel shows the same place."""

    crop_size, gpu_batch = 96, 8

    def __init__(self, place: torch.Tensor) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(place)

    def predict(self, images: torch.Tensor) -> Prediction[torch.Tensor]:
        flat = images[:, :1] * 0
        return Prediction(flat + self.place.view(1, 3, 1, 1), flat + 1, None, flat + 0.05)


def from_file(path: Path, metadata: dict[str, str]) -> OneColour:
    return OneColour(read_tensors(path)["place"])


def test_an_architecture_is_added_by_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "one-colour", f"{__name__}:from_file")
    path = tmp_path / "theirs.safetensors"
    save_file({"place": torch.tensor([0.2, 0.4, 0.6])}, str(path), {"architecture": "one-colour", "cube": "2", HEAD: DEFAULT_HEAD})
    found = load_network(path)
    assert found.cube == 2 and speaks_default_cube(path)
    assert torch.allclose(found(torch.rand(2, 3, 40, 40)).coordinates[1, :, 3, 4], torch.tensor([0.2, 0.4, 0.6]))
    fast = fast_network(path, "cpu")
    said = fast(np.zeros((3, 96, 96, 3), np.uint8))
    assert fast.image_size == 96 and fast.cube == 2 and said.surface is None
    assert said.coordinates.shape == (3, 96, 96, 3) and np.allclose(said.coordinates[2, 5, 6], [0.2, 0.4, 0.6])
