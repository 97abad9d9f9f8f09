"""Axis-angle rotations and their derivatives.

Formulas: Sola, Deray, Atchuthan, *A micro Lie theory for state estimation in robotics*, arXiv 1812.01537, appendix B.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Below this squared angle the Taylor series of the trigonometric quotients are exact to double precision.
_SMALL_SQUARED_ANGLE = 1e-6


def skew(v: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Matrix of the cross product: ``skew(v) @ x = v × x``."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def _quotients(squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin θ/θ, (1 − cos θ)/θ² and (θ − sin θ)/θ³, with finite gradients at θ = 0."""
    small = squared < _SMALL_SQUARED_ANGLE
    safe = torch.where(small, torch.ones_like(squared), squared)  # keeps NaN out of the branch not taken
    theta = safe.sqrt()
    a = torch.where(small, 1 - squared / 6 * (1 - squared / 20), theta.sin() / theta)
    half = (theta / 2).sin() / (theta / 2)
    b = torch.where(small, 0.5 - squared / 24 * (1 - squared / 30), half * half / 2)
    c = torch.where(small, 1 / 6 - squared / 120 * (1 - squared / 42), (theta - theta.sin()) / (safe * theta))
    return a, b, c


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues' formula; differentiable everywhere, the identity included."""
    a, b, _ = _quotients((axis_angle * axis_angle).sum(-1))
    k = skew(axis_angle)
    identity = torch.eye(3, dtype=k.dtype, device=k.device)
    return identity + a[..., None, None] * k + b[..., None, None] * (k @ k)


def left_jacobian(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """J such that ``R(ω + dω) = R(J dω) R(ω)`` to first order, i.e. ``dR = skew(J dω) R``."""
    _, b, c = _quotients((axis_angle * axis_angle).sum(-1))
    k = skew(axis_angle)
    identity = torch.eye(3, dtype=k.dtype, device=k.device)
    return identity + b[..., None, None] * k + c[..., None, None] * (k @ k)


def matrix_to_axis_angle(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Inverse of :func:`axis_angle_to_matrix`, angle in [0, π]."""
    from kornia.geometry.conversions import quaternion_to_axis_angle, rotation_matrix_to_quaternion

    flat = matrix.reshape(-1, 3, 3)
    return quaternion_to_axis_angle(rotation_matrix_to_quaternion(flat)).reshape(*matrix.shape[:-2], 3)
