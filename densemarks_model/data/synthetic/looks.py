"""What makes a random person a particular one: make-up, moles and scars, children's and old people's faces and skin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from densemarks_model.data.synthetic import noise, palette
from densemarks_model.data.synthetic.mesh import vertex_normals
from densemarks_model.data.synthetic.people import Person, head_kit

AGES = ("child", "adult", "old")
"""What :func:`aged` makes of people."""


def with_look(person: Person, rng: np.random.Generator) -> tuple[Person, str]:
    """``person``, perhaps younger or older, heavier or leaner, painted, marked with moles or scars; and which of :data:`AGES`."""
    age = str(rng.choice(AGES, p=[0.2, 0.5, 0.3]))
    person = aged(person, age, rng)
    if age != "child" and rng.random() < 0.35:
        person = made_up(person, rng)
    if rng.random() < 0.4:
        person = marked(person, rng)
    return person, age


def aged(person: Person, age: str, rng: np.random.Generator) -> Person:
    """A child's, adult's or old person's proportions and skin; any of them lean or heavy.

    Proportions follow what growth does to heads: faces lengthen below the eyes, noses and ears grow on (Farkas, *Anthropometry
    of the head and face*, 1994). The eyes stay where their joints are.
    """
    kit = head_kit()
    x, y, z = person.rest.T.astype(np.float64)
    below = np.clip((0.01 - y) / 0.09, 0, 1.2)  # 0 above the eyes' lower lids, 1 at the chin
    cheek = np.exp(-(((y + 0.055) / 0.035) ** 2))
    weight = rng.normal(0, 0.5)  # lean to heavy
    move = np.zeros_like(person.rest, np.float64)
    move[:, 0] = x * (0.09 * weight * np.clip(below, 0, 1) + 0.05 * weight * cheek)
    move[:, 2] += 0.007 * weight * np.clip((-0.075 - y) / 0.03, 0, 1) * (z > -0.05)  # under the chin
    albedo, details, look, hair = person.albedo.copy(), person.details.copy(), person.look.copy(), person.hair_colour
    skin = np.asarray(kit.masks["skin"])[:, None]
    if age == "child":
        amount = rng.uniform(0.3, 1.0)
        move[:, 1] += amount * 0.014 * np.clip(below, 0, 1)  # shorter lower face
        move[:, 0] -= amount * 0.05 * x * np.clip(below - 0.5, 0, 1)
        move[:, 2] -= amount * 0.008 * np.clip((z - 0.05) / 0.03, 0, 1) * np.clip(below * 3, 0, 1)  # flatter nose and jaw
        move[:, 0] += amount * 0.06 * x * np.exp(-(((y + 0.035) / 0.03) ** 2)) * np.clip((0.06 - z) / 0.03, 0, 1)  # round cheeks
        move[:, 1] += amount * 0.06 * np.maximum(y - 0.05, 0)  # higher forehead
        look[:4] *= [0.5, 1.0, 0.4, 0.0]
        details[:, 1] *= np.where(np.asarray(kit.masks["brows"]) > 0.05, rng.uniform(0.4, 0.9), 0.0)
    elif age == "old":
        amount = rng.uniform(0.3, 1.0)
        for side in ("left", "right"):
            ear = kit.asset.regions[f"{side}_ear"]
            low = person.rest[ear, 1].max()
            move[ear, 1] -= amount * 0.12 * (low - y[ear]) * np.clip((low - y[ear]) / 0.05, 0, 1)
        nose = np.asarray(kit.masks["flush"]) * np.asarray(kit.asset.regions["nose"])
        move[:, 1] -= amount * 0.004 * nose
        move[:, 0] += x * amount * 0.05 * np.exp(-(((y + 0.075) / 0.02) ** 2)) * (z > 0)  # jowls
        move[:, 1] -= amount * 0.004 * np.exp(-(((y + 0.06) / 0.025) ** 2)) * np.clip(np.abs(x) / 0.03 - 0.3, 0, 1)
        look[0], look[2], look[3] = look[0] + 0.06 * amount, look[2] + 0.06 * amount, max(look[3], amount * rng.uniform(0.08, 0.3))
        spots = noise.read(kit.asset.v_template, 9.0, person.shifts)[:, 2:3]
        albedo *= 1 - skin * amount * 0.25 * (spots > 1.6)
        if rng.random() < 0.7:
            grey = palette.linear(rng.uniform(120, 225) * np.array([1, 0.99, 0.97]))
            hair = hair + (grey - hair) * rng.uniform(0.4, 1.0)
            look[4:7] = hair * rng.uniform(0.6, 1.0)
    smooth = move
    for _ in range(3):
        smooth = kit.smoother @ smooth
    eyes = np.asarray(kit.masks["eyes"]) > 0
    smooth[eyes] = 0.0
    rest = (person.rest + smooth).astype(np.float32)
    return replace(
        person, rest=rest, normals=vertex_normals(rest, kit.asset.faces), bend=(person.bend + smooth).astype(np.float32), albedo=albedo.astype(np.float32),
        details=details, look=look, hair_colour=np.asarray(hair, float),
    )  # fmt: skip


def made_up(person: Person, rng: np.random.Generator) -> Person:
    """Eye shadow, lip colour, rouge, lined eyes, foundation; one in fifteen has a painted face."""
    kit = head_kit()
    albedo, look, details = person.albedo.astype(np.float64), person.look.copy(), person.details.copy()

    def paint(mask: np.ndarray, colour: np.ndarray, strength: float) -> None:
        share = np.clip(np.asarray(mask, float) * strength, 0, 1)[:, None] * (1 - (np.asarray(kit.masks["mouth"]) > 0) * (np.asarray(kit.masks["lips"]) < 0.5))[:, None]
        albedo[:] = albedo + (colour - albedo) * share

    above = (kit.asset.v_template[:, 1] > 0.018) * (np.asarray(kit.masks["eyes"]) == 0)
    if rng.random() < 0.6:
        paint(np.asarray(kit.masks["lids"]) * above, palette.linear(rng.uniform(10, 210, 3)), rng.uniform(0.3, 1.2))
    if rng.random() < 0.7:
        paint(kit.masks["lips"], palette.linear(rng.uniform([60, 5, 10], [225, 100, 120])), rng.uniform(0.5, 1.0))
        details[:, 2] = np.clip(details[:, 2] + 0.4 * np.asarray(kit.masks["lips"]) * rng.random(), 0, 1)
    if rng.random() < 0.5:
        paint(np.asarray(kit.masks["flush"]) * kit.asset.regions["cheeks"], palette.linear(np.array([215, 95, 100])), rng.uniform(0.2, 0.7))
    if rng.random() < 0.6:
        paint(kit.masks["lashes"], np.full(3, 0.006), 1.0)
    if rng.random() < 0.6:  # foundation evens the skin
        look[:3] *= rng.uniform(0.1, 0.6)
    if rng.random() < 1 / 15:
        field = noise.read(kit.asset.v_template, rng.uniform(1.5, 4.0), person.shifts + 0.3)[:, 0] + rng.normal(0, 0.5)
        paint((field > 0) * np.asarray(kit.masks["skin"]) * (kit.asset.v_template[:, 2] > -0.02), palette.linear(rng.uniform(5, 250, 3)), rng.uniform(0.6, 1.0))
    return replace(person, albedo=albedo.astype(np.float32), look=look, details=details.astype(np.float32))


def marked(person: Person, rng: np.random.Generator) -> Person:
    """Moles, and now and then a scar."""
    kit = head_kit()
    albedo, details = person.albedo.copy(), person.details.copy()
    skin = np.flatnonzero((np.asarray(kit.masks["skin"]) > 0.9) & (kit.asset.v_template[:, 2] > -0.05) & ~kit.asset.regions["lips"])
    for _ in range(int(rng.integers(1, 9))):
        albedo[rng.choice(skin)] *= rng.uniform(0.15, 0.6) * np.array([1.0, 0.8, 0.7])
    if rng.random() < 0.3:
        start = person.rest[rng.choice(skin)]
        end = start + rng.normal(0, [0.015, 0.025, 0.01])
        t = np.clip((person.rest - start) @ (end - start) / max(float((end - start) @ (end - start)), 1e-9), 0, 1)
        apart = np.linalg.norm(person.rest - start - t[:, None] * (end - start), axis=1)
        share = np.exp(-((apart / 0.0025) ** 2))[:, None] * np.asarray(kit.masks["skin"])[:, None]
        albedo *= 1 + share * (np.array([1.25, 0.9, 0.9]) * rng.uniform(0.7, 1.1) - 1)
        details[:, 1] *= 1 - share[:, 0]
        details[:, 2] = np.clip(details[:, 2] + 0.3 * share[:, 0], 0, 1)
    return replace(person, albedo=np.clip(albedo, 0, 1).astype(np.float32), details=details.astype(np.float32))
