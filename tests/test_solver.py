"""The solver on problems whose answers are known, with no face in sight."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from tracker.residuals.priors import PriorResidual
from tracker.residuals.smoothness import SmoothnessResidual
from tracker.solver.levenberg_marquardt import (
    Linearization,
    SolverConfig,
    SolverError,
    Term,
    Variable,
    solve,
    total_cost,
)
from tracker.solver.normal_equations import NormalEquations
from tracker.solver.robust import GemanMcClure


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Line:
    """y = slope_t · x + offset, one slope per frame, one offset for all."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        residual = (values["slope"] * self.x + values["offset"] - self.y)[..., None]
        ones = torch.ones_like(residual)[..., None]
        jacobians = {"slope": self.x.expand(residual.shape[:2])[..., None, None], "offset": ones}
        return Linearization(residual, {k: v for k, v in jacobians.items() if k in wanted})


class Rosenbrock:
    """The classic banana valley as residuals (10 (b − a²), 1 − a); minimum 0 at (1, 1)."""

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        a, b = values["ab"].unbind(-1)
        residual = torch.stack([10 * (b - a * a), 1 - a], dim=-1)[..., None]
        rows = torch.stack([torch.stack([-20 * a, torch.full_like(a, 10)], -1), torch.stack([-1 + 0 * a, 0 * a], -1)], 1)
        return Linearization(residual, {"ab": rows[:, :, None, :]} if wanted else {})


def test_linear_problem_with_shared_variable_is_solved_exactly():
    x, truth_slope, truth_offset = double(1, 20), double(4, 1, seed=1), 0.7
    y = truth_slope * x + truth_offset
    start = {"slope": torch.zeros(4, 1, dtype=torch.float64), "offset": torch.zeros(1, dtype=torch.float64)}
    found = solve([Term("line", Line(x, y))], [Variable("slope"), Variable("offset", shared=True)], start)
    assert torch.allclose(found.values["slope"], truth_slope, atol=1e-6)
    assert abs(found.values["offset"].item() - truth_offset) < 1e-6
    assert found.cost < 1e-10 < found.initial_cost


def test_shared_covariance_is_that_of_the_whole_system():
    """The Schur complement's inverse must equal the corner of the full inverse of JᵀJ."""
    x = double(1, 20)
    start = {"slope": torch.zeros(3, 1, dtype=torch.float64), "offset": torch.zeros(1, dtype=torch.float64)}
    found = solve([Term("line", Line(x, x))], [Variable("slope"), Variable("offset", shared=True)], start)
    rows = torch.zeros(60, 4, dtype=torch.float64)
    for frame in range(3):
        rows[20 * frame : 20 * frame + 20, frame] = x[0]
    rows[:, 3] = 1
    expected = torch.linalg.inv(rows.T @ rows)[3, 3]
    assert torch.allclose(found.shared_covariance[0, 0], expected, rtol=1e-6)


def test_curved_valley_is_walked_to_its_end():
    found = solve(
        [Term("banana", Rosenbrock())],
        [Variable("ab")],
        {"ab": torch.tensor([[-1.2, 1.0], [3.0, -2.0]], dtype=torch.float64)},
        SolverConfig(max_iterations=200, relative_tolerance=1e-14),
    )
    assert torch.allclose(found.values["ab"], torch.ones(2, 2, dtype=torch.float64), atol=1e-5)


def test_box_limits_hold_and_the_rest_is_optimal_within_them():
    target = torch.tensor([[2.0, -3.0, 0.25]], dtype=torch.float64)
    pull = Term("pull", PriorResidual("v", 1.0, target))
    start = {"v": torch.zeros(1, 3, dtype=torch.float64)}
    found = solve([pull], [Variable("v", lower=0.0, upper=1.0)], start)
    assert torch.allclose(found.values["v"], torch.tensor([[1.0, 0.0, 0.25]], dtype=torch.float64), atol=1e-7)


def test_coupled_limit_frees_the_other_variable():
    """min (a + b − 3)² + 0.01 (a² + b²) with a ≤ 1: b must take over what a cannot."""

    class Sum:
        def __call__(self, values, wanted):
            rows = torch.ones(1, 1, 1, 2, dtype=torch.float64)
            return Linearization((values["v"].sum(-1) - 3)[:, None, None], {"v": rows} if wanted else {})

    terms = [Term("sum", Sum()), Term("ridge", PriorResidual("v", 10.0))]
    start = {"v": torch.zeros(1, 2, dtype=torch.float64)}
    upper = torch.tensor([1.0, math.inf], dtype=torch.float64)
    found = solve(terms, [Variable("v", upper=upper)], start, SolverConfig(max_iterations=50, relative_tolerance=1e-12))
    assert found.values["v"][0, 0].item() == pytest.approx(1.0)
    assert found.values["v"][0, 1].item() == pytest.approx(2 / 1.01, rel=1e-4)


def test_robust_kernel_resists_outliers_where_squares_do_not():
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[None]
    y = 2 * x + 0.5
    y[0, ::8] += 4
    start = {"slope": torch.zeros(1, 1, dtype=torch.float64), "offset": torch.zeros(1, dtype=torch.float64)}
    variables = [Variable("slope"), Variable("offset", shared=True)]
    config = SolverConfig(max_iterations=60, relative_tolerance=1e-12)
    plain = solve([Term("line", Line(x, y))], variables, start, config).values["offset"].item()
    robust = solve([Term("line", Line(x, y), GemanMcClure(0.5))], variables, start, config).values["offset"].item()
    assert abs(plain - 0.5) > 0.4
    assert abs(robust - 0.5) < 0.15


def test_kernel_weight_is_the_derivative_of_rho():
    kernel = GemanMcClure(0.7)
    s = torch.linspace(0.01, 4, 50, dtype=torch.float64)
    numeric = (kernel.rho(s + 1e-6) - kernel.rho(s - 1e-6)) / 2e-6
    assert torch.allclose(kernel.weight(s), numeric, atol=1e-6)


def test_smoothing_has_no_lag_and_matches_the_dense_solution():
    """Jointly smoothed noise must equal the direct minimiser, which treats past and future alike."""
    data = double(12, 2)
    steps = torch.full((12,), 0.04, dtype=torch.float64)
    steps[7] = math.inf
    terms = [Term("data", PriorResidual("v", 0.5, data)), Term("smooth", SmoothnessResidual("v", 2.0, steps))]
    found = solve(terms, [Variable("v")], {"v": torch.zeros_like(data)}).values["v"]

    difference = torch.zeros(12, 12, dtype=torch.float64)
    for t in range(1, 12):
        weight = 0.0 if t == 7 else 1 / (2.0 * math.sqrt(0.04))
        difference[t, t], difference[t, t - 1] = weight, -weight
    matrix = torch.eye(12, dtype=torch.float64) / 0.25 + difference.T @ difference
    assert torch.allclose(found, torch.linalg.solve(matrix, data / 0.25), atol=1e-6)


def test_indefinite_system_gives_no_step():
    """Neither frames' blocks nor the shared part may be negative; the step is zeros then, which any residual survives."""
    ones = torch.ones(3, 1, dtype=torch.float64)
    for scale in ({"x": -1.0, "s": 1.0}, {"x": 1.0, "s": -1.0}, {"x": math.nan, "s": 1.0}):
        equations = NormalEquations({"x": (3, 1)}, {"s": 1}, ones)
        equations.add_diagonal(ones[..., None], {"x": ones}, {}, ones * scale["x"])
        equations.add_diagonal(ones[:1, None], {"s": ones[:1]}, {}, ones[:1] * scale["s"])
        step = equations.solve(1e-3, {})
        assert not bool(step.sound)
        assert all((value == 0).all() for value in step.values.values())
        equations.add_diagonal(ones[..., None], {"x": ones}, {}, 5 * ones)
        equations.add_diagonal(ones[:1, None], {"s": ones[:1]}, {}, 5 * ones[:1])
        assert bool(equations.solve(1e-3, {}).sound) == (not math.isnan(scale["x"]))


def test_a_trial_waits_for_one_number(monkeypatch):
    """On a GPU every number that is read makes the CPU wait: one a trial, and one for the covariance at the end."""
    reads = []
    for name in ("__float__", "__bool__", "__int__", "item", "tolist", "__index__"):
        original = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda self, *a, _original=original, _name=name: (reads.append(_name), _original(self, *a))[1])
    data = double(12, 2)
    terms = [
        Term("data", PriorResidual("v", 0.5, data), GemanMcClure(1.0)),
        Term("smooth", SmoothnessResidual("v", 2.0, torch.full((12,), 0.04, dtype=torch.float64))),
        Term("offset", PriorResidual("s", 0.5, 1.0)),
    ]
    upper = torch.full((2,), 0.5, dtype=torch.float64)
    start = {"v": torch.zeros_like(data), "s": torch.zeros(1, dtype=torch.float64)}
    found = solve(terms, [Variable("v", upper=upper), Variable("s", shared=True)], start, SolverConfig(3, relative_tolerance=0.0))
    assert found.iterations == 3
    assert reads == ["__float__"] * 4 + ["__bool__"]  # the start, three trials, the covariance


def test_bordered_system_with_coupled_frames_equals_dense_solve():
    """All block kinds at once: two frames' coupling, a shared variable, and its coupling to both frames."""
    f, n, d, s = 4, 6, 3, 2
    here, before, common, r = double(f, n, 1, d), double(f, n, 1, d, seed=1), double(f, n, 1, s, seed=2), double(f, n, 1, seed=3)
    before[0] = 0
    equations = NormalEquations({"x": (f, d)}, {"s": s}, r)
    equations.add(r, {"x": here, "s": common}, {"x": before}, None)
    rows = torch.zeros(f, n, f * d + s, dtype=torch.float64)
    for t in range(f):
        rows[t, :, t * d : t * d + d] = here[t, :, 0]
        if t:
            rows[t, :, t * d - d : t * d] = before[t, :, 0]
        rows[t, :, f * d :] = common[t, :, 0]
    rows = rows.flatten(0, 1)
    damping = 0.01
    normal = rows.T @ rows
    normal = normal + damping * normal.diagonal().diag()
    expected = torch.linalg.solve(normal, -rows.T @ r.flatten())
    step = equations.solve(damping, {}).values
    assert torch.allclose(torch.cat([step["x"].flatten(), step["s"]]), expected, atol=1e-8)


@pytest.mark.parametrize("width", [9, 150])
def test_rows_that_do_not_count_change_nothing(width):
    """Left out of the product where it is wide, multiplied as the zeros that they are where it is not."""
    generator = torch.Generator().manual_seed(4)
    used = torch.rand(3, 40, generator=generator) < 0.4
    used[1] = False  # a frame of which nothing is known
    residual = torch.randn(3, 40, 2, generator=generator) * used[..., None]
    local, shared = (torch.randn(3, 40, 2, d, generator=generator) * used[..., None, None] for d in (width, 5))
    weight = torch.rand(3, 40, generator=generator)
    found = []
    for told in (used, None):
        equations = NormalEquations({"x": (3, width)}, {"s": 5}, residual)
        equations.add(residual, {"x": local, "s": shared}, {}, weight, told)
        found.append(equations)
    rows = torch.cat([local, shared, residual[..., None]], -1).double().flatten(1, 2) * weight.double().sqrt().repeat_interleave(2, 1)[..., None]
    whole = rows.mT @ rows
    for equations in found:
        torch.testing.assert_close(equations._diagonal, whole[:, :width, :width], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(equations._border, whole[:, :width, width:-1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(equations._corner, whole[:, width:-1, width:-1].sum(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(equations._local_gradient, whole[:, :width, -1], rtol=1e-12, atol=1e-12)
        assert torch.equal(equations._diagonal, equations._diagonal.mT)


def test_products_of_single_precision_jacobians_are_formed_in_double():
    """Two columns that differ by 1e-4 leave a pivot of 1e-8, which is less than single precision keeps of the sum."""
    f, n = 3, 400
    first = double(f, n, 1).float()
    second = first * (1 + 1e-4 * double(1, n, 1, seed=1).float())
    r, weight = double(f, n, 1, seed=2).float(), double(f, n, seed=3).float().square()
    before = torch.cat([torch.zeros(1, n, 1), double(f - 1, n, 1, seed=4).float()])
    equations = NormalEquations({"x": (f, 1), "y": (f, 1)}, {"s": 1}, r)
    jacobians = {"x": first[..., None], "s": second[..., None]}
    equations.add(r, jacobians, {"y": before[..., None]}, weight)
    equations.add_diagonal(torch.ones(f, 1, 1), {"y": torch.ones(f, 1)}, {}, None)

    rows, right = torch.zeros(f, n, 2 * f + 1, dtype=torch.float64), r.double()
    for t in range(f):
        rows[t, :, t], rows[t, :, -1] = first[t, :, 0].double(), second[t, :, 0].double()
        if t:
            rows[t, :, f + t - 1] = before[t, :, 0].double()
    scale = weight.double().sqrt()[..., None]
    rows, right = (rows * scale).flatten(0, 1), (right * scale).flatten()
    pull = torch.cat([torch.zeros(f), torch.ones(f), torch.zeros(1)]).double()
    normal, gradient = rows.T @ rows + pull.diag(), rows.T @ right + pull
    expected = torch.linalg.solve(normal, -gradient)
    step = equations.solve(0.0, {}).values
    found = torch.cat([step["x"][:, 0], step["y"][:, 0], step["s"]])
    assert ((found - expected).norm() / expected.norm()).item() < 1e-3
    gradients = equations.gradients()
    found = torch.cat([gradients["x"][:, 0], gradients["y"][:, 0], gradients["s"]])
    assert ((found - gradient).norm() / gradient.norm()).item() < 1e-13


def test_cost_never_rises_and_bad_starts_are_refused():
    start = {"ab": torch.tensor([[50.0, -80.0]], dtype=torch.float64)}
    terms = [Term("banana", Rosenbrock())]
    costs = [solve(terms, [Variable("ab")], start, SolverConfig(max_iterations=k)).cost for k in range(1, 8)]
    assert all(later <= earlier for earlier, later in zip(costs, costs[1:], strict=False))
    assert costs[0] < total_cost(terms, start)
    with pytest.raises(SolverError):
        solve(terms, [Variable("ab")], {"ab": torch.tensor([[math.nan, 0.0]], dtype=torch.float64)})
