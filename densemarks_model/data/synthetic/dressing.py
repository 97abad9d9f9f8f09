"""Puts hair, beards, clothes and things on a person, and sometimes a second person beside the first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from densemarks_model.crops import HeadCrop
from densemarks_model.data.synthetic import accessories, hair, hair_styles, palette, short_hair, worn
from densemarks_model.data.synthetic.mesh import OTHER, Mesh, vertex_normals
from densemarks_model.data.synthetic.people import Person, head_kit, pose_head, random_expression, random_person
from densemarks_model.data.synthetic.repertoire import PLAIN, Repertoire
from densemarks_model.data.synthetic.views import View, axis, random_pose


@dataclass(frozen=True)
class Extras:
    """What the repertoire adds to a person.

    Attributes:
        repertoire: how often. rng: the stream that decides it. age: of ``looks.AGES``.
        strands: share of the ribbons to draw, for people who matter less.
    """

    repertoire: Repertoire
    rng: np.random.Generator
    age: str = "adult"
    strands: float = 1.0


def no_extras() -> Extras:
    """Nothing beyond the plain generator."""
    return Extras(PLAIN, np.random.default_rng(0))


def dress(
    person: Person, head: Mesh, rotation: np.ndarray, offset: np.ndarray, view: View, rng: np.random.Generator, extras: Extras
) -> tuple[list[Mesh], int]:
    """Every mesh in camera space, the head first; and how many hands there are.

    Args:
        head: posed, in the head's frame. rotation, offset: of the skull, see ``people.pose_head``.
        rng: the plain generator's stream; extras draw from their own.
    """
    on_skull = []
    covered = rng.random() < 0.12
    if covered:
        on_skull += accessories.hat(person, rng)
    elif rng.random() < 0.06:
        on_skull += accessories.headphones(person, rng)
    if rng.random() < 0.28:
        on_skull += accessories.glasses(person, rng)
    shoulders = accessories.shoulders(person, rng)
    more_skull, on_body = _more_worn(person, head, shoulders, covered, extras)
    on_skull += more_skull
    head, strands = _hair(person, head, shoulders, (rotation, offset), view, covered, rng, extras)
    on_skull += strands
    head, strands_on_face = _face_hair(person, head, view, extras)
    to_camera = [m.moved(rotation, offset).moved(view.rotation, view.translation) for m in on_skull]
    meshes = [head.moved(view.rotation, view.translation)]
    meshes += to_camera + [m.moved(view.rotation, view.translation) for m in shoulders + on_body + strands_on_face]
    hands = held_up_hands(person, meshes[0], rng)
    return meshes + hands, len(hands)


def _hair(
    person: Person, head: Mesh, shoulders: list[Mesh], skull: tuple[np.ndarray, np.ndarray], view: View, covered: bool, rng: np.random.Generator,
    extras: Extras,
) -> tuple[Mesh, list[Mesh]]:
    """The head with its scalp coloured, and the hair on it as ribbons in the skull's frame, none for bald heads."""  # fmt: skip
    rotation, offset = skull
    skull_to_camera = view.rotation @ rotation
    eye = skull_to_camera.T @ (-view.translation) - rotation.T @ offset
    style = hair.random_style(rng)
    density = grown = person.hair_density
    wide, strands = None, []
    if extras.rng.random() < extras.repertoire.style_share:
        wide = hair_styles.wide_style(extras.rng)
        density = grown = hair_styles.hairline(density, person.rest, extras.rng, worn=wide.kind)
    if covered:
        density = density * (person.rest[:, 1] < rng.uniform(0.03, 0.07))
    style = wide or style
    if style is not None and density.sum() > 20:
        chance = rng if wide is None else extras.rng
        style = replace(style, strands=int(style.strands * extras.strands), width=style.width / np.sqrt(extras.strands))
        if wide is None:
            outside, body = head_kit().outside, shoulders[0]
            obstacles = (
                np.concatenate([person.rest[outside], body.vertices]),
                np.concatenate([person.normals[outside], vertex_normals(body.vertices, body.faces)]),
            )
            path, along = hair.grow(style, person.rest, person.normals, head.faces, density, obstacles, rng)
        else:
            down = rotation.T @ [0.0, -1.0, 0.0]  # as the body hangs
            if abs(np.degrees(view.crop.roll)) > 60 and extras.rng.random() < 0.5:
                down = skull_to_camera.T @ [0.0, -1.0, 0.0]  # as cameras are held
            obstacles = _obstacles(head, shoulders, rotation, offset)
            path, along = hair_styles.grow_wide(style, person.rest, person.normals, head.faces, density, obstacles, extras.rng, down)
        strands.append(hair.ribbons(path, along, eye, style.width, person.hair_colour, chance.uniform(0.2, 1.0), chance))
    if style is not None or rng.random() < 0.3:  # the scalp under hair, or a shaved one's shadow
        share = (grown * (0.85 if style is not None else rng.uniform(0.1, 0.6)))[:, None]
        head = replace(head, albedo=head.albedo * (1 - share) + 0.8 * person.hair_colour * share)
    return head, strands


def held_up_hands(person: Person, head: Mesh, rng: np.random.Generator) -> list[Mesh]:
    """Up to two hands near the face of the ``head`` in camera space."""
    hands = []
    for _ in range(int(rng.choice([0, 1, 2], p=[0.86, 0.11, 0.03]))):
        face = head.vertices[head_kit().outside]
        at = face[rng.integers(len(face))]
        towards = -at / np.linalg.norm(at)
        at = at + towards * rng.uniform(0.02, 0.12) + rng.normal(0, 0.05, 3)
        tone = person.albedo[head_kit().asset.regions["forehead"]].mean(0) * rng.uniform(0.85, 1.1)
        hands.append(accessories.hand(tone, at, rng))
    return hands


def _obstacles(head: Mesh, shoulders: list[Mesh], rotation: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals of the posed face and of shoulders and clothes, in the frame of the skull that carries the hair."""
    kit = head_kit()
    use = np.union1d(kit.outside, np.flatnonzero(kit.masks["eyes"] > 0))
    points, normals = [head.vertices[use]], [vertex_normals(head.vertices, head.faces)[use]]
    for mesh in shoulders[:2]:  # skin, and the clothes on it
        used = np.unique(mesh.faces)
        points.append(mesh.vertices[used])
        normals.append(vertex_normals(mesh.vertices, mesh.faces)[used])
    return (np.concatenate(points) - offset) @ rotation, np.concatenate(normals) @ rotation


def _more_worn(person: Person, head: Mesh, shoulders: list[Mesh], covered: bool, extras: Extras) -> tuple[list[Mesh], list[Mesh]]:
    """What the wider set adds on the skull, and on the body around the posed head."""
    rng, share = extras.rng, extras.repertoire.worn_share
    on_skull, on_body = [], []
    cloth = shoulders[1].albedo[0] if len(shoulders) > 1 else palette.thing(rng)
    if rng.random() < share:
        colour = np.clip(cloth * rng.uniform(0.7, 1.2), 0, 0.95) if rng.random() < 0.6 else palette.thing(rng)
        kind = rng.choice(["turtleneck", "shirt", "coat", "scarf", "hood"], p=[0.17, 0.3, 0.18, 0.2, 0.15])
        if kind == "scarf":
            on_body += worn.scarf(head, rng)
        elif kind == "turtleneck":
            on_body += worn.turtleneck(head, colour, rng)
        elif kind == "hood":
            on_body += worn.hood_down(head, colour, rng)
        else:
            on_body += worn.open_collar(head, colour, rng, coat=kind == "coat")
    if rng.random() < share:
        kind = rng.choice(["rings", "band", "headset"], p=[0.6, 0.2, 0.2])
        if kind == "rings":
            on_skull += worn.ear_rings(person, rng)
        elif not covered:
            on_skull += worn.head_band(person, rng) if kind == "band" else worn.headset(person, rng)
    if rng.random() < extras.repertoire.mask_share:
        on_body += worn.face_mask(head, rng)
    return on_skull, on_body


def _face_hair(person: Person, head: Mesh, view: View, extras: Extras) -> tuple[Mesh, list[Mesh]]:
    """The head with a shadow under its beard, and beards, brows and lashes of strands, in the head's frame."""
    rng, repertoire, meshes = extras.rng, extras.repertoire, []
    eye = view.rotation.T @ -view.translation
    if rng.random() < repertoire.beard_share and extras.age != "child":
        mesh, density = short_hair.beard(person, head, eye, rng)
        meshes.append(mesh)
        details = head.details.copy()
        brows = np.asarray(head_kit().masks["brows"]) > 0.05
        details[:, 1] = np.where(brows, details[:, 1], np.clip(0.8 * density, 0, 0.7))
        head = replace(head, details=details)
    if rng.random() < repertoire.fine_hair_share:
        meshes.append(short_hair.brows(person, head, eye, rng))
        if rng.random() < 0.6:
            meshes.append(short_hair.lashes(head, eye, rng))
    return head, meshes


def companion(view: View, centre: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A second person beside, behind or in front of the first, in camera space; nothing of it counts as head.

    Args:
        view: of the first person. centre: ``(3,)`` of their head, camera space.
    """
    person, expression = random_person(rng), random_expression(rng)
    _, _, _, pose = random_pose(rng)
    head, rotation, offset = pose_head(person, expression, pose)
    depth = -centre[2]
    kind = rng.choice(["beside", "behind", "before"], p=[0.45, 0.35, 0.2])
    room = 0.5 * view.crop.side * depth + 0.03  # from the crop's middle to where heads are cut in half, metres
    if kind == "before" and depth > 0.6:
        depth, lateral = depth - rng.uniform(0.1, 0.22), rng.uniform(0.15, 0.22)
    elif kind == "behind":
        behind = rng.uniform(0.15, 1.0)
        depth, lateral = depth + behind, rng.uniform(0.07, max(min(room, 0.25), 0.1)) * (1 + behind / depth)
    else:
        depth, lateral = depth + rng.normal(0, 0.03), rng.uniform(0.16, max(min(room, 0.28), 0.18))
    angle = rng.normal(0, 25) + (180 if rng.random() < 0.5 else 0)
    angle = np.deg2rad(angle) - view.crop.roll  # beside as the crop sees it
    place = centre * depth / -centre[2] + lateral * np.array([np.cos(angle), np.sin(angle), 0.0])
    turn = axis(*np.deg2rad([rng.normal(0, 14), rng.uniform(-110, 110), rng.normal(0, 12) - np.degrees(view.crop.roll)]))
    turn = turn @ rotation.T
    translation = place - turn @ head.vertices[head_kit().outside].mean(0)
    other = View(turn, translation, HeadCrop(view.crop.center, view.crop.side, view.crop.roll), 0.0, 0.0)
    meshes, _ = dress(person, head, rotation, offset, other, rng, Extras(PLAIN, rng, strands=0.4))
    shade = rng.uniform(0.6, 1.25)  # its own light, as far as one scene has it
    brow = person.details[:, 1:2]
    first = meshes[0]
    # brows and stubble take the first person's colour in the shader, so here they are painted on
    first = replace(first, albedo=first.albedo + (person.hair_colour - first.albedo) * 0.8 * brow, details=first.details * [1, 0, 1, 1])
    return [replace(m, part=OTHER, albedo=np.clip(m.albedo * shade, 0, 1)) for m in [first, *meshes[1:]]]
