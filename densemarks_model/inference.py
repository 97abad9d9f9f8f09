"""Fast inference: OpenVINO on a CPU, torch with bfloat16 on CUDA, torch where neither is there.

Crops are 8-bit RGB arrays and maps are arrays, so that a tracker that only predicts need not touch torch. The network is
converted once and kept in the user's cache folder under a name that depends on the weights.
"""

from __future__ import annotations

import copy
import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from densemarks_model.errors import ModelError
from densemarks_model.openvino_import import import_openvino
from densemarks_model.prediction import Prediction, arrays
from flame_assets.user_cache import cache_folder, note_use, trim_cache

CACHE_VERSION = "1"
"""Part of the cached files' names: a new number when conversion changes its results."""


class FastNetwork(Protocol):
    """Anything that embeds crops.

    Attributes:
        image_size: side of the crops, pixels. runtime: what it runs on, for reports.
        cube: version of the canonical cube that it speaks, see :func:`densemarks_model.loading.network_cube`.
        batch: crops a call from which more at once are no faster.
    """

    image_size: int
    runtime: str
    cube: int
    batch: int

    def __call__(self, crops: UInt8[np.ndarray, "batch size size 3"]) -> Prediction[np.ndarray]:
        """Embed crops of ``image_size`` × ``image_size`` pixels; maps come at the network's own resolution.

        Several crops give what one call for each would: to the last bit on OpenVINO, on torch up to the rounding of sums.

        Raises:
            ModelError: other shapes or types.
        """
        ...

    def with_surface(self, points: Float[np.ndarray, "points 3"] | None) -> FastNetwork:
        """The same network told where the head's surface lies in its cube (None: unknown); one with a mask of its own is itself."""
        ...


def fast_network(
    path_or_name: Path | str = "lite",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    cache: Path | None = None,
    surface: Float[np.ndarray, "points 3"] | None = None,
) -> FastNetwork:
    """The fastest way to run a network on this machine.

    Args:
        path_or_name: as for :func:`densemarks_model.load_network`.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where torch has it.
        precision: ``"f32"``, ``"bf16"``, ``"int8"`` (on a CPU, from files that :mod:`densemarks_model.quantise` has prepared), or
            ``"auto"``: int8 where file and processor are made for it, else bfloat16 where the processor computes in it.
        threads: for OpenVINO; as many as there are cores when None.
        cache: folder for converted networks; the user's cache folder when None.
        surface: for the authors' network only: where the head lies in its cube, see ``OfficialNet.set_surface``.

    Raises:
        ModelError: as ``load_network``, or settings that do not exist.
    """
    if threads is not None and threads < 1:
        raise ModelError(f"threads must be at least 1, not {threads}")
    if device not in ("auto", "cpu", "cuda") or precision not in ("auto", "f32", "bf16", "int8"):
        raise ModelError(f"no such device or precision: {device!r}, {precision!r}")
    if precision == "int8" and device == "cuda":
        raise ModelError("precision int8: for the CPU only; on CUDA take bf16")
    if device != "cpu" and precision != "int8":
        import torch

        if torch.cuda.is_available():
            return _TorchNetwork(path_or_name, "cuda", bf16=precision != "f32", surface=surface)
        if device == "cuda":
            raise ModelError("device cuda: torch finds no CUDA device on this machine")
    path = _lite_file(path_or_name)
    if path is None:
        if precision == "int8":
            raise ModelError(f"{path_or_name}: precision int8 is for lite networks in .safetensors; see densemarks_model.quantise")
        return _TorchNetwork(path_or_name, "cpu", bf16=False, surface=surface)
    if surface is not None:
        raise ModelError(f"{path_or_name}: a lite network has its own mask; surface is for the authors' network")
    try:
        import_openvino()
    except ImportError:
        if precision == "int8":
            raise ModelError("precision int8 needs openvino, which is not installed") from None
        print("note: openvino is not installed; torch is used, which takes two to three times as long", file=sys.stderr)
        return _TorchNetwork(path_or_name, "cpu", bf16=False)
    return _OpenVinoNetwork(path, precision, threads, cache or cache_folder("networks"))


def _lite_file(path_or_name: Path | str) -> Path | None:
    """The file of a lite network in safetensors; None for other networks, which torch runs."""
    from densemarks_model.checkpoint_files import LITE, read_header
    from densemarks_model.loading import SHIPPED

    path = SHIPPED if str(path_or_name) == "lite" else Path(path_or_name)
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        return path if read_header(path)[1].get("architecture") == LITE else None
    except ModelError:
        return None  # load_network explains what is wrong


class _OpenVinoNetwork:
    """A lite network on OpenVINO.

    In bfloat16 a coordinate near 1 comes in steps of 1/256, which is a millimetre. So the graph ends before the last layer,
    a 1 × 1 convolution, and that one is computed here in single precision from the features. With int8, layers without a
    range and everything between layers is in bfloat16, too.
    """

    def __init__(self, path: Path, precision: str, threads: int | None, cache: Path) -> None:
        ov = import_openvino()
        from safetensors import safe_open

        from densemarks_model.loading import network_cube

        digest = hashlib.sha256(f"{CACHE_VERSION} {ov.__version__}".encode() + path.read_bytes()).hexdigest()
        target = cache / f"{digest[:32]}.xml"
        core = ov.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        model = _int8(core, path, target.with_stem(f"{target.stem}_int8"), precision, capabilities) if precision in ("auto", "int8") else None
        integers = model is not None
        if model is None:
            # checks the file, too, unless it was converted before
            model = _converted(core, target, lambda: _convert(path))
        self.image_size, self.batch = int(model.input(0).shape[1]), 1  # two crops a call take as long as two calls
        self.cube = network_cube(path)
        with safe_open(str(path), framework="numpy") as file:
            weight, bias = (file.get_tensor(f"last.{k}").astype(np.float32) for k in ("weight", "bias"))
        self._weight, self._bias = weight[:, :, 0, 0], bias
        chosen = precision if precision in ("f32", "bf16") else "bf16" if "BF16" in capabilities else "f32"
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": chosen}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        compiled = core.compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()
        # what it will really compute in: a processor without bfloat16 takes the wish for one and does not follow it
        actual = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.runtime = f"OpenVINO {'int8' if integers else 'f32' if actual in ('f32', 'undefined') else actual}"

    def with_surface(self, points: Float[np.ndarray, "points 3"] | None) -> FastNetwork:
        return self

    def __call__(self, crops: UInt8[np.ndarray, "batch size size 3"]) -> Prediction[np.ndarray]:
        _check_crops(crops, self.image_size)
        raw = np.stack([self._last(self._request.infer([crops[k : k + 1]])[0][0]) for k in range(len(crops))])
        return _maps(raw)

    def _last(self, features: np.ndarray) -> np.ndarray:
        channels, height, width = features.shape
        # not by "@": BLAS would start threads of its own, which keep spinning on the cores that the network needs (52 ms become 88)
        flat = np.einsum("oc,cp->op", self._weight, features.reshape(channels, -1)) + self._bias[:, None]
        return flat.T.reshape(height, width, -1)


def _maps(raw: np.ndarray) -> Prediction[np.ndarray]:
    coordinates = np.clip(raw[..., :3] + 0.5, 0, 1)
    head, surface = (1 / (1 + np.exp(-np.clip(raw[..., k], -60, 60))) for k in (3, 4))
    return Prediction(coordinates, head, surface, np.exp(raw[..., 5] - 3.5))


def _int8(core, path: Path, target: Path, precision: str, capabilities: list[str]):
    """The network in 8-bit integers; None, with a note where that is a surprise, when it has to be another precision.

    Raises:
        ModelError: ``precision`` asks for it and the file has no ranges, or none that fit.
    """
    from densemarks_model.checkpoint_files import read_header
    from densemarks_model.openvino_graph import GraphMismatch, computes_int8, read_ranges

    try:
        ranges = read_ranges(read_header(path)[1])
        if ranges is None and precision == "int8":
            raise ModelError(f"{path}: precision int8: the file holds no ranges for it; python -m densemarks_model.quantise adds them")
        if ranges is None or (precision == "auto" and not computes_int8(capabilities)):
            return None
        return _converted(core, target, lambda: _convert_int8(core, path, ranges), compress=False)
    except GraphMismatch as error:
        if precision == "int8":
            raise ModelError(f"{path}: precision int8: {error}") from error
        print(f"note: {path}: {error}; int8 is not used, which takes half as long again", file=sys.stderr)
        return None


def _convert_int8(core, path: Path, ranges):
    from safetensors import safe_open

    from densemarks_model.openvino_graph import check_agreement, quantise_graph

    model = _convert(path)
    plain = model.clone()
    with safe_open(str(path), framework="numpy") as file:
        quantise_graph(model, {k: file.get_tensor(k) for k in file.keys()}, ranges)
    check_agreement(core, plain, model)
    return model


def _converted(core, target: Path, convert: Callable[[], Any], compress: bool = True):
    """The network in OpenVINO's form, from the cache or made and put there, its constants in half precision if ``compress``."""
    if target.is_file() and target.with_suffix(".bin").is_file():
        try:
            model = core.read_model(target)
            note_use(target, target.with_suffix(".bin"))
            return model
        except RuntimeError:
            pass  # damaged: made again
    ov = import_openvino()

    model = convert()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            ov.save_model(model, Path(folder) / target.name, compress_to_fp16=compress)
            # the weights first: a reader that finds the .xml finds both
            for suffix in (".bin", ".xml"):
                os.replace((Path(folder) / target.name).with_suffix(suffix), target.with_suffix(suffix))
        trim_cache(target)
        # constants were rounded: the first run must give what later ones give
        return core.read_model(target)
    except (OSError, RuntimeError):
        return model  # no room or no right to write: converted each time


def _convert(path: Path):
    """Through OpenVINO's own reader of torch modules: ``openvino.convert_model``, which wraps it, reports every use to a server."""
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from transformers.utils import logging

    from densemarks_model.loading import load_network

    network = load_network(path).network
    size = network.config.image_size
    crop = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing notes that shapes become constants, which is wanted
        reader = FrontEndManager().load_by_framework("pytorch")
        spoken = logging.get_verbosity()
        logging.set_verbosity_error()  # tracing reads every attribute, and transformers warns about a loss that nobody asked for
        try:
            decoder = TorchScriptPythonDecoder(_Features(network).eval(), example_input=(crop,))  # must outlive the reader's work
            model = reader.convert(reader.load(decoder))
        finally:
            logging.set_verbosity(spoken)
    model.reshape([1, size, size, 3])
    model.validate_nodes_and_infer_types()
    return model


def _check_crops(crops: np.ndarray, size: int) -> None:
    if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3) or not len(crops):
        found = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
        raise ModelError(f"crops must be uint8 (B, {size}, {size}, 3) RGB, not {found}")


def _Features(network):
    """A module from 8-bit channel-last pictures to the features that the network's last layer reads."""
    import torch
    from torch import nn

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, crops: torch.Tensor) -> torch.Tensor:
            return self.network(crops.permute(0, 3, 1, 2).float() / 255).features

    return Features()


class _TorchNetwork:
    """Any network on torch."""

    def __init__(self, path_or_name: Path | str, device: str, bf16: bool, surface: np.ndarray | None = None) -> None:
        from densemarks_model.lite import LiteNet
        from densemarks_model.loading import load_network

        embedder = load_network(path_or_name, device)
        self._network, self.cube = embedder.network, embedder.cube
        self._device, self._bf16 = device, bf16
        self._lite = isinstance(self._network, LiteNet)
        self._wants_surface = hasattr(self._network, "set_surface")
        self.image_size = self._network.crop_size
        self.batch = 1 if device == "cpu" else self._network.gpu_batch
        if surface is not None and not self._wants_surface:
            raise ModelError(f"{path_or_name}: has its own mask; surface is for the authors' network")
        self._surface = self._checked(surface)
        self.runtime = f"torch {device} {'bf16' if bf16 else 'f32'}"

    def with_surface(self, points: Float[np.ndarray, "points 3"] | None) -> FastNetwork:
        if not self._wants_surface:
            return self
        other = copy.copy(self)
        other._surface = self._checked(points)
        return other

    def _checked(self, points: np.ndarray | None):
        import torch

        if points is None:
            return None
        self._network.set_surface(torch.as_tensor(np.asarray(points, np.float32)))
        return self._network.surface

    def __call__(self, crops: UInt8[np.ndarray, "batch size size 3"]) -> Prediction[np.ndarray]:
        import torch

        _check_crops(crops, self.image_size)
        images = torch.from_numpy(np.ascontiguousarray(crops)).to(self._device).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad(), torch.autocast(self._device, torch.bfloat16, enabled=self._bf16):
            if self._lite:
                features = self._network(images).features
                weight, bias = self._network.last.weight[:, :, 0, 0].float(), self._network.last.bias.float()
                with torch.autocast(self._device, enabled=False):
                    raw = torch.einsum("oc,bchw->bhwo", weight, features.float()) + bias
                return _maps(raw.cpu().numpy())
            if self._wants_surface:
                self._network.set_surface(self._surface)  # others share the module
            return arrays(self._network.predict(images))
