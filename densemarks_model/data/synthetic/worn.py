"""More of what people wear: collars that stand, turtlenecks, scarves, hoods on the back, ear rings, head bands, headsets, face masks.

What hangs on the neck is made around the *posed* head, in the head's frame, since necks turn and chins drop; what the skull
wears is made around the resting head.
"""

from __future__ import annotations

import numpy as np

from densemarks_model.data.synthetic import palette
from densemarks_model.data.synthetic.accessories import headphones
from densemarks_model.data.synthetic.mesh import CLOTH, PLASTIC, Mesh, plain, strip_faces, tube
from densemarks_model.data.synthetic.people import Person, head_kit

_SECTORS = 48


def hug(points: np.ndarray, centre: np.ndarray, low: float, high: float, least: float = 0.045) -> np.ndarray:
    """How far ``points`` ``(n, 3)`` between the heights ``low`` and ``high`` reach from an upright axis, in 48 directions.

    Returns ``(48,)`` metres, smooth, not below ``least``; direction k is at the angle 2πk/48 from +x towards +z.
    """
    inside = points[(points[:, 1] > low) & (points[:, 1] < high)]
    if not len(inside):
        return np.full(_SECTORS, least)
    offset = inside[:, [0, 2]] - centre[[0, 2]]
    reach = np.hypot(*offset.T)
    sector = np.round(np.arctan2(offset[:, 1], offset[:, 0]) / (2 * np.pi) * _SECTORS).astype(int) % _SECTORS
    most = np.full(_SECTORS, 0.0)
    np.maximum.at(most, sector, reach)
    most = np.maximum.reduce([np.roll(most, k) for k in (-2, -1, 0, 1, 2)])
    most = np.maximum(most, least)
    return sum(np.roll(most, k) * w for k, w in zip(range(-2, 3), (0.1, 0.2, 0.4, 0.2, 0.1), strict=True))


def _around(radius: np.ndarray, height: np.ndarray | float, centre: np.ndarray, lean: float) -> np.ndarray:
    """A closed line ``(48, 3)`` at ``radius`` around an upright axis; ``lean``: how much lower it is in front, metres a metre."""
    angle = np.linspace(0, 2 * np.pi, _SECTORS, endpoint=False)
    x, z = radius * np.cos(angle), radius * np.sin(angle)
    return np.stack([centre[0] + x, height - lean * z, centre[2] + z], 1)


def _neck(head: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The posed neck's points, the middle of its lower rim, and all of the posed head's outside."""
    kit = head_kit()
    region = kit.asset.regions
    neck = head.vertices[(region["neck"] | region["boundary"]) & (kit.asset.v_template[:, 1] < -0.06)]
    return neck, head.vertices[region["boundary"]].mean(0), head.vertices[kit.outside]


def turtleneck(head: Mesh, colour: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A collar that hugs the neck, plain or turned down once."""
    neck, base, _ = _neck(head)
    top = base[1] + rng.uniform(0.025, 0.07)
    gap = rng.uniform(0.003, 0.010)
    lean, rows = 0.3, []
    span = np.linspace(0, 1, 7)
    for t in span:
        height = base[1] - 0.035 + t * (top - base[1] + 0.035)
        radius = hug(neck, base, height - 0.03, height + 0.03) + gap + 0.045 * max(0.3 - t, 0) / 0.3
        rows.append(_around(radius, height, base, lean))
    if rng.random() < 0.7:  # the outer layer of the fold
        for t in (1.0, 0.75, 0.5):
            height = base[1] - 0.035 + t * (top - base[1] + 0.035)
            rows.append(_around(hug(neck, base, height - 0.03, height + 0.03) + gap + 0.007, height + 0.002, base, lean))
    return [plain(np.concatenate(rows), strip_faces(len(rows), _SECTORS), colour, CLOTH, gloss=0.05, bump=rng.uniform(0.4, 1.0))]


def open_collar(head: Mesh, colour: np.ndarray, rng: np.random.Generator, coat: bool = False) -> list[Mesh]:
    """A shirt's, polo's or (``coat``) coat's collar: open in front, standing behind, its points turned down."""
    neck, base, _ = _neck(head)
    gap = rng.uniform(0.012, 0.03) if coat else rng.uniform(0.004, 0.012)
    stand = rng.uniform(0.03, 0.075) if coat else rng.uniform(0.022, 0.04)
    opening = np.deg2rad(rng.uniform(12, 45))
    angle = np.linspace(np.pi / 2 + opening, 2.5 * np.pi - opening, _SECTORS)
    full = np.linspace(0, 2 * np.pi, _SECTORS + 1)
    front = np.clip(np.abs(angle - 1.5 * np.pi) / np.pi, 0, 1)  # 0 at the nape, 1 in front
    turned = not coat or rng.random() < 0.5
    profile = [(-0.04, 0.03), (0.0, 0.004), (1.0, 0.0)]  # share of the stand, metres outwards
    if turned:
        profile += [(1.02, 0.006), (0.55, 0.014), (-0.1, 0.02)]
    rows = []
    for level, out in profile:
        height = base[1] - 0.022 + level * stand
        radius = hug(neck, base, base[1] - 0.03, base[1] + 0.03)
        radius = np.interp(angle % (2 * np.pi), full, np.append(radius, radius[0])) + gap + out
        fall = (0.02 if turned and level < 0.6 and out > 0.01 else 0.0) * front**4  # the points hang
        x, z = radius * np.cos(angle), radius * np.sin(angle)
        rows.append(np.stack([base[0] + x, height - 0.32 * z - fall, base[2] + z], 1))
    return [plain(np.concatenate(rows), strip_faces(len(rows), _SECTORS, closed_columns=False), colour, CLOTH, gloss=0.08, bump=0.4)]


def scarf(head: Mesh, rng: np.random.Generator) -> list[Mesh]:
    """A scarf of two to four loops around the neck, sometimes up to the chin or the mouth."""
    neck, base, outside = _neck(head)
    colour, meshes = palette.thing(rng), []
    high = rng.random() < 0.35
    loops = rng.uniform(1.5, 4)
    thick = rng.uniform(0.010, 0.02)
    low = base[1] - 0.045
    top = base[1] + (rng.uniform(0.05, 0.085) if high else rng.uniform(0.005, 0.045))
    angle = np.linspace(0, 2 * np.pi, _SECTORS, endpoint=False)
    phase, waves = rng.uniform(0, 6.28, 4), rng.integers(1, 5, 2)
    rows = []
    for t in np.linspace(0, 1, 22):  # one cloth from the shoulders up, with the loops as folds, its top turned in
        height = low + t * (top - low)
        around = hug(outside if high and t > 0.5 else neck, base, height - 0.035, height + 0.03)
        slant = t + 0.06 * np.sin(angle + phase[0]) + 0.03 * np.sin(waves[0] * angle + phase[1])
        fold = np.abs(np.sin(np.pi * (loops * slant + phase[2])))
        out = 0.004 + thick * (0.7 + fold) + 0.03 * (1 - t) ** 2 + 0.003 * np.sin(waves[1] * angle + phase[3])
        radius = np.minimum(around, 0.125) + out * np.clip((1 - t) * 12, 0.15, 1)
        rows.append(_around(radius, height + 0.008 * np.sin(angle + phase[1]), base, 0.3 if not high else 0.15))
    meshes.append(plain(np.concatenate(rows), strip_faces(22, _SECTORS), colour, CLOTH, gloss=0.03, bump=1.0))
    if rng.random() < 0.6:  # an end that hangs in front
        x = rng.uniform(-0.05, 0.05)
        reach = base[2] + hug(neck, base, base[1] - 0.03, base[1] + 0.03)[12] + 0.03
        t = np.linspace(0, 1, 8)
        path = np.stack([x + 0.02 * t, base[1] - 0.04 - 0.25 * t, reach + 0.03 * np.sin(np.pi * t)], 1)
        vertices, faces = tube(path, thick * 1.5, sides=10)
        meshes.append(plain(vertices, faces, colour, CLOTH, gloss=0.03, bump=1.0))
    return meshes


def hood_down(head: Mesh, colour: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A hood that lies on the back and shoulders, a heap of cloth behind the neck."""
    neck, base, _ = _neck(head)
    angle = np.linspace(np.pi - 0.9, 2 * np.pi + 0.9, 40)
    behind = np.clip(0.5 - 0.5 * np.sin(angle), 0, 1)  # 1 at the nape
    ends = np.clip(np.minimum(angle - angle[0], angle[-1] - angle) / 0.8, 0, 1)
    around = hug(neck, base, base[1] - 0.03, base[1] + 0.03)
    around = np.interp(angle % (2 * np.pi), np.linspace(0, 2 * np.pi, _SECTORS + 1), np.append(around, around[0]))
    meshes = []
    for lift, out, size in ((0.0, 0.035, 0.026), (0.016, 0.022, 0.018)):
        thick = 0.003 + size * ends**0.7 * (0.45 + 0.55 * behind) * rng.uniform(0.8, 1.3)
        thick *= 1 + 0.12 * np.sin(7 * angle + rng.uniform(0, 6.28))
        radius = around + out * (0.5 + 0.5 * behind) + 0.3 * thick
        x, z = radius * np.cos(angle), radius * np.sin(angle)
        line = np.stack([base[0] + x, base[1] - 0.03 + lift - 0.3 * z, base[2] + z], 1)
        meshes.append(plain(*tube(line, thick, sides=12), colour * rng.uniform(0.85, 1.05), CLOTH, bump=1.0))
    return meshes


def ear_rings(person: Person, rng: np.random.Generator) -> list[Mesh]:
    """Studs, hoops or drops at the lobes, in the skull's frame; now and then at one ear only."""
    kit, meshes = head_kit(), []
    colour = palette.linear(np.array([[212, 175, 85], [205, 205, 210], [205, 205, 210], rng.uniform(20, 240, 3)][rng.integers(4)]))
    kind = rng.choice(["stud", "hoop", "drop"], p=[0.35, 0.4, 0.25])
    radius, length = rng.uniform(0.005, 0.026), rng.uniform(0.01, 0.05)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        if rng.random() < 0.12:
            continue
        ear = person.rest[kit.asset.regions[f"{side}_ear"]]
        front = ear[ear[:, 2] > np.median(ear[:, 2])]
        lobe = front[np.argmin(front[:, 1])] + [sign * 0.001, 0.004, 0.0]
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        if kind == "hoop":
            ring = lobe + np.stack([sign * (0.004 + 0 * angle), -radius + radius * np.cos(angle), radius * np.sin(angle)], 1)
            meshes.append(plain(*tube(ring, rng.uniform(0.0008, 0.0018), closed=True), colour, PLASTIC, gloss=0.9))
        else:
            ball = 0.0022 + 0.2 * radius
            t = np.linspace(0, np.pi, 7)
            end = lobe + np.array([sign * 0.005, 0.0 if kind == "stud" else -length, 0.0])
            path = np.stack([end[0] + 0 * t, end[1] + ball * np.cos(t), end[2] + 0 * t], 1)
            meshes.append(plain(*tube(path, ball * np.sin(t) + 1e-4, sides=8), colour, PLASTIC, gloss=0.9))
            if kind == "drop":
                meshes.append(plain(*tube(np.stack([lobe + np.array([sign * 0.004, 0, 0]), end]), 0.0006), colour, PLASTIC, gloss=0.9))
    return meshes


def head_band(person: Person, rng: np.random.Generator) -> list[Mesh]:
    """A band around the skull, over forehead or crown, in the skull's frame."""
    kit = head_kit()
    points = person.rest[(kit.asset.regions["scalp"] | kit.asset.regions["forehead"])]
    crown = rng.random() < 0.4  # from ear to ear over the top
    width, gap = rng.uniform(0.008, 0.05), rng.uniform(0.006, 0.012)
    colour = palette.thing(rng)
    if crown:
        turn = np.linspace(0.1, np.pi - 0.1, 40)
        z = rng.uniform(-0.035, 0.0)
        near = points[np.abs(points[:, 2] - z) < 0.03, :2] - [0.0, 0.01]
        far, at = np.hypot(*near.T), np.arctan2(near[:, 1], near[:, 0])
        radius = np.array([np.max(far[np.abs(at - a) < 0.35], initial=0.05) for a in turn]) + gap
        radius = np.convolve(np.pad(radius, 3, mode="edge"), np.ones(7) / 7, mode="valid")
        rows = [
            np.stack([(radius + s) * np.cos(turn), 0.01 + (radius + s) * np.sin(turn), np.full(40, z + w)], 1)
            for w, s in ((-width / 2, -0.004), (-width / 2, 0.002), (width / 2, 0.002), (width / 2, -0.004))
        ]
        return [plain(np.concatenate(rows), strip_faces(4, 40, closed_columns=False), colour, CLOTH, gloss=0.2, bump=0.3)]
    centre, lean = points.mean(0), -rng.uniform(0.1, 0.45)
    level = rng.uniform(0.06, 0.08)
    flat = points[:, 1] + lean * (points[:, 2] - centre[2])
    tilted = np.stack([points[:, 0], flat, points[:, 2]], 1)
    rows = [
        _around(hug(tilted, centre, level + h - 0.02, level + h + 0.02, 0.06) + gap, level + h, centre, lean)
        for h in np.linspace(-width / 2, width / 2, 4)
    ]
    return [plain(np.concatenate(rows), strip_faces(4, _SECTORS), colour, CLOTH, gloss=0.05, bump=0.6)]


def headset(person: Person, rng: np.random.Generator) -> list[Mesh]:
    """Headphones with a microphone on an arm beside the mouth, in the skull's frame."""
    region = head_kit().asset.regions
    meshes = headphones(person, rng)
    side = rng.choice([-1.0, 1.0])
    ear = person.rest[region["left_ear" if side > 0 else "right_ear"]].mean(0) + np.array([side * 0.022, -0.02, 0.015])
    mouth = person.rest[region["lips"]].mean(0) + np.array([side * rng.uniform(0.02, 0.05), rng.uniform(-0.02, 0.0), rng.uniform(0.008, 0.03)])
    t = np.linspace(0, 1, 12)[:, None]
    bow = np.array([side * 0.035, -0.02, 0.01]) * np.sin(np.pi * t)
    colour = meshes[0].albedo[0]
    meshes.append(plain(*tube(ear + (mouth - ear) * t + bow, rng.uniform(0.0015, 0.003)), colour, PLASTIC, gloss=0.4))
    s = np.linspace(0, np.pi, 8)
    size = rng.uniform(0.006, 0.012)
    tip = mouth + np.stack([-side * size * np.cos(s), 0 * s, 0.3 * size * np.cos(s)], 1)
    meshes.append(plain(*tube(tip, size * np.sin(s) + 1e-4, sides=8), np.full(3, 0.01), CLOTH, bump=0.8))
    return meshes


def face_mask(head: Mesh, rng: np.random.Generator) -> list[Mesh]:
    """A mask over mouth and chin, and mostly the nose, of the posed head, with loops around the ears."""
    kit = head_kit()
    rest, region = head.rest, kit.asset.regions
    under_nose = rng.random() < 0.15
    top = (-0.022 if under_nose else rng.uniform(-0.008, 0.006)) - 0.35 * np.maximum(np.abs(rest[:, 0]) - 0.015, 0)
    usable = (region["face"] | region["lips"]) & ~region["ears"] & ~region["eyelids"] & (np.asarray(kit.masks["skin"]) > 0.5)
    back = rng.uniform(-0.005, 0.02)
    chosen = usable & (rest[:, 1] < top + 0.008) & (rest[:, 1] > -0.104) & (rest[:, 2] > back) & (np.abs(rest[:, 0]) < 0.062)
    faces = kit.asset.faces[chosen[kit.asset.faces].all(1)]
    shell = head.vertices.astype(np.float64)
    lips = chosen & (np.hypot(rest[:, 0] / 0.036, (rest[:, 1] + 0.044) / 0.022) < 1)
    for _ in range(40):  # cloth spans over lips and beside the nose
        smooth = kit.smoother @ shell
        forward = (smooth - shell)[:, 2] > 0
        shell = np.where((lips | (chosen & forward))[:, None], smooth, shell)
    shell[:, 1] -= np.maximum(rest[:, 1] - top, 0) * chosen  # straight edges, though triangles are coarse
    shell[:, 1] += np.maximum(-0.096 - rest[:, 1], 0) * chosen
    away = shell - head.vertices[kit.outside].mean(0)
    away[:, 1] *= 0.3
    away[:, 2] = np.abs(away[:, 2])
    shell = shell + away / np.linalg.norm(away, axis=1, keepdims=True) * rng.uniform(0.006, 0.011)
    shell[lips, 2] += 0.005
    colour = [palette.linear(np.array([150, 190, 215])), palette.linear(np.array([235, 235, 235])), np.full(3, 0.012), palette.thing(rng)][rng.integers(4)]
    meshes = [plain(shell, faces.astype(np.int32), colour, CLOTH, gloss=0.05, bump=rng.uniform(0.1, 0.5))]
    for side, sign in (("left", 1.0), ("right", -1.0)):
        edge = np.flatnonzero(chosen & (sign * rest[:, 0] > 0.035))
        ear = head.vertices[region[f"{side}_ear"]]
        if not len(edge):
            continue
        for corner in (edge[np.argmax(rest[edge, 1] + sign * rest[edge, 0])], edge[np.argmax(sign * rest[edge, 0] - rest[edge, 1])]):
            hook = ear.mean(0) + np.array([sign * 0.002, 0.012 if rest[corner, 1] > -0.05 else -0.02, 0.012])
            t = np.linspace(0, 1, 6)[:, None]
            loop = shell[corner] + (hook - shell[corner]) * t + np.array([sign * 0.012, 0, 0]) * np.sin(np.pi * t)
            meshes.append(plain(*tube(loop, 0.0014), colour, CLOTH))
    return meshes
