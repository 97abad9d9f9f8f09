"""Normal equations of a sequence: block-tridiagonal over frames, bordered by shared variables.

With local unknowns x_t and shared unknowns s the system is::

    [ T  C ] [x]     [g_x]        T: blocks D_t on the diagonal, O_t between frame t and t-1
    [ Cᵀ S ] [s]  = -[g_s]        C: coupling of each frame with the shared unknowns

T is factored by blocks (:mod:`tracker.solver.block_tridiagonal`), s is found from the Schur complement S − Cᵀ T⁻¹ C, then x
by substitution. Everything runs in double precision whatever the residuals' type, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tracker.solver.block_tridiagonal import cholesky, factorise

_CACHED_NUMBERS = 1 << 18  # doubles whose products are formed at a time on the CPU: 2 MB
_WIDE, _BLOCK = 128, 64  # columns from which a frame's product is worth a loop of its own, and those of one of its blocks


@dataclass(frozen=True)
class Step:
    """What solving the damped system gave.

    Attributes:
        values: change of each variable, shaped like it; zeros unless ``sound``.
        sound: the damped matrix is positive definite. Where it is not, more damping is needed.
    """

    values: dict[str, Tensor]
    sound: Bool[Tensor, ""]


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
        used: Bool[Tensor, "frames n"] | None = None,
    ) -> None:
        """Add one residual function's contribution, each group's rows scaled by √weight; all of those not ``used`` are zero."""
        local = [name for name in self._local if name in jacobians]
        before = [name for name in self._local if name in previous]
        shared = [name for name in self._shared if name in jacobians]
        columns = [*(jacobians[n] for n in local), *(previous[n] for n in before), *(jacobians[n] for n in shared)]
        # residuals as one more column: one product gives every block of the matrix and of the gradient
        product = _products([*columns, residual[..., None]], weight, used)
        # where the three kinds of columns stand in the product (h, b, s) and in the system (here, below, common)
        here, below = (_columns(names, self._local, product.device) for names in (local, before))
        common = _columns(shared, self._shared, product.device)
        h, b = slice(0, len(here)), slice(len(here), len(here) + len(below))
        s = slice(b.stop, b.stop + len(common))
        if local:
            self._diagonal[:, here[:, None], here] += product[:, h, h]
            self._local_gradient[:, here] += product[:, h, -1]
        if before:
            self._diagonal[:-1, below[:, None], below] += product[1:, b, b]
            self._local_gradient[:-1, below] += product[1:, b, -1]
        if before and local:
            self._couple()[1:, here[:, None], below] += product[1:, h, b]
        if shared:
            self._corner[common[:, None], common] += product[:, s, s].sum(0)
            self._shared_gradient[common] += product[:, s, -1].sum(0)
        if shared and local:
            self._border[:, here[:, None], common] += product[:, h, s]
        if shared and before:
            self._border[:-1, below[:, None], common] += product[1:, b, s]

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
            self._couple().diagonal(dim1=1, dim2=2)[1:, part] += (weighted * before)[1:]

    def _couple(self) -> Tensor:
        """The blocks below the diagonal, made when the first residual couples frames."""
        if self._below is None:
            self._below = torch.zeros_like(self._diagonal)
        return self._below

    def gradients(self) -> dict[str, Tensor]:
        """Gradient of the cost per variable, shaped like its value."""
        out = {name: self._local_gradient[:, part] for name, part in self._local.items()}
        return out | {name: self._shared_gradient[part] for name, part in self._shared.items()}

    def solve(self, damping: float, frozen: Mapping[str, Bool[Tensor, "..."]]) -> Step:
        """The step that minimises the damped quadratic model, zero for ``frozen`` entries."""
        keep_local = torch.ones_like(self._local_gradient)
        keep_shared = torch.ones_like(self._shared_gradient)
        for name, mask in frozen.items():
            if name in self._local:
                keep_local[:, self._local[name]] = (~mask).to(keep_local)
            else:
                keep_shared[self._shared[name]] = (~mask).to(keep_shared)

        corner, shared_rhs = _damped(self._corner, damping, keep_shared), -(self._shared_gradient * keep_shared)
        if self._frames == 0:
            shared_step, sound = _solve(corner, shared_rhs)
            return self._step(None, shared_step, sound)
        below = None
        if self._below is not None:
            below = self._below.clone()
            below[1:] *= keep_local[1:, :, None] * keep_local[:-1, None, :]
        factor = factorise(_damped(self._diagonal, damping, keep_local), below)
        local_rhs = -(self._local_gradient * keep_local)
        if not self._shared:
            return self._step(factor.solve(local_rhs[..., None])[..., 0], None, factor.sound)
        border = self._border * keep_local[..., None] * keep_shared
        eliminated = factor.solve(torch.cat([border, local_rhs[..., None]], dim=-1))
        t_border, t_rhs = eliminated[..., :-1], eliminated[..., -1]
        schur = corner - torch.einsum("fds,fdr->sr", border, t_border)
        shared_step, sound = _solve(schur, shared_rhs - torch.einsum("fds,fd->s", border, t_rhs))
        return self._step(t_rhs - t_border @ shared_step, shared_step, factor.sound & sound)

    def _step(self, local: Tensor | None, shared: Tensor | None, sound: Tensor) -> Step:
        parts = {} if local is None else {name: local[:, part] for name, part in self._local.items()}
        if shared is not None:
            parts |= {name: shared[part] for name, part in self._shared.items()}
        for step in parts.values():
            sound = sound & torch.isfinite(step).all()
        return Step({name: torch.where(sound, step, 0) for name, step in parts.items()}, sound)

    def shared_covariance(self) -> Float[Tensor, "s s"] | None:
        """Inverse of the undamped Schur complement, or None when it is singular."""
        schur, sound = self._corner, True
        if self._frames:
            local = factorise(_damped(self._diagonal, 1e-9, torch.ones_like(self._local_gradient)), self._below)
            schur = schur - torch.einsum("fds,fdr->sr", self._border, local.solve(self._border))
            sound = local.sound
        factor, definite = cholesky(schur)
        return torch.cholesky_inverse(factor) if bool(definite & sound) else None


def _slices(widths: Mapping[str, int]) -> dict[str, slice]:
    out, start = {}, 0
    for name, width in widths.items():
        out[name] = slice(start, start + width)
        start += width
    return out


def _width(layout: Mapping[str, slice]) -> int:
    return max((part.stop for part in layout.values()), default=0)


def _columns(names: Sequence[str], layout: Mapping[str, slice], device: torch.device) -> Tensor:
    """Where the named variables' entries stand among all of a layout's."""
    ranges = [torch.arange(layout[n].start, layout[n].stop, device=device) for n in names]
    return torch.cat(ranges) if ranges else torch.empty(0, dtype=torch.long, device=device)


def _products(
    columns: Sequence[Float[Tensor, "frames n k _"]], weight: Tensor | None, used: Bool[Tensor, "frames n"] | None = None
) -> Float[Tensor, "frames c c"]:
    """XᵀWX of each frame, with X the columns side by side and W one weight a group of k rows; groups not ``used`` are zero.

    Residuals are often single precision; their products are not exact in it, and the sum of hundreds of them loses digits
    that a small pivot is made of. So they are cast first. On the CPU a few frames go at a time: their rows then stay in the
    cache between the cast and the product, which halves the time (twice that of single precision). Wide ones go one by one,
    without the rows that are zero, and only one triangle is multiplied.
    """
    frames, n, k = columns[0].shape[:3]
    width = sum(c.shape[-1] for c in columns)
    at_once = frames if columns[0].is_cuda else min(max(_CACHED_NUMBERS // max(n * k * width, 1), 1), frames)
    like = {"dtype": torch.float64, "device": columns[0].device}
    out = torch.empty(frames, width, width, **like)
    root = None if weight is None else weight.double().sqrt()[..., None, None]
    scratch = torch.empty(at_once, n, k, width, **like)
    if width >= _WIDE and not columns[0].is_cuda:
        for frame in range(frames):
            rows, scale = [c[frame] for c in columns], None if root is None else root[frame]
            if used is not None:
                some = used[frame].nonzero()[:, 0]
                rows, scale = [r[some] for r in rows], None if scale is None else scale[some]
            joined = torch.cat(rows, dim=-1, out=scratch[0, : len(rows[0])])
            if scale is not None:
                joined *= scale
            _square(joined.flatten(0, 1), out[frame])
        return out
    for start in range(0, frames, at_once):
        some = slice(start, min(start + at_once, frames))
        rows = torch.cat([c[some] for c in columns], dim=-1, out=scratch[: some.stop - start])
        if root is not None:
            rows *= root[some]
        rows = rows.flatten(1, 2)
        torch.matmul(rows.mT, rows, out=out[some])
    return out


def _square(rows: Float[Tensor, "n c"], out: Float[Tensor, "c c"]) -> None:
    """XᵀX into ``out``: blocks on and above the diagonal are multiplied, the others mirrored."""
    for start in range(0, rows.shape[1], _BLOCK):
        here, rest = slice(start, start + _BLOCK), slice(start, None)
        torch.mm(rows[:, here].T, rows[:, rest], out=out[here, rest])
        out[start + _BLOCK :, here] = out[here, start + _BLOCK :].T


def _damped(matrix: Tensor, damping: float, keep: Tensor) -> Tensor:
    """Marquardt's scaling of the diagonal; rows and columns not kept become those of the identity."""
    out = matrix * keep[..., :, None] * keep[..., None, :]
    diagonal = out.diagonal(dim1=-2, dim2=-1)
    # the small constant holds variables that no residual sees (their diagonal is zero)
    diagonal.add_(damping * diagonal + 1e-12 + (1 - keep))
    return out


def _solve(matrix: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
    factor, sound = cholesky(matrix)
    return torch.cholesky_solve(rhs[:, None], factor)[:, 0], sound
