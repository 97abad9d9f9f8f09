"""Write a network as ONNX: ``python -m densemarks_model.export --network lite --out lite.onnx``.

Input ``images``: (1, 3, S, S) float, RGB in [0, 1]; S is the network's own unless ``--size`` says otherwise. Outputs: ``coordinates`` (1, 3, h, w) and ``confidence`` (1, 1, h, w); a
lite network's also ``surface`` and ``scale``, all at the network's own map size. The file is compared with torch before
it gets its name.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from densemarks_model.errors import ModelError
from densemarks_model.lite import LiteNet
from densemarks_model.loading import load_network
from densemarks_model.official import IMAGE_SIZE
from densemarks_model.openvino_import import import_openvino

TOLERANCE = 1e-3
"""Largest difference from torch that an exported file may have, cube lengths or probabilities."""


class _Outputs(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.network, LiteNet):
            got = self.network.native(images)
            return got.coordinates, got.confidence, got.surface, got.scale
        got = self.network.predict(images)
        return got.coordinates, got.confidence


def export_onnx(network: nn.Module, path: Path, size: int | None = None) -> float:
    """Write ``network`` (a LiteNet or OfficialNet) to ``path``; returns the largest difference from torch on noise.

    Args:
        size: side of the pictures, pixels; what the network is trained for when None. Others must be multiples of the
            patches' side, and the authors' network takes 512 only.

    Raises:
        ModelError: the ``onnx`` package is missing, a size that the network does not take, the file cannot be written, or it
            computes something else than torch.
    """
    try:
        import onnx
        import_openvino()
    except ImportError as error:
        raise ModelError(f"exporting needs the {error.name} package: pip install densemarks-tracker[export]") from error
    lite = isinstance(network, LiteNet)
    trained = network.config.image_size if lite else IMAGE_SIZE
    size = trained if size is None else size
    step = network.config.patch_size if lite else IMAGE_SIZE
    if size < step or size % step or (not lite and size != IMAGE_SIZE):
        raise ModelError(f"size {size}: this network takes {'multiples of ' if lite else ''}{step}, best {trained}")
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    module = _Outputs(network).eval()
    names = ["coordinates", "confidence", "surface", "scale"] if lite else ["coordinates", "confidence"]
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder, torch.no_grad():
            staged = Path(folder) / path.name
            torch.onnx.export(module, (images,), str(staged), input_names=["images"], output_names=names, opset_version=17, dynamo=False)
            onnx.checker.check_model(str(staged))
            difference = _difference(staged, images, module(images))
            if difference > TOLERANCE:
                raise ModelError(f"{path}: the exported network differs from torch by {difference:.2g}; not written")
            os.replace(staged, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from error
    return difference


def _difference(path: Path, images: Tensor, expected: tuple[Tensor, ...]) -> float:
    ov = import_openvino()

    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = compiled([images.numpy()])
    return max(float(np.abs(got[k] - e.numpy()).max()) for k, e in enumerate(expected))


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m densemarks_model.export", description="Write an embedding network as ONNX.")
    parser.add_argument("--network", default="lite", help="lite, official, or a file (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--size", type=int, help="side of the pictures, pixels (default: what the network is trained for)")
    options = parser.parse_args(arguments)
    try:
        difference = export_onnx(load_network(options.network).network, options.out, options.size)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}: {options.out.stat().st_size / 1e6:.1f} MB, largest difference from torch {difference:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
