"""Robust kernels: how much a large residual counts.

A kernel maps the squared norm s of a residual group to ρ(s), with ρ(s) ≈ s near zero. Iterative re-weighting uses
ρ'(s) as the group's weight. Barron, *A general and adaptive robust loss function*, CVPR 2019, lists the family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Kernel(Protocol):
    def rho(self, squared: Tensor) -> Tensor:
        """ρ(s), same shape as ``squared``."""
        ...

    def weight(self, squared: Tensor) -> Tensor:
        """ρ'(s), in [0, 1]."""
        ...


@dataclass(frozen=True)
class Huber:
    """Squares up to ``scale``, linear beyond: outliers keep a constant pull."""

    scale: float

    def rho(self, squared: Tensor) -> Tensor:
        bound = self.scale**2
        return torch.where(squared <= bound, squared, 2 * self.scale * squared.clamp_min(bound).sqrt() - bound)

    def weight(self, squared: Tensor) -> Tensor:
        return self.scale / squared.sqrt().clamp_min(self.scale)


@dataclass(frozen=True)
class GemanMcClure:
    """Squares near zero, levelling off at ``scale²``: outliers lose their pull."""

    scale: float

    def rho(self, squared: Tensor) -> Tensor:
        return squared * self.scale**2 / (squared + self.scale**2)

    def weight(self, squared: Tensor) -> Tensor:
        return (self.scale**2 / (squared + self.scale**2)).square()
