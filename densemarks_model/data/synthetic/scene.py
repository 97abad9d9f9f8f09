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

from densemarks_model.crops import HeadCrop, crop_around_landmarks
from densemarks_model.data.synthetic import accessories, effects, hair, noise, palette
from densemarks_model.data.synthetic.mesh import HAIR_PART, HEAD, Mesh, vertex_normals
from densemarks_model.data.synthetic.people import Person, Pose, head_kit, pose_head, random_expression, random_person
from densemarks_model.data.synthetic.shading import shade
from tracker.rendering.canvas import MeshCanvas

MARGIN = 1.12
"""How much larger pictures are than the crops of :mod:`densemarks_model.crops`, so that augmentation has room."""

EMPTY_SHARE = 0.03
"""How many pictures show no head."""

_NEAR, _FAR = 0.03, 30.0


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


@dataclass(frozen=True)
class View:
    """Where the head is and what the crop shows.

    Attributes:
        rotation: ``(3, 3)``, translation: ``(3,)`` head frame to camera space (OpenGL axes), metres.
        crop: in the image plane at unit focal length, y down.
        yaw, pitch: degrees.
    """

    rotation: np.ndarray
    translation: np.ndarray
    crop: HeadCrop
    yaw: float
    pitch: float

    def clip(self, points: np.ndarray) -> np.ndarray:
        """Clip coordinates ``(n, 4)`` float32 of points in camera space."""
        x, y, w = points[:, 0], -points[:, 1], -points[:, 2]
        cos, sin = np.cos(self.crop.roll), np.sin(self.crop.roll)
        dx, dy = x - self.crop.center[0] * w, y - self.crop.center[1] * w
        z = w * (_FAR + _NEAR) / (_FAR - _NEAR) - 2 * _FAR * _NEAR / (_FAR - _NEAR)
        scale = 2 / self.crop.side
        return np.stack([scale * (cos * dx + sin * dy), -scale * (cos * dy - sin * dx), z, w], 1).astype(np.float32)


class SceneRenderer:
    """Makes samples; keeps its canvases. Not to be shared between threads.

    Args:
        image_size, map_size: sides of the pictures and of the maps, pixels; the first a multiple of the second.
    """

    def __init__(self, image_size: int = 256, map_size: int = 64) -> None:
        if image_size % map_size:
            raise ValueError(f"image_size {image_size} is not a multiple of map_size {map_size}")
        self.image_size, self.map_size = image_size, map_size
        self._picture = MeshCanvas(2 * image_size, 2 * image_size)
        self._bald = MeshCanvas(image_size, image_size)
        self._shadow = MeshCanvas(320, 320)

    def sample(self, seed: int, index: int) -> Sample:
        """Picture number ``index`` of the series ``seed``; always the same."""
        rng = np.random.default_rng([seed, index])
        if np.random.default_rng([seed, index, 1]).random() < EMPTY_SHARE:
            return self._empty(rng)
        person = random_person(rng)
        expression = random_expression(rng)
        yaw, pitch, roll, pose = _random_pose(rng)
        head, skull_rotation, skull_offset = pose_head(person, expression, pose)
        view = _random_view(head, yaw, pitch, roll, skull_rotation, rng)
        meshes, hands = self.dress(person, head, skull_rotation, skull_offset, view, rng)
        linear, parts = self.draw(meshes, person, view, rng)
        coordinates, surface = self._truth(meshes[0], view)
        size, cells = self.image_size, self.map_size
        image = effects.develop(linear, cv2.resize(parts, (size, size), interpolation=cv2.INTER_AREA) > 0.5, rng)
        visible = parts
        if rng.random() < 0.12:
            visible = _cut_border(image, visible, rng)
        if hands == 0 and rng.random() < 0.06:
            visible = _stick(image, visible, rng)
        image = effects.degrade(image, rng)
        shown = cv2.resize(visible, (cells, cells), interpolation=cv2.INTER_AREA)
        return Sample(image, coordinates, shown, surface, yaw, pitch)

    def _empty(self, rng: np.random.Generator) -> Sample:
        """A background alone: networks must learn that there may be no head."""
        size, cells = self.image_size, self.map_size
        picture = effects.background(size, rng)
        image = effects.degrade(effects.develop(picture, np.ones((size, size), bool), rng), rng)
        nothing = np.zeros((cells, cells), np.float32)
        return Sample(image, np.full((cells, cells, 3), 0.5, np.float32), nothing, nothing, 0.0, 0.0)

    def dress(self, person: Person, head: Mesh, rotation: np.ndarray, offset: np.ndarray, view: View, rng: np.random.Generator) -> tuple[list[Mesh], int]:
        """Every mesh in camera space, the head first; and how many hands there are."""
        worn: list[Mesh] = []
        covered = rng.random() < 0.12
        if covered:
            worn += accessories.hat(person, rng)
        elif rng.random() < 0.06:
            worn += accessories.headphones(person, rng)
        if rng.random() < 0.28:
            worn += accessories.glasses(person, rng)
        shoulders = accessories.shoulders(person, rng)
        skull_to_camera = view.rotation @ rotation
        eye = skull_to_camera.T @ (-view.translation) - rotation.T @ offset
        style = hair.random_style(rng)
        density = person.hair_density
        if covered:
            density = density * (person.rest[:, 1] < rng.uniform(0.03, 0.07))
        if style is not None and density.sum() > 20:
            outside = head_kit().outside
            body = shoulders[0]
            obstacles = (
                np.concatenate([person.rest[outside], body.vertices]),
                np.concatenate([person.normals[outside], vertex_normals(body.vertices, body.faces)]),
            )
            strands, along = hair.grow(style, person.rest, person.normals, head.faces, density, obstacles, rng)
            worn.append(hair.ribbons(strands, along, eye, style.width, person.hair_colour, rng.uniform(0.2, 1.0), rng))
        if style is not None or rng.random() < 0.3:  # the scalp under hair, or a shaved one's shadow
            share = (person.hair_density * (0.85 if style is not None else rng.uniform(0.1, 0.6)))[:, None]
            head = Mesh(
                head.vertices, head.faces, head.rest, head.albedo * (1 - share) + 0.8 * person.hair_colour * share,
                head.details, head.material, head.part,
            )  # fmt: skip
        to_camera = [m.moved(rotation, offset).moved(view.rotation, view.translation) for m in worn]
        meshes = [head.moved(view.rotation, view.translation)]
        meshes += to_camera + [m.moved(view.rotation, view.translation) for m in shoulders]
        count = int(rng.choice([0, 1, 2], p=[0.86, 0.11, 0.03]))
        for _ in range(count):
            face = meshes[0].vertices[head_kit().outside]
            at = face[rng.integers(len(face))]
            towards = -at / np.linalg.norm(at)
            at = at + towards * rng.uniform(0.02, 0.12) + rng.normal(0, 0.05, 3)
            tone = person.albedo[head_kit().asset.regions["forehead"]].mean(0) * rng.uniform(0.85, 1.1)
            meshes.append(accessories.hand(tone, at, rng))
        return meshes, count

    def draw(self, meshes: list[Mesh], person: Person, view: View, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Linear picture ``(S, S, 3)`` and coverage ``(2S, 2S)`` by head and hair, rows from the top."""
        counts = np.cumsum([0] + [len(m.vertices) for m in meshes])
        tri = np.concatenate([m.faces + start for m, start in zip(meshes, counts[:-1], strict=True)]).astype(np.int32)
        material = np.concatenate([np.broadcast_to(m.material, len(m.faces)) for m in meshes]).astype(np.int64)
        part = np.concatenate([np.full(len(m.faces), m.part) for m in meshes])
        position = np.concatenate([m.vertices for m in meshes]).astype(np.float32)
        direction = np.concatenate([vertex_normals(m.vertices, m.faces) if m.directions is None else m.directions for m in meshes]).astype(np.float32)
        rest, albedo, details = (np.concatenate([getattr(m, k) for m in meshes]).astype(np.float32) for k in ("rest", "albedo", "details"))

        lights, ambient = random_lights(rng)
        opaque = position[: counts[-1]]
        shadow, matrix = self._shadow_map(opaque, tri, lights[0, :3])
        rast = self._picture.rasterize(view.clip(position), tri)
        size = self.image_size
        back = effects.background(size, rng)
        picture = np.ascontiguousarray(cv2.resize(back[::-1], (2 * size, 2 * size), interpolation=cv2.INTER_NEAREST), np.float32)
        shade(
            rast, tri, material, position, direction, rest, albedo, details, noise.volume(), person.shifts, person.look,
            lights, ambient, shadow, matrix, picture,
        )  # fmt: skip
        face = rast[..., 3].astype(np.int64) - 1
        head = (face >= 0) & np.isin(part, (HEAD, HAIR_PART))[np.maximum(face, 0)]
        linear = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)[::-1]
        return np.maximum(linear, 0), np.ascontiguousarray(head[::-1], np.float32)

    def _shadow_map(self, position: np.ndarray, tri: np.ndarray, towards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth picture from a far light; and the ``(3, 4)`` map from camera space to its x, y in [-1, 1] and depth, metres."""
        centre, reach = position[: head_kit().asset.n_vertices].mean(0), 0.34
        side = np.cross([0.0, 1.0, 0.01], towards)
        side /= np.linalg.norm(side)
        axes = np.stack([side, np.cross(towards, side), -towards])
        local = (position - centre) @ axes.T
        clip = np.concatenate([local[:, :2] / reach, local[:, 2:] / 1.5, np.ones((len(local), 1))], 1).astype(np.float32)
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


def _axis(x: float, y: float, z: float) -> np.ndarray:
    """Roll after yaw after pitch, radians: ``Rz Ry Rx``."""
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    pitch = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    roll = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return roll @ yaw @ pitch


def _random_pose(rng: np.random.Generator) -> tuple[float, float, float, Pose]:
    """Yaw, pitch and roll of the head in degrees, and the neck's and eyes' rotations."""
    kind = rng.random()
    yaw = rng.normal(0, 25) if kind < 0.5 else rng.uniform(-88, 88) if kind < 0.93 else rng.uniform(-180, 180)
    pitch = rng.normal(0, 13) if rng.random() < 0.88 else rng.uniform(-55, 55)
    roll = rng.normal(0, 9) if rng.random() < 0.9 else rng.uniform(-50, 50)
    turn = np.clip(yaw * rng.uniform(0, 0.7) + rng.normal(0, 8), -50, 50)
    neck = np.deg2rad([np.clip(pitch * rng.uniform(0, 0.8), -30, 35), turn, np.clip(roll * rng.uniform(0, 0.9), -25, 25)])
    eyes = np.deg2rad(np.concatenate([rng.normal(0, [7, 13, 0])] * 2) + rng.normal(0, 1, 6))
    return float(yaw), float(pitch), float(roll), Pose(neck, eyes)


def _random_view(head: Mesh, yaw: float, pitch: float, roll: float, skull: np.ndarray, rng: np.random.Generator) -> View:
    wanted = _axis(*np.deg2rad([pitch, yaw, roll]))
    rotation = wanted @ skull.T
    distance = np.exp(rng.uniform(np.log(0.35), np.log(3.0)))
    lateral = np.tan(np.deg2rad(rng.normal(0, 9, 2))) * distance
    translation = np.array([lateral[0], lateral[1], -distance]) - rotation @ head.vertices[head_kit().outside].mean(0)
    kit = head_kit()
    camera = head.vertices @ rotation.T + translation

    def plane(points: np.ndarray) -> np.ndarray:
        return np.stack([points[:, 0], -points[:, 1]], 1) / -points[:, 2:]

    if abs(yaw) < 100 and rng.random() < 0.8:
        crop = crop_around_landmarks(plane(kit.asset.landmarks["mediapipe"].positions(camera, kit.asset.faces)))
    else:
        outline = plane(camera[kit.outside])
        low, high = outline.min(0), outline.max(0)
        crop = HeadCrop((low + high) / 2, 1.3 * float((high - low).max()), -np.deg2rad(roll) * rng.uniform(0, 1))
    wild = rng.random() < 0.15
    side = crop.side * MARGIN * np.exp(rng.uniform(-0.25, 0.3) if wild else rng.normal(0, 0.08))
    shift = rng.uniform(-0.2, 0.2, 2) if wild else rng.normal(0, 0.04, 2)
    tilt = np.deg2rad(rng.uniform(-45, 45) if rng.random() < 0.15 else rng.normal(0, 7))
    return View(rotation, translation, HeadCrop(crop.center + shift * side, side, crop.roll + tilt), yaw, pitch)


def random_lights(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lights ``(L, 7)`` and ambient ``(2, 3)``, see ``shading.shade``."""
    count = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    lights = np.zeros((count, 7), np.float32)
    for k, light in enumerate(lights):
        side = rng.random() < 0.3
        turn = rng.uniform(-180, 180) if k else rng.uniform(60, 130) * rng.choice([-1, 1]) if side else rng.normal(0, 45)
        height = rng.uniform(-20, 70) if rng.random() < 0.85 else rng.uniform(-60, 0)
        a, b = np.deg2rad([turn, height])
        warm = rng.normal(0, 0.12)
        light[:3] = np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)
        light[3:6] = rng.uniform(0.4, 1.5) * (1.0 if k == 0 else 0.6) * np.array([1 + warm, 1, 1 - warm])
        light[6] = rng.uniform(0.6, 5)
    if rng.random() < 0.04:  # coloured light
        lights[:, 3:6] *= rng.uniform(0.2, 1.2, 3)
    above = rng.uniform(0.08, 0.8) * np.clip(rng.normal(1, 0.08, 3), 0.7, 1.3)
    below = above * rng.uniform(0.25, 0.9) * np.clip(rng.normal(1, 0.1, 3), 0.7, 1.3)
    return lights, np.stack([above, below]).astype(np.float32)


def _cut_border(image: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black out one or two sides, as upright crops that reach beyond a frame do; in place, returns what is left of the mask."""
    tilt = np.deg2rad(rng.normal(0, 8))  # the frame's against the crop's
    visible = visible.copy()
    for side in rng.choice(4, rng.choice([1, 2], p=[0.75, 0.25]), replace=False):
        depth, angle = rng.uniform(0.03, 0.38), tilt + side * np.pi / 2
        for array in (image, visible):
            position = (np.arange(len(array)) + 0.5) / len(array) - 0.5
            inward = np.cos(angle) * position[None, :] + np.sin(angle) * position[:, None]
            array[inward < depth - 0.5] = 0
    return visible


def _stick(image: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A microphone, cup or phone in front: an ellipse or box of one colour, in place; returns the mask without it."""
    size = image.shape[0]
    mask = np.zeros(visible.shape, np.uint8)
    scale = visible.shape[0] // size
    centre, axes = rng.uniform(0.2, 0.95, 2) * size, rng.uniform(0.03, 0.16, 2) * size
    angle = float(rng.uniform(0, 180))
    if rng.random() < 0.5:
        cv2.ellipse(mask, tuple((centre * scale).astype(int).tolist()), tuple((axes * scale).astype(int).tolist()), angle, 0, 360, 1, -1)
    else:
        box = cv2.boxPoints((tuple((centre * scale).tolist()), tuple((2 * axes * scale).tolist()), angle))
        cv2.fillPoly(mask, [box.astype(np.int32)], 1)
    cover = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)[..., None]
    shades = rng.uniform(0.6, 1.2, (3, 3, 1)).astype(np.float32)
    colour = palette.thing(rng) ** 0.45 * 255 * cv2.resize(shades, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    image[:] = np.clip(image * (1 - cover) + colour * cover, 0, 255).astype(np.uint8)
    return visible * (1 - mask)
