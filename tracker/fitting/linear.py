"""Normal equations of a sequence: block-tridiagonal over frames, bordered by shared variables.

With local unknowns x_t and shared unknowns s the system is::

    [ T  C ] [x]     [g_x]        T: blocks D_t on the diagonal, O_t between frame t and t-1
    [ Cᵀ S ] [s]  = -[g_s]        C: coupling of each frame with the shared unknowns

T is factored by block Cholesky frame after frame (Golub & Van Loan, *Matrix computations*, 4.5.1), s is found from the
Schur complement S − Cᵀ T⁻¹ C, then x by substitution. Everything runs in double precision whatever the residuals' type.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class SingularSystem(ArithmeticError):
    """The damped matrix is not positive definite: more damping is needed."""


class NormalEquations:
    """Accumulates JᵀWJ and JᵀWr of residual functions and solves the damped system.

    Args:
        local: name -> ``(F, d)`` of each local variable.
        shared: name -> d of each shared variable.
        like: any tensor on the wanted device.
    """

    def __init__(self, local: Mapping[str, tuple[int, ...]], shared: Mapping[str, int], like: Tensor) -> None:
        self._local = _slices({name: shape[1] for name, shape in local.items()})
        self._shared = _slices(shared)
        self._frames = next(iter(local.values()))[0] if local else 0
        f, d, s = self._frames, _width(self._local), _width(self._shared)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=like.device)

        self._diagonal, self._border, self._corner = zeros(f, d, d), zeros(f, d, s), zeros(s, s)
        self._below: Tensor | None = None  # (F, d, d), block (t, t-1); made when a residual couples frames
        self._local_gradient, self._shared_gradient = zeros(f, d), zeros(s)

    def add(
        self,
        residual: Float[Tensor, "frames n k"],
        jacobians: Mapping[str, Float[Tensor, "frames n k d"]],
        previous: Mapping[str, Float[Tensor, "frames n k d"]],
        weight: Float[Tensor, "frames n"] | None,
    ) -> None:
        """Add one residual function's contribution, each group's rows scaled by √weight."""
        root = None if weight is None else weight.sqrt()[..., None]
        r = (residual if root is None else residual * root).flatten(1)

        def stacked(blocks: Mapping[str, Tensor], layout: dict[str, slice]) -> tuple[Tensor | None, Tensor | None]:
            names = [n for n in layout if n in blocks]
            if not names:
                return None, None
            j = torch.cat([blocks[n] for n in names], dim=-1)
            columns = torch.cat([torch.arange(layout[n].start, layout[n].stop, device=j.device) for n in names])
            return (j if root is None else j * root[..., None]).flatten(1, 2), columns

        here, here_columns = stacked(jacobians, self._local)
        before, before_columns = stacked(previous, self._local)
        common, common_columns = stacked(jacobians, self._shared)
        if here is not None:
            # residuals as one more column: one product gives the matrix and the gradient
            here = torch.cat([here, r[..., None]], dim=-1)
            product = (here.mT @ here).double()
            here = here[..., :-1]
            self._diagonal[:, here_columns[:, None], here_columns] += product[:, :-1, :-1]
            self._local_gradient[:, here_columns] += product[:, :-1, -1]
        if before is not None:
            self._diagonal[:-1, before_columns[:, None], before_columns] += (before.mT @ before)[1:].double()
            self._local_gradient[:-1, before_columns] += _times(before, r)[1:]
            if here is not None:
                if self._below is None:
                    self._below = torch.zeros_like(self._diagonal)
                self._below[1:, here_columns[:, None], before_columns] += (here.mT @ before)[1:].double()
        if common is not None:
            self._corner[common_columns[:, None], common_columns] += torch.einsum("fma,fmb->ab", common, common).double()
            self._shared_gradient[common_columns] += torch.einsum("fma,fm->a", common, r).double()
            if here is not None:
                self._border[:, here_columns[:, None], common_columns] += (here.mT @ common).double()
            if before is not None:
                self._border[:-1, before_columns[:, None], common_columns] += (before.mT @ common)[1:].double()

    def add_diagonal(
        self,
        residual: Float[Tensor, "frames d 1"],
        jacobians: Mapping[str, Float[Tensor, "frames d"]],
        previous: Mapping[str, Float[Tensor, "frames d"]],
        weight: Float[Tensor, "frames d"] | None,
    ) -> None:
        """The same for residuals with one row per entry of one variable, whose blocks are diagonal matrices."""
        r = residual[..., 0].double()
        scaled = r if weight is None else r * weight.double()
        for name, jacobian in jacobians.items():
            j = jacobian.double()
            weighted = j if weight is None else j * weight.double()
            if name in self._shared:
                part = self._shared[name]
                self._corner.diagonal()[part] += (weighted * j).sum(0)
                self._shared_gradient[part] += (j * scaled).sum(0)
                continue
            part = self._local[name]
            self._diagonal.diagonal(dim1=1, dim2=2)[:, part] += weighted * j
            self._local_gradient[:, part] += j * scaled
            if name not in previous:
                continue
            before = previous[name].double()
            weighted_before = before if weight is None else before * weight.double()
            self._diagonal.diagonal(dim1=1, dim2=2)[:-1, part] += (weighted_before * before)[1:]
            self._local_gradient[:-1, part] += (before * scaled)[1:]
            if self._below is None:
                self._below = torch.zeros_like(self._diagonal)
            self._below.diagonal(dim1=1, dim2=2)[1:, part] += (weighted * before)[1:]

    def gradients(self) -> dict[str, Tensor]:
        """Gradient of the cost per variable, shaped like its value."""
        out = {name: self._local_gradient[:, part] for name, part in self._local.items()}
        return out | {name: self._shared_gradient[part] for name, part in self._shared.items()}

    def solve(self, damping: float, frozen: Mapping[str, Bool[Tensor, "..."]]) -> dict[str, Tensor]:
        """The step that minimises the damped quadratic model, zero for ``frozen`` entries.

        Raises:
            SingularSystem: the damped matrix is not positive definite.
        """
        like = next(iter(frozen.values())).device if frozen else self._corner.device
        keep_local = torch.ones_like(self._local_gradient)
        keep_shared = torch.ones_like(self._shared_gradient)
        for name, mask in frozen.items():
            if name in self._local:
                keep_local[:, self._local[name]] = (~mask).to(like, torch.float64)
            else:
                keep_shared[self._shared[name]] = (~mask).to(like, torch.float64)

        diagonal = _damped(self._diagonal, damping, keep_local)
        below = None
        if self._below is not None:
            below = self._below.clone()
            below[1:] *= keep_local[1:, :, None] * keep_local[:-1, None, :]
        local_rhs = -(self._local_gradient * keep_local)
        if not self._shared:
            step = BlockTridiagonal(diagonal, below).solve(local_rhs[..., None])[..., 0]
            return {name: step[:, part] for name, part in self._local.items()}

        corner = _damped(self._corner, damping, keep_shared)
        shared_rhs = -(self._shared_gradient * keep_shared)
        if self._frames == 0:
            shared_step = torch.cholesky_solve(shared_rhs[:, None], _cholesky(corner))[:, 0]
            return {name: shared_step[part] for name, part in self._shared.items()}
        border = self._border * keep_local[..., None] * keep_shared
        eliminated = BlockTridiagonal(diagonal, below).solve(torch.cat([border, local_rhs[..., None]], dim=-1))
        t_border, t_rhs = eliminated[..., :-1], eliminated[..., -1]
        schur = corner - torch.einsum("fds,fdr->sr", border, t_border)
        reduced = shared_rhs - torch.einsum("fds,fd->s", border, t_rhs)
        shared_step = torch.cholesky_solve(reduced[:, None], _cholesky(schur))[:, 0]
        local_step = t_rhs - t_border @ shared_step
        steps = {name: local_step[:, part] for name, part in self._local.items()}
        return steps | {name: shared_step[part] for name, part in self._shared.items()}

    def shared_covariance(self) -> Float[Tensor, "s s"] | None:
        """Inverse of the undamped Schur complement, or None when it is singular."""
        try:
            schur = self._corner
            if self._frames:
                local = BlockTridiagonal(_damped(self._diagonal, 1e-9, torch.ones_like(self._local_gradient)), self._below)
                schur = schur - torch.einsum("fds,fdr->sr", self._border, local.solve(self._border))
            return torch.cholesky_inverse(_cholesky(schur))
        except SingularSystem:
            return None


class BlockTridiagonal:
    """Cholesky factor of a symmetric block-tridiagonal matrix.

    Args:
        diagonal: ``(F, d, d)`` blocks (t, t).
        below: ``(F, d, d)`` blocks (t, t-1), entry 0 unused; None for a block-diagonal matrix.

    Raises:
        SingularSystem: the matrix is not positive definite.
    """

    def __init__(self, diagonal: Float[Tensor, "f d d"], below: Float[Tensor, "f d d"] | None) -> None:
        self._coupled = below is not None
        if below is None:
            self._factor = _cholesky(diagonal)
            return
        factors, links = [_cholesky(diagonal[0])], []
        for t in range(1, len(diagonal)):
            link = torch.linalg.solve_triangular(factors[-1], below[t].T, upper=False)
            links.append(link.T)
            factors.append(_cholesky(diagonal[t] - link.T @ link))
        self._factors, self._links = factors, links

    def solve(self, rhs: Float[Tensor, "f d k"]) -> Float[Tensor, "f d k"]:
        """x with T x = rhs."""
        if not self._coupled:
            return torch.cholesky_solve(rhs, self._factor)
        forward = [torch.linalg.solve_triangular(self._factors[0], rhs[0], upper=False)]
        for t in range(1, len(rhs)):
            b = rhs[t] - self._links[t - 1] @ forward[-1]
            forward.append(torch.linalg.solve_triangular(self._factors[t], b, upper=False))
        back = [torch.linalg.solve_triangular(self._factors[-1].T, forward[-1], upper=True)]
        for t in range(len(rhs) - 2, -1, -1):
            b = forward[t] - self._links[t].T @ back[-1]
            back.append(torch.linalg.solve_triangular(self._factors[t].T, b, upper=True))
        return torch.stack(back[::-1])


def _slices(widths: Mapping[str, int]) -> dict[str, slice]:
    out, start = {}, 0
    for name, width in widths.items():
        out[name] = slice(start, start + width)
        start += width
    return out


def _width(layout: Mapping[str, slice]) -> int:
    return max((part.stop for part in layout.values()), default=0)


def _times(jacobian: Tensor, residual: Tensor) -> Tensor:
    return (jacobian.mT @ residual[..., None])[..., 0].double()


def _damped(matrix: Tensor, damping: float, keep: Tensor) -> Tensor:
    """Marquardt's scaling of the diagonal; rows and columns not kept become those of the identity."""
    out = matrix * keep[..., :, None] * keep[..., None, :]
    diagonal = out.diagonal(dim1=-2, dim2=-1)
    # the small constant holds variables that no residual sees (their diagonal is zero)
    diagonal.add_(damping * diagonal + 1e-12 + (1 - keep))
    return out


def _cholesky(matrix: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool((info != 0).any()) or not bool(torch.isfinite(factor).all()):
        raise SingularSystem
    return factor
