"""Smoothness: heads move little from one frame to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from flame_assets.settings_files import Settings
from tracker.residuals.state import FitState
from tracker.rotations import axis_angle_to_matrix, left_jacobian, matrix_to_axis_angle
from tracker.solver import Linearization, Term

_FAR_RAD = 2.0
"""Turns up to here change as their axis-angle vectors do, nearly; at π those change their sign."""


class SmoothnessSettings(Settings):
    """Expected change over one second (random walk), per variable; larger is looser, ``.inf`` switches it off.

    They are far smaller than what heads do, because 478 landmarks err together where the objective counts them as
    independent: the values halve the jitter of a real talking head and keep 99 % of its blinks' and jaw's range.
    """

    rotation_rad: float = Field(0.07, ge=1e-4)
    translation_m: float = Field(0.05, ge=1e-4)
    expression: float = Field(4.0, ge=1e-4)
    eyes_rad: float = Field(6.0, ge=1e-4)
    jaw_rad: float = Field(1.0, ge=1e-4)
    neck_rad: float = Field(0.03, ge=1e-4)


def terms(state: FitState, settings: SmoothnessSettings) -> list[Term]:
    """Temporal coupling of the frame variables that are free; none where the frames are no sequence."""
    if state.time_steps is None:
        return []
    sigmas = {
        "rotation": settings.rotation_rad,
        "translation": settings.translation_m,
        "expr": settings.expression,
        "eyes_pose": settings.eyes_rad,
        "jaw_pose": settings.jaw_rad,
        "neck_pose": settings.neck_rad,
    }
    far = "rotation" in state.free and bool((state.values["rotation"].norm(dim=-1) > _FAR_RAD).any())
    return [
        Term(f"{name} smoothness", (TurnSmoothnessResidual if far and name == "rotation" else SmoothnessResidual)(name, sigma, state.time_steps))
        for name, sigma in sigmas.items()
        if name in state.free and math.isfinite(sigma)
    ]


@dataclass(frozen=True)
class SmoothnessResidual:
    """Change of a local variable from frame to frame, in units of the change expected over that time.

    A first-order random walk (Wiener process): the expected change grows with the square root of the time step, which
    keeps the term's strength independent of the frame rate. Frames are smoothed jointly, forwards and backwards in time,
    so it adds no lag.

    Attributes:
        name: the variable.
        sigma_per_root_second: expected change over one second, ``(d,)`` or a number.
        time_steps: ``(F,)`` seconds since the frame before; ``inf`` uncouples (the first frame, or after a cut).
    """

    name: str
    sigma_per_root_second: Float[Tensor, "d"] | float
    time_steps: Float[Tensor, "frames"]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        value = values[self.name]
        sigma = torch.as_tensor(self.sigma_per_root_second, dtype=value.dtype, device=value.device)
        steps = self.time_steps.to(value)[:, None]
        precision = 1 / (sigma * steps.sqrt()).expand_as(value)
        precision = torch.cat([torch.zeros_like(precision[:1]), precision[1:]])
        before = torch.cat([value[:1], value[:-1]])
        residual = ((value - before) * precision)[..., None]
        if self.name not in wanted:
            return Linearization(residual)
        return Linearization(residual, {self.name: precision}, {self.name: -precision}, diagonal=True)


@dataclass(frozen=True)
class TurnSmoothnessResidual:
    """The same for rotations of any size: their change is the axis-angle vector of the turn from one to the next, which does not
    depend on how each is written. Upside down, where neighbours are written with opposite signs, their difference would be a full turn.

    Attributes:
        name, sigma_per_root_second, time_steps: as in :class:`SmoothnessResidual`.
    """

    name: str
    sigma_per_root_second: float
    time_steps: Float[Tensor, "frames"]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        value = values[self.name].double()
        before = torch.cat([value[:1], value[:-1]])
        precision = 1 / (self.sigma_per_root_second * self.time_steps.to(value).sqrt())
        precision[0] = 0
        turn = matrix_to_axis_angle(axis_angle_to_matrix(before).mT @ axis_angle_to_matrix(value))
        residual = (turn * precision[:, None])[..., None].to(values[self.name])
        if self.name not in wanted:
            return Linearization(residual)
        # R(ω + dω) = R(ω) R(J(ω)ᵀ dω), with J the left Jacobian; the turn itself changes by the inverses of its own
        own = torch.linalg.solve(left_jacobian(turn).mT, left_jacobian(value).mT)
        other = -torch.linalg.solve(left_jacobian(turn), left_jacobian(before).mT)
        here, there = ((j * precision[:, None, None])[:, :, None].to(residual) for j in (own, other))
        return Linearization(residual, {self.name: here}, {self.name: there})
