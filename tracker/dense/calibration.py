"""Canonical coordinates of a head in a network's cube, measured on a clip.

The shipped network speaks of the default head's own coordinates. Another head (FLAME), or another network (the DenseMarks
authors', a user's training) has a cube of its own. What the network says about each vertex is then measured: the clip is
fitted with landmarks alone, and each vertex takes the robust mean of the locations predicted where it is seen. The result
serves that run alone: kept for later ones, it would make them depend on what was tracked before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_assets.asset import HeadAsset
from flame_assets.similarity import similarity
from tracker.camera import project
from tracker.fitting.dense import DenseBatch, sample_map
from tracker.fitting.kinematics import HeadPoints
from tracker.fitting.visibility import visible_places
from tracker.head_model import HeadModel
from tracker.rendering import get_renderer

_MIN_TRUST = 0.5
_TYPICAL = 0.03
_ROUNDS = 5
_PRIOR_FRAMES = 4.0  # the similarity counts like this many good observations of each vertex


@torch.no_grad()
def measure(
    asset: HeadAsset, head: HeadModel, batch: DenseBatch, values: Mapping[str, Tensor], principal_point: tuple[float, float]
) -> Float[np.ndarray, "verts 3"] | None:
    """Canonical coordinates from fitted frames; None when too little of the head was seen to tell.

    Args:
        asset, head: the head model.
        batch: what the network said about the frames.
        values: the frames' parameters, from landmarks.
        principal_point: pixels.
    """
    size = (batch.maps.shape[2], batch.maps.shape[3])
    positions = HeadPoints.evaluate(head, values).positions
    pixels, _ = project(positions, values["log_focal"].exp().expand(len(positions)), principal_point)
    on_map = pixels @ batch.to_map[:, :, :2].mT + batch.to_map[:, None, :, 2]
    inside = ((on_map > 0.5) & (on_map < on_map.new_tensor([size[1], size[0]]) - 0.5)).all(-1)
    renderer = get_renderer("auto", head.device)
    visible = visible_places(head, head, batch.to_map, size, values, principal_point, renderer)
    seen, _ = sample_map(torch.cat([batch.maps, batch.trust[:, None]], dim=1), on_map)
    weight = torch.where(inside & (visible > 0) & (seen[..., 3] > _MIN_TRUST), seen[..., 3], 0)
    # version 1 of the cube is a similarity of the head, of version 2 the head with its mouth parted
    known = asset.v_template if asset.cube == 1 or asset.canonical is None else asset.canonical
    return robust_means(known, seen[..., :3].cpu().numpy(), weight.cpu().numpy())


def robust_means(
    template: Float[np.ndarray, "verts 3"], locations: Float[np.ndarray, "frames verts 3"], weight: Float[np.ndarray, "frames verts"]
) -> Float[np.ndarray, "verts 3"] | None:
    """Mean location of each vertex by iterative re-weighting, drawn towards a similarity of the template.

    A cube is a similarity of some mean head, so that tells where vertices lie that were seldom seen or never.
    """
    known = weight.sum(0) > 0
    if known.sum() < max(0.05 * len(template), 50):
        return None
    w = weight.astype(np.float64)
    for _ in range(_ROUNDS):
        mean = (w[..., None] * locations).sum(0) / np.maximum(w.sum(0), 1e-9)[:, None]
        distance = np.linalg.norm(locations - mean, axis=-1)
        w = weight / (1 + (distance / _TYPICAL) ** 2) ** 2
    scale, rotation, shift = similarity(template[known].astype(np.float64), mean[known])
    smooth = scale * template @ rotation.T + shift
    # few and scattered observations do not outweigh the whole head's
    deviation = np.sqrt((w * ((locations - mean) ** 2).sum(-1)).sum(0) / np.maximum(w.sum(0), 1e-9))
    evidence = w.sum(0) / (1 + (deviation / _TYPICAL) ** 2)
    share = (evidence / (evidence + _PRIOR_FRAMES))[:, None]
    out = share * mean + (1 - share) * smooth
    return np.clip(out, 0, 1).astype(np.float32)
