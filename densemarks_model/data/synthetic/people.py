"""Random people: the default head's surface with a skin, eyes, brows, stubble and a face that it makes."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from densemarks_model.data.synthetic import noise, palette
from densemarks_model.data.synthetic.mesh import EYE, HEAD, SKIN, Mesh, vertex_normals
from flame_assets.asset import HeadAsset
from flame_assets.load import load_head
from tracker.head_model import HeadModel
from tracker.rendering.canvas import MeshCanvas

_EXPRESSION_GROUPS = {
    "smile": (("mouthSmileLeft", "mouthSmileRight"), ("cheekSquintLeft", "cheekSquintRight"), ("mouthUpperUpLeft", "mouthUpperUpRight")),
    "speech": (("jawOpen",), ("mouthFunnel",), ("mouthPucker",), ("mouthLowerDownLeft", "mouthLowerDownRight"), ("mouthClose",)),
    "frown": (("browDownLeft", "browDownRight"), ("mouthFrownLeft", "mouthFrownRight"), ("noseSneerLeft", "noseSneerRight")),
    "surprise": (("browInnerUp",), ("browOuterUpLeft", "browOuterUpRight"), ("eyeWideLeft", "eyeWideRight"), ("jawOpen",)),
    "blink": (("eyeBlinkLeft", "eyeBlinkRight"),),
    "squint": (("eyeSquintLeft", "eyeSquintRight"),),
}


@dataclass(frozen=True)
class HeadKit:
    """Everything about the default head that does not change from person to person."""

    asset: HeadAsset
    model: HeadModel
    smoother: sp.csr_matrix
    openness: np.ndarray
    outside: np.ndarray
    masks: dict[str, np.ndarray]
    material: np.ndarray


@functools.cache
def head_kit() -> HeadKit:
    """Load and prepare the default head, once per process."""
    asset = load_head()
    count = asset.n_vertices
    edges = np.concatenate([asset.faces[:, [0, 1]], asset.faces[:, [1, 2]], asset.faces[:, [2, 0]]])
    joined = sp.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count)).tocsr()
    joined = ((joined + joined.T) > 0).astype(np.float64) + sp.eye(count)
    smoother = sp.diags(1 / np.asarray(joined.sum(1)).ravel()) @ joined
    region = {name: mask.astype(np.float32) for name, mask in asset.regions.items()}

    def soft(mask: np.ndarray, rounds: int) -> np.ndarray:
        for _ in range(rounds):
            mask = smoother @ mask
        return np.asarray(mask, np.float32)

    y, z = asset.v_template[:, 1], asset.v_template[:, 2]
    skin = (region["face"] + region["scalp"] + region["neck"] + region["ears"]).clip(0, 1)
    beard = np.maximum(region["chin"], region["cheeks"] * (y < -0.03)) * (1 - region["lips"])
    below = ((y < -0.035) & (y > -0.115) & (z > -0.03)).astype(np.float32) * (region["face"] + region["neck"]).clip(0, 1)
    masks = {
        "skin": skin,
        "lips": soft(region["lips"], 1),
        "brows": (2.2 * soft(region["brows"], 1)).clip(0, 1),
        "flush": soft(np.maximum(region["cheeks"], np.maximum(region["ears"], region["nose"] * (z > 0.05))), 6),
        "lids": soft(region["eyelids"], 2),
        "lashes": np.maximum(region["left_lid_rim"], region["right_lid_rim"]),
        "beard": soft(np.maximum(beard, below) * (1 - region["lips"]) * (1 - region["nose"]), 4) * (1 - soft(region["lips"], 1)),
        "scalp": soft(region["scalp"], 3),
        "iris": np.maximum(region["left_iris"], region["right_iris"]),
        "teeth": region["teeth"],
        "tongue": region["tongue"],
        "mouth": region["mouth_interior"],
        "eyes": (region["left_eyeball"] + region["right_eyeball"]).clip(0, 1),
    }
    pupil = np.zeros(count, np.float32)
    for side in ("left", "right"):
        ball = asset.regions[f"{side}_iris"]
        rim = asset.regions[f"{side}_pupil_ring"]
        centre = asset.v_template[rim].mean(0)
        reach = np.linalg.norm(asset.v_template[rim] - centre, axis=1).max()
        pupil[ball & (np.linalg.norm(asset.v_template - centre, axis=1) < reach * 1.05)] = 1
    masks["pupil"] = pupil
    material = np.where(masks["eyes"][asset.faces].min(1) > 0, EYE, SKIN)
    outside = np.flatnonzero(skin > 0)
    openness = _openness(asset.v_template, asset.faces)
    return HeadKit(asset, HeadModel.from_asset(asset), smoother, openness, outside, masks, material)


def _openness(vertices: np.ndarray, faces: np.ndarray, directions: int = 160, size: int = 192) -> np.ndarray:
    """Share of the sky that each vertex sees, 0 to 1, from depth pictures of many directions."""
    canvas = MeshCanvas(size, size)
    normals = vertex_normals(vertices, faces)
    centre, reach = (vertices.min(0) + vertices.max(0)) / 2, 0.2
    index = np.arange(directions) + 0.5
    polar, turn = np.arccos(1 - 2 * index / directions), np.pi * (1 + 5**0.5) * index
    sky = np.stack([np.sin(polar) * np.cos(turn), np.cos(polar), np.sin(polar) * np.sin(turn)], 1)
    seen, possible = np.zeros(len(vertices)), np.zeros(len(vertices))
    for towards in sky:
        side = np.cross([0.0, 1.0, 0.001], towards)
        side /= np.linalg.norm(side)
        local = (vertices + 0.0025 * normals - centre) @ np.stack([side, np.cross(towards, side), -towards]).T / reach
        clip = np.concatenate([local, np.ones((len(local), 1))], 1).astype(np.float32)
        depth = canvas.rasterize(clip, faces)
        column, row = (((local[:, k] + 1) * size / 2).astype(int).clip(0, size - 1) for k in (0, 1))
        facing = np.maximum(normals @ towards, 0)
        possible += facing
        seen += facing * (local[:, 2] < depth[row, column, 2] + 0.012)
    return np.asarray(seen / np.maximum(possible, 1e-6), np.float32)


@dataclass(frozen=True)
class Person:
    """One person, in the head's frame, neck and face at rest.

    Attributes:
        identity: coefficients. rest: ``(V, 3)`` vertices with neutral expression. normals: their normals.
        bend: ``(V, 3)`` smooth displacement outside the identity basis, so that held-out people differ from it.
        albedo, details: as in ``Mesh``. darkness: of the skin, 0 to 1. hair_colour: linear RGB.
        look, shifts: of ``shading.shade``.
        hair_density: ``(V,)`` how surely hair grows there, 0 to 1.
    """

    identity: np.ndarray
    rest: np.ndarray
    normals: np.ndarray
    bend: np.ndarray
    albedo: np.ndarray
    details: np.ndarray
    darkness: float
    hair_colour: np.ndarray
    look: np.ndarray
    shifts: np.ndarray
    hair_density: np.ndarray


def random_person(rng: np.random.Generator, stretch: float = 0.02) -> Person:
    """A person; ``stretch`` is the spread of the displacement outside the identity basis, relative to the head."""
    kit = head_kit()
    asset, masks = kit.asset, kit.masks
    identity = rng.normal(0, rng.uniform(0.5, 1.15), asset.n_identity)
    shaped = asset.v_template + asset.shapedirs[:, :, : asset.n_identity] @ identity.astype(np.float32)
    bend = _smooth_bend(asset.v_template, rng) * stretch * 0.12 + (shaped - shaped.mean(0)) * rng.normal(0, stretch, 3)
    rest = shaped + bend
    shifts = rng.random(3).astype(np.float32)
    skin, lips, darkness = palette.skin_and_lips(rng)
    hair_colour = palette.hair(rng, darkness)
    spots = noise.read(asset.v_template, 5.0, shifts)

    albedo = np.tile(skin, (asset.n_vertices, 1)).astype(np.float32)
    flush = (masks["flush"] * rng.uniform(0, 0.5))[:, None]
    albedo *= 1 - flush * np.array([0.05, 0.3, 0.25]) * (1 - 0.6 * darkness)
    shade = (masks["lids"] * rng.uniform(0, 0.35))[:, None]
    albedo *= 1 - shade * (rng.uniform(0, 0.8, 3) if rng.random() < 0.2 else np.array([0.4, 0.6, 0.6]))
    albedo += (lips - albedo) * (masks["lips"] * rng.uniform(0.35, 1))[:, None]
    albedo *= 1 - (masks["lashes"] * rng.uniform(0.3, 0.9))[:, None]
    eye = palette.linear(np.array([215, 205, 200])) * rng.uniform(0.75, 1.1)
    albedo[masks["eyes"] > 0] = eye
    albedo[masks["iris"] > 0] = palette.iris(rng)
    albedo[masks["pupil"] > 0] = 0.005
    albedo[masks["teeth"] > 0] = palette.linear(np.array([220, 208, 186])) * rng.uniform(0.6, 1.05)
    albedo[masks["tongue"] > 0] = palette.linear(np.array([180, 84, 84])) * rng.uniform(0.6, 1.1)
    inner = masks["mouth"] > 0
    albedo[inner] = np.where(masks["lips"][inner, None] > 0.5, albedo[inner], palette.linear(np.array([120, 44, 44])))

    stubble = masks["brows"] * rng.uniform(0.15, 1.1)
    if rng.random() < 0.4:
        kind = rng.choice(3, p=[0.5, 0.3, 0.2])
        cover = masks["beard"] * (rng.uniform(0.2, 0.6) if kind == 0 else rng.uniform(0.7, 1.3))
        if kind == 2:  # chin and upper lip only
            cover = cover * (np.abs(asset.v_template[:, 0]) < rng.uniform(0.02, 0.045))
        stubble = np.maximum(stubble, cover * (1 + 0.2 * spots[:, 0]))
    line = masks["scalp"] + rng.uniform(-0.2, 0.25) + 0.06 * spots[:, 1]
    density = np.clip((line - 0.35) / 0.3, 0, 1) * masks["skin"]
    details = np.zeros((asset.n_vertices, 4), np.float32)
    details[:, 0] = kit.openness ** rng.uniform(0.7, 1.3)
    details[:, 1] = np.clip(stubble, 0, 1) * masks["skin"]
    details[:, 2] = np.where(masks["eyes"] > 0, 0.9, rng.uniform(0.05, 0.7) * (1 + 0.6 * masks["lips"] + 0.3 * masks["flush"]))
    details[:, 3] = masks["skin"] * (1 - 0.5 * masks["lips"])
    look = np.zeros(8, np.float32)
    look[:4] = rng.uniform(0.02, 0.12), rng.random() ** 3, rng.uniform(0.02, 0.16), max(rng.uniform(-0.15, 0.12), 0)
    look[4:7] = hair_colour * rng.uniform(0.5, 1.0)
    look[7] = rng.choice([0.0, rng.uniform(60, 500), -rng.uniform(60, 500), 700.0], p=[0.5, 0.15, 0.15, 0.2])
    return Person(
        identity.astype(np.float32), rest.astype(np.float32), vertex_normals(rest, asset.faces), bend.astype(np.float32),
        albedo.astype(np.float32), details, darkness, hair_colour, look, shifts, density.astype(np.float32),
    )  # fmt: skip


def _smooth_bend(points: np.ndarray, rng: np.random.Generator, waves: int = 6) -> np.ndarray:
    """A random smooth vector field over the head, spread about 1, from a few sine waves 12 to 40 cm long."""
    frequency = rng.normal(size=(waves, 3))
    frequency *= 2 * np.pi / rng.uniform(0.12, 0.4, waves)[:, None] / np.linalg.norm(frequency, axis=1, keepdims=True)
    phase = rng.uniform(0, 2 * np.pi, waves)
    return np.sin(points @ frequency.T + phase) @ rng.normal(0, 1, (waves, 3)) / np.sqrt(waves)


def random_expression(rng: np.random.Generator) -> np.ndarray:
    """ARKit coefficients in [0, 1]: named faces that people make, half of the time some single shapes as well."""
    names = head_kit().asset.expression_names
    values = np.zeros(len(names), np.float32)

    def add(name: str, amount: float) -> None:
        values[names.index(name)] += amount

    for group in rng.choice(list(_EXPRESSION_GROUPS), rng.choice([0, 1, 2, 3], p=[0.15, 0.35, 0.35, 0.15]), replace=False):
        strength = rng.uniform(0.2, 1.0)
        for pair in _EXPRESSION_GROUPS[group]:
            amount = strength * rng.uniform(0, 1)
            for name in pair:
                add(name, amount * rng.uniform(0.75, 1.0))
    if rng.random() < 0.5:
        for name in rng.choice(names, rng.integers(1, 5), replace=False):
            if name != "tongueOut" or rng.random() < 0.2:
                add(str(name), rng.uniform(0, 0.9))
    values = values.clip(0, 1)
    if values[names.index("mouthClose")] > values[names.index("jawOpen")]:  # closes what the jaw opens, no more
        values[names.index("mouthClose")] = values[names.index("jawOpen")]
    return values


@dataclass(frozen=True)
class Pose:
    """Rotations as axis-angle vectors, radians: the neck's (head against shoulders) and both eyes'."""

    neck: np.ndarray
    eyes: np.ndarray


def pose_head(person: Person, expression: np.ndarray, pose: Pose) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """The posed head; and rotation and translation that the neck joint gives to what the skull wears (hair, glasses)."""
    kit = head_kit()
    with torch.no_grad():
        shaped = kit.model.with_shape(torch.as_tensor(person.identity), torch.as_tensor(expression))
        shaped = type(shaped)(shaped.model, shaped.vertices + torch.as_tensor(person.bend), shaped.joints)
        posed = shaped.with_pose(neck_pose=torch.as_tensor(pose.neck, dtype=torch.float32), eyes_pose=torch.as_tensor(pose.eyes, dtype=torch.float32))
        vertices = posed.skin().numpy()
        linear, offset = posed.joint_transforms()
    mesh = Mesh(
        vertices, kit.asset.faces.astype(np.int32), kit.asset.v_template, person.albedo, person.details, kit.material, HEAD
    )
    return mesh, linear[1].numpy(), offset[1].numpy()
