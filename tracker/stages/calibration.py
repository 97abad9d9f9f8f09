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
from tracker.camera import FocalPrior
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.observe.frame_batch import DenseBatch
from tracker.observe.observations import Observations
from tracker.observe.reading import DENSE, ObservationReader
from tracker.observe.sites import spread_sites
from tracker.rendering import get_renderer
from tracker.residuals.cues import cues
from tracker.residuals.drawn_head import visible_places
from tracker.residuals.fit_head import FitHead
from tracker.residuals.map_residual import on_map, sample_map, within
from tracker.stages.fit_settings import FitBase
from tracker.stages.keyframes import fit_shared

FRAMES, CANDIDATES = 24, 120
"""Locations are averaged over so many frames at most, chosen among so many that are looked at for it."""

_MIN_TRUST = 0.5
_TYPICAL = 0.03
_ROUNDS = 5
_PRIOR_FRAMES = 4.0  # the similarity counts like this many good observations of each vertex


def calibrate(
    observations: Observations, asset: HeadAsset, settings: FitBase, camera: FocalPrior, device: torch.device | str = "cpu"
) -> Float[np.ndarray, "verts 3"] | None:
    """Canonical coordinates of ``asset`` in the cube of the network that made ``observations``; None when too little of the
    head was seen to tell.

    Args:
        observations: frames in which the network looked at the head, not too many.
        asset: the head; its own canonical coordinates tell no more than its shape.
        settings: of the fit; only what it says of landmarks counts.
        camera: what is known of it.
        device: where to fit and to draw.
    """
    offered = np.array([f for f in np.flatnonzero(observations.found) if f in observations.embeddings], int)
    if len(offered) == 0:
        return None
    blind = settings.without(*(name for name, cue in cues().items() if cue.reads)).changed({"keyframes": {"count": FRAMES}})
    head = FitHead.build(asset, device)
    sites = spread_sites(asset, observations.settings.sites)
    model = head.model
    read = ObservationReader.of(observations, model, sites)
    fit = fit_shared(head, torch.as_tensor(offered), read, camera, blind)
    seen = read(fit.keyframes, frozenset({DENSE})).dense
    return None if seen is None else measure(asset, model, seen, fit.solution.values, camera.principal_point)


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
    points = on_map(HeadPoints.evaluate(head, values), values, batch.to_map, principal_point)
    renderer = get_renderer("auto", head.device)
    visible = visible_places(head, head, batch.to_map, size, values, principal_point, renderer)
    seen, _ = sample_map(torch.cat([batch.maps, batch.trust[:, None]], dim=1), points)
    weight = torch.where(within(points, size, 0.5) & (visible > 0) & (seen[..., 3] > _MIN_TRUST), seen[..., 3], 0)
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
