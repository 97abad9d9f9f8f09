"""Cholesky factors of symmetric block-tridiagonal matrices: F blocks of d × d on the diagonal, one more below each.

Two orders of elimination, one answer. :class:`Sequential` goes from block to block, which does the least work and suits the
CPU. :class:`CyclicReduction` eliminates every second block at once, then every second one of those that remain (Golub &
Van Loan, *Matrix computations*, 4.5.4): more work, in log2(F) batched steps, which suits a GPU. Both are Cholesky
factorisations of the same matrix but for the order of its blocks, and as stable.

Nothing here waits for the device: whether the matrix was positive definite is a tensor, to be read when all is done.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import solve_triangular


class Factor(Protocol):
    """A factored matrix T.

    Attributes:
        sound: T is positive definite. Where it is not, solutions mean nothing.
    """

    sound: Bool[Tensor, ""]

    def solve(self, rhs: Float[Tensor, "f d k"]) -> Float[Tensor, "f d k"]:
        """x with T x = rhs."""
        ...


def factorise(diagonal: Float[Tensor, "f d d"], below: Float[Tensor, "f d d"] | None) -> Factor:
    """Factor a matrix in the way that suits its device.

    Args:
        diagonal: blocks (t, t).
        below: blocks (t, t-1), entry 0 unused; None for a block-diagonal matrix.
    """
    if below is None:
        return BlockDiagonal(diagonal)
    return CyclicReduction(diagonal, below) if diagonal.is_cuda else Sequential(diagonal, below)


class BlockDiagonal:
    """See :class:`Factor`; every block by itself."""

    def __init__(self, diagonal: Float[Tensor, "f d d"]) -> None:
        self._factor, self.sound = cholesky(diagonal)

    def solve(self, rhs: Float[Tensor, "f d k"]) -> Float[Tensor, "f d k"]:
        return torch.cholesky_solve(rhs, self._factor)


class Sequential:
    """See :class:`Factor`; block after block."""

    def __init__(self, diagonal: Float[Tensor, "f d d"], below: Float[Tensor, "f d d"]) -> None:
        factor, sound = cholesky(diagonal[0])
        self._factors, self._links, checks = [factor], [], [sound]
        for t in range(1, len(diagonal)):
            link = solve_triangular(factor, below[t].T, upper=False)
            factor, sound = cholesky(diagonal[t] - link.T @ link)
            self._links.append(link.T)
            self._factors.append(factor)
            checks.append(sound)
        self.sound = torch.stack(checks).all()

    def solve(self, rhs: Float[Tensor, "f d k"]) -> Float[Tensor, "f d k"]:
        factors, links = self._factors, self._links
        forward = [solve_triangular(factors[0], rhs[0], upper=False)]
        for t in range(1, len(rhs)):
            forward.append(solve_triangular(factors[t], rhs[t] - links[t - 1] @ forward[-1], upper=False))
        back = [solve_triangular(factors[-1].T, forward[-1], upper=True)]
        for t in range(len(rhs) - 2, -1, -1):
            back.append(solve_triangular(factors[t].T, forward[t] - links[t].T @ back[-1], upper=True))
        return torch.stack(back[::-1])


class CyclicReduction:
    """See :class:`Factor`; every second block at once, and again for what remains."""

    def __init__(self, diagonal: Float[Tensor, "f d d"], below: Float[Tensor, "f d d"]) -> None:
        # per step: factors of the eliminated blocks, and their couplings to the block before and the block after
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []
        checks = []
        while len(diagonal) > 1:
            factor, sound = cholesky(diagonal[1::2])
            before = solve_triangular(factor, below[1::2], upper=False)
            after = solve_triangular(factor[: len(below[2::2])], below[2::2].mT, upper=False)
            diagonal = diagonal[0::2].clone()
            diagonal[: len(before)] -= before.mT @ before
            diagonal[1:] -= after.mT @ after
            below = torch.cat([below[:1], -after.mT @ before[: len(after)]])
            self._steps.append((factor, before, after))
            checks.append(sound)
        self._last, sound = cholesky(diagonal)
        self.sound = torch.stack([*checks, sound]).all()

    def solve(self, rhs: Float[Tensor, "f d k"]) -> Float[Tensor, "f d k"]:
        eliminated = []
        for factor, before, after in self._steps:
            forward = solve_triangular(factor, rhs[1::2], upper=False)
            rhs = rhs[0::2].clone()
            rhs[: len(before)] -= before.mT @ forward
            rhs[1:] -= after.mT @ forward[: len(after)]
            eliminated.append(forward)
        found = torch.cholesky_solve(rhs, self._last)
        for (factor, before, after), forward in zip(reversed(self._steps), reversed(eliminated), strict=True):
            known = forward - before @ found[: len(before)]
            known[: len(after)] -= after @ found[1:]
            both = known.new_empty(len(found) + len(known), *known.shape[1:])
            both[0::2], both[1::2] = found, solve_triangular(factor.mT, known, upper=True)
            found = both
        return found


def cholesky(matrix: Float[Tensor, "*batch d d"]) -> tuple[Float[Tensor, "*batch d d"], Bool[Tensor, ""]]:
    """Lower factors, and whether all of the matrices are positive definite (a tensor: nothing waits for the device)."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return factor, (info == 0).all() & torch.isfinite(factor).all()
