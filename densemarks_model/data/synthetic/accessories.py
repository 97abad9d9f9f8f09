"""What people wear and hold: shoulders with clothes, collars, glasses, hats, headphones, hands.

Everything is made in the head's frame around one person's resting head, except hands, which come in the camera's.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from densemarks_model.data.synthetic import palette
from densemarks_model.data.synthetic.mesh import CLOTH, PLASTIC, SKIN, Mesh, plain, strip_faces, tube, vertex_normals
from densemarks_model.data.synthetic.people import Person, head_kit

_PARTS = Path(__file__).resolve().parent / "body_parts.npz"


@functools.cache
def _parts() -> dict[str, np.ndarray]:
    with np.load(_PARTS, allow_pickle=False) as archive:
        parts = {key: archive[key].astype(np.float32) if archive[key].dtype == np.float16 else archive[key] for key in archive.files}
    # finer triangles, so that necklines are not ragged
    halves, faces = _halved(parts["torso_faces"], len(parts["torso_vertices"]))
    parts["torso_faces"] = faces
    for key in ("torso_vertices", "torso_directions"):
        corners = parts[key]
        parts[key] = np.concatenate([corners, corners[..., halves, :].mean(-2)], axis=-2)
    return parts


def _halved(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Four triangles for each: the edges ``(e, 2)`` whose middles are new vertices (numbered from ``count``), and the faces."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    edges, index = np.unique(edges, axis=0, return_inverse=True)
    ab, bc, ca = index.reshape(3, -1) + count
    a, b, c = faces.T
    parts = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return edges, np.concatenate([np.stack(p, 1) for p in parts]).astype(np.int32)


def shoulders(person: Person, rng: np.random.Generator) -> list[Mesh]:
    """Shoulders that join the person's neck: skin, and clothes over it with a neckline; sometimes a collar."""
    parts = _parts()
    body = parts["torso_vertices"] + np.tensordot(rng.normal(0, 1, len(parts["torso_directions"])), parts["torso_directions"], 1)
    kit = head_kit()
    ring = np.flatnonzero(kit.asset.regions["boundary"])
    shift = person.rest[ring] - kit.asset.v_template[ring]
    # the mean shoulders meet the mean neck: carry the neck's difference over, less and less further down
    distance = np.linalg.norm(parts["torso_vertices"][:, None] - kit.asset.v_template[ring][None], axis=2)
    weight = np.exp(-((distance - distance.min(1, keepdims=True)) / 0.02))
    follow = (weight / weight.sum(1, keepdims=True)) @ shift
    body = body * 1.0 + follow * np.exp(-distance.min(1) / 0.08)[:, None]
    faces = parts["torso_faces"]
    normals = vertex_normals(body, faces)
    # what reaches above the neck's cut goes inside, so that the edge that shows is the planar cut and not where two skins cross
    loop = person.rest[ring].astype(np.float64)
    centre = loop.mean(0)
    upward = np.linalg.svd(loop - centre)[2][2]
    upward = upward * np.sign(upward[1])
    above = np.maximum((body - centre) @ upward, 0)
    flat = body - above[:, None] * upward
    inner = np.where(above[:, None] > 0, centre + 0.9 * (flat - centre), body)

    meshes = []
    tone = person.albedo[kit.asset.regions["neck"]].mean(0)
    skin = plain(inner, faces, tone, SKIN, gloss=0.2, bump=0.8)
    meshes.append(skin)
    x, y, z = body.T
    style = rng.choice(["round", "vee", "wide", "closed"], p=[0.4, 0.25, 0.15, 0.2])
    front = np.clip((z + 0.03) / 0.08, 0, 1)
    drop = {"round": 0.02 + 0.03 * front, "vee": 0.01 + front * np.maximum(0.14 - 1.8 * np.abs(x), 0.02), "wide": 0.05 + 0.05 * front, "closed": 0 * x}[style]
    line = -0.185 - drop * rng.uniform(0.6, 1.4)
    if rng.random() < 0.93:
        cover = (y < line) | (np.hypot(x, z + 0.04) > rng.uniform(0.11, 0.17))
        cloth_faces = faces[cover[faces].all(1)]
        thick = rng.uniform(0.003, 0.02)
        cloth = body + normals * (thick * np.clip((line + 0.03 - y) / 0.03, 0.3, 1))[:, None]
        meshes.append(plain(cloth, cloth_faces, palette.thing(rng), CLOTH, gloss=rng.uniform(0, 0.25), bump=rng.uniform(0.2, 1.0)))
        if style == "closed" or rng.random() < 0.35:
            meshes.append(_collar(person, meshes[-1].albedo[0] * rng.uniform(0.6, 1.3), rng))
    return meshes


def _collar(person: Person, colour: np.ndarray, rng: np.random.Generator) -> Mesh:
    ring = person.rest[head_kit().asset.regions["boundary"]]
    centre = ring.mean(0)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.linalg.norm((ring - centre)[:, [0, 2]], axis=1).mean()
    opening = rng.uniform(1.02, 1.35)
    height = rng.choice([rng.uniform(0.01, 0.03), rng.uniform(0.03, 0.075)])
    rows = []
    for t in np.linspace(0, 1, 5):
        r = radius * (1.35 + (opening - 1.35) * t)
        front = 1 - rng.uniform(0.1, 0.3) * np.clip(np.cos(angle - np.pi / 2), 0, 1) * t
        rows.append(np.stack([r * np.cos(angle), np.full(48, -0.03 + t * (height + 0.03)) * front, r * np.sin(angle) * 1.05], 1) + centre)
    vertices = np.concatenate(rows)
    tilt = 0.25 * (vertices[:, 2] - centre[2])  # necks lean forward
    vertices[:, 1] -= tilt
    return plain(vertices, strip_faces(5, 48), np.clip(colour, 0, 0.95), CLOTH, gloss=0.05, bump=0.4)


def glasses(person: Person, rng: np.random.Generator) -> list[Mesh]:
    """Frames of several shapes; sunglasses have lenses."""
    asset = head_kit().asset
    rest = person.rest
    left, right = (rest[asset.regions[f"{s}_eyeball"]].mean(0) for s in ("left", "right"))
    front = max(rest[asset.regions[f"{s}_lid_rim"]][:, 2].max() for s in ("left", "right")) + rng.uniform(0.008, 0.016)
    wide, high = rng.uniform(0.02, 0.031), rng.uniform(0.015, 0.027)
    power = rng.choice([2.0, 2.6, 4.0, 6.0])
    thick = rng.choice([0.0007, rng.uniform(0.0012, 0.003)])
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    shape = np.stack([np.sign(cos) * np.abs(cos) ** (2 / power) * wide, np.sign(sin) * np.abs(sin) ** (2 / power) * high], 1)
    centre_y = (left[1] + right[1]) / 2 - rng.uniform(-0.002, 0.006)
    colour = palette.thing(rng) * rng.choice([0.15, 1.0])
    meshes, rims = [], []
    for eye, sign in ((left, 1.0), (right, -1.0)):
        middle = np.array([sign * max(abs(eye[0]), wide + 0.008), centre_y, front])
        rim = middle + np.concatenate([shape * [sign, 1], np.zeros((40, 1))], 1)
        rim[:, 2] -= 0.12 * np.abs(rim[:, 0])
        rims.append(rim)
        meshes.append(plain(*tube(rim, thick, closed=True), colour, PLASTIC, gloss=0.6))
        ears = rest[asset.regions["left_ear" if sign > 0 else "right_ear"]]
        hinge = rim[np.argmax(sign * rim[:, 0])]
        hook = np.array([ears[:, 0].mean(), ears[:, 1].max() - 0.012, ears[:, 2].mean()])
        bow = np.stack([hinge + (hook - hinge) * t + [sign * 0.008 * np.sin(np.pi * t), 0, 0] for t in np.linspace(0, 1, 8)])
        meshes.append(plain(*tube(bow, thick * 1.2), colour, PLASTIC, gloss=0.6))
    inner = [rims[0][np.argmin(rims[0][:, 0])], rims[1][np.argmax(rims[1][:, 0])]]
    bridge = np.stack([inner[0] + (inner[1] - inner[0]) * t + [0, 0.004 * np.sin(np.pi * t), 0.003 * np.sin(np.pi * t)] for t in np.linspace(0, 1, 7)])
    meshes.append(plain(*tube(bridge, thick), colour, PLASTIC, gloss=0.6))
    if rng.random() < 0.22:  # sunglasses
        tint = palette.thing(rng) * 0.06
        meshes += [_disc(rim, tint) for rim in rims]
    return meshes


def _disc(rim: np.ndarray, colour: np.ndarray) -> Mesh:
    vertices = np.concatenate([rim, rim.mean(0, keepdims=True) + [[0, 0, 0.002]]])
    count = len(rim)
    index = np.arange(count)
    faces = np.stack([index, (index + 1) % count, np.full(count, count)], 1)
    return plain(vertices, faces, colour, PLASTIC, gloss=0.9)


def hat(person: Person, rng: np.random.Generator) -> list[Mesh]:
    """A cap, beanie, hood or scarf: a shell around the skull above a plane, perhaps with a brim."""
    kit = head_kit()
    rest, normals, faces = person.rest, person.normals, kit.asset.faces
    kind = rng.choice(["beanie", "cap", "hood", "brim"], p=[0.3, 0.35, 0.2, 0.15])
    tilt = rng.uniform(-0.5, 0.1) if kind != "hood" else -1.6
    level = rng.uniform(0.04, 0.075) if kind != "hood" else rng.uniform(-0.06, -0.02)
    skull = np.array([0.0, 0.03, -0.03])
    height = rest[:, 1] - level - tilt * -1 * (rest[:, 2] - 0.07) * (0.35 if kind != "hood" else -1.0)
    usable = kit.masks["skin"] * (1 - kit.masks["mouth"]) > 0.9
    above = (height > 0) & usable
    if kind == "hood":
        above = usable & ((rest[:, 2] < rng.uniform(-0.02, 0.03)) | (rest[:, 1] > rng.uniform(0.08, 0.105)))
    chosen = faces[above[faces].all(1)]
    if not len(chosen):
        return []
    gap = rng.uniform(0.006, 0.02)
    radial = rest - skull
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    ears = kit.asset.regions["ears"]
    shell = rest + (0.5 * normals + 0.5 * radial) * gap
    shell[ears] = rest[ears] + radial[ears] * gap * 1.5
    colour = palette.thing(rng)
    meshes = [plain(shell, chosen, colour, CLOTH, gloss=0.05, bump=rng.uniform(0.2, 0.8))]
    if kind in ("cap", "brim"):
        span = np.linspace(0, np.pi, 24) if kind == "cap" else np.linspace(0, 2 * np.pi, 48)
        around = above & (height < 0.03)
        radius = np.abs(rest[around, 0]).max() + gap if around.any() else 0.09
        depth = (np.ptp(rest[around, 2]) / 2 if around.any() else 0.1) + gap
        middle = np.array([0.0, level + 0.012, rest[around, 2].mean() if around.any() else -0.03])
        reach = rng.uniform(0.05, 0.08)
        rows = []
        for t in np.linspace(0, 1, 4):
            stretch = reach * t * (np.sin(span) ** 0.5 if kind == "cap" else 1.0)
            x = (radius * 0.97 + (0 if kind == "cap" else stretch)) * np.cos(span)
            z = (depth + stretch) * np.sin(span)
            y = np.full(len(span), -0.02 * t) + 0.01 * np.cos(2 * span) * t
            rows.append(np.stack([x, y, z], 1) + middle)
        brim = np.concatenate(rows)
        meshes.append(plain(brim, strip_faces(4, len(span), closed_columns=kind != "cap"), colour * rng.uniform(0.5, 1.2), CLOTH, bump=0.1))
    return meshes


def headphones(person: Person, rng: np.random.Generator) -> list[Mesh]:
    """Cups over the ears and a band over the head."""
    asset = head_kit().asset
    colour = palette.thing(rng) * rng.choice([0.2, 1.0])
    meshes, ends = [], []
    for side, sign in (("left", 1.0), ("right", -1.0)):
        ear = person.rest[asset.regions[f"{side}_ear"]]
        middle = ear.mean(0) + [sign * 0.012, 0, 0]
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        radius = rng.uniform(0.032, 0.042)
        rows = [
            middle + np.stack([np.full(20, sign * out), r * np.cos(angle), r * np.sin(angle)], 1)
            for out, r in ((-0.012, radius), (0.012, radius), (0.018, radius * 0.7), (0.019, 0.001))
        ]
        meshes.append(plain(np.concatenate(rows), strip_faces(4, 20), colour, PLASTIC, gloss=0.4))
        ends.append(middle + [sign * 0.01, 0.02, 0])
    top = person.rest[:, 1].max() + rng.uniform(0.01, 0.03)
    t = np.linspace(0, np.pi, 24)
    middle = (ends[0] + ends[1]) / 2
    half = (ends[0][0] - ends[1][0]) / 2
    band = np.stack([middle[0] + half * np.cos(t), middle[1] + (top - middle[1]) * np.sin(t) ** 0.7, np.full(24, middle[2])], 1)
    meshes.append(plain(*tube(band, rng.uniform(0.005, 0.012)), colour, PLASTIC, gloss=0.3))
    return meshes


def hand(skin: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> Mesh:
    """A hand near the point ``at`` (3,) of the camera's space, fingers curled a little, any orientation."""
    parts = _parts()
    points = parts["hand_vertices"].astype(np.float64).copy()
    bend = rng.uniform(-2, 14)  # per metre: fingers and palm roll up about z
    x = np.maximum(points[:, 0] - 0.03, 0)
    angle = bend * x
    reach = np.where(np.abs(angle) > 1e-6, np.sin(angle) / (bend if abs(bend) > 1e-6 else 1), x)
    fall = np.where(np.abs(angle) > 1e-6, (1 - np.cos(angle)) / (bend if abs(bend) > 1e-6 else 1), 0)
    y = points[:, 1].copy()
    points[:, 0] = np.where(points[:, 0] > 0.03, 0.03 + reach + y * np.sin(angle), points[:, 0])
    points[:, 1] = np.where(x > 0, y * np.cos(angle) - fall, y)
    if rng.random() < 0.5:
        points[:, 2] *= -1
        faces = parts["hand_faces"][:, ::-1]
    else:
        faces = parts["hand_faces"]
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    points = (points - [0.09, 0, 0]) @ rotation.T * rng.uniform(0.9, 1.15) + at
    rest = parts["hand_vertices"]
    mesh = plain(points, np.ascontiguousarray(faces), skin, SKIN, gloss=0.25, bump=0.9)
    return Mesh(mesh.vertices, mesh.faces, rest.copy(), mesh.albedo, mesh.details, SKIN, mesh.part)
