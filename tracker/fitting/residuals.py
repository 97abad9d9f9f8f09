"""Residual functions: current values in, weighted residuals and derivatives out.

Each is a small frozen record that holds its data (targets, weights); calling it evaluates it. They know no files and no
solver. Values are named as in VHAP's files (see :mod:`tracker.fitting.kinematics`); ``log_focal`` ``(1,)`` is the natural
logarithm of the focal length in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import from_principal_point, project
from tracker.fitting.kinematics import HeadPoints
from tracker.fitting.solver import Linearization
from tracker.head_model import HeadModel


@dataclass(frozen=True)
class LandmarkResidual:
    """Projected head points minus detected pixels, in units of the expected error.

    Attributes:
        points: the head restricted to the landmarks.
        targets: detected positions, full-frame pixels.
        precision: 1 / (expected error in pixels); 0 leaves a landmark out (not found, self-occluded).
        principal_point: pixels.
    """

    points: HeadModel
    targets: Float[Tensor, "frames n 2"]
    precision: Float[Tensor, "frames n"]
    principal_point: tuple[float, float]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        head = HeadPoints.evaluate(self.points, values)
        focal = values["log_focal"].exp()
        pixels, per_metre = project(head.positions, focal.expand(len(head.positions)), self.principal_point)
        weight = self.precision[..., None]
        residual = (pixels - self.targets) * weight
        if not wanted:
            return Linearization(residual)
        jacobians = head.jacobians(per_metre * weight[..., None], wanted)
        if "log_focal" in wanted:
            offset = from_principal_point(pixels, self.principal_point)
            jacobians["log_focal"] = (offset * weight)[..., None]
        return Linearization(residual, jacobians)


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

