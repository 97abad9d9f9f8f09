"""Hair: strands grown from the scalp, drawn as ribbons that face the camera.

A strand grows step by step from its root: it starts between the scalp's normal and the direction it is combed in, bends
under gravity, curls, and is pushed out of whatever it would enter. Styles are ranges of these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from densemarks_model.data.synthetic.mesh import HAIR, HAIR_PART, Mesh, strip_faces


@dataclass(frozen=True)
class HairStyle:
    """How hair is worn.

    Attributes:
        length: metres. fringe: length over the forehead, metres; None for the same as elsewhere.
        lift: 0 lies flat, 1 stands up. gravity: bend per metre. curl: radius of curls in metres; 0 for straight hair.
        curl_turns: turns per metre. wildness: random bends. volume: thickness of the layer that strands keep to, metres.
        part: where the hair is parted, metres to the subject's left; None to comb all of it ``combed``.
        combed: direction in the head's frame. gather: point at which hair is tied; None for loose hair.
        tail: length of what hangs from the tie, metres (0 makes a bun).
        strands, width: number of ribbons and their width in metres.
    """

    length: float
    fringe: float | None
    lift: float
    gravity: float
    curl: float
    curl_turns: float
    wildness: float
    volume: float
    part: float | None
    combed: tuple[float, float, float]
    gather: tuple[float, float, float] | None
    tail: float
    strands: int
    width: float


def random_style(rng: np.random.Generator) -> HairStyle | None:
    """A style; None for a bald head or one shorn so that only its colour shows."""
    kind = rng.choice(["bald", "buzz", "short", "medium", "long", "curly", "tied"], p=[0.07, 0.1, 0.27, 0.14, 0.22, 0.1, 0.1])
    if kind == "bald":
        return None
    directions = [(0.0, -0.2, -1.0), (1.0, -0.3, -0.3), (-1.0, -0.3, -0.3), (0.2, -0.3, 1.0), (0.6, 0.0, 0.6), (-0.6, 0.0, 0.6)]
    combed = directions[rng.integers(len(directions))]
    part: float | None = rng.choice([-0.03, 0.0, 0.03]) + rng.normal(0, 0.006)
    fringe = rng.uniform(0.05, 0.09) if rng.random() < 0.35 else None
    if kind == "buzz":
        return HairStyle(rng.uniform(0.003, 0.014), None, 0.8, 0, 0, 0, 0.3, 0.002, None, combed, None, 0, 5000, 0.0022)
    if kind == "short":
        return HairStyle(
            rng.uniform(0.015, 0.07), fringe, rng.uniform(0.1, 0.8), rng.uniform(2, 14), 0, 0, rng.uniform(0.1, 0.6),
            rng.uniform(0.004, 0.025), part if rng.random() < 0.3 else None, combed, None, 0, 4200, rng.uniform(0.0018, 0.003),
        )  # fmt: skip
    if kind == "curly":
        return HairStyle(
            rng.uniform(0.03, 0.12), None, rng.uniform(0.5, 1.0), rng.uniform(0, 6), rng.uniform(0.004, 0.012), rng.uniform(40, 120),
            rng.uniform(0.4, 1.0), rng.uniform(0.01, 0.04), None, combed, None, 0, 3600, rng.uniform(0.002, 0.0035),
        )  # fmt: skip
    if kind == "tied":
        gather = (rng.normal(0, 0.006), rng.uniform(-0.02, 0.1), -0.13)
        return HairStyle(
            0.2, fringe if rng.random() < 0.5 else None, 0.0, 0.0, 0, 0, 0.1, rng.uniform(0.002, 0.008), None, (0, 0, -1), gather,
            rng.choice([0.0, rng.uniform(0.1, 0.3)]), 3600, 0.003,
        )  # fmt: skip
    length = rng.uniform(0.08, 0.18) if kind == "medium" else rng.uniform(0.18, 0.42)
    wavy = rng.random() < 0.4
    return HairStyle(
        length, fringe, rng.uniform(0.05, 0.35), rng.uniform(12, 40), rng.uniform(0.002, 0.01) if wavy else 0, rng.uniform(12, 40),
        rng.uniform(0.03, 0.3), rng.uniform(0.006, 0.03), part if rng.random() < 0.8 else None, combed if rng.random() < 0.4 else (0, -0.3, -1),
        None, 0, 3600, rng.uniform(0.0025, 0.0045),
    )  # fmt: skip


def grow(
    style: HairStyle, rest: np.ndarray, normals: np.ndarray, faces: np.ndarray, density: np.ndarray, obstacles: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator, down: tuple[float, float, float] | np.ndarray = (0.0, -1.0, 0.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Strands ``(n, m, 3)`` in the head's frame, and where along themselves their points lie ``(n, m)``, 0 root to 1 tip.

    Args:
        rest, normals: ``(V, 3)`` the head. faces: ``(F, 3)``. density: ``(V,)`` where hair grows.
        obstacles: points ``(k, 3)`` and outward normals that hair must stay outside of (head and shoulders).
        down: where gravity pulls, a unit vector in the head's frame.
    """  # fmt: skip
    roots, up = scatter_roots(rest, normals, faces, density, style.strands, rng)
    count = len(roots)
    forehead = (roots[:, 2] > 0.0) & (roots[:, 1] > 0.06)
    lengths = style.length * rng.uniform(0.75, 1.1, count)
    comb = np.tile(np.array(style.combed, float), (count, 1))
    if style.part is not None:
        side = np.tanh((roots[:, 0] - style.part) / 0.015)
        comb = np.stack([side * 0.9, np.full(count, -0.35), -0.35 + 0 * side], 1)
    if style.fringe is not None:
        lengths[forehead] = style.fringe * rng.uniform(0.85, 1.1, forehead.sum())
        comb[forehead] = [0.1 * rng.normal(), -0.3, 1.0]
    if style.gather is not None:
        pull = np.array(style.gather) - roots
        tied = ~forehead if style.fringe is not None else np.ones(count, bool)
        comb[tied] = pull[tied]
        lengths[tied] = np.linalg.norm(pull[tied], axis=1) * 1.15
    comb += rng.normal(0, 0.1, (count, 3))
    comb -= np.sum(comb * up, 1, keepdims=True) * up
    comb /= np.maximum(np.linalg.norm(comb, axis=1, keepdims=True), 1e-6)

    steps = int(np.clip(lengths.max() / 0.012, 3, 16))
    direction = style.lift * up + (1 - style.lift) * comb + 0.15 * up + rng.normal(0, 0.05 + 0.15 * style.wildness, (count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    margin = 0.001 + style.volume * rng.random(count) ** 1.5
    bend = rng.normal(0, 1, (count, 3)) * style.wildness
    clump = rng.normal(0, 1, (count, 3)) * 0.2 * style.wildness
    knot = None if style.gather is None else (np.array(style.gather), tied)
    pull_down = style.gravity * np.asarray(down, float)
    strands = march(roots, direction, lengths / steps, steps, 12 * bend + pull_down, 0.1 * clump, margin, obstacles, knot, lengths.max() > 0.02)
    along = np.tile(np.linspace(0, 1, steps + 1), (count, 1))
    if style.curl:
        turn = along * (lengths * style.curl_turns)[:, None] * 2 * np.pi / 3 + rng.uniform(0, 6.28, (count, 1))
        wave = np.stack([np.cos(turn), np.sin(1.3 * turn), np.sin(turn)], -1)
        strands = strands + style.curl * np.minimum(along * 3, 1)[..., None] * wave
    if style.gather is not None:
        strands, along = _tie(style, strands, along, rng)
    return strands, along


def march(
    roots: np.ndarray, direction: np.ndarray, step: np.ndarray, steps: int, pull: np.ndarray, drift: np.ndarray, margin: np.ndarray,
    obstacles: tuple[np.ndarray, np.ndarray], knot: tuple[np.ndarray, np.ndarray] | None = None, collide: bool = True,
) -> np.ndarray:
    """Strands ``(n, steps + 1, 3)`` that go on from their roots and are pushed out of whatever they would enter.

    Args:
        roots, direction: ``(n, 3)``, unit vectors. step: ``(n,)`` metres.
        pull: ``(n, 3)`` bend per metre. drift: ``(n, 3)`` bend per step.
        margin: ``(n,)`` how far above the obstacles strands keep, metres.
        obstacles: as for :func:`grow`. knot: a point, and which strands ``(n,)`` run towards it.
        collide: whether to look for obstacles at all.
    """  # fmt: skip
    step = step[:, None]
    tree, outward = cKDTree(obstacles[0]), obstacles[1]
    points, here = [roots], roots
    for k in range(steps):
        if knot is not None:
            towards = knot[0] - here
            target = towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-4)
            direction = np.where(knot[1][:, None], 0.4 * direction + 0.6 * target, direction)
        direction = direction + step * pull + drift
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        ahead = here + step * direction
        if collide:
            _, nearest = tree.query(ahead, workers=1)
            normal = outward[nearest]
            depth = np.sum((ahead - obstacles[0][nearest]) * normal, 1)
            push = np.maximum(margin * min((k + 1) / 3, 1.0) - depth, 0)
            ahead = ahead + push[:, None] * normal
            direction = ahead - here
            direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-6)
        here = ahead
        points.append(here)
    return np.stack(points, 1)


def scatter_roots(
    rest: np.ndarray, normals: np.ndarray, faces: np.ndarray, density: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` points ``(n, 3)`` spread over the surface where ``density`` ``(V,)`` is above zero, and its normals there."""
    chance = density[faces].mean(1)
    a, b, c = (rest[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) * chance
    chosen = rng.choice(len(faces), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    flip = (u + v) > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    corner = faces[chosen]
    roots = rest[corner[:, 0]] * (1 - u - v) + rest[corner[:, 1]] * u + rest[corner[:, 2]] * v
    up = normals[corner[:, 0]] * (1 - u - v) + normals[corner[:, 1]] * u + normals[corner[:, 2]] * v
    return roots, up / np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-6)


def _tie(style: HairStyle, strands: np.ndarray, along: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Add a bun or a tail at the tie."""
    knot = np.array(style.gather)
    count, steps = 500, strands.shape[1]
    if style.tail:
        t = np.linspace(0, 1, steps)
        spread = rng.normal(0, 1, (count, 1, 3)) * (0.004 + 0.02 * np.sin(np.pi * np.minimum(t + 0.1, 1)))[None, :, None]
        path = np.stack([0 * t, -style.tail * t**1.3, -0.05 * np.sqrt(t)], 1)
        more = knot + path[None] * rng.uniform(0.8, 1.05, (count, 1, 1)) + spread
    else:
        axis = rng.normal(size=(count, 1, 3))
        angle = np.linspace(0, 3.0, steps)[None, :, None] + rng.uniform(0, 6.28, (count, 1, 1))
        first = np.cross(axis, rng.normal(size=(count, 1, 3)))
        first /= np.linalg.norm(first, axis=-1, keepdims=True)
        second = np.cross(axis / np.linalg.norm(axis, axis=-1, keepdims=True), first)
        more = knot + np.array([0, 0, -0.015]) + rng.uniform(0.02, 0.034) * (np.cos(angle) * first + np.sin(angle) * second)
    return np.concatenate([strands, more]), np.concatenate([along, np.tile(along[:1], (count, 1))])


def ribbons(
    strands: np.ndarray, along: np.ndarray, eye: np.ndarray, width: float, colour: np.ndarray, gloss: float, rng: np.random.Generator
) -> Mesh:
    """Ribbons that face the point ``eye`` (3,), in the strands' frame, with colours that vary from strand to strand."""
    count, steps, _ = strands.shape
    tangent = np.gradient(strands, axis=1)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-9)
    side = np.cross(tangent, eye - strands)
    side /= np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-9)
    half = 0.5 * width * (1 - 0.8 * along**3)[..., None] * rng.uniform(0.6, 1.3, (count, 1, 1))
    vertices = np.stack([strands - half * side, strands + half * side], 2).reshape(-1, 3).astype(np.float32)
    pair = strip_faces(steps, 2, closed_columns=False)
    faces = (pair[None] + (np.arange(count) * steps * 2)[:, None, None]).reshape(-1, 3).astype(np.int32)
    tone = rng.normal(1, 0.16, (count, 1, 1)).clip(0.5, 1.6) * (0.75 + 0.35 * along[..., None])
    albedo = np.repeat((colour * tone)[:, :, None], 2, 2).reshape(-1, 3).astype(np.float32)
    details = np.zeros((len(vertices), 4), np.float32)
    details[:, 0] = np.repeat((0.45 + 0.5 * along)[:, :, None], 2, 2).ravel()
    details[:, 2] = gloss
    directions = np.repeat(tangent[:, :, None], 2, 2).reshape(-1, 3).astype(np.float32)
    return Mesh(vertices, faces, vertices, albedo, details, HAIR, HAIR_PART, directions)
