"""The one place that checks pictures before a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from densemarks_model.errors import ModelError

SMALLEST = 32
"""Pixels; a head in a smaller picture shows nothing to go by."""


def check_images(images: Tensor) -> None:
    """Refuse what is not a batch of RGB pictures in [0, 1].

    Blue-green-red order cannot be told from the values; pictures from OpenCV must be turned round by the caller.

    Raises:
        ModelError: not ``(B, 3, H, W)`` floating point, smaller than :data:`SMALLEST`, not finite, or outside [0, 1].
    """
    if not isinstance(images, Tensor):
        raise ModelError(f"images must be a torch tensor (B, 3, H, W), not {type(images).__name__}")
    if images.ndim == 4 and images.shape[1] != 3 and images.shape[3] == 3:
        raise ModelError(f"images are channel-last {tuple(images.shape)}; give (B, 3, H, W): images.permute(0, 3, 1, 2)")
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ModelError(f"images must be (B, 3, H, W) RGB with B at least 1, not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ModelError(f"images must be floating point in [0, 1], not {images.dtype}; divide 8-bit values by 255")
    if min(images.shape[2:]) < SMALLEST:
        raise ModelError(f"images are {images.shape[3]} x {images.shape[2]} pixels; at least {SMALLEST} x {SMALLEST} are needed")
    if images.is_meta:
        raise ModelError("images are on the meta device and have no values")
    low, high = (float(v) for v in torch.aminmax(images.detach()))
    if not (low == low and high == high and abs(low) < float("inf") and abs(high) < float("inf")):
        raise ModelError("images contain values that are not finite")
    if low < -1e-3 or high > 1 + 1e-3:
        raise ModelError(f"images must lie in [0, 1]; these reach from {low:.3g} to {high:.3g} (8-bit values? divide by 255)")
