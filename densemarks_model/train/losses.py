"""Training losses, each a function of tensors.

Contrastive, landmark and segmentation losses are those of Pozdeev et al., *DenseMarks* (ICLR 2026, arXiv 2511.02830);
coordinate, mask and scale losses supervise synthetic pictures, where the truth is known.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

HIDDEN_WEIGHT = 0.1
"""How much a pixel counts whose line of sight meets the head behind something else, beside one that shows it."""


def pixel_weights(head: Float[Tensor, "batch 1 h w"], surface: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch 1 h w"]:
    """How much each pixel's coordinates count: 1 where the head shows, :data:`HIDDEN_WEIGHT` where it is hidden, else 0."""
    return head + HIDDEN_WEIGHT * surface * (1 - head)


def coordinate_loss(
    predicted: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h w"], weight: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, ""]:
    """Weighted mean of the L1 distance in the cube. Zero where no pixel counts."""
    return _weighted_mean((predicted - target).abs().sum(1, keepdim=True), weight)


CHARBONNIER = 0.01
"""Error in the cube, at which :func:`charbonnier_loss` turns from a square into a distance."""


def charbonnier_loss(
    predicted: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h w"], weight: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, ""]:
    """Weighted mean of ``√(‖error‖² + ε²) − ε`` (Charbonnier et al., ICIP 1994): a distance whose pull fades near the target."""
    squares = (predicted - target).square().sum(1, keepdim=True)
    return _weighted_mean((squares + CHARBONNIER**2).sqrt() - CHARBONNIER, weight)


def gradient_loss(
    predicted: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h w"], weight: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, ""]:
    """Weighted mean of the L1 distance between differences of neighbouring pixels, to the right and below.

    A pair of pixels counts as the lesser of the two does. An offset that a whole picture shares costs nothing.
    """
    total = counted = predicted.new_zeros(())
    for axis in (2, 3):
        pairs = torch.minimum(*_neighbours(weight, axis))
        steps = [after - before for before, after in (_neighbours(predicted, axis), _neighbours(target, axis))]
        total = total + ((steps[0] - steps[1]).abs().sum(1, keepdim=True) * pairs).sum()
        counted = counted + pairs.sum()
    return total / counted.clamp(min=1e-6)


def mirror_loss(
    predicted: Float[Tensor, "batch 3 h w"], of_mirrored: Float[Tensor, "batch 3 h w"], weight: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, ""]:
    """Weighted mean of the L1 distance between maps of pictures and of their mirror images, which show the mirrored head.

    The cube's middle in x is the head's plane of symmetry. ``weight`` is that of the pictures as they are.
    """
    back = of_mirrored.flip(3)
    back = torch.cat([1 - back[:, :1], back[:, 1:]], 1)
    return coordinate_loss(predicted, back, weight)


def _neighbours(maps: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    return maps.narrow(axis, 0, maps.shape[axis] - 1), maps.narrow(axis, 1, maps.shape[axis] - 1)


def scale_loss(
    log_scale: Float[Tensor, "batch 1 h w"], predicted: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h w"],
    weight: Float[Tensor, "batch 1 h w"],
) -> Float[Tensor, ""]:  # fmt: skip
    """Negative log likelihood of the error under a Laplace distribution per axis, for the predicted scale alone.

    The error is a constant here, so that the network cannot trade coordinates for claims about them.
    """
    error = (predicted - target).abs().sum(1, keepdim=True).detach()
    return _weighted_mean(error * torch.exp(-log_scale) + 3 * log_scale, weight)


def mask_loss(logits: Float[Tensor, "batch 1 h w"], target: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, ""]:
    """Binary cross-entropy with a soft mask (coverage, 0 to 1)."""
    return F.binary_cross_entropy_with_logits(logits, target)


def contrastive_loss(first: Float[Tensor, "n channels"], second: Float[Tensor, "n channels"]) -> Float[Tensor, ""]:
    """``‖norm(F₁) norm(F₂)ᵀ − I‖²`` per entry: matched points alike, others at right angles (the paper's contrastive term).

    Row i of both belongs to the same tracked point. The mean over entries makes it independent of n.
    """
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    return ((similarity - torch.eye(len(first), dtype=first.dtype, device=first.device)) ** 2).mean()


def landmark_loss(
    predicted: Float[Tensor, "n 3"], anchors: Float[Tensor, "n 3"], visible: Float[Tensor, "n"] | None = None
) -> Float[Tensor, ""]:
    """Mean L1 distance of the cube coordinates at landmarks from the landmarks' fixed places (the paper's anchor term)."""
    weight = predicted.new_ones(len(predicted)) if visible is None else visible
    return _weighted_mean((predicted - anchors).abs().sum(1), weight)


def segmentation_loss(
    logits: Float[Tensor, "batch classes h w"], labels: Int[Tensor, "batch h w"], ignored: int = 255
) -> Float[Tensor, ""]:
    """Cross-entropy of face-parsing classes; pixels labelled ``ignored`` do not count, and none at all gives zero."""
    if not (labels != ignored).any():
        return logits.sum() * 0
    return F.cross_entropy(logits, labels.long(), ignore_index=ignored)


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
