"""The photometric term: colours of the skin in the picture against albedo under the estimated light.

Points of the skin that the camera sees are projected; the picture's colour there should be the point's albedo times the
light on its normal. The residual is a look at the picture at moving points, so its derivatives are the picture's slopes, as in
Lucas and Kanade's registration; it refines what landmarks and locations have brought to within a pixel or two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from flame_assets.settings_files import Settings
from tracker.head_points import HeadPoints
from tracker.observe.reading import DENSE, PICTURES
from tracker.residuals.appearance import harmonics
from tracker.residuals.drawn_head import visible_places
from tracker.residuals.map_residual import MapResidual, on_map, sample_map, within
from tracker.residuals.state import FitState
from tracker.solver import Term
from tracker.solver.robust import GemanMcClure

READS = frozenset({DENSE, PICTURES})

_GRAZING = 0.3  # cosine below which a point is seen too flatly for its colour to tell anything


class PhotometricSettings(Settings):
    """How far colours are believed.

    Attributes:
        points: of the skin at which colours are compared.
        error: expected difference of a colour that fits, 0 to 1.
        kernel_scale: residuals beyond this many expected errors count less and less (Geman–McClure).
    """

    points: int = Field(1200, ge=1, le=10_000)
    error: float = Field(0.05, ge=1e-3, le=10)
    kernel_scale: float = Field(2.0, ge=0.01, le=1000)


@dataclass(frozen=True)
class SkinView:
    """The skin as the camera sees it at some parameters: colours, unit normals, and 0-to-1 weights of the points."""

    colours: Float[Tensor, "frames n 3"]
    normals: Float[Tensor, "frames n 3"]
    weight: Float[Tensor, "frames n"]


@torch.no_grad()
def look_at_skin(state: FitState) -> SkinView | None:
    """Colours, normals and weights of the skin's points at the state's values; None without pictures of them."""
    skin, batch = state.head.skin, state.batch.pictures
    if skin is None or batch is None:
        return None
    size = (batch.pictures.shape[2], batch.pictures.shape[3])
    visible = visible_places(state.head.model, skin.points, batch.to_map, size, state.values, state.principal_point, state.renderer)
    head = HeadPoints.evaluate(skin.points, state.values)
    points = on_map(head, state.values, batch.to_map, state.principal_point)
    seen, _ = sample_map(torch.cat([batch.pictures, batch.trust[:, None]], dim=1), points)
    facing = ((head.facing(skin.normals) - _GRAZING) / (1 - _GRAZING)).clamp(0, 1)
    trusted = seen[..., 3].clamp(0, 1) * batch.present.to(facing)[:, None]
    weight = torch.where(within(points, size, 1.0), facing * trusted * visible, 0)
    return SkinView(seen[..., :3], head.turned(skin.normals), weight)


def terms(state: FitState, settings: PhotometricSettings) -> list[Term]:
    """Colours at the visible points, where the clip's are known; light falls on their normals as they stand."""
    view, appearance, skin, batch = look_at_skin(state), state.appearance, state.head.skin, state.batch.pictures
    if view is None or appearance is None or skin is None or batch is None:
        return []
    expected = appearance.albedo * (harmonics(view.normals) @ appearance.light)
    # each frame's exposure, from the points themselves
    w = (view.weight * appearance.trust)[..., None]
    gain = (w * expected * view.colours).sum(1) / (w * expected.square()).sum(1).clamp_min(1e-6)
    expected = expected * gain.clamp(0.5, 2)[:, None]
    precision = (view.weight * appearance.trust).sqrt() / settings.error
    residual = MapResidual(skin.points, expected, precision, batch.pictures, batch.to_map, state.principal_point)
    return [Term("photometric", residual, GemanMcClure(settings.kernel_scale))]
