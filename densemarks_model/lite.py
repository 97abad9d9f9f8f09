"""The lite network: DINOv2 ViT-S/14 and a light DPT-style decoder, made for one crop at a time on a CPU.

The decoder follows DPT (Ranftl et al., *Vision Transformers for Dense Prediction*, ICCV 2021): tokens of several blocks
become feature maps, which are fused from coarse to fine. Patches of 14 pixels blur outlines, so a small convolutional
stem looks at the picture itself and joins at the finest level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from densemarks_model.checkpoint_files import fit_state, read_settings, read_tensors
from densemarks_model.errors import ModelError
from densemarks_model.prediction import Prediction

if TYPE_CHECKING:
    from transformers import Dinov2Model

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet's, which the backbone was trained with."""


_LARGEST = {
    "image_size": 2048, "patch_size": 64, "hidden_size": 2048, "layers": 64, "heads": 64, "position_grid": 128, "taps": 64, "widths": 1024, "stem_width": 512,
}  # fmt: skip
"""What files may ask for; beyond it, building the network would fill the memory."""


@dataclass(frozen=True)
class LiteConfig:
    """Sizes of a :class:`LiteNet`.

    Attributes:
        image_size: side of the square picture that the network looks at, pixels; a multiple of ``patch_size``.
        patch_size, hidden_size, layers, heads: of the ViT.
        position_grid: side of the grid of position embeddings, patches; interpolated to the picture's.
        taps: blocks whose tokens the decoder reads, counted from 1.
        widths: channels of the decoder at 1, 2 and 4 times the resolution of the patches.
        stem_width: channels of the convolutional stem.
    """

    image_size: int = 224
    patch_size: int = 14
    hidden_size: int = 384
    layers: int = 12
    heads: int = 6
    position_grid: int = 37
    taps: tuple[int, ...] = (3, 6, 9, 12)
    widths: tuple[int, int, int] = (192, 128, 64)
    stem_width: int = 32

    def __post_init__(self) -> None:
        for name in ("taps", "widths"):  # JSON knows lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if type(number) is not int or not 1 <= number <= largest:
                    raise ModelError(f"{name} {str(value)[:60]} must be whole numbers from 1 to {largest}")
        if len(self.widths) != 3 or len(self.taps) > self.layers or self.hidden_size % self.heads:
            raise ModelError(f"widths {self.widths}, taps {self.taps}, hidden_size {self.hidden_size} and heads {self.heads} do not fit together")
        if self.image_size % self.patch_size:
            raise ModelError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if not self.taps or min(self.taps) < 1 or max(self.taps) > self.layers:
            raise ModelError(f"taps {self.taps} must be numbers of the {self.layers} blocks, counted from 1")

    @property
    def map_size(self) -> int:
        """Side of the predicted maps, pixels."""
        return 4 * self.image_size // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold; ``LiteConfig.from_dict`` reads it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> LiteConfig:
        """Read what :meth:`to_dict` gave.

        Raises:
            ModelError: values that this version does not know.
        """
        unknown = set(values) - {f.name for f in fields(LiteConfig)}
        if unknown:
            raise ModelError(f"lite network: unknown settings {', '.join(sorted(unknown))}; it needs a newer version")
        return LiteConfig(**values)


@dataclass(frozen=True)
class LiteOutput:
    """Raw maps, at ``LiteConfig.map_size``.

    Attributes:
        coordinates: cube coordinates, not clipped.
        head_logits: whether the pixel shows the head, hair included.
        surface_logits: whether its line of sight meets the bald head.
        log_scale: logarithm of the scale of a Laplace distribution of the coordinates' error, cube units.
        features: what the last layer reads.
    """

    coordinates: Float[Tensor, "batch 3 h w"]
    head_logits: Float[Tensor, "batch 1 h w"]
    surface_logits: Float[Tensor, "batch 1 h w"]
    log_scale: Float[Tensor, "batch 1 h w"]
    features: Float[Tensor, "batch channels h w"]


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions around a shortcut. Group normalisation: it does not depend on the batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = max(width // 16, 1)
        self.norm = nn.GroupNorm(groups, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(F.gelu(self.norm(x)))))


class LiteNet(nn.Module):
    """See the module's description. Random weights; :meth:`start_from` puts the backbone's in.

    Pictures are RGB in [0, 1] and ``image_size`` square for :meth:`forward`; :meth:`predict` takes any size.
    """

    gpu_batch = 16  # crops that occupy a GPU

    @property
    def crop_size(self) -> int:
        """Side of the crops that it is made for, pixels."""
        return self.config.image_size

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        from transformers import Dinov2Config, Dinov2Model

        self.config = config = config or LiteConfig()
        self.backbone: Dinov2Model = Dinov2Model(
            Dinov2Config(
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=config.position_grid * config.patch_size,
                patch_size=config.patch_size,
                # never part of anything but pre-training with masks
                use_mask_token=False,
            )
        )
        coarse, middle, fine = config.widths
        self.tap_norms = nn.ModuleList(nn.LayerNorm(config.hidden_size) for _ in config.taps)
        self.tap_layers = nn.ModuleList(nn.Linear(config.hidden_size, coarse) for _ in config.taps)
        self.coarse = nn.Sequential(ResidualBlock(coarse), ResidualBlock(coarse))
        self.to_middle = nn.Conv2d(coarse, middle, 1)
        self.middle = nn.Sequential(ResidualBlock(middle), ResidualBlock(middle))
        self.to_fine = nn.Conv2d(middle, fine, 1)
        stem = config.stem_width
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(stem, stem, 3, stride=2, padding=1), nn.GELU(), ResidualBlock(stem)
        )
        self.join = nn.Conv2d(fine + stem, fine, 1)
        self.fine = nn.Sequential(ResidualBlock(fine), ResidualBlock(fine))
        self.last = nn.Conv2d(fine, 6, 1)
        nn.init.zeros_(self.last.bias)
        nn.init.normal_(self.last.weight, std=0.01)
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)

    def start_from(self, backbone: dict[str, Tensor]) -> None:
        """Put pre-trained weights (a state dict of ``transformers.Dinov2Model``) into the backbone.

        Raises:
            ModelError: names or shapes that are not this backbone's.
        """
        state = {k: v for k, v in backbone.items() if k != "embeddings.mask_token"}
        try:
            self.backbone.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(f"backbone weights do not fit this network: {str(error).splitlines()[-1].strip()}") from error

    def tokens(self, images: Float[Tensor, "batch 3 size size"]) -> list[Float[Tensor, "batch patches hidden"]]:
        """Patch tokens after each tapped block."""
        normalised = (images - self.image_mean) / self.image_std
        hidden = self.backbone(normalised, output_hidden_states=True).hidden_states
        return [hidden[tap][:, 1:] for tap in self.config.taps]

    def decode(self, tokens: list[Float[Tensor, "batch patches hidden"]], images: Float[Tensor, "batch 3 size size"]) -> LiteOutput:
        """Maps from the tokens and the picture they were made from."""
        patch = self.config.patch_size
        maps = sum(layer(norm(t)) for layer, norm, t in zip(self.tap_layers, self.tap_norms, tokens, strict=True))
        x = self.coarse(maps.transpose(1, 2).unflatten(2, (images.shape[-2] // patch, images.shape[-1] // patch)))
        x = self.middle(_double(self.to_middle(x)))
        x = _double(self.to_fine(x))
        stem = self.stem((images - self.image_mean) / self.image_std)
        stem = F.interpolate(stem, size=x.shape[-2:], mode="bilinear", align_corners=False)
        features = self.fine(self.join(torch.cat([x, stem], 1)))
        raw = self.last(features).float()
        return LiteOutput(raw[:, :3] + 0.5, raw[:, 3:4], raw[:, 4:5], raw[:, 5:6] - 3.5, features)

    def forward(self, images: Float[Tensor, "batch 3 size size"]) -> LiteOutput:
        """Raw maps for training, four times as fine as the patches.

        ``images`` are RGB in [0, 1], with sides that are multiples of ``patch_size``; ``image_size`` is what the network is
        trained for, smaller ones train faster.
        """
        return self.decode(self.tokens(images), images)

    def predict(self, images: Float[Tensor, "batch 3 height width"]) -> Prediction[Tensor]:
        """Prediction at the pictures' own size, whatever it is."""
        size = self.config.image_size
        own = images.shape[-2:]
        if tuple(own) != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
        out = self.native(images)
        maps = torch.cat([out.coordinates, out.confidence, out.surface, out.scale], 1)
        maps = F.interpolate(maps, size=own, mode="bilinear", align_corners=False)
        return Prediction(maps[:, :3], maps[:, 3:4], maps[:, 4:5], maps[:, 5:6])

    def native(self, images: Float[Tensor, "batch 3 size size"]) -> Prediction[Tensor]:
        """Prediction at ``map_size`` for pictures of ``image_size``: what the tracker reads."""
        out = self(images)
        return Prediction(
            out.coordinates.clamp(0, 1), out.head_logits.sigmoid(), out.surface_logits.sigmoid(), out.log_scale.exp()
        )


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def from_file(path: Path, metadata: Mapping[str, str]) -> LiteNet:
    """The network of a ``.safetensors`` file with such metadata.

    Raises:
        ModelError: the file is damaged, or its settings describe no such network.
    """
    return from_state(read_settings(path, metadata), read_tensors(path), path)


def from_state(settings: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> LiteNet:
    """The network of some settings with these weights; ``path`` is named in messages.

    Raises:
        ModelError: settings that describe no such network, or weights of another one.
    """
    try:
        net = LiteNet(LiteConfig.from_dict(settings))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # values of wrong types fail deep inside, in many ways
        raise ModelError(f"{path}: its settings describe no lite network ({type(error).__name__}: {str(error).splitlines()[0]})") from error
    fit_state(net, state, str(path))
    return net
