"""The authors' network: DINOv3 ViT-B/16, DPT neck, one transposed convolution.

Pozdeev et al., *DenseMarks* (ICLR 2026, arXiv 2511.02830). Built from transformers' DINOv3 (Siméoni et al., 2025) and DPT
(Ranftl et al., ICCV 2021) modules; the published file has DINOv3's own names, which :func:`convert_published` translates.
The published weights are CC BY-NC 4.0 and not part of this package.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from densemarks_model.checkpoint_files import fit_state
from densemarks_model.confidence import nearness, regularity
from densemarks_model.errors import ModelError
from densemarks_model.lite import IMAGE_MEAN, IMAGE_STD
from densemarks_model.prediction import Prediction

IMAGE_SIZE = 512
HIDDEN, LAYERS, HEADS, PATCH, REGISTERS = 768, 12, 12, 16, 4
NECK_WIDTHS, FUSED_WIDTH = [96, 192, 384, 768], 256

_NAMES = (
    (r"^embedder\.backbone\.cls_token$", "backbone.embeddings.cls_token"),
    (r"^embedder\.backbone\.storage_tokens$", "backbone.embeddings.register_tokens"),
    (r"^embedder\.backbone\.mask_token$", "backbone.embeddings.mask_token"),
    (r"^embedder\.backbone\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings."),
    (r"^embedder\.backbone\.blocks\.(\d+)\.norm([12])\.", r"backbone.model.layer.\1.norm\2."),
    (r"^embedder\.backbone\.blocks\.(\d+)\.attn\.proj\.", r"backbone.model.layer.\1.attention.o_proj."),
    (r"^embedder\.backbone\.blocks\.(\d+)\.ls([12])\.gamma$", r"backbone.model.layer.\1.layer_scale\2.lambda1"),
    (r"^embedder\.backbone\.blocks\.(\d+)\.mlp\.fc1\.", r"backbone.model.layer.\1.mlp.up_proj."),
    (r"^embedder\.backbone\.blocks\.(\d+)\.mlp\.fc2\.", r"backbone.model.layer.\1.mlp.down_proj."),
    (r"^embedder\.backbone\.norm\.", "backbone.norm."),
    (r"^embedder\.dpt_neck\.", "neck."),
    (r"^predictor\.embed_lowres\.", "last."),
)
_QKV = re.compile(r"^embedder\.backbone\.blocks\.(\d+)\.attn\.qkv\.(weight|bias|bias_mask)$")
_CONSTANTS = ("embedder.pixel_mean", "embedder.pixel_std", "embedder.backbone.rope_embed.periods")
"""Entries that do not change: this module has its own copies."""


class OfficialNet(nn.Module):
    """See the module's description. Pictures are RGB in [0, 1], best 512 × 512.

    Its confidence does not come from the network, which has no mask: it is :func:`~densemarks_model.confidence.regularity`
    of the predicted map, times :func:`~densemarks_model.confidence.nearness` to the head's surface in this network's cube
    once that is known (:meth:`set_surface`).
    """

    def __init__(self) -> None:
        super().__init__()
        from transformers import DINOv3ViTConfig, DINOv3ViTModel, DPTConfig
        from transformers.models.dpt.modeling_dpt import DPTNeck

        vit = DINOv3ViTConfig(
            image_size=IMAGE_SIZE, patch_size=PATCH, hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_register_tokens=REGISTERS, key_bias=False, rope_theta=100.0, layer_norm_eps=1e-5,
        )  # fmt: skip
        self.backbone = DINOv3ViTModel(vit)
        self.neck = DPTNeck(
            DPTConfig(
                hidden_size=HIDDEN, patch_size=PATCH, image_size=IMAGE_SIZE, neck_hidden_sizes=NECK_WIDTHS, reassemble_factors=[4, 2, 1, 0.5],
                readout_type="project", hidden_act="gelu", fusion_hidden_size=FUSED_WIDTH, use_batch_norm_in_fusion_residual=False,
                use_bias_in_fusion_residual=True, is_hybrid=False, backbone_config=None,
            )
        )  # fmt: skip
        self.last = nn.ConvTranspose2d(FUSED_WIDTH, 3, 4, stride=2, padding=1)
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("surface", None, persistent=False)

    @staticmethod
    def from_published(state: dict[str, Tensor], where: str = "checkpoint") -> OfficialNet:
        """The network with the weights of a published ``model.safetensors``.

        Raises:
            ModelError: names or shapes that are not the published ones.
        """
        net = OfficialNet()
        fit_state(net, convert_published(state, where), where)
        return net

    def set_surface(self, points: Float[Tensor, "points 3"] | None) -> None:
        """Tell where the head's surface lies in this network's cube; None forgets it."""
        if points is not None and (points.ndim != 2 or points.shape[1] != 3 or not torch.isfinite(points).all()):
            raise ModelError(f"surface must be finite points (n, 3) of the cube, not {tuple(points.shape)}")
        self.surface = None if points is None else points.to(self.image_mean)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Cube coordinates of every pixel. Sides should be multiples of 32.

        Raises:
            ModelError: sides that are not.
        """
        height, width = images.shape[-2:]
        if height % (2 * PATCH) or width % (2 * PATCH):
            raise ModelError(f"the authors' network takes sides that are multiples of {2 * PATCH}, not {width} x {height}")
        hidden = self.backbone((images - self.image_mean) / self.image_std, output_hidden_states=True).hidden_states[-4:]
        levels = []
        for tokens in hidden:
            tokens = self.backbone.norm(tokens)
            # DPT's readout wants the class token and the patches; the registers stay behind
            levels.append(torch.cat([tokens[:, :1], tokens[:, 1 + REGISTERS :]], 1))
        fused = self.neck(levels, height // PATCH, width // PATCH)[-1]
        raw = F.interpolate(self.last(fused), size=(height, width), mode="bilinear", align_corners=False)
        return 0.5 * torch.tanh(3 * raw) + 0.5

    def predict(self, images: Float[Tensor, "batch 3 height width"]) -> Prediction:
        """Prediction at the pictures' own size; they are resampled to 512 × 512 for the network."""
        own = tuple(images.shape[-2:])
        if own != (IMAGE_SIZE, IMAGE_SIZE):
            images = F.interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False, antialias=True)
        coordinates = self(images)
        if own != (IMAGE_SIZE, IMAGE_SIZE):
            coordinates = F.interpolate(coordinates, size=own, mode="bilinear", align_corners=False)
        confidence = regularity(coordinates)
        if self.surface is not None:
            confidence = confidence * nearness(coordinates, self.surface)
        return Prediction(coordinates, confidence)


def is_official(state: dict[str, Tensor]) -> bool:
    """Whether the names are those of the authors' published file."""
    return "predictor.embed_lowres.weight" in state and "embedder.backbone.cls_token" in state


def convert_published(state: dict[str, Tensor], where: str = "checkpoint") -> dict[str, Tensor]:
    """Published names to this module's.

    Queries, keys and values are one matrix there. Its bias is multiplied by a mask that is zero for the keys.

    Raises:
        ModelError: a name that the published file does not have, or keys with a bias.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in _CONSTANTS:
            continue
        if match := _QKV.match(key):
            block, kind = match.groups()
            if kind == "bias_mask":
                continue
            if len(value) != 3 * HIDDEN:
                raise ModelError(f"{where}: {key} has shape {tuple(value.shape)}; the authors' network has {3 * HIDDEN} rows")
            if kind == "bias" and (mask := state.get(f"{key}_mask")) is not None:
                value = value * mask
            for part, name in zip(value.chunk(3), "qkv", strict=True):
                if name != "k" or kind != "bias":
                    converted[f"backbone.model.layer.{block}.attention.{name}_proj.{kind}"] = part
                elif mask is None or part.abs().max() > 0:
                    raise ModelError(f"{where}: {key} has a bias for the keys; the authors' network masks it out")
            continue
        for pattern, ours in _NAMES:
            name, found = re.subn(pattern, ours, key)
            if found:
                converted[name] = value.view(1, 1, -1) if name.endswith("mask_token") else value
                break
        else:
            raise ModelError(f"{where}: {key!r} is not part of the authors' network")
    return converted
