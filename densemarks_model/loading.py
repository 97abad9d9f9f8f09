"""One door to trained networks: a name or a file in, a module that embeds pictures out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densemarks_model.checkpoint_files import LITE, fit_state, read_safetensors, read_training_checkpoint
from densemarks_model.errors import ModelError
from densemarks_model.inputs import check_images
from densemarks_model.prediction import Prediction

SHIPPED = Path(__file__).resolve().parent / "weights" / "lite.safetensors"
"""The weights that come with the package."""

OFFICIAL_REPOSITORY, OFFICIAL_FILE = "diddone/densemarks", "model.safetensors"


class Embedder(nn.Module):
    """A network behind the common call: RGB ``(B, 3, H, W)`` in [0, 1] to a :class:`Prediction` of the same size.

    Attributes:
        network: a ``LiteNet`` or an ``OfficialNet``.
        name: what it was loaded from, for messages and caches.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Prediction:
        """Embed pictures.

        Raises:
            ModelError: not pictures that the network can look at, see :func:`densemarks_model.inputs.check_images`.
        """
        check_images(images)
        return self.network.predict(images)


def load_network(path_or_name: Path | str = "lite", device: torch.device | str = "cpu") -> Embedder:
    """Load an embedding network, ready for inference.

    Args:
        path_or_name: ``"lite"`` for the shipped network; ``"official"`` (or its name on the hub) for the authors', which is
            downloaded and has a non-commercial licence; else a file: a lite network's or the authors' ``.safetensors``, or a
            checkpoint (``.pt``) of ``densemarks_model.train``.
        device: where to put it.

    Raises:
        ModelError: no such file, damaged, of another architecture, or the download failed.
    """
    name = str(path_or_name)
    if name in ("official", OFFICIAL_REPOSITORY):
        path = _download_official()
    elif name == "lite":
        path = SHIPPED
    else:
        path = Path(path_or_name)
    network = _from_file(path)
    return Embedder(network, name).to(device).eval().requires_grad_(False)


def _from_file(path: Path) -> nn.Module:
    from densemarks_model.lite import LiteConfig, LiteNet

    if path.suffix == ".pt":
        state, settings = read_training_checkpoint(path)
        net = LiteNet(LiteConfig.from_dict(settings))
        fit_state(net, state, str(path))
        return net
    state, metadata = read_safetensors(path)
    architecture = metadata.get("architecture")
    if architecture == LITE:
        net = LiteNet(LiteConfig.from_dict(json.loads(metadata["config"])))
        fit_state(net, state, str(path))
        return net
    from densemarks_model.official import OfficialNet, is_official

    if is_official(state):
        return OfficialNet.from_published(state, str(path))
    kind = f"a {architecture!r} network" if architecture else f"some other network (it has {next(iter(state), 'nothing')!r})"
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
