"""Int8: close to float where the ranges are right, float with a note where they are not, and never something else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from densemarks_model import ModelError, inference, load_network, openvino_graph
from densemarks_model.checkpoint_files import DEFAULT_HEAD, HEAD, read_header, save_network
from densemarks_model.inference import fast_network
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.openvino_graph import (
    GraphMismatch,
    aligned,
    computes_int8,
    quantise_graph,
    read_ranges,
    rounded_weights,
    write_ranges,
)
from densemarks_model.openvino_import import import_openvino
from densemarks_model.quantise import main, narrowed, quantise_file, smooth_network, watch

TINY = LiteConfig(image_size=56, hidden_size=32, layers=2, heads=2, position_grid=5, taps=(1, 2), widths=(32, 32, 16), stem_width=16)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (24, 56, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny() -> LiteNet:
    torch.manual_seed(0)
    net = LiteNet(TINY).eval().requires_grad_(False)
    torch.nn.init.normal_(net.last.weight, std=0.05)
    net.last.bias[3] = 2.0  # sees heads everywhere
    return net.half().float()  # as a file holds it


@pytest.fixture(scope="module")
def ranges(tiny, crops) -> dict[str, tuple[float, float]]:
    return {k: aligned(v.low, v.high) for k, v in watch(tiny, crops[:8]).items()}


def _file(path: Path, net: LiteNet, metadata: dict[str, str]) -> Path:
    save_network(path, net, {"data": "none", **metadata}, cube=1)
    return path


@pytest.fixture(scope="module")
def plain(tiny, crops, tmp_path_factory):
    """The file without ranges, its graph, and what it computes in the precision of this processor: runtime and maps."""
    folder = tmp_path_factory.mktemp("plain")
    path = _file(folder / "net.safetensors", tiny, {})
    graph = inference._convert(path)
    fast = fast_network(path, "cpu", cache=folder)
    return path, graph, fast.runtime, fast(crops[:2])


@pytest.fixture
def on_any_processor(plain, monkeypatch):
    monkeypatch.setattr(openvino_graph, "computes_int8", lambda capabilities: True)
    # reading the torch module takes seconds, and all files here hold the same weights
    monkeypatch.setattr(inference, "_convert", lambda path: plain[1].clone())


def test_int8_is_close_to_float_and_kept_in_the_cache(tiny, ranges, crops, tmp_path, on_any_processor, monkeypatch, capsys):
    path = _file(tmp_path / "net.safetensors", tiny, write_ranges(ranges))
    single = fast_network(path, "cpu", "f32", cache=tmp_path)(crops)
    fast = fast_network(path, "cpu", cache=tmp_path)
    assert fast.runtime == "OpenVINO int8" and fast.image_size == 56 and not capsys.readouterr().err
    got = fast(crops)
    difference = np.abs(got.coordinates - single.coordinates)
    assert 1e-5 < difference.mean() < 0.005 and difference.max() < 0.05  # other numbers than float's, and near
    np.testing.assert_allclose(got.confidence, single.confidence, atol=0.05)
    monkeypatch.setattr(inference, "_convert", lambda path: pytest.fail("converted again"))
    again = fast_network(path, "cpu", "int8", cache=tmp_path)
    np.testing.assert_array_equal(again(crops[:2]).coordinates, got.coordinates[:2])
    # each precision has its own file in the cache
    assert fast_network(path, "cpu", "f32", cache=tmp_path).runtime == "OpenVINO f32"
    assert len(list(tmp_path.glob("*.xml"))) == 2


def test_every_layer_with_a_range_is_in_the_compiled_graph_as_int8(tiny, ranges, tmp_path, on_any_processor):
    path = _file(tmp_path / "net.safetensors", tiny, write_ranges(ranges))
    fast = fast_network(path, "cpu", "int8", cache=tmp_path)
    nodes = fast._request.get_compiled_model().get_runtime_model().get_ordered_ops()
    kinds = [(n.get_rt_info()["layerType"].astype(str), n.get_rt_info()["runtimePrecision"].astype(str)) for n in nodes]
    multiplied = [precision for kind, precision in kinds if kind in ("Convolution", "FullyConnected")]
    if not computes_int8(import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")):
        pytest.skip("this processor has no fast int8")
    assert multiplied and set(multiplied) <= {"u8", "i8"}


def test_without_ranges_auto_is_what_it_was_and_int8_is_refused(tiny, crops, tmp_path, on_any_processor, capsys):
    path = _file(tmp_path / "net.safetensors", tiny, {})
    assert fast_network(path, "cpu", cache=tmp_path).runtime in ("OpenVINO bf16", "OpenVINO f32")
    assert not capsys.readouterr().err
    with pytest.raises(ModelError, match="holds no ranges"):
        fast_network(path, "cpu", "int8", cache=tmp_path)
    with pytest.raises(ModelError, match="for lite networks"):
        fast_network(tmp_path / "net.pt", "cpu", "int8")
    with pytest.raises(ModelError, match="for the CPU only"):
        fast_network(path, "cuda", "int8")


def _with(ranges: dict, **changes) -> dict[str, str]:
    return write_ranges({**ranges, **changes})


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda r: {"quantisation": "{"}, "cannot be read"),
        (lambda r: {"quantisation": "[1]"}, "cannot be read"),
        (lambda r: {"quantisation": json.dumps({"format": 2, "inputs": {}})}, "format 2"),
        (lambda r: {"quantisation": json.dumps({"format": 1, "inputs": {"join": [0]}})}, "cannot be read"),
        (lambda r: write_ranges({}), "there is none"),
        (lambda r: _with(r, join=(0.5, 1.0)), "proper range"),
        (lambda r: _with(r, join=(-1.0, float("nan"))), "proper range"),
        (lambda r: _with(r, other=(-1.0, 1.0)), r"does not have \(other\)"),
        (lambda r: write_ranges({k: (lo / 500, hi / 500) for k, (lo, hi) in r.items()}), "change what the network computes"),
    ],
)
def test_ranges_that_do_not_fit_give_a_note_and_float(tiny, plain, ranges, crops, tmp_path, on_any_processor, capsys, break_it, message):
    *_, runtime, maps = plain
    path = _file(tmp_path / "net.safetensors", tiny, break_it(ranges))
    fast = fast_network(path, "cpu", cache=tmp_path)
    said = capsys.readouterr().err
    assert fast.runtime == runtime and said.startswith("note: ") and said.count("\n") == 1 and re.search(message, said)
    np.testing.assert_array_equal(fast(crops[:2]).coordinates, maps.coordinates)
    with pytest.raises(ModelError, match=message):
        fast_network(path, "cpu", "int8", cache=tmp_path)


def test_layers_are_found_by_their_weights_alone(tiny, plain, ranges):
    weights = {k: v.half().numpy() for k, v in tiny.state_dict().items()}
    model = plain[1].clone()
    for k, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"node{k}")
    quantise_graph(model, weights, ranges)
    # one for each layer, but queries, keys and values share theirs
    assert sum(n.get_type_name() == "FakeQuantize" for n in model.get_ordered_ops()) == len(ranges) - 2 * TINY.layers
    with pytest.raises(GraphMismatch, match=r"1 of .* not found .*join"):
        quantise_graph(plain[1].clone(), {**weights, "join.weight": weights["join.weight"] + np.float16(0.01)}, ranges)
    twin = {**weights, "fine.0.first.weight": weights["fine.0.second.weight"]}
    with pytest.raises(GraphMismatch, match="cannot be told apart"):
        quantise_graph(plain[1].clone(), twin, ranges)


def test_where_the_processor_has_no_int8_the_network_stays_float(tiny, ranges, tmp_path, on_any_processor, monkeypatch):
    path = _file(tmp_path / "net.safetensors", tiny, write_ranges(ranges))
    monkeypatch.setattr(openvino_graph, "computes_int8", lambda capabilities: False)
    assert fast_network(path, "cpu", cache=tmp_path).runtime != "OpenVINO int8"
    assert fast_network(path, "cpu", "bf16", cache=tmp_path).runtime != "OpenVINO int8"
    assert not computes_int8(["FP32"])


def test_ranges_have_zero_and_cover_what_was_seen():
    for low, high in ((-1.0, 2.0), (-0.17, 5.3), (-1e-9, 3.0), (0.0, 4.0), (-2.0, 0.0), (1.0, 2.0), (0.0, 0.0)):
        start, end = aligned(low, high)
        assert start <= low + 1e-12 and end >= high - 1e-12 and start < end
        assert abs(start / ((end - start) / 255) - round(start / ((end - start) / 255))) < 1e-6
        assert end - start <= 1.02 * (max(high, 0) - min(low, 0)) or high == low


def test_rounded_weights_are_within_half_a_step_of_each_channel():
    weights = np.random.default_rng(0).normal(size=(5, 7, 3, 3)).astype(np.float32) * np.array([1, 10, 1e-3, 1, 0]).reshape(5, 1, 1, 1)
    integers, scale = rounded_weights(weights)
    assert integers.dtype == np.int8 and scale.shape == (5, 1, 1, 1) and integers[:4].reshape(4, -1).max(1).min() > 60
    assert (np.abs(integers * scale - weights) <= 0.5001 * scale).all()


def test_narrowing_clips_one_stray_value_but_not_a_tail(crops, tiny):
    seen = watch(tiny, crops[:1])["join"]
    rng = np.random.default_rng(0)
    # a stray value twice as large, one in 200,000: clipping costs 5e-6, the finer steps gain more
    seen.low, seen.high, seen.values = -1.0, 2.0, [rng.uniform(-1, 1, 200_000), np.array([2.0])]
    assert 0.9 < narrowed(seen)[0][1] < 1.8
    seen.low, seen.high, seen.values = -1.0, 1.0, [rng.uniform(-1, 1, 4000)]
    bounds, error = narrowed(seen)
    assert bounds[1] > 0.9 and error == pytest.approx(2 / 255 / np.sqrt(12) / (2 / np.sqrt(12)), rel=0.1)


def test_smoothing_leaves_the_float_network_as_it_is_and_evens_channels(crops):
    torch.manual_seed(1)
    net = LiteNet(TINY).eval().requires_grad_(False)
    net.backbone.encoder.layer[0].norm2.weight[3] = 40.0  # one channel that is larger than all others
    images = torch.from_numpy(crops[:2]).permute(0, 3, 1, 2).float() / 255
    before, seen = net(images), watch(net, crops[:8])
    smooth_network(net, seen, 0.5)
    after, evened = net(images), watch(net, crops[:8])
    torch.testing.assert_close(after.features, before.features, atol=1e-4, rtol=1e-4)
    name = "backbone.encoder.layer.0.mlp.fc1"
    assert evened[name].largest.max() / np.median(evened[name].largest) < 0.5 * seen[name].largest.max() / np.median(seen[name].largest)


def test_the_command_writes_a_file_that_serves_every_precision(tiny, crops, tmp_path, monkeypatch, capsys):
    from densemarks_model import quantise

    path = _file(tmp_path / "net.safetensors", tiny, {"note": "kept", HEAD: DEFAULT_HEAD})
    monkeypatch.setattr(quantise, "rendered_crops", lambda size, count: crops)
    out = tmp_path / "out.safetensors"
    assert main(["--network", str(path), "--out", str(out)]) == 0
    assert "layers in int8" in capsys.readouterr().out
    metadata = read_header(out)[1]
    ranges = read_ranges(metadata)
    assert metadata["note"] == "kept" and metadata["cube"] == "1" and metadata[HEAD] == DEFAULT_HEAD and "last" not in ranges
    assert len({ranges[f"backbone.encoder.layer.0.attention.{k}_proj"] for k in "qkv"}) == 1
    images = torch.from_numpy(crops[:2]).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(load_network(out)(images).coordinates, load_network(path)(images).coordinates, atol=2e-3, rtol=0)
    # a copy with the same ranges reads the same ones
    assert read_ranges(write_ranges(ranges)) == ranges


def test_the_command_refuses_what_it_cannot_do(tiny, crops, tmp_path, capsys, monkeypatch):
    path = _file(tmp_path / "net.safetensors", tiny, {})
    out = tmp_path / "out.safetensors"
    for options, message in (
        (["--network", str(tmp_path / "none.safetensors")], "no such file"),
        (["--network", str(path), "--crops", "3"], "at least 20"),
        (["--network", str(path), "--smooth", "2"], "share"),
        (["--network", str(path), "--shards", str(tmp_path)], "holds 0 pictures"),
    ):
        assert main([*options, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err and not out.exists()
    from densemarks_model import quantise

    monkeypatch.setattr(quantise, "LIMIT", 1e-9)
    with pytest.raises(ModelError, match="not written: integers change"):
        quantise_file(path, out, crops)
    assert not out.exists()


def test_integers_are_those_of_nncf_with_the_same_ranges(tiny, plain, crops):
    nncf = pytest.importorskip("nncf", reason="nncf, which ours is compared with, is not installed")
    weights = {k: v.half().numpy() for k, v in tiny.state_dict().items()}
    theirs = nncf.quantize(
        plain[1].clone(),
        nncf.Dataset([c[None] for c in crops[:4]]),
        subset_size=4,
        model_type=nncf.ModelType.TRANSFORMER,
        # the layers alone: what goes into attention and resizing stays float in ours
        ignored_scope=nncf.IgnoredScope(types=["ScaledDotProductAttention", "Interpolate", "Concat"], validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.DISABLE, disable_bias_correction=True, smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
        ),
    )
    ours = plain[1].clone()
    layers = {k.removesuffix(".weight"): (-1.0, 1.0) for k, v in weights.items() if k.endswith(".weight") and v.ndim in (2, 4) and k != "last.weight"}
    names = {node.get_friendly_name(): name for name, node in openvino_graph._find_layers(ours, weights, layers).items()}
    found = {}
    for node in theirs.get_ordered_ops():
        source = node.input_value(0).get_node() if node.get_friendly_name() in names else None
        while source is not None and source.get_type_name() in ("Reshape", "Transpose"):
            source = source.input_value(0).get_node()
        if source is not None and source.get_type_name() == "FakeQuantize":
            found[names[node.get_friendly_name()]] = tuple(float(source.input_value(k).get_node().get_data()) for k in (1, 2))
    assert set(found) == set(layers)
    quantise_graph(ours, weights, found)
    single, mine, nncfs = (import_openvino().Core().compile_model(m, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([crops[9:10]])[0] for m in (plain[1], ours, theirs))
    # unrelated roundings would differ by 1.4 times what rounding changes; ties in weights and sums in another order differ here, too
    assert np.abs(mine - nncfs).mean() < 0.7 * np.abs(mine - single).mean()
