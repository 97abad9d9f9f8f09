"""The authors' network: DINOv3 ViT-B/16, DPT neck, one transposed convolution.

Pozdeev et al., *DenseMarks* (ICLR 2026, arXiv 2511.02830). Built from transformers' DINOv3 (Siméoni et al., 2025) and DPT
(Ranftl et al., ICCV 2021) modules; the published file has DINOv3's own names, which
:meth:`OfficialNet.from_published` translates.
The published weights are CC BY-NC 4.0 and not part of this package.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from densemarks_model.checkpoint_files import check_layout
from densemarks_model.confidence import nearness, regularity
from densemarks_model.errors import ModelError
from densemarks_model.lite import IMAGE_MEAN, IMAGE_STD
from densemarks_model.prediction import Prediction

IMAGE_SIZE = 512
HIDDEN, LAYERS, HEADS, PATCH, REGISTERS = 768, 12, 12, 16, 4
NECK_WIDTHS, FUSED_WIDTH = [96, 192, 384, 768], 256

_NAMES = (
    (r"^backbone\.embeddings\.cls_token$", "embedder.backbone.cls_token"),
    (r"^backbone\.embeddings\.register_tokens$", "embedder.backbone.storage_tokens"),
    (r"^backbone\.embeddings\.mask_token$", "embedder.backbone.mask_token"),
    (r"^backbone\.embeddings\.patch_embeddings\.", "embedder.backbone.patch_embed.proj."),
    (r"^backbone\.model\.layer\.(\d+)\.norm([12])\.", r"embedder.backbone.blocks.\1.norm\2."),
    (r"^backbone\.model\.layer\.(\d+)\.attention\.o_proj\.", r"embedder.backbone.blocks.\1.attn.proj."),
    (r"^backbone\.model\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"embedder.backbone.blocks.\1.ls\2.gamma"),
    (r"^backbone\.model\.layer\.(\d+)\.mlp\.up_proj\.", r"embedder.backbone.blocks.\1.mlp.fc1."),
    (r"^backbone\.model\.layer\.(\d+)\.mlp\.down_proj\.", r"embedder.backbone.blocks.\1.mlp.fc2."),
    (r"^backbone\.norm\.", "embedder.backbone.norm."),
    (r"^neck\.", "embedder.dpt_neck."),
    (r"^last\.", "predictor.embed_lowres."),
)
"""This module's names, and the published ones."""

_QKV = re.compile(r"^backbone\.model\.layer\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)$")
"""Three layers here, one matrix with the rows of queries, keys and values in the published file."""

_MEAN, _STD, _PERIODS = "embedder.pixel_mean", "embedder.pixel_std", "embedder.backbone.rope_embed.periods"


class OfficialNet(nn.Module):
    """See the module's description. Pictures are RGB in [0, 1], best 512 × 512.

    Its confidence does not come from the network, which has no mask: it is :func:`~densemarks_model.confidence.regularity`
    of the predicted map, times :func:`~densemarks_model.confidence.nearness` to the head's surface in this network's cube
    once that is known (:meth:`set_surface`).
    """

    crop_size = IMAGE_SIZE
    gpu_batch = 4  # one crop has 1024 patches; four occupy a GPU, and the maps are large

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
            ModelError: names or shapes that are not the published ones, or keys with a bias.
        """
        net = OfficialNet()
        layout = published_layout(net)
        check_layout(layout, state, where)
        net.load_state_dict({name: _published_value(name, state, where).reshape(value.shape).float() for name, value in net.state_dict().items()})
        # constants there, but constants of the file: what they say counts
        net.image_mean, net.image_std = state[_MEAN].float(), state[_STD].float()
        net.backbone.rope_embeddings.inv_freq = 1 / state[_PERIODS].float()
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

    def predict(self, images: Float[Tensor, "batch 3 height width"]) -> Prediction[Tensor]:
        """Prediction at the pictures' own size; they are resampled to 512 × 512 for the network."""
        own = tuple(images.shape[-2:])
        if own != (IMAGE_SIZE, IMAGE_SIZE):
            images = F.interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False, antialias=True)
        coordinates = self(images)
        confidence = regularity(coordinates)
        if own != (IMAGE_SIZE, IMAGE_SIZE):
            maps = F.interpolate(torch.cat([coordinates, confidence], 1), size=own, mode="bilinear", align_corners=False)
            coordinates, confidence = maps[:, :3], maps[:, 3:]
        if self.surface is not None:
            confidence = confidence * nearness(coordinates, self.surface)
        return Prediction(coordinates, confidence)


def is_official(names: Collection[str]) -> bool:
    """Whether the tensors' names are those of the authors' published file."""
    return "predictor.embed_lowres.weight" in names and "embedder.backbone.cls_token" in names


def published_layout(net: OfficialNet) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the entries of the published file."""
    layout: dict[str, tuple[int, ...]] = {_MEAN: (1, 3, 1, 1), _STD: (1, 3, 1, 1), _PERIODS: (HIDDEN // HEADS // 4,)}
    for name, value in net.state_dict().items():
        if match := _QKV.match(name):
            fused = f"embedder.backbone.blocks.{match[1]}.attn.qkv."
            layout |= {f"{fused}weight": (3 * HIDDEN, HIDDEN), f"{fused}bias": (3 * HIDDEN,), f"{fused}bias_mask": (3 * HIDDEN,)}
        else:
            layout[_published_name(name)] = (1, HIDDEN) if name.endswith("mask_token") else tuple(value.shape)
    return layout


def _published_name(name: str) -> str:
    for pattern, published in _NAMES:
        translated, found = re.subn(pattern, published, name)
        if found:
            return translated
    raise ModelError(f"the installed transformers has an entry {name!r} that the authors' network lacks; install the version in requirements.txt")


def _published_value(name: str, state: dict[str, Tensor], where: str) -> Tensor:
    """What the published file, whose layout is right, says about an entry of this module."""
    match = _QKV.match(name)
    if not match:
        return state[_published_name(name)]
    block, part, kind = match.groups()
    fused = f"embedder.backbone.blocks.{block}.attn.qkv.{kind}"
    if kind == "weight":
        return state[fused].chunk(3)["qkv".index(part)]
    # the published layer multiplies its bias by the mask, which is zero for the keys: they have no bias here
    queries, keys, values = (state[fused] * state[f"{fused}_mask"]).chunk(3)
    if keys.abs().max() > 0:
        raise ModelError(f"{where}: {fused}_mask lets a bias of the keys pass, which the authors' network has not")
    return queries if part == "q" else values
