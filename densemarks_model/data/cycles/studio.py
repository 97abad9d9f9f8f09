"""A studio of one person: set up once, photographed in as many poses as wanted.

``Studio.set_up`` dresses a person and lights the room; ``Studio.photograph`` (linear light and coverage) and ``Studio.frame``
(8 bits) move vertices, hairs, objects and the camera and render. The world is camera space: the panorama stands still
against the camera while heads and bodies move.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densemarks_model.data.cycles import nodes, strands
from densemarks_model.data.cycles.blender import BlenderScene
from densemarks_model.data.cycles.camera import OPENGL_TO_BLENDER, background, lens_of, panorama_axes
from densemarks_model.data.cycles.film import Film
from densemarks_model.data.cycles.wardrobe import Wardrobe
from densemarks_model.data.synthetic import accessories, hair, hair_styles
from densemarks_model.data.synthetic.mesh import CLOTH, PLASTIC, SKIN, Mesh, vertex_normals
from densemarks_model.data.synthetic.people import Person, head_kit
from densemarks_model.data.synthetic.views import View
from densemarks_model.errors import ModelError

STRANDS = 26000
"""Hairs on a head; few of them are grown, the others are mixed from these."""

_RIM, _DARK_LENS = 240, 41
"""Vertices of one rim of ``accessories.glasses`` (40 around, 6 about the wire), and of one lens of sunglasses."""


@dataclass(frozen=True)
class Photograph:
    """``linear``: ``(S, S, 3)`` float32 light. ``head``: ``(S, S)`` float32, coverage by skin and hair, 0 to 1."""

    linear: np.ndarray
    head: np.ndarray


class Studio:
    """One scene of Blender; one per process.

    Args:
        size: side of the pictures, pixels. samples: paths a pixel before denoising. threads: 0 for all cores.
        canonical: photographs hold places in the cube instead of light, and no short hairs stand in front of them (for tests).
    """

    def __init__(self, size: int, samples: int = 8, threads: int = 0, canonical: bool = False) -> None:
        self.size, self._canonical = size, canonical
        self._scene = BlenderScene(size, samples, threads, canonical)
        self._person: Person | None = None

    def set_up(
        self, person: Person, wardrobe: Wardrobe, panorama: np.ndarray | str | Path, turn: float = 0.0, up: tuple[float, float, float] = (0.0, 1.0, 0.0),
        to_world: np.ndarray | None = None,
    ) -> None:
        """Dress a person and light the room; what was there before is removed.

        Args:
            panorama: ``(h, w, 3)`` float32 linear RGB, or an image file of it. turn: radians by which it is turned about its
                vertical, to the right. up: the panorama's vertical in camera space. to_world: ``(3, 3)`` from camera space to the
                panorama's own OpenGL axes, instead of ``up``.
        """  # fmt: skip
        scene = self._scene
        scene.clear()
        self._person, self._wardrobe = person, wardrobe
        self._film = Film(np.random.default_rng([wardrobe.seed, 5]))
        self._axes = panorama_axes(np.array(up)) if to_world is None else OPENGL_TO_BLENDER @ to_world
        self._panorama = _turned(_as_light(panorama, self._scene.bpy), turn)
        self._seen: tuple | None = None
        scene.light(self._panorama, self._axes)
        self._cloths: dict[int, Any] = {}
        self._loose: list[Any] = []
        body = accessories.shoulders(person, np.random.default_rng([wardrobe.clothes, 0]))
        self._body = [self._thing(mesh) for mesh in body]
        self._skull = self._worn(person, wardrobe)
        head_colour = self._grow(person, wardrobe, body[0])
        self._head = self._head_object(person, head_colour)
        self._short = [] if self._canonical else self._short_hairs(person, wardrobe)

    def frame(self, head: Mesh, skull_rotation: np.ndarray, skull_offset: np.ndarray, view: View) -> np.ndarray:
        """A picture ``(size, size, 3)`` uint8 RGB, exposed like the first one after :meth:`set_up`; arguments as :meth:`photograph`."""
        shot = self.photograph(head, skull_rotation, skull_offset, view)
        return self._film.develop(shot.linear, shot.head > 0.5)

    def photograph(self, head: Mesh, skull_rotation: np.ndarray, skull_offset: np.ndarray, view: View, loose: tuple[Mesh, ...] = ()) -> Photograph:
        """Render one pose.

        Args:
            head, skull_rotation, skull_offset: of ``people.pose_head``. view: where the head is and what the picture shows.
            loose: bodies in camera space, in this picture only (hands).
        """
        if self._person is None:
            raise ModelError("set the studio up before photographing in it")
        scene = self._scene
        scene.move_vertices(self._head, head.vertices)
        scene.place(self._head, view.rotation, view.translation)
        for rooted, thing in self._short:
            scene.move_strands(thing, rooted.on(head.vertices))
            scene.place(thing, view.rotation, view.translation)
        for thing in self._body:
            scene.place(thing, view.rotation, view.translation)
        for thing in self._skull:
            scene.place(thing, view.rotation @ skull_rotation, view.rotation @ skull_offset + view.translation)
        for thing in self._loose:
            scene.remove(thing)
        self._loose = [self._thing(mesh) for mesh in loose]
        scene.aim(lens_of(view.crop))
        key = (*map(float, view.crop.center), float(view.crop.side), float(view.crop.roll))
        if key != self._seen:
            scene.set_background(background(self._panorama, self._axes, view.crop, self.size, self._wardrobe.blur))
            self._seen = key
        pixels = scene.render()
        return Photograph(np.maximum(pixels[..., :3], 0), np.clip(pixels[..., 3], 0, 1))

    def _thing(self, mesh: Mesh) -> Any:
        """An object that is not the head: clothes, skin of shoulders and hands, plastic."""
        bpy = self._scene.bpy
        kind = int(np.asarray(mesh.material).flat[0])
        if kind not in self._cloths:
            rng = np.random.default_rng([self._wardrobe.clothes, 3])
            if kind == SKIN:
                made = nodes.skin(bpy, self._person.look, head=False)
            elif kind == CLOTH:
                made = nodes.cloth(bpy, float(rng.uniform(250, 900)), float(rng.uniform(0.3, 1.0)))
            else:
                made = nodes.plastic(bpy, float(rng.uniform(0.1, 0.4)), float(rng.random() < 0.25))
            self._cloths[kind] = self._scene.keep(made)
        attributes = {"albedo": np.clip(mesh.albedo, 0, 0.95), "rest": mesh.rest, "gloss": mesh.details[:, 2]}
        vertices = even_rims(mesh.vertices, mesh.faces) if kind == CLOTH else mesh.vertices
        return self._scene.mesh(vertices, mesh.faces, attributes, [self._cloths[kind]])

    def _worn(self, person: Person, wardrobe: Wardrobe) -> list[Any]:
        """Hat, headphones and glasses with their lenses."""
        things = []
        if wardrobe.hat is not None:
            things += [self._thing(m) for m in accessories.hat(person, np.random.default_rng([wardrobe.hat, 1]))]
        if wardrobe.headphones is not None:
            things += [self._thing(m) for m in accessories.headphones(person, np.random.default_rng([wardrobe.headphones, 1]))]
        if wardrobe.glasses is not None:
            meshes = accessories.glasses(person, np.random.default_rng([wardrobe.glasses, 2]))
            dark = [m for m in meshes if len(m.vertices) == _DARK_LENS]
            rims = [m for m in meshes if len(m.vertices) == _RIM and m.material == PLASTIC]
            things += [self._thing(m) for m in meshes if len(m.vertices) != _DARK_LENS]
            tint = dark[0].albedo[0] * 2 + 0.01 if dark else np.full(3, 0.96)
            made = self._scene.keep(nodes.lens(self._scene.bpy, tint, 1.5 if dark else 0.8))
            things += [self._scene.mesh(*_pane(m), {}, [made]) for m in rims]
        return things

    def _grow(self, person: Person, wardrobe: Wardrobe, body: Mesh) -> np.ndarray:
        """Scalp hair, appended to what moves with the skull; returns the head's albedo with the scalp's shade under it."""
        density = person.hair_density
        shade = (density * wardrobe.scalp_shade)[:, None]
        albedo = person.albedo * (1 - shade) + 0.8 * person.hair_colour * shade
        if wardrobe.hat is not None:
            density = density * (person.rest[:, 1] < wardrobe.hat_line)
        if wardrobe.style is None or density.sum() <= 20:
            return albedo
        outside = head_kit().outside
        obstacles = (
            np.concatenate([person.rest[outside], body.vertices]),
            np.concatenate([person.normals[outside], vertex_normals(body.vertices, body.faces)]),
        )
        rng = np.random.default_rng([wardrobe.seed, 3])
        grow = hair_styles.grow_wide if isinstance(wardrobe.style, hair_styles.WideStyle) else hair.grow
        guides, _ = grow(wardrobe.style, person.rest, person.normals, head_kit().asset.faces, density, obstacles, rng)
        short = wardrobe.style.length < 0.02
        grown = strands.thicken(np.asarray(guides, np.float32), STRANDS * (2 if short else 1), 0.00008 if short else 0.00013, rng)
        material = self._scene.keep(nodes.hair(self._scene.bpy, person.hair_colour, float(rng.uniform(0.2, 1.0))))
        self._skull.append(self._scene.strands(grown.points, grown.radius, grown.tone, material))
        return albedo

    def _head_object(self, person: Person, albedo: np.ndarray) -> Any:
        """The head with skin, eyes and mouth."""
        kit, scene = head_kit(), self._scene
        asset, masks = kit.asset, kit.masks
        stubble = 0.45 * person.details[:, 1:2] * (0.4 + 0.6 * (masks["brows"][:, None] < 0.05))
        albedo = albedo * (1 - stubble) + person.look[4:7] * stubble
        place = np.ones((asset.n_vertices, 3), np.float32)
        for side in ("left", "right"):
            ball = asset.regions[f"{side}_eyeball"]
            front = asset.v_template[ball].mean(0) * [1, 1, 0] + [0, 0, asset.v_template[ball][:, 2].max()]
            place[ball] = asset.v_template[ball] - front
        ring = asset.regions["left_iris_ring"]
        radius = float(np.linalg.norm(place[ring], axis=1).mean())
        eyes, iris = masks["eyes"] > 0, (masks["iris"] > 0) & (masks["pupil"] == 0)
        inner = (masks["mouth"] + masks["teeth"] + masks["tongue"] > 0) & (masks["lips"] < 0.3)
        index = np.where(inner[asset.faces].all(1), 2, np.where(eyes[asset.faces].all(1), 1, 0))
        materials = [
            nodes.skin(scene.bpy, person.look),
            nodes.eye(scene.bpy, person.albedo[iris].mean(0), person.albedo[eyes & (masks["iris"] == 0)].mean(0), radius),
            nodes.mouth(scene.bpy),
        ]
        for material in materials:
            scene.keep(material)
        attributes = {
            "albedo": np.clip(albedo, 0.0, 0.95), "rest": asset.v_template, "gloss": person.details[:, 2], "eye": place, "canonical": asset.canonical,
        }  # fmt: skip
        return scene.mesh(person.rest, asset.faces, attributes, materials, index)

    def _short_hairs(self, person: Person, wardrobe: Wardrobe) -> list[tuple[strands.Rooted, Any]]:
        """Brows, lashes and beard, each with its object."""
        rng = np.random.default_rng([wardrobe.seed, 4])
        found = [strands.brows(person, rng), strands.lashes(person, rng)]
        if wardrobe.beard is not None:
            found.append(strands.beard(person, wardrobe.beard, rng, wardrobe.beard_kind))
        colour = person.look[4:7]
        material = self._scene.keep(nodes.hair(self._scene.bpy, colour, 0.3))
        dark = self._scene.keep(nodes.hair(self._scene.bpy, np.minimum(colour, 0.05) * 0.6, 0.3))
        pairs = []
        for k, rooted in enumerate(found):
            if rooted is not None:
                made = dark if k == 1 else material
                pairs.append((rooted, self._scene.strands(rooted.on(person.rest), rooted.radius, rooted.tone, made)))
        return pairs


def _pane(rim: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """A bulging pane of glass in a rim: vertices and faces."""
    loop = rim.vertices.reshape(-1, 6, 3).mean(1)
    centre = loop.mean(0)
    rings = [centre + (loop - centre) * r + [0, 0, 0.002 * (1 - r * r)] for r in (1.0, 0.66, 0.33)]
    count = len(loop)
    i = np.arange(count)
    j = (i + 1) % count
    faces = [np.stack([a, b, c], 1) for k in (0, 1) for a, b, c in ((k * count + i, k * count + j, (k + 1) * count + j), (k * count + i, (k + 1) * count + j, (k + 1) * count + i))]
    faces.append(np.stack([2 * count + i, 2 * count + j, np.full(count, 3 * count)], 1))
    return np.concatenate([*rings, centre[None] + [0, 0, 0.002]]).astype(np.float32), np.concatenate(faces).astype(np.int32)


def even_rims(vertices: np.ndarray, faces: np.ndarray, rounds: int = 12) -> np.ndarray:
    """``vertices`` ``(V, 3)`` with open edges smoothed along themselves: cloth is cut straight, not along triangles."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    open_edges = edges[count == 1]
    if not len(open_edges):
        return vertices
    pairs = np.concatenate([open_edges, open_edges[:, ::-1]])
    degree = np.bincount(pairs[:, 0], minlength=len(vertices))
    rim = degree >= 2
    smooth = np.array(vertices, np.float64)
    for _ in range(rounds):
        total = np.stack([np.bincount(pairs[:, 0], smooth[pairs[:, 1], k], len(vertices)) for k in range(3)], 1)
        smooth[rim] = 0.5 * smooth[rim] + 0.5 * total[rim] / degree[rim, None]
    return smooth.astype(np.float32)


def _turned(panorama: np.ndarray, turn: float) -> np.ndarray:
    return np.ascontiguousarray(np.roll(panorama, round(turn / (2 * np.pi) * panorama.shape[1]), 1))


def _as_light(panorama: np.ndarray | str | Path, bpy: Any) -> np.ndarray:
    """The panorama with mean radiance one half, so that clamps and the denoiser always mean the same."""
    if not isinstance(panorama, np.ndarray):
        image = bpy.data.images.load(str(Path(panorama).resolve()))
        width, height = image.size
        pixels = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(pixels)
        bpy.data.images.remove(image)
        panorama = pixels.reshape(height, width, 4)[::-1, :, :3]
    if panorama.ndim != 3 or panorama.shape[2] != 3:
        raise ModelError(f"a panorama has the shape (h, w, 3), not {panorama.shape}")
    height = len(panorama)
    weight = np.sin((np.arange(height) + 0.5) / height * np.pi)
    level = float((np.minimum(panorama, 1e5).mean((1, 2)) * weight).sum() / weight.sum())
    return np.ascontiguousarray(panorama * (0.5 / max(level, 1e-6)), np.float32)
