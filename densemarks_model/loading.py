"""One door to trained networks: a name or a file in, a module that embeds pictures out."""

from __future__ import annotations

import filecmp
import sys
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densemarks_model.checkpoint_files import (
    DEFAULT_HEAD,
    HEAD,
    LITE,
    cube_of,
    read_header,
    read_tensors,
    read_training_checkpoint,
    training_checkpoint_head,
)
from densemarks_model.errors import ModelError
from densemarks_model.inputs import check_images
from densemarks_model.prediction import Prediction

SHIPPED = Path(__file__).resolve().parent / "weights" / "lite.safetensors"
"""The weights that come with the package."""

ARCHITECTURES = {LITE: "densemarks_model.lite:from_file"}
"""Architectures of ``.safetensors`` files by the ``architecture`` in their metadata: ``module:function``, of the file's path and
metadata to a network, imported on use. A network is a module with

* ``predict(images)``: RGB ``(B, 3, H, W)`` in [0, 1] to a :class:`Prediction`;
* ``crop_size``: side of the crops that it is made for, pixels; ``gpu_batch``: how many of them occupy a GPU.

To add one: a file, and a line here. Its files' metadata say by ``cube`` and ``head`` what they speak of."""

OFFICIAL_REPOSITORY, OFFICIAL_FILE = "diddone/densemarks", "model.safetensors"


class Embedder(nn.Module):
    """A network behind the common call: RGB ``(B, 3, H, W)`` in [0, 1] to a :class:`Prediction` of the same size.

    Attributes:
        network: a ``LiteNet`` or an ``OfficialNet``.
        name: what it was loaded from, for messages and caches.
        cube: version of the canonical cube that it speaks, see :func:`network_cube`.
    """

    def __init__(self, network: nn.Module, name: str, cube: int = 1) -> None:
        super().__init__()
        self.network, self.name, self.cube = network, name, cube

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Prediction[Tensor]:
        """Embed pictures, in the network's own precision.

        Raises:
            ModelError: not pictures that the network can look at, see :func:`densemarks_model.inputs.check_images`, or on
                another device than the network.
        """
        check_images(images)
        weight = next(self.network.parameters())
        if images.device != weight.device:
            raise ModelError(f"images are on {images.device} and the network on {weight.device}; move one: images.to({str(weight.device)!r})")
        return self.network.predict(images.to(weight.dtype))


def load_network(path_or_name: Path | str = "lite", device: torch.device | str = "cpu") -> Embedder:
    """Load an embedding network, ready for inference.

    Args:
        path_or_name: ``"lite"`` for the shipped network; ``"official"`` (or its name on the hub) for the authors', which is
            downloaded and has a non-commercial licence; else a file: a lite network's or the authors' ``.safetensors``, or a
            checkpoint (``.pt``) of ``densemarks_model.train``.
        device: where to put it.

    Raises:
        ModelError: no such file, damaged, of another architecture, no such device, or the download failed.
    """
    target = _device(device)
    name = str(path_or_name)
    if name in ("official", OFFICIAL_REPOSITORY):
        path = _download_official()
    elif name == "lite":
        path = SHIPPED
        if not path.is_file():
            raise ModelError(f"{path}: the shipped weights are missing from this installation; reinstall it, or give a file")
    else:
        path = Path(path_or_name)
    network, cube = _from_file(path)
    return Embedder(network, name, cube).to(target).eval().requires_grad_(False)


def network_cube(path_or_name: Path | str = "lite") -> int:
    """Version of the canonical cube (:mod:`flame_assets.canonical`) that a network speaks, from its file's header.

    Give it to ``HeadAsset.with_cube`` where network and head meet. The authors' network has a cube of its own, of a head with
    its mouth closed: 1.

    Args:
        path_or_name: as for :func:`load_network`.

    Raises:
        ModelError: no such file, damaged, or of a version that this package does not know.
    """
    name = str(path_or_name)
    if name in ("official", OFFICIAL_REPOSITORY):
        return 1
    path = SHIPPED if name == "lite" else Path(path_or_name)
    if path.suffix == ".pt":
        return read_training_checkpoint(path)[2]
    return cube_of(path, read_header(path)[1].get("cube"))


def is_shipped(path_or_name: Path | str) -> bool:
    """Whether this names the network that comes with the package: ``"lite"``, or a file with the same bytes."""
    if str(path_or_name) == "lite":
        return True
    path = Path(path_or_name)
    return path.is_file() and SHIPPED.is_file() and filecmp.cmp(path, SHIPPED, shallow=False)


def speaks_default_cube(path_or_name: Path | str) -> bool:
    """Whether the default head's canonical coordinates, in the version that :func:`network_cube` tells, are what a network predicts.

    So does the shipped network, and so do those whose metadata say it: trained on pictures of the default head, or made from such a
    network by adaptation or for 8-bit integers. Files of other origin, and older ones, say nothing: their cube has to be measured.

    Args:
        path_or_name: as for :func:`load_network`.

    Raises:
        ModelError: no such file, or damaged.
    """
    if str(path_or_name) in ("official", OFFICIAL_REPOSITORY):
        return False
    if is_shipped(path_or_name):
        return True
    path = Path(path_or_name)
    stated = training_checkpoint_head(path) if path.suffix == ".pt" else read_header(path)[1].get(HEAD)
    return stated == DEFAULT_HEAD


def _device(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"device {device!r}: no such device; cpu, cuda or mps are usual") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {found}: torch finds no CUDA device on this machine; use cpu")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {found}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return found


def _from_file(path: Path) -> tuple[nn.Module, int]:
    """The network and the version of its cube."""
    if path.suffix == ".pt":
        from densemarks_model.lite import from_state

        state, settings, cube = read_training_checkpoint(path)
        return from_state(settings, state, path), cube
    names, metadata = read_header(path)
    architecture = metadata.get("architecture")
    if architecture in ARCHITECTURES:
        module, function = ARCHITECTURES[architecture].split(":")
        return getattr(import_module(module), function)(path, metadata), cube_of(path, metadata.get("cube"))
    from densemarks_model.official import OfficialNet, is_official

    if is_official(names):
        return OfficialNet.from_published(read_tensors(path), str(path)), 1
    kind = f"a {architecture!r} network" if architecture else f"some other network (it has {next(iter(names), 'nothing')!r})"
    raise ModelError(f"{path}: holds {kind}; a lite network of this package or the authors' model.safetensors is needed")


def _download_official() -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ModelError(_offline("huggingface_hub is not installed")) from error
    print(
        f"note: the authors' weights ({OFFICIAL_REPOSITORY}) are licensed CC BY-NC 4.0: non-commercial use only, with attribution",
        file=sys.stderr,
    )
    try:
        return Path(hf_hub_download(OFFICIAL_REPOSITORY, OFFICIAL_FILE))
    except Exception as error:  # the hub's client raises many types: no network, no such file, gated
        raise ModelError(_offline(f"{type(error).__name__}")) from error


def _offline(reason: str) -> str:
    return (
        f"the authors' weights could not be fetched ({reason}); on a machine with internet access download {OFFICIAL_FILE} "
        f"of {OFFICIAL_REPOSITORY} from the Hugging Face hub (CC BY-NC 4.0), copy it here and give its path"
    )
