"""Fast inference and exports agree with torch, survive damaged caches, and refuse what they cannot run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from densemarks_model import ModelError, inference, load_network
from densemarks_model.checkpoint_files import save_network
from densemarks_model.export import export_onnx, main
from densemarks_model.inference import fast_network
from densemarks_model.lite import LiteConfig, LiteNet

ROOT = Path(__file__).resolve().parent.parent
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


@pytest.mark.parametrize("precision, tolerance", [("f32", 1e-3), ("bf16", 0.05)])
def test_openvino_agrees_with_torch(tiny_file, tmp_path, precision, tolerance):
    crops = np.random.default_rng(0).integers(0, 255, (2, 56, 56, 3), dtype=np.uint8)
    fast = fast_network(tiny_file, device="cpu", precision=precision, cache=tmp_path)
    # a processor without bfloat16 says what it computes in instead
    assert fast.runtime in {"f32": ["OpenVINO f32"], "bf16": ["OpenVINO bf16", "OpenVINO f32", "OpenVINO f16"]}[precision]
    assert fast.image_size == 56
    got = fast(crops)
    network = load_network(tiny_file).network
    with torch.no_grad():
        expected = network.native(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(got.coordinates, expected.coordinates.permute(0, 2, 3, 1).numpy(), atol=tolerance)
    np.testing.assert_allclose(got.confidence, expected.confidence[:, 0].numpy(), atol=tolerance)
    again = fast_network(tiny_file, device="cpu", precision=precision, cache=tmp_path)(crops)  # from the cache
    np.testing.assert_allclose(again.coordinates, got.coordinates, atol=tolerance)


@pytest.mark.parametrize("openvino", [True, False])
def test_several_crops_give_what_each_alone_gives(tiny_file, tmp_path, monkeypatch, openvino):
    if not openvino:
        monkeypatch.setitem(sys.modules, "openvino", None)
    crops = np.random.default_rng(2).integers(0, 255, (5, 56, 56, 3), dtype=np.uint8)
    fast = fast_network(tiny_file, device="cpu", precision="f32", cache=tmp_path)
    assert fast.batch == 1 and fast.with_surface(np.zeros((4, 3))) is fast  # it has a mask of its own
    together, alone = fast(crops), [fast(crops[k : k + 1]) for k in range(5)]
    for name in ("coordinates", "confidence", "surface", "scale"):
        wanted = np.concatenate([getattr(a, name) for a in alone])
        # torch sums in another order for another number of crops
        np.testing.assert_allclose(getattr(together, name), wanted, rtol=0, atol=0 if openvino else 1e-5)


def test_later_runs_take_the_converted_network_and_give_the_same(tiny_file, tmp_path, monkeypatch):
    crops = np.random.default_rng(1).integers(0, 255, (1, 56, 56, 3), dtype=np.uint8)
    first = fast_network(tiny_file, device="cpu", precision="f32", cache=tmp_path)(crops)
    monkeypatch.setattr(inference, "_convert", lambda path: pytest.fail("converted again"))
    second = fast_network(tiny_file, device="cpu", precision="f32", cache=tmp_path)(crops)
    np.testing.assert_array_equal(first.coordinates, second.coordinates)


@pytest.mark.parametrize("suffix, keep", [(".xml", 20), (".bin", 1000), (".bin", 0)])
def test_a_damaged_cache_is_replaced(tiny_file, tmp_path, suffix, keep):
    crops = np.zeros((1, 56, 56, 3), np.uint8)
    first = fast_network(tiny_file, device="cpu", precision="f32", cache=tmp_path)(crops)
    (file,) = tmp_path.glob(f"*{suffix}")
    content = file.read_bytes()
    file.unlink()  # the running network may have it mapped
    file.write_bytes(content[:keep])
    second = fast_network(tiny_file, device="cpu", precision="f32", cache=tmp_path)(crops)
    np.testing.assert_allclose(first.coordinates, second.coordinates, atol=1e-6)
    assert (tmp_path / file.name).stat().st_size > keep


def test_without_a_place_to_cache_it_still_runs(tiny_file, tmp_path):
    (tmp_path / "file").write_text("no folder")
    fast = fast_network(tiny_file, device="cpu", cache=tmp_path / "file")
    assert fast(np.zeros((1, 56, 56, 3), np.uint8)).coordinates.shape == (1, 16, 16, 3)


def test_openvino_reports_nothing_and_leaves_nothing_at_home(tmp_path):
    """Its own import makes ~/intel/ with a client's id, and warnings where the home folder cannot be written."""
    code = (
        "from densemarks_model.openvino_import import import_openvino\n"
        "assert 'CPU' in import_openvino().Core().available_devices\n"
        "import sys; assert not [m for m in sys.modules if m.startswith('openvino_telemetry.')]"
    )
    environment = os.environ | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


def test_openvino_is_imported_in_one_place_only():
    direct = re.compile(r"^\s*import openvino\b", re.MULTILINE)
    folders = ("densemarks_model", "tracker", "flame_assets", "tools")
    found = [p.name for f in folders for p in (ROOT / f).rglob("*.py") if direct.search(p.read_text(encoding="utf-8"))]
    assert found == ["openvino_import.py"]


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
    with pytest.raises(ModelError, match="threads"):
        fast_network(tiny_file, device="cpu", threads=0)
    with pytest.raises(ModelError, match="own mask"):
        fast_network(tiny_file, device="cpu", surface=np.zeros((4, 3)))


def test_a_file_without_its_last_layer_is_refused(tiny, tmp_path):
    import json

    from safetensors.torch import save_file

    state = {k: v for k, v in tiny.state_dict().items() if not k.startswith("last.")}
    save_file(state, str(tmp_path / "cut.safetensors"), {"architecture": "densemarks-lite", "config": json.dumps(TINY.to_dict())})
    with pytest.raises(ModelError, match=r"2 missing \(first: last\.weight\)"):
        fast_network(tmp_path / "cut.safetensors", device="cpu", cache=tmp_path)


def test_exports_agree_with_torch(tiny, tmp_path, capsys):
    assert export_onnx(tiny, tmp_path / "tiny.onnx") < 1e-4
    assert (tmp_path / "tiny.onnx").stat().st_size > 10_000
    assert main(["--network", str(tmp_path / "none.safetensors"), "--out", str(tmp_path / "x.onnx")]) == 2
    assert "no such file" in capsys.readouterr().err and not (tmp_path / "x.onnx").exists()


def test_exports_take_other_sizes_in_whole_patches(tiny, tmp_path):
    import onnx

    assert export_onnx(tiny, tmp_path / "small.onnx", size=42) < 1e-4
    shape = onnx.load(str(tmp_path / "small.onnx")).graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [1, 3, 42, 42]
    for size in (45, 0, -14):
        with pytest.raises(ModelError, match="multiples of 14"):
            export_onnx(tiny, tmp_path / "bad.onnx", size=size)
    assert not (tmp_path / "bad.onnx").exists()
