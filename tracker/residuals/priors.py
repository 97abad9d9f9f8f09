"""Priors: what is known of heads before any is seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from flame_assets.settings_files import Settings
from tracker.head_model import HeadModel
from tracker.residuals.state import FitState
from tracker.solver import Linearization, Term

_DEFAULT_EXPRESSION = 0.35


class PriorSettings(Settings):
    """Standard deviations of the priors.

    Attributes:
        identity: of the identity coefficients. Below one (their own population's), because the landmarks of one face err
            together: at one, the scalp, which they do not see, is stretched to explain a millimetre at the brow.
        expression: of the expression coefficients, as a share of the range of shapes that have one (ARKit's). Directions that
            have none (FLAME's, of unit variance) are held in proportion: the default stands for one, half of it for a half.
        gaze_rad: of each eye's rotation.
        vergence_rad: of the difference between the eyes' rotations.
        jaw_rad, neck_rad: of the jaw and neck joints, where they are free.
    """

    identity: float = Field(0.35, ge=1e-3, le=1000)
    expression: float = Field(_DEFAULT_EXPRESSION, ge=1e-3, le=1000)
    gaze_rad: float = Field(0.3, ge=1e-3, le=1000)
    vergence_rad: float = Field(0.06, ge=1e-3, le=1000)
    jaw_rad: float = Field(0.15, ge=1e-3, le=1000)
    neck_rad: float = Field(0.35, ge=1e-3, le=1000)


def terms(state: FitState, settings: PriorSettings) -> list[Term]:
    """Zero-mean priors on every frame's variables; on identity and focal length where they are free."""
    head, camera = state.head.model, state.camera
    sigmas = {
        "expr": settings.expression * _expression_unit(head),
        "eyes_pose": settings.gaze_rad,
        "jaw_pose": settings.jaw_rad,
        "neck_pose": settings.neck_rad,
    }
    found = [Term(f"{n} prior", PriorResidual(n, s)) for n, s in sigmas.items() if n in state.values]
    identity = torch.eye(3, dtype=head.dtype, device=head.device)
    same_gaze = DifferenceResidual("eyes_pose", torch.cat([identity, -identity], dim=1), settings.vergence_rad)
    found.append(Term("vergence", same_gaze))
    if "shape" in state.free:
        found.append(Term("identity prior", PriorResidual("shape", settings.identity)))
    if "log_focal" in state.free:
        found.append(Term("focal prior", PriorResidual("log_focal", camera.fit_log_sigma, math.log(camera.focal_px))))
    return found


def _expression_unit(head: HeadModel) -> float:
    """What ``expression`` is counted in: of shapes with a range (ARKit's) one is the whole range; directions without one
    (FLAME's) have unit variance, which the default of the setting stands for."""
    return 1.0 if math.isfinite(head.expression_range[1]) else 1.0 / _DEFAULT_EXPRESSION


@dataclass(frozen=True)
class PriorResidual:
    """A variable's distance from its prior mean in units of its standard deviation, zero-mean Gaussian for each entry.

    Works for local ``(F, d)`` and shared ``(d,)`` variables.

    Attributes:
        name: the variable.
        sigma: standard deviations, ``(d,)`` or a number.
        mean: prior mean, broadcast against the value.
    """

    name: str
    sigma: Float[Tensor, "d"] | float
    mean: Tensor | float = 0.0

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        value = values[self.name]
        residual = torch.atleast_2d((value - self.mean) / self.sigma)[..., None]
        if self.name not in wanted:
            return Linearization(residual)
        precision = (1 / torch.as_tensor(self.sigma)).to(residual)
        return Linearization(residual, {self.name: precision.expand(residual.shape[:2])}, diagonal=True)


@dataclass(frozen=True)
class DifferenceResidual:
    """A fixed linear combination of one local variable that should vanish, e.g. left gaze minus right gaze.

    Attributes:
        name: the variable.
        matrix: ``(n, d)``; the residual is ``matrix @ value / sigma``.
        sigma: expected size of the combination.
    """

    name: str
    matrix: Float[Tensor, "n d"]
    sigma: float

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        value = values[self.name]
        scaled = self.matrix / self.sigma
        residual = (value @ scaled.T)[..., None]
        if self.name not in wanted:
            return Linearization(residual)
        return Linearization(residual, {self.name: scaled[None, :, None, :].expand(len(value), -1, 1, -1)})
