"""From a network in OpenVINO's form to one that computes in 8-bit integers.

Post-training quantisation as Jacob et al. describe it (*Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference*, CVPR 2018): weights become signed 8-bit numbers with one scale an output channel, and what a
layer reads becomes unsigned 8-bit numbers over one range of the whole tensor. The ranges are all that has to be known beforehand;
``densemarks_model.quantise`` measures them and puts them into the metadata of the weights' file, so that one file serves every
precision. Here, on the user's machine, weights are rounded and ``FakeQuantize`` nodes inserted, which OpenVINO turns into integer kernels.

A layer is found by its weights: the graph's constant must equal a tensor of the file, bit for bit in half precision. Names in a graph
are the converter's affair and may change with its version; values may not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int8

from densemarks_model.openvino_import import import_openvino

Ranges = dict[str, tuple[float, float]]
"""Lowest and highest value that a layer reads, by the layer's name; layers without a range stay as they are."""

RANGES_KEY = "quantisation"
"""Name of the ranges in the metadata of a lite network's file."""

TOLERANCE = 0.5
"""Largest difference between the features of the quantised and the float graph, as a share of them."""

_FORMAT = 1
_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}


class GraphMismatch(ValueError):
    """The ranges cannot be read, or do not fit the graph."""


def write_ranges(ranges: Ranges) -> dict[str, str]:
    """The metadata entry that :func:`read_ranges` reads."""
    return {RANGES_KEY: json.dumps({"format": _FORMAT, "inputs": {k: [float(lo), float(hi)] for k, (lo, hi) in ranges.items()}})}


def read_ranges(metadata: Mapping[str, str]) -> Ranges | None:
    """The ranges in a file's metadata; None where there are none.

    Raises:
        GraphMismatch: there are some, but of another format, or not ranges.
    """
    if RANGES_KEY not in metadata:
        return None
    try:
        stored = json.loads(metadata[RANGES_KEY])
        if stored["format"] != _FORMAT:
            raise GraphMismatch(f"quantisation of format {stored['format']!r}, this version reads {_FORMAT}")
        ranges = {str(k): (float(lo), float(hi)) for k, (lo, hi) in stored["inputs"].items()}
    except GraphMismatch:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GraphMismatch(f"quantisation that cannot be read ({type(error).__name__})") from error
    # zero must be a value of its own: convolutions pad with it
    bad = next((k for k, (lo, hi) in ranges.items() if not (math.isfinite(lo) and math.isfinite(hi) and lo <= 0 <= hi and lo < hi)), None)
    if bad is not None or not ranges:
        raise GraphMismatch(f"quantisation without a proper range ({bad or 'there is none'})")
    return ranges


def aligned(low: float, high: float) -> tuple[float, float]:
    """The smallest range of 256 levels that covers ``low`` to ``high`` and has zero as one of them."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if low == 0 or high == 0:
        return (low, high) if high > low else (0.0, 1.0)
    below = min(max(round(255 * -low / (high - low)), 1), 254)  # levels under zero
    step = max(-low / below, high / (255 - below))
    return -below * step, (255 - below) * step


def rounded_weights(weights: Float[np.ndarray, "out ..."]) -> tuple[Int8[np.ndarray, "out ..."], Float[np.ndarray, "out ..."]]:
    """Integers from -127 to 127 and each output channel's scale; their product is nearest to ``weights``."""
    scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True).astype(np.float32) / 127
    scale[scale == 0] = 1
    return np.clip(np.round(weights / scale), -127, 127).astype(np.int8), scale


def computes_int8(capabilities: list[str]) -> bool:
    """Whether this processor multiplies 8-bit integers in one instruction and adds them up in 32 bits (VNNI, AMX).

    Older ones add pairs up in 16 bits, which overflows, and gain little: OpenVINO names INT8 among the ``capabilities`` of both.
    """
    if "INT8" not in capabilities:
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return bool(_FLAGS & set(next((line for line in lines if line.startswith("flags")), "").split()))
    except OSError:
        pass
    try:  # not Linux
        import torch

        found = torch.cpu.get_capabilities()
        return any(bool(found.get(flag)) for flag in _FLAGS)
    except (ImportError, AttributeError, RuntimeError):
        return False


def quantise_graph(model, weights: Mapping[str, np.ndarray], ranges: Ranges) -> None:
    """Make the layers of ``model`` that have ranges compute in 8-bit integers, in place.

    Args:
        model: a float ``openvino.Model``. weights: the network's tensors by name, as they are in its file.

    Raises:
        GraphMismatch: a layer of ``ranges`` is not in the graph exactly once; the model must not be used then.
    """
    import_openvino()
    from openvino import opset13 as ops

    layers = _find_layers(model, weights, ranges)
    readers: dict[tuple, object] = {}  # what several layers read (queries, keys, values) is rounded once
    for name, node in layers.items():
        low, high = ranges[name]
        source = node.input_value(0)
        key = (source.get_node().get_friendly_name(), source.get_index(), low, high)
        if key not in readers:
            ends = [ops.constant(np.float32(v)) for v in (low, high, low, high)]
            readers[key] = ops.fake_quantize(source, *ends, 256)
        node.input(0).replace_source_output(readers[key].output(0))
        integers, scale = rounded_weights(np.asarray(weights[f"{name}.weight"], np.float32))
        restored = ops.multiply(ops.convert(ops.constant(integers), "f32"), ops.constant(scale))
        node.input(1).replace_source_output(restored.output(0))
    model.validate_nodes_and_infer_types()


def _find_layers(model, weights: Mapping[str, np.ndarray], ranges: Ranges) -> dict[str, object]:
    """The node of each layer that has a range."""
    named: dict[tuple, str] = {}
    for name in ranges:
        if f"{name}.weight" not in weights:
            raise GraphMismatch(f"quantisation of a layer that the network does not have ({name})")
        fingerprint = _fingerprint(weights[f"{name}.weight"])
        if fingerprint in named:
            raise GraphMismatch(f"layers that cannot be told apart ({named[fingerprint]}, {name})")
        named[fingerprint] = name
    layers: dict[str, object] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() not in ("MatMul", "Convolution"):
            continue
        constant = node.input_value(1).get_node()
        if constant.get_type_name() == "Convert":  # stored in half precision
            constant = constant.input_value(0).get_node()
        if constant.get_type_name() != "Constant":
            continue
        if node.get_type_name() == "MatMul" and (node.get_attributes()["transpose_a"] or not node.get_attributes()["transpose_b"]):
            continue  # another order of the same numbers
        name = named.get(_fingerprint(constant.get_data()))
        if name in layers:
            raise GraphMismatch(f"a graph that has a layer twice ({name})")
        if name is not None:
            layers[name] = node
    if missing := [name for name in ranges if name not in layers]:
        raise GraphMismatch(f"a graph in which {len(missing)} of {len(ranges)} layers are not found (first: {missing[0]})")
    return layers


def _fingerprint(weights: np.ndarray) -> tuple:
    half = np.ascontiguousarray(weights, np.float16)
    return half.shape, half.tobytes()


def check_agreement(core, plain, quantised) -> None:
    """Run both graphs on drawn pictures: whatever is wrong with ranges, kernels or the graph shows in what they compute.

    Raises:
        GraphMismatch: the quantised one computes something else.
    """
    size = int(plain.input(0).shape[1])
    got = []
    for model in (plain, quantised):
        request = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
        got.append(np.stack([request.infer([_drawn(size, k)])[0][0].astype(np.float32) for k in range(2)]))
    difference = float(np.linalg.norm(got[1] - got[0]) / max(np.linalg.norm(got[0]), 1e-6))
    if not difference < TOLERANCE:
        raise GraphMismatch(f"ranges or kernels that change what the network computes (by {100 * difference:.0f} %)")


def _drawn(size: int, number: int) -> np.ndarray:
    """A soft pattern in natural contrast with an oval in front, ``(1, size, size, 3)`` uint8."""
    rng = np.random.default_rng([11, number])
    y, x = np.mgrid[:size, :size][..., None] / size
    waves = sum(np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in zip(*rng.uniform(-3, 3, (3, 4, 3)), strict=True))
    oval = ((x - 0.5) / 0.3) ** 2 + ((y - 0.5) / 0.38) ** 2 < 1
    return np.clip(np.where(oval, [190, 140, 120] + 12 * waves, 110 + 25 * waves), 0, 255).astype(np.uint8)[None]
