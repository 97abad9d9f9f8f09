"""Robust kernels: how much a large residual counts.

A kernel maps the squared norm s of a residual group to ρ(s), with ρ(s) ≈ s near zero. Iterative re-weighting uses
ρ'(s) as the group's weight. Barron, *A general and adaptive robust loss function*, CVPR 2019, lists the family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Kernel(Protocol):
    def rho(self, squared: Tensor) -> Tensor:
        """ρ(s), same shape as ``squared``."""
        ...

    def weight(self, squared: Tensor) -> Tensor:
        """ρ'(s), in [0, 1]."""
        ...


@dataclass(frozen=True)
class GemanMcClure:
    """Squares near zero, levelling off at ``scale²``: outliers lose their pull."""

    scale: float

    def rho(self, squared: Tensor) -> Tensor:
        return squared * self.scale**2 / (squared + self.scale**2)

    def weight(self, squared: Tensor) -> Tensor:
        return (self.scale**2 / (squared + self.scale**2)).square()
