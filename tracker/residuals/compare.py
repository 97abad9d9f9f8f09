"""Dense correspondence by render and compare: what the network predicts where a visible site is projected, against the site.

Derivatives go through the embedding map, so it needs a good start; see :mod:`tracker.residuals.look_up` for one.
"""

from __future__ import annotations

import torch
from pydantic import Field

from flame_assets.settings_files import Settings
from tracker.head_points import HeadPoints
from tracker.observe.reading import DENSE
from tracker.residuals.drawn_head import visible_places
from tracker.residuals.map_residual import MapResidual, on_map, sample_map, within
from tracker.residuals.state import FitState
from tracker.solver import Term
from tracker.solver.robust import GemanMcClure

READS = frozenset({DENSE})


class CompareSettings(Settings):
    """How far the network's locations are believed; as :class:`tracker.residuals.look_up.LookUpSettings`."""

    error_inflation: float = Field(1.5, ge=0.01, le=100)
    kernel_scale: float = Field(3.0, ge=0.01, le=1000)


def terms(state: FitState, settings: CompareSettings) -> list[Term]:
    """Comparison of locations at the sites that are visible at the state's values."""
    dense, seen = state.head.dense, state.batch.dense
    if dense is None or seen is None:
        return []
    size = (seen.maps.shape[2], seen.maps.shape[3])
    visible = visible_places(state.head.model, dense.points, seen.to_map, size, state.values, state.principal_point, state.renderer)
    with torch.no_grad():
        points = on_map(HeadPoints.evaluate(dense.points, state.values), state.values, seen.to_map, state.principal_point)
        known, _ = sample_map(torch.stack([seen.trust, seen.scale], dim=1), points)
        trust = torch.where(within(points, size, 0.5), known[..., 0].clamp_min(0), 0) * visible
        precision = trust.sqrt() / (known[..., 1] * settings.error_inflation)
    residual = MapResidual(dense.points, dense.canonical, precision, seen.maps, seen.to_map, state.principal_point)
    return [Term("dense render-and-compare", residual, GemanMcClure(settings.kernel_scale))]
