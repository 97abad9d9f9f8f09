"""Hair that is worn loose: in front of ears, cheeks and shoulders, in curtains, across the face, in afros; and where hairlines run.

It grows as in :mod:`densemarks_model.data.synthetic.hair`, but every root has a length and a direction of its own, set by
where on the scalp it is, and strands gather in locks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from densemarks_model.data.synthetic.hair import march, scatter_roots

KINDS = {
    "loose": 3.0, "curtain": 2.0, "bob": 1.5, "across": 1.2, "afro": 1.2, "waves": 1.8, "curls": 1.0, "swept": 1.2, "crop": 1.0, "mohawk": 0.4,
    "locs": 0.5, "mullet": 0.5, "wet": 0.5,
}  # fmt: skip
"""Kinds of wide styles and how often they are worn against each other."""

FOLLOWERS = 3
"""One strand in so many is grown; the others go beside it."""

HAIRLINES = {"full": 5.0, "high": 1.0, "temples": 1.2, "crown": 0.6, "ring": 0.5, "undercut": 0.8}
"""Where hair grows, and how often."""


@dataclass(frozen=True)
class WideStyle:
    """How loose hair is worn.

    Attributes:
        kind: one of :data:`KINDS`. length, front, sides: metres, of the hair behind, over the forehead, and over temples and ears.
        forward: how far the hair at the sides is combed to the front, 0 to 1.
        lift, gravity, curl, curl_turns, wildness, volume: as in ``hair.HairStyle``.
        part: where the hair is parted, metres to the subject's left.
        across: share of the roots over the forehead whose strands fall over the face.
        clump: how far strands gather in locks, 0 to 1. locks: strands a lock.
        strands, width: number of ribbons, and their width in metres.
    """

    kind: str
    length: float
    front: float
    sides: float
    forward: float
    lift: float
    gravity: float
    curl: float
    curl_turns: float
    wildness: float
    volume: float
    part: float
    across: float
    clump: float
    locks: int
    strands: int
    width: float


def wide_style(rng: np.random.Generator, kind: str | None = None) -> WideStyle:
    """A style of the wider set; of one kind of :data:`KINDS` if it is named."""
    if kind is None:
        shares = np.array(list(KINDS.values()))
        kind = str(rng.choice(list(KINDS), p=shares / shares.sum()))
    long = rng.uniform(0.22, 0.48)
    short = rng.uniform(0.03, 0.08)
    middle = rng.uniform(0.09, 0.2)
    wavy = (rng.uniform(0.003, 0.01), rng.uniform(12, 40))
    straight = (0.0, 0.0) if rng.random() < 0.6 else (rng.uniform(0.001, 0.004), rng.uniform(8, 25))
    part = float(rng.choice([-0.035, 0.0, 0.035]) + rng.normal(0, 0.008))
    forward = rng.uniform(0, 1)
    clump, wild = rng.uniform(0, 0.7), rng.uniform(0.03, 0.3)
    across = rng.uniform(0.02, 0.15) if rng.random() < 0.2 else 0.0

    def make(length, front, sides, forward, lift, gravity, curls, volume, across=across, clump=clump, wild=wild, locks=14, strands=4200, width=(0.0018, 0.0032)):
        return WideStyle(
            kind, length, front, sides, forward, lift, gravity, *curls, wild, volume, part, across, clump, locks, strands, rng.uniform(*width)
        )  # fmt: skip

    volume = rng.uniform(0.004, 0.022)
    table = {
        "loose": lambda: make(long, long, long, forward, 0.1, rng.uniform(25, 60), straight, volume),
        "curtain": lambda: make(long if rng.random() < 0.7 else middle, rng.uniform(0.1, 0.19), long, forward, 0.25, rng.uniform(20, 50), straight, volume),
        "bob": lambda: make(middle, rng.uniform(0.05, 0.15), middle, forward, 0.15, rng.uniform(25, 55), straight, rng.uniform(0.01, 0.03)),
        "across": lambda: make(rng.choice([middle, long]), middle, middle, forward, 0.15, rng.uniform(22, 50), straight, volume, across=rng.uniform(0.2, 0.8)),
        "afro": lambda: make(
            rng.uniform(0.04, 0.15), rng.uniform(0.03, 0.1), rng.uniform(0.03, 0.12), 0.2, 1.0, rng.uniform(0, 1.5),
            (rng.uniform(0.003, 0.007), rng.uniform(80, 160)), 0.0, across=0.0, clump=0.2, wild=rng.uniform(0.5, 1.0), strands=3800, width=(0.0024, 0.0036),
        ),
        "waves": lambda: make(long, rng.choice([long, middle]), long, forward, 0.3, rng.uniform(14, 35), wavy, rng.uniform(0.01, 0.035)),
        "curls": lambda: make(
            rng.uniform(0.1, 0.3), rng.uniform(0.06, 0.16), rng.uniform(0.1, 0.28), forward, 0.6, rng.uniform(6, 16),
            (rng.uniform(0.006, 0.012), rng.uniform(40, 90)), rng.uniform(0.01, 0.03), clump=rng.uniform(0.4, 0.8),
        ),
        "swept": lambda: make(short, rng.uniform(0.06, 0.14), rng.uniform(0.008, 0.03), 0.1, 0.45, rng.uniform(3, 12), straight, rng.uniform(0.005, 0.02), across=0.0),
        "crop": lambda: make(short, rng.uniform(0.03, 0.07), short, 0.8, 0.3, rng.uniform(6, 20), straight, 0.01, across=0.5),
        "mohawk": lambda: make(rng.uniform(0.06, 0.12), rng.uniform(0.06, 0.12), 0.003, 0.0, 1.0, rng.uniform(0, 3), straight, 0.0, across=0.0),
        "locs": lambda: make(
            rng.uniform(0.12, 0.4), rng.uniform(0.1, 0.25), rng.uniform(0.12, 0.4), forward, 0.5, rng.uniform(12, 24),
            (rng.uniform(0.001, 0.003), 30.0), 0.015, clump=0.96, locks=36, width=(0.0024, 0.0036),
        ),
        "mullet": lambda: make(rng.uniform(0.12, 0.25), short, rng.uniform(0.02, 0.05), 0.2, 0.3, rng.uniform(8, 20), straight, 0.01),
        "wet": lambda: make(long, long, long, forward, 0.02, 40.0, straight, 0.002, clump=0.9, locks=30),
    }  # fmt: skip
    return table[kind]()


def hairline(density: np.ndarray, rest: np.ndarray, rng: np.random.Generator, kind: str | None = None, worn: str = "crop") -> np.ndarray:
    """Where hair grows ``(V,)`` of a person whose hair grows at ``density``: high foreheads, bare temples or crowns, undercuts.

    Args:
        rest: ``(V, 3)`` the head. kind: of :data:`HAIRLINES`; None for one that goes with the style ``worn``.
    """
    if kind is None:
        shares = np.array(list(HAIRLINES.values()))
        if worn not in ("swept", "crop", "mohawk", "mullet"):  # bald crowns and shaved sides come with short hair
            shares = shares * [1, 1, 0.5, 0, 0, 0.1]
        kind = str(rng.choice(list(HAIRLINES), p=shares / shares.sum()))
    x, y, z = rest.T
    if kind == "high":
        keep = (rng.uniform(0.0, 0.03) - (z - 0.6 * np.maximum(0.1 - y, 0))) / 0.012
    elif kind == "temples":
        bare = np.exp(-(((np.abs(x) - 0.042) / 0.02) ** 2)) * np.clip((z - rng.uniform(-0.04, 0.0)) / 0.03, 0, 1)
        keep = 1 - 1.6 * bare
    elif kind == "crown":
        keep = (np.hypot(x, z + rng.uniform(0.06, 0.1)) - rng.uniform(0.03, 0.06)) / 0.015 + (y < 0.07)
    elif kind == "ring":
        keep = (rng.uniform(0.05, 0.08) - y) / 0.015
    elif kind == "undercut":
        keep = 0.12 + (y - rng.uniform(0.05, 0.085)) / 0.01
        keep = np.maximum(keep, 0.05)
    else:
        return density
    return (density * np.clip(keep, 0, 1)).astype(np.float32)


def grow_wide(
    style: WideStyle, rest: np.ndarray, normals: np.ndarray, faces: np.ndarray, density: np.ndarray, obstacles: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator, down: np.ndarray | tuple[float, float, float] = (0.0, -1.0, 0.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Strands ``(n, m, 3)`` and places along them ``(n, m)``; arguments as those of ``hair.grow``."""  # fmt: skip
    if style.kind == "mohawk":
        density = density * np.clip(1.02 - np.abs(rest[:, 0]) / 0.03, 0.0, 1) * (rest[:, 1] > 0.0)
    roots, up = scatter_roots(rest, normals, faces, density, style.strands // FOLLOWERS, rng)
    count = len(roots)
    lengths, comb, lift = _combed(style, roots, up, rng)
    comb += rng.normal(0, 0.1, (count, 3))
    comb -= np.sum(comb * up, 1, keepdims=True) * up
    comb /= np.maximum(np.linalg.norm(comb, axis=1, keepdims=True), 1e-6)
    steps = int(np.clip(lengths.max() / 0.016, 3, 16))
    direction = lift[:, None] * up + (1 - lift[:, None]) * comb + 0.15 * up + rng.normal(0, 0.05 + 0.15 * style.wildness, (count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    margin = 0.0015 + style.volume * rng.random(count) ** 1.5
    pull = style.gravity * np.asarray(down, float) + rng.normal(0, 1, (count, 3)) * 12 * style.wildness
    drift = rng.normal(0, 1, (count, 3)) * 0.02 * style.wildness
    strands = march(roots, direction, lengths / steps, steps, pull, drift, margin, obstacles, collide=style.kind != "afro")
    strands, leader = _followed(strands, *scatter_roots(rest, normals, faces, density, style.strands - count, rng), rng)
    lengths, up, count = lengths[leader], up[leader], len(strands)
    along = np.tile(np.linspace(0, 1, steps + 1), (count, 1))
    if style.curl:
        turn = along * (lengths * style.curl_turns)[:, None] * 2 * np.pi / 3 + rng.uniform(0, 6.28, (count, 1))
        wave = np.stack([np.cos(turn), np.sin(1.3 * turn), np.sin(turn)], -1)
        # waves go outwards: what is near the head cannot swing into it
        swing = style.curl * np.minimum(along * 3, 1)[..., None]
        strands = strands + swing * (wave + up[:, None] * (0.0 if style.kind == "afro" else 0.8))
    return clumped(strands, along, style.clump, style.locks), along


def _followed(strands: np.ndarray, roots: np.ndarray, up: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """``strands`` and, from each of ``roots`` ``(k, 3)``, one that goes beside the nearest of them; and whom each strand follows.

    Growing is what costs; beside a strand that keeps clear of the head another one does too, if it keeps a little further out.
    """
    _, nearest = cKDTree(strands[:, 0]).query(roots, workers=1)
    along = np.linspace(0, 1, strands.shape[1])[None, :, None]
    apart = (roots - strands[nearest, 0])[:, None]
    stray = rng.normal(0, 0.0025, (len(roots), 1, 3)) + 0.0015 * up[:, None]
    reach = rng.uniform(0.8, 1.0, (len(roots), 1, 1))  # tips end at different places
    beside = strands[nearest, :1] + (strands[nearest] - strands[nearest, :1]) * reach + apart * (1 - 0.4 * along) + stray * along
    return np.concatenate([strands, beside]), np.concatenate([np.arange(len(strands)), nearest])


def _combed(style: WideStyle, roots: np.ndarray, up: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length ``(n,)``, direction ``(n, 3)`` and lift ``(n,)`` of the hair at every root."""
    count = len(roots)
    x, y, z = roots.T
    forehead = np.clip((z + 0.005) / 0.03, 0, 1) * np.clip((y - 0.05) / 0.02, 0, 1)
    beside = np.clip((np.abs(x) - 0.045) / 0.02, 0, 1) * np.clip((0.085 - y) / 0.03, 0, 1) * np.clip((z + 0.06) / 0.03, 0, 1)
    lengths = style.length + forehead * (style.front - style.length)
    lengths = (lengths + beside * (style.sides - lengths)) * rng.uniform(0.75, 1.1, count)
    lift = np.full(count, style.lift)
    side = np.tanh((x - style.part) / 0.015)
    flat = np.zeros(count)
    back = np.stack([side * 0.9, flat - 0.35, flat - 0.35], 1)
    if style.kind in ("swept", "mohawk"):
        back = np.stack([flat + 0.8 * np.sign(style.part + 1e-9), flat - 0.1, flat - 0.5], 1)
    if style.kind == "crop":
        back = np.stack([flat, flat - 0.3, flat + 0.8], 1)
    if style.kind == "wet":
        back = np.stack([side * 0.3, flat - 0.3, flat - 1], 1)
    fall = np.stack([0.25 * np.sign(x), flat - 1, style.forward * 1.1 - 0.35 + flat], 1)
    comb = back + beside[:, None] * (fall - back)
    if style.kind in ("curtain", "loose", "bob", "waves", "curls", "locs"):
        curtain = np.stack([side * 0.9, flat - 0.25, flat + (0.75 if style.kind == "curtain" else 0.25)], 1)
        comb = comb + forehead[:, None] * (curtain - comb)
    if style.across:
        falling = (rng.random(count) < style.across) & (forehead > 0.3)
        # locks of hair fall together: neighbours share a direction
        sway = np.sin(40 * x + rng.uniform(0, 6.28)) + 0.4 * np.sign(-style.part)
        comb[falling] = np.stack([0.35 * sway[falling], flat[falling] - 0.5, flat[falling] + 1.0], 1)
        lengths[falling] = np.maximum(lengths[falling] * 0.8, 0.04) if style.kind != "across" else rng.uniform(0.06, 0.2, falling.sum())
    return lengths, comb, lift


def clumped(strands: np.ndarray, along: np.ndarray, share: float, size: int) -> np.ndarray:
    """Strands that lean towards the nearest of every ``size``-th strand, more so towards their tips, by ``share`` 0 to 1."""
    if share <= 0:
        return strands
    guides = strands[::size]
    _, nearest = cKDTree(guides[:, 0]).query(strands[:, 0], workers=1)
    guide = guides[nearest]
    apart = (strands[:, :1] - guide[:, :1]) * (1 - 0.75 * along[..., None])  # what is left of the distance between the roots
    return strands + share * np.minimum(1.5 * along, 1)[..., None] * (guide + apart - strands)
