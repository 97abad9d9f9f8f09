"""Two rows of teeth in place of the source's plain bands.

Each row is a closed tube around the dental arch of the source's teeth: up the front, over the biting edge, down the
back and along the gum, bulging at the middle of each tooth and drawn in between neighbours. It moves with the
source's teeth: an affine map fitted to those carries it along with identity and jaw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDTHS = {"upper": (8.5, 6.5, 7.6, 7.0, 6.8, 10.0), "lower": (5.3, 5.9, 6.8, 7.0, 7.1, 11.0)}
"""Widths in millimetres of the teeth of one side, from the middle backwards (central incisor to first molar)."""
SAMPLES = 3
"""Columns per tooth."""
HEIGHT = {"upper": 0.0095, "lower": 0.0085}
ARCH_SHIFT = {"upper": (-0.0028, -0.0010), "lower": (-0.0015, -0.0015)}
"""How far the row is moved up and forward from the source's teeth, which reach through closed lips."""
ARCH_WIDTH = 0.90
PROFILE = ((0.0, 0.12), (0.45, 0.0), (0.85, 0.1), (1.0, 0.38), (0.97, 0.72), (0.7, 1.0), (0.0, 1.0))
"""Cross-section of a tooth: (share of the height from gum to edge, share of the depth from front to back)."""
ROWS = len(PROFILE)
DEPTH = (0.0030, 0.0075)
"""Thickness at the first incisor and at the last tooth."""


@dataclass(frozen=True)
class Denture:
    """One row of teeth: ``vertices`` ``(n, 3)`` metres in the head frame, ``faces`` ``(f, 3)``, ``uv`` ``(n, 2)``."""

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray


def carry(points: np.ndarray, rest: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Apply to ``points`` ``(n, 3)`` the affine map that best takes ``rest`` ``(m, 3)`` to ``moved`` ``(m, 3)``."""
    centre = rest.mean(0)
    design = np.c_[rest - centre, np.ones(len(rest))]
    matrix = np.linalg.lstsq(design, moved, rcond=None)[0]
    return np.c_[points - centre, np.ones(len(points))] @ matrix


def denture(source: np.ndarray, jaw: str) -> Denture:
    """Model the row of ``jaw`` (``"upper"`` or ``"lower"``) along the arch of the source's teeth ``(m, 3)``."""
    arch, edge = _arch(source, jaw)
    down = -1.0 if jaw == "upper" else 1.0  # from the gum to the biting edge
    widths = np.array(WIDTHS[jaw]) * 1e-3
    bounds = np.concatenate([[0.0], np.cumsum(widths)])
    half, bulge, depth = [], [], []
    for k, width in enumerate(widths):
        t = np.arange(SAMPLES) / SAMPLES
        half += list(bounds[k] + t * width)
        bulge += list(np.sin(np.pi * t) ** 0.7)
        depth += list(np.interp(bounds[k] + t * width, [0, bounds[-1]], DEPTH))
    half.append(bounds[-1])
    bulge.append(0.0)
    depth.append(DEPTH[1])
    at = np.concatenate([-np.array(half[:0:-1]), half])
    bulge_at = np.concatenate([bulge[:0:-1], bulge])
    depth_at = np.concatenate([depth[:0:-1], depth])
    line, normal = arch(at)
    rows = []
    height = HEIGHT[jaw] * np.interp(np.abs(at), [0, bounds[-1]], [1.0, 0.75])
    for rise, back in PROFILE:
        p = line - normal * (back * depth_at)[:, None]
        inset = 0.0007 * (1 - bulge_at) * (1 if back < 0.5 else -1)
        p = p - normal * inset[:, None]
        notch = 0.0009 * (1 - bulge_at) * (rise >= 0.85)
        p[:, 1] = edge + down * (rise * height - notch - HEIGHT[jaw])
        rows.append(p)
    points = np.stack(rows)
    r, n = points.shape[:2]
    index = np.arange(r * n).reshape(r, n)
    below = np.roll(index, -1, axis=0)  # the last row closes onto the first: the row is a tube
    quads = np.stack([index[:, :-1], index[:, 1:], below[:, 1:], below[:, :-1]], -1).reshape(-1, 4)
    if jaw == "lower":
        quads = quads[:, ::-1]
    faces = np.concatenate([quads[:, [0, 2, 1]], quads[:, [0, 3, 2]]])
    caps = _caps(index, jaw)
    uv = np.stack(np.meshgrid(np.linspace(0, 4, n), np.linspace(0, 1, r)), -1).reshape(-1, 2)
    return Denture(points.reshape(-1, 3), np.concatenate([faces, caps]), uv)


def _caps(index: np.ndarray, jaw: str) -> np.ndarray:
    """Close the row at both ends."""
    out = []
    for column, sign in ((index[:, 0], 1), (index[:, -1], -1)):
        fan = [[column[0], column[k], column[k + 1]] for k in range(1, len(column) - 1)]
        flip = (sign > 0) == (jaw == "upper")
        out += [f[::-1] if flip else f for f in fan]
    return np.array(out)


def _arch(source: np.ndarray, jaw: str):
    """Outer line of the source's teeth as a function of the signed distance along it, and the biting edge's height."""
    low, high = source[:, 1].min(), source[:, 1].max()
    up, forward = ARCH_SHIFT[jaw]
    edge = (low if jaw == "upper" else high) + up
    front, side = source[:, 2].max() + forward, np.abs(source[:, 0]).max() * ARCH_WIDTH
    back = source[:, 2].min()
    # half a superellipse: a rounded front and nearly straight sides
    angle = np.linspace(0, np.pi / 2, 400)
    x, z = side * np.sin(angle) ** 0.85, back + (front - back) * np.cos(angle) ** 0.8
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    tangent = np.stack([np.gradient(x, length), np.gradient(z, length)], -1)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)

    def at(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        px, pz = np.interp(np.abs(s), length, x), np.interp(np.abs(s), length, z)
        tx, tz = np.interp(np.abs(s), length, tangent[:, 0]), np.interp(np.abs(s), length, tangent[:, 1])
        sign = np.sign(s)
        zero = np.zeros_like(px)
        line = np.stack([px * sign, zero, pz], -1)
        normal = np.stack([-tz * sign, zero, tx], -1)
        normal[s == 0] = [0.0, 0.0, 1.0]
        return line, normal / np.linalg.norm(normal, axis=1, keepdims=True)

    return at, edge
