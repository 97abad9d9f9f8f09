"""Prepare a lite network for 8-bit integers: ``python -m densemarks_model.quantise --network FILE --out FILE [--crops 300]``.

What every layer reads is measured on rendered crops (or on those of ``--shards FOLDER``), each range is narrowed where clipping rare
values costs less than coarser steps for all others, and the ranges are written into the metadata of the weights' file.
``densemarks_model.openvino_graph`` makes the integers from them on the user's machine; nothing else needs to be shipped, and the file
still serves every other precision. One crop in ten is kept aside, and the difference from single precision is measured on those.

Before that, scale is moved from what the layers after each normalisation read into their weights, channel by channel (SmoothQuant,
Xiao et al., ICML 2023): the float network stays the same function, and one channel that is larger than all others no longer sets
everybody's steps. Layers that need finer steps all the same (first blocks' few huge activations) are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from densemarks_model.checkpoint_files import DEFAULT_HEAD, HEAD, read_header, save_network
from densemarks_model.errors import ModelError
from densemarks_model.lite import LiteNet
from densemarks_model.loading import SHIPPED, load_network, speaks_default_cube
from densemarks_model.openvino_graph import aligned, write_ranges

KEPT = ("last",)
"""Layers that stay in floating point: the last one is computed outside of the graph, in single precision."""

SERIES = 17
"""Series of the rendered crops: neither a training's nor held out."""

LIMIT = 0.01
"""Largest mean difference of coordinates from single precision, on pixels of heads, with which a file is written; cube lengths."""

SMOOTH = 0.7
"""Share of scale that is moved into weights when nothing else is said."""

COARSE = 0.04
"""Layers stay in floating point where rounding what they read errs by more than this share of its standard deviation."""

_VALUES = 1024
_SHARES = np.linspace(0.3, 1, 15)


@dataclass
class _Seen:
    """What a layer has read: extremes, values drawn at random (a flat array a crop), and each input channel's largest size."""

    low: float = 0.0
    high: float = 0.0
    values: list[np.ndarray] | None = None
    largest: np.ndarray | None = None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 2 when something about the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m densemarks_model.quantise", description=__doc__.split("\n\n")[0])
    parser.add_argument("--network", default="lite", metavar="NAME|PATH", help="a lite network (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors to write")
    parser.add_argument("--crops", type=int, default=300, help="how many crops to measure on (default: %(default)s)")
    parser.add_argument("--shards", type=Path, metavar="FOLDER", help="take crops from shards; without it they are rendered")
    parser.add_argument("--smooth", type=float, default=SMOOTH, metavar="A", help="share of scale moved into weights, 0: none (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.crops < 20:
            raise ModelError(f"--crops {options.crops}: at least 20 are needed")
        if not 0 <= options.smooth < 1:
            raise ModelError(f"--smooth {options.smooth}: a share from 0 to below 1")
        if options.out.suffix != ".safetensors":
            raise ModelError(f"--out {options.out}: must end in .safetensors")
        embedder = load_network(options.network)
        if not isinstance(embedder.network, LiteNet):
            raise ModelError(f"{options.network}: not a lite network; int8 is for those")
        size = embedder.network.config.image_size
        crops = crops_of_shards(options.shards, size, options.crops) if options.shards else rendered_crops(size, options.crops)
        print(f"{options.out}: {quantise_file(options.network, options.out, crops, options.smooth)}")
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def quantise_file(network: str | Path, out: Path, crops: UInt8[np.ndarray, "n size size 3"], smooth: float | None = None) -> str:
    """Write ``network`` with ranges to ``out``; returns the line that says how much is lost.

    Raises:
        ModelError: no such network, the file cannot be written, or integers lose more than ``LIMIT``.
    """
    embedder = load_network(network)
    aside, used = crops[::10], np.delete(crops, np.arange(0, len(crops), 10), axis=0)
    net = embedder.network
    if smooth := SMOOTH if smooth is None else smooth:
        smooth_network(net, watch(net, used), smooth)
    layers = watch(net, used)
    found = {name: narrowed(seen) for name, seen in layers.items()}
    ranges = {name: bounds for name, (bounds, error) in found.items() if error <= COARSE}
    path = SHIPPED if str(network) == "lite" else Path(network)
    metadata = read_header(path)[1] if path.suffix == ".safetensors" and path.is_file() else {}
    metadata = {k: v for k, v in metadata.items() if k not in ("architecture", "config", "cube")}
    if speaks_default_cube(network):
        metadata[HEAD] = DEFAULT_HEAD
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            staged = Path(folder) / out.name
            save_network(staged, net, {**metadata, **write_ranges(ranges)}, embedder.cube)
            line = _compared(staged, aside, Path(folder))
            staged.replace(out)
    except OSError as error:
        raise ModelError(f"{out}: cannot be written ({error.strerror})") from error
    return f"{len(ranges)} of {len(found)} layers in int8; {line}"


def _compared(path: Path, crops: np.ndarray, cache: Path) -> str:
    from densemarks_model.inference import fast_network

    plain, integers = (fast_network(path, "cpu", p, cache=cache)(crops) for p in ("f32", "int8"))
    head = plain.confidence > 0.5
    if not head.any():
        raise ModelError(f"{path.name}: not written: the network sees no head in any of {len(crops)} crops, so that nothing can be compared")
    difference = float(np.abs(integers.coordinates - plain.coordinates)[head].mean())
    if difference > LIMIT:
        raise ModelError(f"{path.name}: not written: integers change coordinates by {difference:.4f} on average, at most {LIMIT} is allowed")
    confidence = float(np.abs(integers.confidence - plain.confidence).mean())
    return f"on {len(crops)} other crops coordinates differ from single precision by {difference:.4f} on average, confidence by {confidence:.4f}"


def watch(net: LiteNet, crops: UInt8[np.ndarray, "n size size 3"]) -> dict[str, _Seen]:
    """What each layer with weights reads while the network looks at the crops; without those of ``KEPT``."""
    seen: dict[str, _Seen] = {}

    def watcher(name: str):
        def look(_module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            given = given[0].detach()
            flat, now = given.flatten().numpy(), seen.setdefault(name, _Seen(values=[]))
            now.low, now.high = min(now.low, float(flat.min())), max(now.high, float(flat.max()))
            # layers that read the same tensor must get the same range, so the same values
            now.values.append(flat[np.random.default_rng([SERIES, len(now.values), len(flat)]).integers(0, len(flat), _VALUES)])
            channels = (given if given.ndim == 3 else given.movedim(1, -1)).flatten(0, -2).abs().amax(0).numpy()
            now.largest = channels if now.largest is None else np.maximum(now.largest, channels)

        return look

    layers = [(k, m) for k, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and k not in KEPT]
    hooks = [layer.register_forward_pre_hook(watcher(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            for crop in crops:
                net(torch.from_numpy(crop[None]).permute(0, 3, 1, 2).float() / 255)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def narrowed(seen: _Seen) -> tuple[tuple[float, float], float]:
    """The range with the smallest mean square error of rounding and clipping, among shares of what was seen.

    Also the root of that error, as a share of the values' standard deviation.
    """
    values = np.concatenate(seen.values)

    def error(shares: tuple[float, float]) -> float:
        low, high = aligned(shares[0] * seen.low, shares[1] * seen.high)
        step = (high - low) / 255
        return float(np.square(np.round(np.clip(values, low, high) / step) * step - values).mean())

    # both ends together, then each alone
    best = min(((x, x) for x in _SHARES), key=error)
    best = min(((best[0], x) for x in _SHARES), key=error)
    if seen.low < -0.05 * seen.high:  # GELU's lower end is a seventh of a unit: nothing to be won there
        best = min(((x, best[1]) for x in _SHARES), key=error)
    else:
        best = (1.0, best[1])
    return aligned(best[0] * seen.low, best[1] * seen.high), math.sqrt(error(best)) / max(float(values.std()), 1e-9)


def smooth_network(net: LiteNet, seen: dict[str, _Seen], share: float) -> None:
    """Move scale from normalisations into the weights behind them, in place; what the network computes stays the same.

    A channel is divided by max|x|^share / max|w|^(1 - share), as in SmoothQuant, up to a factor common to all channels.
    """
    for norm, layers in _normalised(net):
        modules = [net.get_submodule(k) for k in layers]
        reads = torch.from_numpy(np.max([seen[k].largest for k in layers], axis=0)).clamp_min(1e-5)
        weights = torch.stack([m.weight.abs().amax(0) for m in modules]).amax(0).clamp_min(1e-5)
        factor = reads**share / weights ** (1 - share)
        factor = (factor / factor.log().mean().exp()).clamp(1e-2, 1e2)
        with torch.no_grad():
            norm.weight /= factor
            norm.bias /= factor
            for module in modules:
                module.weight *= factor


def _normalised(net: LiteNet) -> Iterator[tuple[nn.LayerNorm, list[str]]]:
    """Each layer normalisation, and the names of the layers that read it, and it alone."""
    for k, block in enumerate(net.backbone.encoder.layer):
        name = f"backbone.encoder.layer.{k}"
        yield block.norm1, [f"{name}.attention.{part}_proj" for part in "qkv"]
        yield block.norm2, [f"{name}.mlp.fc1"]
    for k, norm in enumerate(net.tap_norms):
        yield norm, [f"tap_layers.{k}"]


def rendered_crops(size: int, count: int) -> UInt8[np.ndarray, "count size size 3"]:
    """Crops of the fast generator, lit by formula so that nothing is fetched; the same every time."""
    from dataclasses import replace

    from densemarks_model.data.synthetic.repertoire import FULL
    from densemarks_model.data.synthetic.scene import SceneRenderer

    renderer = SceneRenderer(repertoire=replace(FULL, panorama_share=0.0))
    return _resized([renderer.sample(SERIES, k).image for k in range(count)], size)


def crops_of_shards(folder: Path, size: int, count: int) -> UInt8[np.ndarray, "count size size 3"]:
    """Pictures of the shards of a folder, evenly spread; coordinates are not looked at, so any version of the cube will do.

    Raises:
        ModelError: no shards, damaged ones, or fewer pictures than ``count``.
    """
    images = []
    for shard in sorted(Path(folder).glob("shard_*")):
        try:
            meta = json.loads((shard / "meta.json").read_text(encoding="utf-8"))
            side = int(meta["image_size"])
            images += list(np.memmap(shard / "images.u8", np.uint8, "r", shape=(int(meta["count"]), side, side, 3)))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{shard}: not a shard ({type(error).__name__}: {error})") from error
    if len(images) < count:
        raise ModelError(f"{folder}: holds {len(images)} pictures in shards, {count} are asked for")
    return _resized([images[k * len(images) // count] for k in range(count)], size)


def _resized(images: list[np.ndarray], size: int) -> np.ndarray:
    return np.stack([cv2.resize(np.asarray(image), (size, size), interpolation=cv2.INTER_AREA) for image in images])


if __name__ == "__main__":
    sys.exit(main())
