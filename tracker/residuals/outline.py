"""The outline: where lines of sight meet the bald head, by the network and by the head as it stands.

The network's mask tells it, hair or not. The slope of the mask's signed distance is the outline's normal, so the residual is one
more look at a map. A site that is seen edge-on should be as far from the outline that the network sees as it is from the
outline of the head itself, drawn as signed distances: edge-on sites lie a little inside of it, those of ears and jaws even
by a centimetre, and zero would swell the head.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from flame_assets.settings_files import Settings
from tracker.head_points import HeadPoints
from tracker.observe.frame_batch import DenseBatch
from tracker.observe.reading import DENSE, OUTLINES
from tracker.observe.signed_distance import finer, signed_distance
from tracker.residuals.drawn_head import coverage
from tracker.residuals.map_residual import MapResidual, on_map, sample_map, within
from tracker.residuals.state import FitState
from tracker.solver import Term
from tracker.solver.robust import GemanMcClure

READS = frozenset({DENSE, OUTLINES})

_EDGE_COSINE = 0.2  # on a head 9 cm across, sites within it lie less than 2 mm inside the outline
_REACH = 6.0  # map pixels
_RIM = 2.0  # map pixels from the head's own outline within which a site tells of it


class OutlineSettings(Settings):
    """How far the network's outline is believed.

    Attributes:
        error_inflation: factor on the expected errors.
        kernel_scale: residuals beyond this many expected errors count less and less (Geman–McClure).
    """

    error_inflation: float = Field(1.0, ge=0.01, le=100)
    kernel_scale: float = Field(3.0, ge=0.01, le=1000)


def terms(state: FitState, settings: OutlineSettings) -> list[Term]:
    """Agreement of outlines, at the sites whose surface is seen edge-on at the state's values."""
    dense, seen = state.head.dense, state.batch.dense
    if dense is None or seen is None or not bool(seen.outline.any()):
        return []
    size = (seen.maps.shape[2], seen.maps.shape[3])
    with torch.no_grad():
        drawn = drawn_outline(state, seen, size)
        head = HeadPoints.evaluate(dense.points, state.values)
        points = on_map(head, state.values, seen.to_map, state.principal_point)
        edge_on = (1 - (head.facing(dense.normals) / _EDGE_COSINE).square()).clamp_min(0)
        known, _ = sample_map(torch.stack([seen.outline, seen.outline_error, drawn], dim=1), points)
        # edge-on sites well inside belong to the outline of a nose or an ear, which the mask does not show
        near = (known[..., 0].abs() < _REACH) & (known[..., 2].abs() < _RIM)
        is_known = (seen.outline != 0).flatten(1).any(1)[:, None]
        counted = torch.where(within(points, size, 1.5) & near & is_known, edge_on, 0)
        precision = counted.sqrt() / (known[..., 1] * settings.error_inflation)
    residual = MapResidual(dense.points, known[..., 2:], precision, seen.outline[:, None], seen.to_map, state.principal_point)
    return [Term("outline", residual, GemanMcClure(settings.kernel_scale))]


def drawn_outline(state: FitState, seen: DenseBatch, size: tuple[int, int]) -> Float[Tensor, "frames h w"]:
    """Signed distances to the outline of the head as it stands, on the pixels of the network's maps."""
    model = state.head.model
    shares = coverage(model, seen.to_map, size, state.values, state.principal_point, state.renderer, finer(size))
    distances = np.stack([signed_distance(share) for share in shares.cpu().numpy()])
    return torch.as_tensor(distances, dtype=model.dtype, device=model.device)
