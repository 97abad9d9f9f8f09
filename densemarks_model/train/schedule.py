"""Which weights learn when, and how fast.

A stage either has an end and goes there along a cosine, or it has none: its rates warm up, stay or fall slowly, and when somebody
wants the network a short decay brings them to zero, on a branch of its own, while the long run goes on at its rates ("warm-up, stable,
decay": Hu et al., *MiniCPM*, 2024; Hägele et al., *Scaling laws and compute-optimal training beyond fixed training durations*, 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from densemarks_model.lite import LiteNet
from densemarks_model.train.config import Stage, TrainConfig

WARM_UP = 0.1
"""Share of a cosine stage's steps in which rates rise from zero."""


@dataclass(frozen=True)
class Decay:
    """The end of a run: from step ``first``, where it left the long run, rates go to zero at step ``last``."""

    first: int
    last: int

    def share(self, step: int) -> float:
        """Of the rates at ``first``, for ``step`` (its middle): ``1 − √(part done)``, the best of Hägele et al.'s shapes."""
        return max(1 - math.sqrt((step + 0.5 - self.first) / (self.last - self.first)), 0.0)


def stage_at(config: TrainConfig, step: int) -> tuple[Stage, int, int]:
    """The stage that ``step`` belongs to, and the run's steps at which it begins and ends."""
    start = 0
    for stage in config.stages:
        if step < start + stage.length:
            return stage, start, start + stage.length
        start += stage.length
    raise ValueError(f"step {step} is beyond the schedule's {start}")


def rate_share(position: float) -> float:
    """Share of the peak rate at ``position`` in [0, 1] of a stage: linear warm-up, then half a cosine."""
    if position < WARM_UP:
        return position / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (position - WARM_UP) / (1 - WARM_UP)))


def open_share(step: float, warm_up: int, timescale: int) -> float:
    """Share of the peak rate at ``step`` of an open stage: linear warm-up, constant, from ``timescale`` on ``√(timescale / step)``.

    The inverse square root with a timescale is that of Zhai et al., *Scaling Vision Transformers* (CVPR 2022); 0 leaves it out.
    """
    if step < warm_up:
        return step / warm_up
    return math.sqrt(timescale / step) if 0 < timescale < step else 1.0


def share_at(config: TrainConfig, step: int, decay: Decay | None = None) -> float:
    """Share of the peak rates for ``step`` of the run; of the rates where the decay began, once one has."""
    if decay is not None:
        return share_at(config, decay.first) * decay.share(step)
    stage, begin, end = stage_at(config, step)
    within = step - begin + 0.5
    return open_share(within, stage.warm_up, stage.timescale) if stage.schedule == "open" else rate_share(within / (end - begin))


def parameter_groups(net: LiteNet, cube: nn.Module | None) -> list[dict]:
    """Groups ``decoder``, ``backbone`` and ``cube`` of all weights, learning or not, so that an optimiser outlives stages."""
    backbone = list(net.backbone.parameters())
    inside = {id(p) for p in backbone}
    groups = [
        {"name": "decoder", "params": [p for p in net.parameters() if id(p) not in inside]},
        {"name": "backbone", "params": backbone},
    ]
    if cube is not None:
        groups.append({"name": "cube", "params": list(cube.parameters())})
    return groups


def set_stage(net: LiteNet, stage: Stage) -> None:
    """Freeze and unfreeze the backbone's blocks."""
    blocks = list(net.backbone.encoder.layer)
    net.backbone.requires_grad_(False)
    if stage.unfrozen_blocks >= len(blocks):
        net.backbone.requires_grad_(True)
    for block in blocks[max(len(blocks) - stage.unfrozen_blocks, 0) :]:
        block.requires_grad_(True)
    # the network never reads what the backbone's last normalisation gives
    net.backbone.layernorm.requires_grad_(False)


def set_rates(optimizer: torch.optim.Optimizer, stage: Stage, share: float) -> None:
    """Learning rates: ``share`` of the stage's peaks."""
    peak = {"decoder": stage.decoder_rate, "backbone": stage.backbone_rate, "cube": stage.cube_rate}
    for group in optimizer.param_groups:
        group["lr"] = peak[group["name"]] * share
