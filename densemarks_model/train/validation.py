"""How good a network is on held-out pictures while it is trained; ``tools/evaluate_embeddings.py`` asks more, and takes longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from densemarks_model.lite import LiteNet, LiteOutput
from densemarks_model.train.sources import Source, collate


@dataclass(frozen=True)
class Scores:
    """Means over the pixels of held-out pictures.

    Attributes:
        error: distance in the cube where the head shows.
        surface_error: the same where the bald head lies behind the pixel; beside it, at hair that stands off, the truth is a continuation.
        overlap: intersection over union of the head's mask.
    """

    error: float
    surface_error: float
    overlap: float

    def to_dict(self) -> dict[str, float]:
        """Rounded, by the names that the log uses."""
        return {"error": round(self.error, 5), "surface_error": round(self.surface_error, 5), "mask_iou": round(self.overlap, 4)}

    def __str__(self) -> str:
        return f"cube error {self.error:.4f} ({self.surface_error:.4f} where the bald head lies behind), mask IoU {self.overlap:.4f}"


@torch.no_grad()
def score(
    net: LiteNet, source: Source, count: int = 128, batch: int = 16, bf16: bool = False,
    show: Callable[[Tensor, LiteOutput], None] | None = None,
) -> Scores:  # fmt: skip
    """Scores of ``net`` at its own picture size on ``count`` samples, spread evenly over ``source``.

    ``show`` is given the first batch: pictures and what the network made of them.
    """
    device = next(net.parameters()).device
    size, cells = net.config.image_size, net.config.map_size
    total = min(count, len(source))
    chosen = [k * len(source) // total for k in range(total)]
    sums = torch.zeros(6, dtype=torch.float64, device=device)
    for start in range(0, total, batch):
        samples = collate([source.sample(k, size, cells, None) for k in chosen[start : start + batch]])
        samples = {k: v.to(device) for k, v in samples.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out = net(samples["image"])
        shown, found = samples["head"] > 0.5, out.head_logits > 0
        behind = shown & (samples["surface"] > 0.5)
        distance = (out.coordinates - samples["coordinates"]).norm(dim=1, keepdim=True)
        parts = [(distance * shown).sum(), shown.sum(), (distance * behind).sum(), behind.sum(), (shown & found).sum(), (shown | found).sum()]
        sums += torch.stack([p.double() for p in parts])
        if show is not None and start == 0:
            show(samples["image"], out)
    error, pixels, surface, behind_pixels, both, either = sums.tolist()
    return Scores(error / max(pixels, 1), surface / max(behind_pixels, 1), both / max(either, 1))
