"""Backgrounds, and what cameras and codecs do to pictures. RGB, float32 linear or uint8 as stated."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import cv2
import numpy as np

from densemarks_model.crops import HeadCrop
from densemarks_model.data.synthetic import palette
from densemarks_model.data.synthetic.light import World

BACKGROUNDS_VARIABLE = "DENSEMARKS_BACKGROUNDS"
"""Environment variable that names a folder of pictures without people to use behind the heads; drawn ones else."""


@functools.cache
def _photographs() -> list[np.ndarray]:
    folder = os.environ.get(BACKGROUNDS_VARIABLE)
    found = []
    for path in sorted(Path(folder).iterdir()) if folder else []:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None:
            scale = 640 / max(image.shape[:2])
            if scale < 1:
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            found.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return found


def background(size: int, rng: np.random.Generator, world: World | None = None, crop: HeadCrop | None = None) -> np.ndarray:
    """Linear RGB ``(size, size, 3)``: what is behind the head in this world; without one a photograph's part, or a drawn room.

    Args:
        world: whose panorama is seen; None for gradients, shapes and noise, often blurred.
        crop: what the picture shows of the image plane at unit focal length; anything when None.
    """
    if world is not None:
        return _behind(size, rng, world, crop or HeadCrop(rng.normal(0, 0.15, 2), np.exp(rng.uniform(-2.5, 0.5)), rng.normal(0, 0.1)))
    photographs = _photographs()
    if photographs and rng.random() < 0.5:
        image = photographs[rng.integers(len(photographs))]
        side = int(min(image.shape[:2]) * rng.uniform(0.3, 1.0))
        top, left = (int(rng.integers(0, n - side + 1)) for n in image.shape[:2])
        picture = cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
        picture = palette.linear(picture[:, ::-1] if rng.random() < 0.5 else picture)
    else:
        picture = _drawn(size, rng)
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 9))
    return picture * rng.uniform(0.4, 1.4)


def _drawn(size: int, rng: np.random.Generator) -> np.ndarray:
    corners = np.stack([palette.thing(rng) for _ in range(4)]).reshape(2, 2, 3)
    if rng.random() < 0.4:
        corners = np.repeat(np.repeat(corners[:1, :1], 2, 0), 2, 1) * rng.uniform(0.8, 1.2, (2, 2, 1)).astype(np.float32)
    picture = cv2.resize(corners.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    _draw_things(picture, int(rng.integers(0, 14)), 1.0, rng)
    for _ in range(rng.integers(0, 3)):
        picture = _grained(picture, rng)
    return np.clip(picture, 0, 1)


def _draw_things(picture: np.ndarray, count: int, light: float, rng: np.random.Generator) -> None:
    """Ellipses, boxes and lines of plain colours, in place."""
    size = len(picture)
    for _ in range(count):
        colour = tuple(light * float(c) for c in palette.thing(rng))
        centre = tuple(int(v) for v in rng.integers(0, size, 2))
        kind = rng.integers(3)
        if kind == 0:
            axes = tuple(int(v) for v in rng.integers(5, size // 2, 2))
            cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 1:
            other = tuple(int(c + v) for c, v in zip(centre, rng.integers(-size // 2, size // 2, 2), strict=True))
            cv2.rectangle(picture, centre, other, colour, -1)
        else:
            other = tuple(int(v) for v in rng.integers(0, size, 2))
            cv2.line(picture, centre, other, colour, int(rng.integers(1, 24)), cv2.LINE_AA)


def _grained(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size, cells = len(picture), int(2 ** rng.integers(2, 7))
    grain = rng.normal(0, rng.uniform(0.02, 0.35), (cells, cells, 3 if rng.random() < 0.4 else 1)).astype(np.float32)
    grain = cv2.resize(grain, (size, size), interpolation=cv2.INTER_CUBIC)
    return picture * np.clip(1 + (grain if grain.ndim == 3 else grain[..., None]), 0, 3)


def _behind(size: int, rng: np.random.Generator, world: World, crop: HeadCrop) -> np.ndarray:
    """The panorama behind a head, often with things in between, out of focus."""
    nearer = np.exp(rng.uniform(0, 1.6)) if rng.random() < 0.6 else 1.0  # walls are closer than panoramas have them: more to see
    picture = seen(world, HeadCrop(crop.center, crop.side * max(1.0, min(nearer, 1.6 / crop.side)), crop.roll), size)
    if rng.random() < 0.35:  # as bright as a grey card where the panorama's mean light falls on it
        _draw_things(picture, int(rng.integers(1, 10)), 0.5 * rng.uniform(0.5, 1.3), rng)
    for _ in range(rng.integers(0, 2)):
        picture = _grained(picture, rng)
    if rng.random() < 0.5:
        picture = _defocused(picture, size / 256 * rng.uniform(0.7, 9))
    excess = float(picture.mean()) / 0.5  # over the panorama's mean, which lights the head; phones hold back bright skies
    return picture * (max(excess, 1.0) ** -rng.uniform(0, 0.8) * np.exp(rng.normal(0, 0.12)))


def seen(world: World, crop: HeadCrop, size: int) -> np.ndarray:
    """Linear RGB ``(size, size, 3)``: the panorama in a crop of the image plane at unit focal length, y down; smooth where it is enlarged."""
    panorama = world.panorama.radiance
    rows, columns = panorama.shape[:2]
    pixels = 2 * np.arctan(crop.side / 2) / (2 * np.pi) * columns  # of the panorama, from side to side
    n = int(np.clip(3 * pixels, min(32, size), size))
    grid = np.stack(np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5), -1)
    plane = crop.to_frame(grid.reshape(-1, 2), n)
    x, y, z = world.to_world @ np.stack([plane[:, 0], -plane[:, 1], -np.ones(n * n)])
    column = (0.5 + np.arctan2(x, -z) / (2 * np.pi)) * columns - 0.5
    row = np.clip((0.5 - np.arctan2(y, np.hypot(x, z)) / np.pi) * rows - 0.5, 0, rows - 1)
    maps = (column.reshape(n, n).astype(np.float32), row.reshape(n, n).astype(np.float32))
    picture = cv2.remap(panorama, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    picture = cv2.GaussianBlur(picture, (0, 0), max(0.5 * n / pixels, 0.3))
    return np.maximum(cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC), 0) * world.tint.astype(np.float32)


def _defocused(picture: np.ndarray, radius: float) -> np.ndarray:
    """Every point a disc of this radius in pixels, as open lenses draw it; bright spots become discs of light."""
    size, step = len(picture), int(np.clip(radius // 2.5, 1, 3))
    if step > 1:
        picture = cv2.resize(picture, (-(-size // step),) * 2, interpolation=cv2.INTER_AREA)
    reach = int(np.ceil(radius / step))
    across = np.arange(-reach, reach + 1)
    disc = np.clip(radius / step + 0.5 - np.hypot(across[:, None], across), 0, 1).astype(np.float32)
    picture = cv2.filter2D(picture, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)
    return picture if step == 1 else cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)


def develop(linear: np.ndarray, subject: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, contrast and tone curve: linear float to uint8.

    Args:
        linear: ``(H, W, 3)``. subject: ``(H, W)`` bool, what the exposure is for.
    """
    level = float(linear[subject].mean()) if subject.any() else float(linear.mean())
    target = rng.uniform(0.1, 0.42) if rng.random() < 0.85 else rng.uniform(0.02, 0.1)
    picture = linear * (target / max(level, 1e-4)) * rng.normal(1, 0.07, 3).clip(0.75, 1.3).astype(np.float32)
    if rng.random() < 0.7:  # a shoulder for the highlights
        picture = 1 - np.exp(-1.3 * picture)
    picture = np.clip(picture, 0, 1) ** (1 / rng.uniform(1.8, 2.5))
    picture = 0.5 + (picture - 0.5) * rng.uniform(0.75, 1.2)
    grey = picture.mean(2, keepdims=True)
    picture = grey + (picture - grey) * (rng.uniform(0.5, 1.3) if rng.random() < 0.94 else 0.0)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Motion blur, defocus, low resolution, noise, compression: uint8 to uint8, each now and then."""
    size = image.shape[0]
    if rng.random() < 0.12:
        length, angle = rng.uniform(2, 9), rng.uniform(0, np.pi)
        kernel = np.zeros((11, 11), np.float32)
        step = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        cv2.line(kernel, tuple(np.round(5 - step).astype(int).tolist()), tuple(np.round(5 + step).astype(int).tolist()), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.2:
        small = int(size * rng.uniform(0.25, 0.8))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.1:
        image = cv2.addWeighted(image, 1.6, cv2.GaussianBlur(image, (0, 0), 1.5), -0.6, 0)
    if rng.random() < 0.5:
        noisy = image.astype(np.float32) + rng.normal(0, rng.uniform(1, 12) ** 1.0, image.shape).astype(np.float32)
        image = np.clip(noisy, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(18, 95))])
        image = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return image
