"""The schedule of published trackers: Adam on the objective, so many steps a frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tracker.solver.levenberg_marquardt import Term, Values, Variable

RATES = {
    "rotation": 0.01, "translation": 0.003, "expr": 0.03, "eyes_pose": 0.02, "neck_pose": 0.01, "jaw_pose": 0.01,
    "shape": 0.02, "log_focal": 0.01,
}  # fmt: skip
"""Learning rate of each variable, in its own unit; tried in steps of two on the demo clip for the lowest final cost."""


def minimise(terms: Sequence[Term], variables: Sequence[Variable], start: Values, steps: int) -> Values:
    """Take ``steps`` Adam steps from ``start`` in the variables (all other values stay); box limits by clamping."""
    free = {v.name: start[v.name].clone().requires_grad_() for v in variables}
    constants = {k: v for k, v in start.items() if k not in free}
    optimiser = torch.optim.Adam([{"params": [value], "lr": RATES[name]} for name, value in free.items()])
    for _ in range(steps):
        optimiser.zero_grad()
        cost = start["rotation"].new_zeros(())
        for term in terms:
            squared = term.residual(free | constants, frozenset()).residual.square().sum(-1)
            cost = cost + (squared if term.kernel is None else term.kernel.rho(squared)).sum() / 2
        cost.backward()
        optimiser.step()
        with torch.no_grad():
            for variable in variables:
                low, high = (torch.as_tensor(bound) for bound in (variable.lower, variable.upper))
                free[variable.name].copy_(torch.minimum(torch.maximum(free[variable.name], low), high))
    return {k: v.detach() for k, v in free.items()} | constants
