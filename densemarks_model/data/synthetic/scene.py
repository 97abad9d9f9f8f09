"""One synthetic picture: a person, a pose, a camera, light, and the exact canonical coordinates behind every pixel.

What the maps hold. *Coordinates* belong to the bald head's surface that the line of sight meets first, whatever hair,
glasses or hands lie in front: hair has no surface of its own that people share, and a head model has none at all. Beside
the head they continue with the nearest outline's. *Head* is what shows: skin, eyes, mouth, hair; not clothes, hats,
hands, glasses. *Surface* is where the line of sight meets the bald head, hidden or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from densemarks_model.data.synthetic import effects, light, noise
from densemarks_model.data.synthetic.dressing import Extras, companion, dress, no_extras
from densemarks_model.data.synthetic.faults import blur_along, continue_border, cut_border, random_motion, stick
from densemarks_model.data.synthetic.looks import with_look
from densemarks_model.data.synthetic.mesh import HAIR_PART, HEAD, Mesh, vertex_normals
from densemarks_model.data.synthetic.mouths import strong_expression
from densemarks_model.data.synthetic.people import Person, head_kit, pose_head, random_expression, random_person
from densemarks_model.data.synthetic.repertoire import FULL, Repertoire
from densemarks_model.data.synthetic.shading import shade
from densemarks_model.data.synthetic.views import View, random_pose, random_view, wide_pose, wide_view
from tracker.rendering.canvas import MeshCanvas

EMPTY_SHARE = 0.03
"""How many pictures show no head."""


@dataclass(frozen=True)
class Sample:
    """A picture and its maps.

    Attributes:
        image: ``(S, S, 3)`` uint8 RGB. coordinates: ``(M, M, 3)`` float32, [0, 1]. head, surface: ``(M, M)`` float32, coverage.
        yaw, pitch: of the head against the camera, degrees.
    """

    image: np.ndarray
    coordinates: np.ndarray
    head: np.ndarray
    surface: np.ndarray
    yaw: float
    pitch: float


class SceneRenderer:
    """Makes samples; keeps its canvases. Not to be shared between threads.

    Args:
        image_size, map_size: sides of the pictures and of the maps, pixels; the first a multiple of the second.
        repertoire: what occurs in the pictures, and how often.
    """

    def __init__(self, image_size: int = 256, map_size: int = 64, repertoire: Repertoire = FULL) -> None:
        if image_size % map_size:
            raise ValueError(f"image_size {image_size} is not a multiple of map_size {map_size}")
        self.image_size, self.map_size, self.repertoire = image_size, map_size, repertoire
        self._picture = MeshCanvas(2 * image_size, 2 * image_size)
        self._bald = MeshCanvas(image_size, image_size)
        self._shadow = MeshCanvas(320, 320)

    def sample(self, seed: int, index: int) -> Sample:
        """Picture number ``index`` of the series ``seed``; always the same."""
        rng = np.random.default_rng([seed, index])
        if np.random.default_rng([seed, index, 1]).random() < EMPTY_SHARE:
            return self._empty(rng, light.random_world(self.repertoire.panorama_share, np.random.default_rng([seed, index, 3])))
        extra, often = np.random.default_rng([seed, index, 2]), self.repertoire
        person, age = random_person(rng), "adult"
        expression = random_expression(rng)
        if extra.random() < often.look_share:
            person, age = with_look(person, extra)
        strong = extra.random() < often.mouth_share
        if strong:
            expression = strong_expression(expression, extra)
        yaw, pitch, roll, pose = wide_pose(random_pose(rng), often, extra, sideways=strong)
        head, skull_rotation, skull_offset = pose_head(person, expression, pose)
        view = wide_view(random_view(head, yaw, pitch, roll, skull_rotation, rng), head, often, extra)
        meshes, hands = self.dress(person, head, skull_rotation, skull_offset, view, rng, Extras(often, extra, age))
        if extra.random() < often.companion_share:
            meshes += companion(view, meshes[0].vertices[head_kit().outside].mean(0), extra)
        world = light.random_world(often.panorama_share, np.random.default_rng([seed, index, 3]), view.rotation[:, 1])
        linear, parts = self.draw(meshes, person, view, rng, world)
        coordinates, surface = self._truth(meshes[0], view)
        if extra.random() < often.blur_share:
            motion = self._bald.interpolate(random_motion(meshes[0].vertices, view, extra, self.image_size), meshes[0].faces)[::-1]
            linear = blur_along(linear, motion, self._bald.rasterized[::-1, :, 3] > 0)
        image, shown = self._finish(linear, parts, hands, rng, extra)
        return Sample(image, coordinates, shown, surface, yaw, pitch)

    def _finish(
        self, linear: np.ndarray, parts: np.ndarray, hands: int, rng: np.random.Generator, extra: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """From linear light to the picture with its faults, and the mask ``(M, M)`` of what still shows."""
        size, cells = self.image_size, self.map_size
        image = effects.develop(linear, cv2.resize(parts, (size, size), interpolation=cv2.INTER_AREA) > 0.5, rng)
        visible = parts
        if rng.random() < 0.12:
            visible = cut_border(image, visible, rng)
        elif extra.random() < self.repertoire.border_share:
            visible = continue_border(image, visible, extra)
        if hands == 0 and rng.random() < 0.06:
            visible = stick(image, visible, rng)
        image = effects.degrade(image, rng)
        return image, cv2.resize(visible, (cells, cells), interpolation=cv2.INTER_AREA)

    def _empty(self, rng: np.random.Generator, world: light.World | None) -> Sample:
        """A background alone: networks must learn that there may be no head."""
        size, cells = self.image_size, self.map_size
        picture = effects.background(size, rng, world)
        image = effects.degrade(effects.develop(picture, np.ones((size, size), bool), rng), rng)
        nothing = np.zeros((cells, cells), np.float32)
        return Sample(image, np.full((cells, cells, 3), 0.5, np.float32), nothing, nothing, 0.0, 0.0)

    def dress(
        self, person: Person, head: Mesh, rotation: np.ndarray, offset: np.ndarray, view: View, rng: np.random.Generator, extras: Extras | None = None
    ) -> tuple[list[Mesh], int]:
        """Every mesh in camera space, the head first; and how many hands there are. See ``dressing.dress``."""
        return dress(person, head, rotation, offset, view, rng, extras or no_extras())

    def draw(
        self, meshes: list[Mesh], person: Person, view: View, rng: np.random.Generator, world: light.World | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Linear picture ``(S, S, 3)`` and coverage ``(2S, 2S)`` by head and hair, rows from the top; lit by formula without a world."""
        counts = np.cumsum([0] + [len(m.vertices) for m in meshes])
        tri = np.concatenate([m.faces + start for m, start in zip(meshes, counts[:-1], strict=True)]).astype(np.int32)
        material = np.concatenate([np.broadcast_to(m.material, len(m.faces)) for m in meshes]).astype(np.int64)
        part = np.concatenate([np.full(len(m.faces), m.part) for m in meshes])
        position = np.concatenate([m.vertices for m in meshes]).astype(np.float32)
        direction = np.concatenate([vertex_normals(m.vertices, m.faces) if m.directions is None else m.directions for m in meshes]).astype(np.float32)
        rest, albedo, details = (np.concatenate([getattr(m, k) for m in meshes]).astype(np.float32) for k in ("rest", "albedo", "details"))

        lighting = light.formula(rng) if world is None else world.lighting()
        centre = position[: head_kit().asset.n_vertices].mean(0)
        shadow, matrix = self._shadow_maps(position, tri, centre, lighting.lights[: lighting.casting, :3])
        rast = self._picture.rasterize(view.clip(position), tri)
        size = self.image_size
        back = effects.background(size, rng, world, view.crop)
        picture = np.ascontiguousarray(cv2.resize(back[::-1], (2 * size, 2 * size), interpolation=cv2.INTER_NEAREST), np.float32)
        shade(
            rast, tri, material, position, direction, rest, albedo, details, noise.volume(), person.shifts, person.look,
            lighting.lights, lighting.ambient, shadow, matrix, np.append(centre, lighting.hair_spread).astype(np.float32),
            lighting.scatter, lighting.mirrored, lighting.to_world, picture,
        )  # fmt: skip
        face = rast[..., 3].astype(np.int64) - 1
        head = (face >= 0) & np.isin(part, (HEAD, HAIR_PART))[np.maximum(face, 0)]
        linear = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)[::-1]
        return np.maximum(linear, 0), np.ascontiguousarray(head[::-1], np.float32)

    def _shadow_maps(self, position: np.ndarray, tri: np.ndarray, centre: np.ndarray, lights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth pictures ``(K, 320, 320)`` around ``centre`` from far lights, and the ``(K, 3, 4)`` maps to them; see :meth:`_shadow_map`."""
        maps = [self._shadow_map(position, tri, centre, towards) for towards in lights]
        if not maps:
            return np.zeros((0, 320, 320), np.float32), np.zeros((0, 3, 4), np.float32)
        return np.stack([depth for depth, _ in maps]), np.stack([matrix for _, matrix in maps])

    def _shadow_map(self, position: np.ndarray, tri: np.ndarray, centre: np.ndarray, towards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth picture from a far light; and the ``(3, 4)`` map from camera space to its x, y in [-1, 1] and depth, metres."""
        reach = 0.34
        side = np.cross([0.0, 1.0, 0.01], towards)
        side /= np.linalg.norm(side)
        axes = np.stack([side, np.cross(towards, side), -towards])
        local = (position - centre) @ axes.T
        clip = np.ones((len(local), 4), np.float32)
        clip[:, :2], clip[:, 2] = local[:, :2] / reach, local[:, 2] / 1.5
        picture = self._shadow.rasterize(clip, tri)
        depth = np.where(picture[..., 3] > 0, picture[..., 2] * 1.5, 10.0).astype(np.float32)
        matrix = np.concatenate([axes, -(axes @ centre)[:, None]], 1)
        matrix[:2] /= reach
        return depth, matrix.astype(np.float32)

    def _truth(self, head: Mesh, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates ``(M, M, 3)``, continued beyond the outline, and coverage ``(M, M)`` of the bald head."""
        rast = self._bald.rasterize(view.clip(head.vertices), head.faces)
        canonical = self._bald.interpolate(head_kit().asset.canonical, head.faces)
        cover = (rast[::-1, :, 3] > 0).astype(np.float32)
        cells = self.map_size
        weight = cv2.resize(cover, (cells, cells), interpolation=cv2.INTER_AREA)
        total = cv2.resize(canonical[::-1] * cover[..., None], (cells, cells), interpolation=cv2.INTER_AREA)
        coordinates = total / np.maximum(weight, 1e-6)[..., None]
        return extended(coordinates, weight > 0), weight


def extended(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``values`` ``(h, w, c)`` with the nearest known ones where ``known`` ``(h, w)`` is false; halves where nothing is."""
    if not known.any():
        return np.full_like(values, 0.5, dtype=np.float32)
    _, labels = cv2.distanceTransformWithLabels((~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    lookup = np.zeros((labels.max() + 1, values.shape[2]), np.float32)
    lookup[labels[known]] = values[known]
    return lookup[labels]
