"""From a batch to losses: the one module that is trained, wrapped whole by DDP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densemarks_model.lite import LiteNet, LiteOutput
from densemarks_model.train import losses
from densemarks_model.train.config import LossWeights
from densemarks_model.train.cube import CanonicalCube


class Objective(nn.Module):
    """Network, cube and the weighted sum of the losses.

    Args:
        net: what is trained. cube: for video pairs; None where there are none. weights: factors of the losses.
        ignored: value of pixels without a class in label maps.
    """

    def __init__(self, net: LiteNet, cube: CanonicalCube | None, weights: LossWeights, ignored: int = 255) -> None:
        super().__init__()
        self.net, self.cube, self.weights, self.ignored = net, cube, weights, ignored

    def forward(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Losses by name, unweighted, and ``total``.

        ``batch["synthetic"]``: image, coordinates, head, surface. ``batch["videos"]``: see
        :class:`densemarks_model.train.prepared_clips.PairSource`; the two frames of a pair go through the network together.
        """
        found: dict[str, Tensor] = {}
        if (synthetic := batch.get("synthetic")) is not None:
            out = self.net(synthetic["image"])
            weight = losses.pixel_weights(synthetic["head"], synthetic["surface"])
            found["coordinate"] = losses.coordinate_loss(out.coordinates, synthetic["coordinates"], weight)
            found["scale"] = losses.scale_loss(out.log_scale.float(), out.coordinates, synthetic["coordinates"], weight)
            found["head"] = losses.mask_loss(out.head_logits, synthetic["head"])
            found["surface"] = losses.mask_loss(out.surface_logits, synthetic["surface"])
            found.update(self._extras(synthetic, out, weight))
        if (videos := batch.get("videos")) is not None:
            found.update(self._pairs(videos))
        found["total"] = sum(getattr(self.weights, name) * value for name, value in found.items())
        return found

    def _extras(self, synthetic: dict[str, Tensor], out: LiteOutput, weight: Tensor) -> dict[str, Tensor]:
        """Losses that are computed only when they count."""
        found: dict[str, Tensor] = {}
        if self.weights.charbonnier:
            found["charbonnier"] = losses.charbonnier_loss(out.coordinates, synthetic["coordinates"], weight)
        if self.weights.gradient:
            found["gradient"] = losses.gradient_loss(out.coordinates, synthetic["coordinates"], weight)
        if self.weights.mirror:  # a second pass: such a step takes nearly twice as long
            found["mirror"] = losses.mirror_loss(out.coordinates, self.net(synthetic["image"].flip(3)).coordinates, weight)
        return found

    def _pairs(self, videos: dict[str, Tensor]) -> dict[str, Tensor]:
        images = videos["image"]  # (B, 2, 3, S, S)
        out = self.net(images.flatten(0, 1))
        maps = out.coordinates.unflatten(0, images.shape[:2])
        found: dict[str, Tensor] = {}
        at_tracks = torch.stack([read_at(maps[:, k], videos["tracks"][:, k]) for k in (0, 1)], 1)  # (B, 2, n, 3)
        contrast = []
        for pair in at_tracks:
            first, second = (self.cube(points) for points in pair)
            contrast.append(losses.contrastive_loss(first, second))
        found["contrastive"] = torch.stack(contrast).mean()
        at_landmarks = read_at(out.coordinates, videos["landmarks"].flatten(0, 1))
        anchors = videos["anchors"][:, None].expand(-1, 2, -1, -1).flatten(0, 1)
        found["landmark"] = losses.landmark_loss(at_landmarks.flatten(0, 1), anchors.flatten(0, 1), videos["visible"].flatten())
        if "head" in videos:
            found["head"] = losses.mask_loss(out.head_logits, videos["head"].flatten(0, 1))
        if self.cube.classifier is not None and "labels" in videos:
            found["segmentation"] = self._classes(out, videos["labels"].flatten(0, 1))
        return found

    def _classes(self, out: LiteOutput, labels: Tensor) -> Tensor:
        batch, _, height, width = out.coordinates.shape
        features = self.cube(out.coordinates.permute(0, 2, 3, 1).reshape(-1, 3))
        logits = self.cube.classify(features).view(batch, height, width, -1).permute(0, 3, 1, 2)
        return losses.segmentation_loss(logits, labels, self.ignored)


def read_at(maps: Tensor, points: Tensor) -> Tensor:
    """Values ``(B, n, C)`` of maps ``(B, C, h, w)`` at ``points`` ``(B, n, 2)``, in sides of the picture from its top-left corner."""
    read = F.grid_sample(maps, (2 * points - 1)[:, None], mode="bilinear", padding_mode="border", align_corners=False)
    return read[:, :, 0].transpose(1, 2)
