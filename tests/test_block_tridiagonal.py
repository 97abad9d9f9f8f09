"""Both orders of elimination against a dense solve, on the CPU; the one for GPUs runs anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import solveh_banded
from torch import Tensor

from tracker.solver.block_tridiagonal import BlockDiagonal, CyclicReduction, Sequential, factorise

BOTH = pytest.mark.parametrize("form", [Sequential, CyclicReduction])


def normal_matrix(f: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Blocks of JᵀJ for residuals that touch two neighbouring frames each, and a little on the diagonal."""
    draw = torch.Generator().manual_seed(seed)
    before, here = torch.randn(2, f, d + 5, d, dtype=torch.float64, generator=draw)
    before[0] = 0
    diagonal = here.mT @ here + 0.1 * torch.eye(d, dtype=torch.float64)
    diagonal[:-1] += (before.mT @ before)[1:]
    return diagonal, here.mT @ before


def dense(diagonal: Tensor, below: Tensor | None) -> Tensor:
    f, d = diagonal.shape[:2]
    matrix = diagonal.new_zeros(f, d, f, d)
    for t in range(f):
        matrix[t, :, t] = diagonal[t]
        if below is not None and t:
            matrix[t, :, t - 1], matrix[t - 1, :, t] = below[t], below[t].T
    return matrix.reshape(f * d, f * d)


def reference(diagonal: Tensor, below: Tensor, rhs: Tensor) -> Tensor:
    """A dense solve; of large matrices LAPACK's for bands, which takes a hundredth of the time."""
    f, d = diagonal.shape[:2]
    if f * d < 1000:
        return torch.linalg.solve(dense(diagonal, below), rhs.flatten(0, 1)).reshape(rhs.shape)
    columns = torch.cat([diagonal, torch.cat([below[1:], below[:1] * 0])], dim=1).numpy()
    band = np.zeros((2 * d, f * d))
    for t in range(f):
        for c in range(d):
            band[: 2 * d - c, t * d + c] = columns[t, c:, c]
    return torch.from_numpy(solveh_banded(band, rhs.flatten(0, 1).numpy(), lower=True)).reshape(rhs.shape)


@BOTH
@pytest.mark.parametrize("f", [1, 2, 3, 7, 32, 96])
@pytest.mark.parametrize("d, k", [(1, 1), (30, 70), (65, 3)])
def test_solution_is_that_of_the_dense_matrix(form, f, d, k):
    diagonal, below = normal_matrix(f, d)
    rhs = torch.randn(f, d, k, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = reference(diagonal, below, rhs)
    below[0] = torch.nan  # not used
    factor = form(diagonal, below)
    assert bool(factor.sound)
    found = factor.solve(rhs)
    assert ((found - expected).norm() / expected.norm()).item() < 1e-10
    assert torch.equal(factor.solve(rhs), found)  # nothing is changed by solving


def test_uncoupled_blocks_are_solved_one_by_one():
    diagonal, _ = normal_matrix(5, 4)
    rhs = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    factor = factorise(diagonal, None)
    assert isinstance(factor, BlockDiagonal) and bool(factor.sound)
    assert torch.allclose(factor.solve(rhs), torch.linalg.solve(diagonal, rhs), rtol=1e-10)


@BOTH
@pytest.mark.parametrize("f", [1, 2, 7, 32])
def test_indefinite_matrices_are_refused(form, f):
    """Every place of the bad block counts, and so does a matrix whose blocks alone are all positive definite."""
    diagonal, below = normal_matrix(f, 6)
    below[0] = 0
    for t in range(f):
        changed = diagonal.clone()
        changed[t, 3, 3] = -1e-3
        assert not bool(form(changed, below).sound), t
        changed[t, 3, 3] = torch.nan
        assert not bool(form(changed, below).sound), t
    if f > 1:
        strong = below.clone()
        strong[f // 2] *= 3
        assert torch.linalg.eigvalsh(dense(diagonal, strong))[0] < 0
        assert not bool(form(diagonal, strong).sound)


def test_the_cpu_goes_block_by_block():
    assert isinstance(factorise(*normal_matrix(3, 2)), Sequential)
