"""Light on a convex head of matt skin: second-order spherical harmonics, in closed form.

A Lambertian surface under distant light is described by nine numbers per colour channel to within a few percent
(Ramamoorthi and Hanrahan, *An efficient representation for irradiance environment maps*, SIGGRAPH 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDS = 6
_TYPICAL = 0.08  # colour differences beyond it are highlights, shadows and hair
_RIDGE = 0.02


@dataclass(frozen=True)
class Appearance:
    """Albedo of places on the skin, and the clip's light.

    Attributes:
        albedo: colours under even light, [0, 1] or a little more.
        light: spherical-harmonics coefficients; a constant 1 in the first row leaves the albedo as it is.
        trust: [0, 1], how well each place's colours agreed over the keyframes; 0 where it was never seen.
    """

    albedo: Float[Tensor, "n 3"]
    light: Float[Tensor, "9 3"]
    trust: Float[Tensor, "n"]


def harmonics(normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    """Real spherical harmonics up to second order at unit normals, each scaled to largest value one."""
    x, y, z = normals.unbind(-1)
    return torch.stack([torch.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - y * y, 1.5 * z * z - 0.5], dim=-1)


def estimate_appearance(
    colours: Float[Tensor, "frames n 3"], normals: Float[Tensor, "frames n 3"], weight: Float[Tensor, "frames n"]
) -> Appearance:
    """Alternate two closed-form steps: albedo for given light, light for given albedo; outliers lose their weight.

    Args:
        colours: of n places in F frames, [0, 1].
        normals: theirs in camera space, unit length.
        weight: 0 where a place is not seen.
    """
    basis = harmonics(normals)
    light = colours.new_zeros(9, 3)
    light[0] = 1
    w = weight
    for _ in range(_ROUNDS):
        shading = (basis @ light).clamp_min(0.05)
        strength = (w[..., None] * shading.square()).sum(0)
        albedo = (w[..., None] * shading * colours).sum(0) / strength.clamp_min(1e-6)
        overall = (albedo * strength).sum(0) / strength.sum(0).clamp_min(1e-6)
        albedo = torch.where(strength > 1e-6, albedo, overall)
        for channel in range(3):
            rows = basis * albedo[:, channel, None]
            normal = torch.einsum("fn,fna,fnb->ab", w, rows, rows)
            identity = torch.eye(9, dtype=normal.dtype, device=normal.device)
            ridge = _RIDGE * normal[0, 0].clamp_min(1e-6) * identity
            ridge[0, 0] = 0
            target = torch.einsum("fn,fna,fn->a", w, rows, colours[..., channel])
            light[:, channel] = torch.linalg.solve(normal + ridge + 1e-9 * identity, target)
        # brightness may sit in either factor: the light keeps a mean of one
        scale = light[0].clamp_min(1e-3).clone()
        light, albedo = light / scale, albedo * scale
        residual = (albedo * (basis @ light) - colours).norm(dim=-1)
        w = weight / (1 + (residual / _TYPICAL).square()).square()
    seen = weight.sum(0)
    agreement = torch.where(seen > 0, w.sum(0) / seen.clamp_min(1e-6), 0)
    return Appearance(albedo, light, agreement)
