"""A Levenberg–Marquardt solver over stacked residual functions, for sequences of frames.

The solver knows *local* variables (one value per frame, ``(F, d)``), *shared* variables (one value for all frames,
``(d,)``), residual functions, and nothing else. A residual function takes the values and returns numbers with their
derivatives; it may touch the values of its own frame, of the frame before, and the shared ones. The normal equations
then have a block-tridiagonal part (frames) bordered by a dense arrow (shared), which :mod:`tracker.solver.normal_equations`
eliminates in time linear in the number of frames.

Robust kernels are applied by iterative re-weighting; box limits by projecting the step and freezing variables that
press against their limit. Reference: Madsen, Nielsen, Tingleff, *Methods for non-linear least squares problems*, 2004.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tracker.solver.normal_equations import NormalEquations
from tracker.solver.robust import Kernel

Values = dict[str, Tensor]
"""Variable name -> ``(F, d)`` when local, ``(d,)`` when shared. May hold constants beside the variables solved for."""


@dataclass(frozen=True)
class Variable:
    """A quantity to solve for.

    Attributes:
        name: key into the values.
        shared: one value for all frames instead of one per frame.
        lower, upper: box limits, numbers or ``(d,)`` tensors.
    """

    name: str
    shared: bool = False
    lower: float | Tensor = -math.inf
    upper: float | Tensor = math.inf


@dataclass(frozen=True)
class Linearization:
    """Residuals at one point, already weighted, with derivatives.

    Attributes:
        residual: n groups of k numbers per frame; a robust kernel judges each group by its norm. F is 1 for a residual
            that depends on shared variables only.
        jacobians: variable name -> derivative with respect to that variable in the same frame (or to the shared one).
        previous: variable name -> derivative with respect to that variable in the frame before. Frame 0 has none: its
            rows must be zero.
        diagonal: each entry of one variable has one residual of its own (a prior, a smoothness term). n is d then, k is 1,
            and the derivatives are given as ``(F, d)``: row i with respect to entry i.
        used: groups that count. The numbers of all others are zero, residual and derivatives, and need not be multiplied; None
            where that is not known.
    """

    residual: Float[Tensor, "frames n k"]
    jacobians: dict[str, Float[Tensor, "frames n k d"]] = field(default_factory=dict)
    previous: dict[str, Float[Tensor, "frames n k d"]] = field(default_factory=dict)
    diagonal: bool = False
    used: Bool[Tensor, "frames n"] | None = None


class Residual(Protocol):
    """A function from values to residuals. ``wanted`` names the variables whose derivatives are needed (may be empty)."""

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization: ...


@dataclass(frozen=True)
class Term:
    """One residual function in an objective, with the robust kernel that judges its groups (None: plain squares)."""

    name: str
    residual: Residual
    kernel: Kernel | None = None


@dataclass(frozen=True)
class SolverConfig:
    """Trust-region settings.

    Attributes:
        max_iterations: linearisations at most.
        initial_damping: first λ, relative to the diagonal of the normal matrix.
        relative_tolerance: stop when an accepted step lowers the cost by less than this fraction.
        max_rejections: stop after this many rejected steps in a row.
    """

    max_iterations: int = 10
    initial_damping: float = 1e-3
    relative_tolerance: float = 1e-4
    max_rejections: int = 6


@dataclass(frozen=True)
class Solution:
    """What the solver found.

    Attributes:
        values: the solved values (constants passed through).
        initial_cost, cost: half the robust sum of squares before and after.
        iterations: linearisations made.
        converged: a tolerance ended it, not the iteration limit.
        shared_covariance: covariance of the stacked shared variables, in the order they were listed, from the undamped
            normal matrix at the last linearisation; None when nothing is shared or the matrix is singular.
    """

    values: Values
    initial_cost: float
    cost: float
    iterations: int
    converged: bool
    shared_covariance: Float[Tensor, "s s"] | None = None


class SolverError(RuntimeError):
    """The problem has no usable starting point (residuals that are not finite)."""


def total_cost(terms: Sequence[Term], values: Mapping[str, Tensor]) -> float:
    """Half the sum of squares after the robust kernels, a plain number (NaN or inf when a residual is)."""
    return float(_cost(terms, values))


def _cost(terms: Sequence[Term], values: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """The same as a double on the device, not yet waited for."""
    parts = []
    for term in terms:
        squared = term.residual(values, frozenset()).residual.square().sum(-1)
        parts.append((squared if term.kernel is None else term.kernel.rho(squared)).sum().double())
    return 0.5 * torch.stack(parts).sum() if parts else torch.zeros((), dtype=torch.float64)


def solve(
    terms: Sequence[Term],
    variables: Sequence[Variable],
    initial: Mapping[str, Tensor],
    config: SolverConfig = SolverConfig(),
) -> Solution:
    """Minimise the sum of ``terms`` over ``variables``, starting from ``initial`` (clipped into the limits).

    Args:
        terms: residual functions with their kernels.
        variables: what may move; everything else in ``initial`` is a constant.
        initial: starting values.

    Raises:
        SolverError: a residual is not finite at the start.
        KeyError: a variable has no initial value.
    """
    values: Values = dict(initial)
    for variable in variables:
        values[variable.name] = _clip(values[variable.name], variable)
    cost = initial_cost = total_cost(terms, values)
    if not math.isfinite(cost):
        raise SolverError("a residual is not finite at the starting values")

    damping, rejections, iterations, converged = config.initial_damping, 0, 0, False
    equations: NormalEquations | None = None
    while iterations < config.max_iterations and not converged:
        equations = _linearise(terms, variables, values)
        iterations += 1
        frozen = _pressing_on_limits(equations.gradients(), variables, values)
        while True:
            trial, trial_cost = _try_step(equations, frozen, damping, variables, values, terms)
            if trial_cost <= cost:
                converged = cost - trial_cost <= config.relative_tolerance * max(cost, 1e-30)
                values, cost = trial, trial_cost
                damping, rejections = max(damping / 5, 1e-9), 0
                break
            damping, rejections = damping * 6, rejections + 1
            if rejections >= config.max_rejections:
                converged = True
                break
    covariance = None
    if equations is not None and any(v.shared for v in variables):
        covariance = equations.shared_covariance()
    return Solution(values, initial_cost, cost, iterations, converged, covariance)


def _linearise(terms: Sequence[Term], variables: Sequence[Variable], values: Values) -> NormalEquations:
    wanted = frozenset(v.name for v in variables)
    equations = NormalEquations(
        local={v.name: tuple(values[v.name].shape) for v in variables if not v.shared},
        shared={v.name: values[v.name].shape[-1] for v in variables if v.shared},
        like=next(iter(values.values())),
    )
    for term in terms:
        lin = term.residual(values, wanted)
        weight = None if term.kernel is None else term.kernel.weight(lin.residual.square().sum(-1))
        if lin.diagonal:
            equations.add_diagonal(lin.residual, lin.jacobians, lin.previous, weight)
        else:
            equations.add(lin.residual, lin.jacobians, lin.previous, weight, lin.used)
    return equations


def _try_step(
    equations: NormalEquations,
    frozen: Mapping[str, Tensor],
    damping: float,
    variables: Sequence[Variable],
    values: Values,
    terms: Sequence[Term],
) -> tuple[Values, float]:
    """The values after one damped, clipped step, and their cost: infinite when the damped matrix is not positive definite.

    The cost is the one number that is waited for when the values lie on a GPU.
    """
    step = equations.solve(damping, frozen)
    moved = dict(values)
    for variable in variables:
        value = values[variable.name]
        moved[variable.name] = _clip(value + step.values[variable.name].to(value.dtype), variable)
    return moved, float(torch.where(step.sound, _cost(terms, moved), math.inf))


def _limits(value: Tensor, variable: Variable) -> tuple[Tensor | float, Tensor | float]:
    """The limits, where they are tensors like the value."""
    low, high = (b.to(value) if isinstance(b, Tensor) else b for b in (variable.lower, variable.upper))
    return low, high


def _clip(value: Tensor, variable: Variable) -> Tensor:
    low, high = _limits(value, variable)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low, high = (b if isinstance(b, Tensor) else value.new_full((), b) for b in (low, high))
    elif math.isinf(low) and math.isinf(high):
        return value
    return value.clamp(low, high)


def _pressing_on_limits(
    gradients: Mapping[str, Tensor], variables: Sequence[Variable], values: Values
) -> dict[str, Tensor]:
    """Per variable, which entries sit on a limit with the descent direction pointing outside."""
    frozen = {}
    for variable in variables:
        value, gradient = values[variable.name], gradients[variable.name]
        low, high = _limits(value, variable)
        frozen[variable.name] = ((value <= low) & (gradient > 0)) | ((value >= high) & (gradient < 0))
    return frozen
