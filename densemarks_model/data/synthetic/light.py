"""Where the light comes from: a formula, or a panorama of the world.

A panorama is split in two. Its concentrated sources (sun, lamps, windows) become up to three directional lights that cast
shadows: they are found by a median cut (Debevec, *A median cut algorithm for light probe sampling*, SIGGRAPH 2005 posters),
whose smallest regions are merged while they lie close together. All that is left is smooth, and its irradiance a quadratic
function of the normal (Ramamoorthi and Hanrahan, *An efficient representation for irradiance environment maps*, SIGGRAPH 2001):

``E(n) = M0 / 4 + n · M1 / 2 + 15/32 nᵀ (M2 - M0/3 I) n``, with the moments ``M0 = ∫L``, ``M1 = ∫L ω``, ``M2 = ∫L ω ωᵀ``,

which is the same as spherical harmonics up to order 2, but turns as vectors and matrices do. No light is lost or counted
twice. Strengths are irradiance over π everywhere: what a white surface that faces the light sends back.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32

from densemarks_model.data import panoramas
from densemarks_model.data.panoramas import Panorama

MOST_LIGHTS, _MOST_CASTING, _LEAST_CASTING = 3, 2, 0.2
"""Directional lights of a panorama; how many of them cast shadows, and how strong the second must be to be worth a shadow map."""

_CUTS = 6
"""The median cut makes ``2 ** _CUTS`` regions."""

_REACH = np.cos(np.deg2rad(20))
"""A source is no larger than this, and regions merge over this distance."""

_LEAST_SHARE, _LEAST_CONTRAST = 0.05, 3.0
"""A source gives at least this share of the panorama's light, and is so much brighter than its mean."""

_OCCLUDER_M, _TEXEL_M = 0.05, 0.0021
"""How far from a surface what shadows it tends to be, and the width of a shadow map's texel."""

_MIRRORED_MOST = 12.0
"""Radiance of what eyes mirror, in mean radiances of about one half; suns would make the whole eye sparkle."""

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class Lighting:
    """All that the shading asks about light, in camera space.

    Attributes:
        lights: unit direction towards the light, RGB, softness of its shadow's edge in texels.
        casting: how many of them, from the first on, cast shadows.
        ambient: factors of 1, x, y, z, xy, yz, zx, x² - y², 2z² - x² - y² of the normal; times openness.
        hair_spread: how much hair's ambient light follows the place on the head, 0 to 1, rather than being the same everywhere.
        scatter: strength of the skin's coloured shadow edges and of its sheen from ambient light, 0 to 1.
        mirrored: what wet eyes reflect, a small panorama; ``(1, 1, 3)`` for nothing but the lights' highlights.
        to_world: rotation from camera space to the panorama's axes.
    """

    lights: Float32[np.ndarray, "lights 7"]
    casting: int
    ambient: Float32[np.ndarray, "9 3"]
    hair_spread: float
    scatter: float
    mirrored: Float32[np.ndarray, "rows columns 3"]
    to_world: Float32[np.ndarray, "3 3"]


@dataclass(frozen=True)
class Split:
    """A panorama as lights and a smooth rest, in its own axes.

    Attributes:
        lights: strongest first, as in :class:`Lighting`.
        mirrored: the panorama at 64 x 128 pixels, its brightest spots dimmed.
        moments: zeroth, first and second moments of the rest, over π: ``(3,)``, ``(3, 3)`` (axis, colour) and ``(3, 3, 3)`` (axis, axis, colour).
    """

    lights: Float32[np.ndarray, "lights 7"]
    mirrored: Float32[np.ndarray, "64 128 3"]
    moments: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class World:
    """A panorama around the camera.

    Attributes:
        panorama: scaled, so that its mean radiance is one half.
        split: its light.
        to_world: rotation from camera space to the panorama's axes.
        tint: RGB factor on all of its light and on the background.
    """

    panorama: Panorama
    split: Split
    to_world: Float[np.ndarray, "3 3"]
    tint: Float[np.ndarray, "3"]

    def lighting(self) -> Lighting:
        """What falls on the head."""
        lights, to_camera = self.split.lights.copy(), self.to_world.T
        lights[:, :3] = lights[:, :3] @ to_camera.T
        lights[:, 3:6] *= self.tint
        zeroth, first, second = self.split.moments
        turned = np.einsum("ia,jb,abc->ijc", to_camera, to_camera, second)
        ambient = quadratic(zeroth, to_camera @ first, turned) * self.tint
        mirrored = self.split.mirrored * self.tint
        strong = int((self.split.lights[1:_MOST_CASTING, 3:6] @ _LUMINANCE > _LEAST_CASTING).sum())
        return Lighting(lights, min(len(lights), 1 + strong), ambient.astype(np.float32), 0.8, 1.0, mirrored.astype(np.float32), self.to_world.astype(np.float32))


def quadratic(zeroth: np.ndarray, first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "9 3"]:
    """Irradiance as a function of the normal, in the order of :attr:`Lighting.ambient`, from moments as in :class:`Split`."""
    rest = 15 / 32 * (second - np.eye(3)[..., None] * zeroth / 3)
    cross = [2 * rest[0, 1], 2 * rest[1, 2], 2 * rest[2, 0], (rest[0, 0] - rest[1, 1]) / 2, rest[2, 2] / 2]
    return np.stack([zeroth / 4, *(first / 2), *cross])


def formula(rng: np.random.Generator) -> Lighting:
    """One to three lights, and ambient light from above and below."""
    lights, (above, below) = random_lights(rng)
    ambient = np.zeros((9, 3), np.float32)  # linear in the normal's y
    ambient[0], ambient[2] = (above + below) / 2, (above - below) / 2
    return Lighting(lights, 1, ambient, 0.0, 0.0, np.zeros((1, 1, 3), np.float32), np.eye(3, dtype=np.float32))


def random_world(share: float, rng: np.random.Generator, up: np.ndarray | None = None) -> World | None:
    """Somewhere, facing any way; None for ``1 - share`` of the pictures, and where panoramas were not fetched.

    Args:
        share: of the pictures that have one.
        up: the body's upward axis in camera space ``(3,)``: where it points at the camera, the camera may be what looks down.
    """
    if rng.random() >= share or not panoramas.available():
        return None
    number, mirrored = int(rng.integers(len(panoramas.panoramas()))), bool(rng.random() < 0.5)
    panorama, parts = _prepared(number, mirrored)
    turn, pitch, roll = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.normal(0, 5)), np.deg2rad(rng.normal(0, 3))
    part = rng.random()
    if up is not None:
        pitch -= part * np.arctan2(up[2], abs(up[1]))
    tint = np.clip(rng.normal(1, 0.05, 3), 0.85, 1.15)
    return World(panorama, parts, camera_turn(turn, pitch, roll), tint)


def camera_turn(turn: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """Rotation from camera space to a panorama's axes: to the left about the vertical, then up, then about the line of sight; radians."""
    (cy, sy), (cx, sx), (cz, sz) = ((np.cos(a), np.sin(a)) for a in (turn, pitch, roll))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    return np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ about_x @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])


@functools.cache
def _prepared(number: int, mirrored: bool) -> tuple[Panorama, Split]:
    found = panoramas.panoramas()[number]
    radiance = found.radiance[:, ::-1] if mirrored else found.radiance
    mean = float((radiance @ _LUMINANCE * panoramas.solid_angles(*radiance.shape[:2])).sum() / (4 * np.pi))
    panorama = Panorama(found.name, np.ascontiguousarray(radiance * (0.5 / mean)))
    return panorama, split(panorama)


def split(panorama: Panorama) -> Split:
    """Lights and the rest."""
    rows, columns = panorama.radiance.shape[:2]
    weight = panorama.radiance * panoramas.solid_angles(rows, columns)[..., None] / np.pi
    towards = panoramas.directions(rows, columns)
    rest = np.ones((rows, columns), bool)
    lights = []
    for source in _sources(weight @ _LUMINANCE, towards):
        colour, moment = weight[source].sum(0), (weight[source] @ _LUMINANCE) @ towards[source]
        concentration = np.linalg.norm(moment) / float(colour @ _LUMINANCE)
        angle = np.arccos(np.clip(2 * concentration - 1, -1, 1))  # of an even disc with this concentration
        softness = np.clip(_OCCLUDER_M * np.tan(angle) / (2 * _TEXEL_M), 0.6, 6)
        lights.append(np.concatenate([moment / np.linalg.norm(moment), colour, [softness]]))
        rest &= ~source
    smooth, w = weight[rest].astype(np.float64), towards[rest].astype(np.float64)
    pairs = (w[:, :, None] * w[:, None, :]).reshape(-1, 9)
    moments = smooth.sum(0), w.T @ smooth, (pairs.T @ smooth).reshape(3, 3, 3)
    mirrored = np.minimum(cv2.resize(panorama.radiance, (128, 64), interpolation=cv2.INTER_AREA), _MIRRORED_MOST)
    return Split(np.array(lights, np.float32).reshape(-1, 7), mirrored, moments)


def _sources(energy: np.ndarray, towards: np.ndarray) -> list[np.ndarray]:
    """Masks ``(rows, columns)`` of the concentrated sources, strongest first."""
    total, area = energy.sum(), panoramas.solid_angles(*energy.shape) * np.ones_like(energy)
    regions = median_cut(energy, _CUTS)
    power = np.array([energy[r].sum() for r in regions])
    extent = np.array([area[r].sum() for r in regions])
    moment = np.stack([np.tensordot(energy[r], towards[r], 2) for r in regions])
    length = np.linalg.norm(moment, axis=1)
    middle, compact = moment / np.maximum(length, 1e-12)[:, None], length > _REACH * power
    density, free = power / extent, compact.copy()
    found = []
    while free.any():
        seed = np.argmax(np.where(free, density, -1))
        if density[seed] < _LEAST_CONTRAST * total / (4 * np.pi):
            break
        near = free & (middle @ middle[seed] > _REACH) & (density > 0.05 * density[seed])
        free &= ~near
        if power[near].sum() > _LEAST_SHARE * total:
            mask = np.zeros(energy.shape, bool)
            for k in np.flatnonzero(near):
                mask[regions[k]] = True
            found.append((power[near].sum(), mask))
    return [mask for _, mask in sorted(found, key=lambda item: -item[0])[:MOST_LIGHTS]]


def median_cut(energy: Float[np.ndarray, "rows columns"], cuts: int) -> list[tuple[slice, slice]]:
    """Up to ``2 ** cuts`` rectangles of nearly the same energy: halved again and again across the side that is longer in the world."""
    rows = energy.shape[0]
    regions = [(slice(0, rows), slice(0, energy.shape[1]))]
    for _ in range(cuts):
        halves = []
        for down, across in regions:
            height, width = down.stop - down.start, across.stop - across.start
            shrink = np.sin(np.pi * (down.start + down.stop) / (2 * rows))
            axis = 0 if (height >= width * shrink and height > 1) or width == 1 else 1
            if height * width == 1:
                halves.append((down, across))
                continue
            sums = np.cumsum(energy[down, across].sum(1 - axis))
            at = int(np.clip(np.searchsorted(sums, sums[-1] / 2) + 1, 1, len(sums) - 1))
            if axis == 0:
                halves += [(slice(down.start, down.start + at), across), (slice(down.start + at, down.stop), across)]
            else:
                halves += [(down, slice(across.start, across.start + at)), (down, slice(across.start + at, across.stop))]
        regions = halves
    return regions


def random_lights(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lights ``(L, 7)``, and ambient ``(2, 3)`` from above and from below."""
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
