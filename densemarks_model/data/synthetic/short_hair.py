"""Short hair on the face: beards, moustaches, brows and lashes of strands, grown on the face as it is posed."""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial import cKDTree

from densemarks_model.data.synthetic.hair import march, ribbons, scatter_roots
from densemarks_model.data.synthetic.hair_styles import clumped
from densemarks_model.data.synthetic.mesh import Mesh, vertex_normals
from densemarks_model.data.synthetic.people import Person, head_kit

BEARDS = {"moustache": 2.0, "goatee": 1.5, "chin": 0.7, "full": 3.0, "long": 0.9, "sideburns": 0.5}
"""Kinds of beards and how often they are worn against each other."""


@functools.cache
def beard_masks() -> dict[str, np.ndarray]:
    """Where beards of each kind grow ``(V,)``, 0 to 1, inside the beard's mask and the upper lip."""
    kit = head_kit()
    x, y, z = kit.asset.v_template.T
    region = kit.asset.regions
    bare = 1 - np.maximum(region["lips"], np.maximum(kit.masks["mouth"] > 0, region["ears"]))
    lip = ((np.abs(x) < 0.03) & (y < -0.0255) & (y > -0.047) & (z > 0.04)).astype(float) * region["face"] * bare * (1 - region["nose"])
    beard = np.asarray(kit.masks["beard"], float) * bare
    chin = beard * (np.abs(x) < 0.03) * (y < -0.045)
    around = ((np.abs(x) < 0.033) & (z > 0.03)) * beard
    side = beard * (np.abs(x) > 0.05) * (y > -0.075)
    full = np.maximum(beard, lip)
    return {
        "moustache": lip, "goatee": np.maximum(np.maximum(lip, around), chin), "chin": chin, "full": full, "long": full, "sideburns": side
    }  # fmt: skip


def beard(person: Person, head: Mesh, eye: np.ndarray, rng: np.random.Generator, kind: str | None = None) -> tuple[Mesh, np.ndarray]:
    """A beard of strands on the posed ``head``, and where it grows ``(V,)``, 0 to 1.

    Args:
        eye: ``(3,)`` the camera's place in the head's frame. kind: of :data:`BEARDS`; None for any.
    """
    if kind is None:
        shares = np.array(list(BEARDS.values()))
        kind = str(rng.choice(list(BEARDS), p=shares / shares.sum()))
    density = beard_masks()[kind]
    length = rng.uniform(0.025, 0.09) if kind == "long" else np.exp(rng.uniform(np.log(0.005), np.log(0.03)))
    if kind == "sideburns":
        length = min(length, 0.015)
    count = int({"moustache": 500, "goatee": 900, "chin": 500, "sideburns": 600}.get(kind, 1800) * rng.uniform(0.7, 1.2))
    normals = vertex_normals(head.vertices, head.faces)
    roots, up = scatter_roots(head.vertices, normals, head.faces, density, count, rng)
    where = _resting(head, roots)
    upper = (where[:, 1] > -0.046) & (where[:, 2] > 0.035)
    x, side = where[:, 0], np.tanh(where[:, 0] / 0.006)
    flat = np.zeros(count)
    comb = np.stack([0.15 * np.sign(x), flat - 1, flat + 0.25], 1)
    # a moustache is combed away from its middle and over the lip
    comb[upper] = np.stack([rng.uniform(0.4, 1.1) * side[upper], flat[upper] - 0.7, flat[upper] + 0.2], 1)
    lengths = length * rng.uniform(0.7, 1.15, count)
    lengths[upper] = np.minimum(lengths[upper], 0.011 if kind != "moustache" else 0.02)
    lift, gravity, wildness = rng.uniform(0.15, 0.55), rng.uniform(4, 20), rng.uniform(0.1, 0.8)
    if length > 0.025:  # hangs
        lift, gravity, wildness = 0.4 * lift, gravity + 35, 0.4 * wildness
    strands, along = _short(roots, up, comb, lengths, lift, gravity, wildness, head, normals, rng)
    strands = clumped(strands, along, rng.uniform(0, 0.6), 10)
    if rng.random() < 0.4:  # curly
        turn = along * lengths[:, None] * rng.uniform(150, 400) + rng.uniform(0, 6.28, (count, 1))
        strands = strands + 0.0012 * np.minimum(2 * along, 1)[..., None] * np.stack([np.cos(turn), np.sin(1.3 * turn), np.sin(turn)], -1)
    colour = person.hair_colour * rng.uniform(0.7, 1.2) + (rng.uniform(0, 0.25) if rng.random() < 0.2 else 0.0)
    mesh = ribbons(strands, along, eye, rng.uniform(0.0010, 0.0019), np.clip(colour, 0.002, 0.9), rng.uniform(0.1, 0.6), rng)
    return mesh, density


def brows(person: Person, head: Mesh, eye: np.ndarray, rng: np.random.Generator) -> Mesh:
    """Brows of some two hundred strands that run outwards, on the posed ``head``."""
    kit = head_kit()
    normals = vertex_normals(head.vertices, head.faces)
    density = np.where(np.asarray(kit.masks["brows"]) > 0.35, kit.masks["brows"], 0.0)
    roots, up = scatter_roots(head.vertices, normals, head.faces, density, 260, rng)
    where = _resting(head, roots)
    outwards = np.sign(where[:, 0])
    inner = np.clip((0.03 - np.abs(where[:, 0])) / 0.02, 0, 1)  # near the nose they stand up
    comb = np.stack([outwards * (1 - 0.6 * inner), 0.1 + 0.5 * inner, np.zeros(len(roots))], 1)
    lengths = rng.uniform(0.005, 0.010) * rng.uniform(0.7, 1.2, len(roots))
    strands, along = _short(roots, up, comb, lengths, 0.12, 0.0, 0.12, head, normals, rng)
    return ribbons(strands, along, eye, 0.0009, person.hair_colour * rng.uniform(0.5, 1.0), 0.2, rng)


def lashes(head: Mesh, eye: np.ndarray, rng: np.random.Generator) -> Mesh:
    """Lashes along the lids' rims of the posed ``head``: long above, short below."""
    region = head_kit().asset.regions
    normals = vertex_normals(head.vertices, head.faces)
    roots, comb, lengths = [], [], []
    reach = rng.uniform(0.005, 0.009)
    for side in ("left", "right"):
        rim = np.flatnonzero(region[f"{side}_lid_rim"])
        ball = head.vertices[region[f"{side}_eyeball"]].mean(0)
        resting = head.rest[rim] - head.rest[rim].mean(0)
        for index, place in zip(rim, resting, strict=True):
            above = place[1] > 0
            for _ in range(2 if above else 1):
                roots.append(head.vertices[index] + rng.normal(0, 0.0007, 3))
                outward = head.vertices[index] - ball
                comb.append(outward / np.linalg.norm(outward) + [0.0, 0.5 if above else -0.5, 0.0] + rng.normal(0, 0.12, 3))
                lengths.append(reach * (1.0 if above else 0.45) * rng.uniform(0.7, 1.1))
    roots, comb, lengths = np.array(roots), np.array(comb), np.array(lengths)
    strands, along = _short(roots, comb / np.linalg.norm(comb, axis=1, keepdims=True), comb, lengths, 1.0, 0.0, 0.0, head, normals, rng)
    return ribbons(strands, along, eye, 0.00055, np.full(3, 0.008), 0.1, rng)


def _resting(head: Mesh, points: np.ndarray) -> np.ndarray:
    """Where the vertices next to ``points`` ``(n, 3)`` of the posed head lie at rest ``(n, 3)``."""
    _, nearest = cKDTree(head.vertices).query(points, workers=1)
    return head.rest[nearest]


def _short(
    roots: np.ndarray, up: np.ndarray, comb: np.ndarray, lengths: np.ndarray, lift: float, gravity: float, wildness: float, head: Mesh,
    normals: np.ndarray, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Strands and places along them, kept above the posed face."""  # fmt: skip
    count = len(roots)
    steps = int(np.clip(lengths.max() / 0.006, 3, 8))
    comb = comb - np.sum(comb * up, 1, keepdims=True) * up * (1 - lift)
    comb = comb / np.maximum(np.linalg.norm(comb, axis=1, keepdims=True), 1e-6)
    direction = lift * up + (1 - lift) * comb + rng.normal(0, 0.05 + 0.2 * wildness, (count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    outside = head_kit().outside
    pull = np.array([0.0, -gravity, 0.0]) + rng.normal(0, 1, (count, 3)) * 20 * wildness
    margin = 0.0006 + 0.003 * rng.random(count)
    strands = march(roots, direction, lengths / steps, steps, pull, np.zeros((count, 3)), margin, (head.vertices[outside], normals[outside]))
    return strands, np.tile(np.linspace(0, 1, steps + 1), (count, 1))
