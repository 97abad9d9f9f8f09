"""Dense correspondence by look-up: sites of the head against the pixels that the network assigned to them.

A pixel whose predicted location is x belongs to the surface point at x; the residual is the distance in the picture between
the pixel and that point's projection, after DenseMarks (arXiv 2511.02830). No render is needed and the pose may be far off.
Pixels are pooled over the sites before (:mod:`tracker.observe.pooling`).
"""

from __future__ import annotations

from pydantic import Field

from flame_assets.settings_files import Settings
from tracker.observe.reading import DENSE
from tracker.residuals.reprojection import ReprojectionResidual
from tracker.residuals.state import FitState
from tracker.solver import Term
from tracker.solver.robust import GemanMcClure

READS = frozenset({DENSE})


class LookUpSettings(Settings):
    """How far the network's locations are believed.

    Attributes:
        error_inflation: factor on the expected errors, because the sites of one face err together.
        kernel_scale: residuals beyond this many expected errors count less and less (Geman–McClure).
    """

    error_inflation: float = Field(1.5, ge=0.01, le=100)
    kernel_scale: float = Field(3.0, ge=0.01, le=1000)


def terms(state: FitState, settings: LookUpSettings) -> list[Term]:
    """Reprojection of the sites where the network saw them."""
    dense, seen = state.head.dense, state.batch.dense
    if dense is None or seen is None:
        return []
    pixels_per_cube = state.pixels_per_metre * dense.metres_per_cube
    precision = seen.precision / (pixels_per_cube[:, None] * settings.error_inflation)
    residual = ReprojectionResidual(dense.points, seen.pixels, precision, state.principal_point, seen.offsets)
    return [Term("dense look-up", residual, GemanMcClure(settings.kernel_scale))]
