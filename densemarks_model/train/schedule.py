"""Which weights learn when, and how fast."""

from __future__ import annotations

import math

import torch
from torch import nn

from densemarks_model.lite import LiteNet
from densemarks_model.train.config import Stage, TrainConfig

WARM_UP = 0.1
"""Share of a stage's steps in which rates rise from zero."""


def stage_at(config: TrainConfig, step: int) -> tuple[Stage, int, int]:
    """The stage that ``step`` belongs to, and the run's steps at which it begins and ends."""
    start = 0
    for stage in config.stages:
        if step < start + stage.steps:
            return stage, start, start + stage.steps
        start += stage.steps
    raise ValueError(f"step {step} is beyond the schedule's {start}")


def rate_share(position: float) -> float:
    """Share of the peak rate at ``position`` in [0, 1] of a stage: linear warm-up, then half a cosine."""
    if position < WARM_UP:
        return position / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (position - WARM_UP) / (1 - WARM_UP)))


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


def set_rates(optimizer: torch.optim.Optimizer, stage: Stage, position: float) -> None:
    """Learning rates for a step at ``position`` in [0, 1] of its stage."""
    peak = {"decoder": stage.decoder_rate, "backbone": stage.backbone_rate, "cube": stage.cube_rate}
    for group in optimizer.param_groups:
        group["lr"] = peak[group["name"]] * rate_share(position)
