"""Texture lookup by torch's own ``grid_sample``, in nvdiffrast's texture coordinates."""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Boundary = Literal["wrap", "clamp", "zero"]


def sample_texture(
    texture: Float[Tensor, "batch_or_1 texture_height texture_width channels"],
    uv: Float[Tensor, "batch height width 2"],
    boundary: Boundary = "wrap",
) -> Float[Tensor, "batch height width channels"]:
    """Bilinear samples, differentiable in texture and coordinates.

    Args:
        texture: one for all pictures, or one for each.
        uv: u runs along a texture's rows, v from row 0 to the last; (0, 0) is the outer corner of texel [0, 0] and
            (1, 1) that of the last texel, so texel centres lie at (i + 0.5) / N. A texture whose coordinates count v
            upwards from the bottom of a picture file must have its rows flipped when it is read.
        boundary: outside of [0, 1] the texture repeats ("wrap"), continues with its border texels ("clamp"), or is 0
            ("zero").

    Raises:
        ValueError: batch sizes that differ, or a boundary of another name.
    """
    if boundary not in get_args(Boundary):
        raise ValueError(f"texture: boundary must be one of {', '.join(get_args(Boundary))}, not {boundary!r}")
    if texture.shape[0] not in (1, uv.shape[0]):
        raise ValueError(f"texture: the texture has batch size {texture.shape[0]}, uv has {uv.shape[0]}")
    image = texture.permute(0, 3, 1, 2).expand(uv.shape[0], -1, -1, -1)
    if boundary == "wrap":
        # one ring of texels from the opposite side lets samples near the border reach across it
        height, width = texture.shape[1:3]
        image = F.pad(image, (1, 1, 1, 1), mode="circular")
        size = uv.new_tensor((width, height))
        uv = ((uv - uv.detach().floor()) * size + 1) / (size + 2)
    padding = "zeros" if boundary == "zero" else "border"
    sampled = F.grid_sample(image, 2 * uv - 1, mode="bilinear", padding_mode=padding, align_corners=False)
    return sampled.permute(0, 2, 3, 1).contiguous()
