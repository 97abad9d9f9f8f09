"""What comes between a head and its picture: the frame's borders, things held in front, the head's own motion during the exposure."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from densemarks_model.data.synthetic import palette
from densemarks_model.data.synthetic.views import View, plane


def cut_border(image: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black out one or two sides, as upright crops that reach beyond a frame do; in place, returns what is left of the mask."""
    tilt = np.deg2rad(rng.normal(0, 8))  # the frame's against the crop's
    visible = visible.copy()
    for side in rng.choice(4, rng.choice([1, 2], p=[0.75, 0.25]), replace=False):
        depth, angle = rng.uniform(0.03, 0.38), tilt + side * np.pi / 2
        for array in (image, visible):
            inward = _inward(array.shape[0], angle)
            array[inward < depth - 0.5] = 0
    return visible


def _inward(size: int, angle: float) -> np.ndarray:
    """Places ``(size, size)`` along the direction ``angle`` (radians), from the middle, in sides."""
    position = (np.arange(size) + 0.5) / size - 0.5
    return np.cos(angle) * position[None, :] + np.sin(angle) * position[:, None]


def continue_border(image: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As :func:`cut_border`, but the outside repeats or mirrors the frame's edge, as resampling with such borders does."""
    size = image.shape[0]
    tilt = np.deg2rad(rng.normal(0, 8))
    mirrored = rng.random() < 0.5
    visible = visible.copy()
    column, row = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    sides = rng.choice(4, rng.choice([1, 2], p=[0.75, 0.25]), replace=False)
    for side in sides:
        edge, angle = rng.uniform(0.03, 0.38) - 0.5, tilt + side * np.pi / 2
        beyond = np.maximum(edge - _inward(size, angle), 0) * size * (2 if mirrored else 1)
        # a pixel that lies beyond the edge is read on it, or as far inside as it is outside
        x, y = (column + beyond * np.cos(angle)).astype(np.float32), (row + beyond * np.sin(angle)).astype(np.float32)
        image[:] = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        visible[_inward(visible.shape[0], angle) < edge] = 0
    return visible


def stick(image: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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


def random_motion(vertices: np.ndarray, view: View, rng: np.random.Generator, size: int) -> np.ndarray:
    """How far each vertex ``(V, 3)`` moves over the exposure, pixels of the picture ``(V, 2)``: a small rigid motion of the head."""
    turn = Rotation.from_rotvec(rng.normal(0, 1, 3) * np.deg2rad([3, 5, 3]) * rng.uniform(0.2, 1)).as_matrix()
    shift = rng.normal(0, [0.008, 0.008, 0.012]) * rng.uniform(0, 1)
    pivot = vertices.mean(0) - [0.0, 0.1, 0.0]  # heads turn about the neck
    before, after = ((vertices - pivot) @ r.T + pivot + s for r, s in ((turn.T, -shift), (turn, shift)))
    # half of the motion on each side of the middle, so both together are the whole
    motion = view.crop.to_crop(plane(after), size) - view.crop.to_crop(plane(before), size)
    longest = np.percentile(np.linalg.norm(motion, axis=1), 90)
    wanted = rng.uniform(2, 14) * size / 256
    return (motion * wanted / max(longest, 1e-6)).astype(np.float32)


def blur_along(picture: np.ndarray, motion: np.ndarray, known: np.ndarray, positions: int = 7) -> np.ndarray:
    """Average of a linear picture over the exposure; the middle of the exposure is the picture itself.

    Args:
        picture: ``(S, S, 3)``. motion: ``(S, S, 2)`` pixels over the exposure, where ``known`` ``(S, S)`` holds.
        positions: how many pictures are averaged; odd.
    """
    size = picture.shape[0]
    small = max(size // 4, 8)
    weight = cv2.resize(known.astype(np.float32), (small, small), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(motion * known[..., None], (small, small), interpolation=cv2.INTER_AREA)
    # beside the head (hair, hats) the motion goes on and fades: a normalised blur
    field = cv2.GaussianBlur(coarse, (0, 0), small / 24) / (cv2.GaussianBlur(weight, (0, 0), small / 24)[..., None] + 1e-3)
    near = np.clip(1 - cv2.distanceTransform((weight < 0.5).astype(np.uint8), cv2.DIST_L2, 5) / (small * 0.16), 0, 1)
    field = cv2.resize((field * near[..., None]).astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    column, row = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    total = np.zeros_like(picture, np.float32)
    for moment in np.linspace(-0.5, 0.5, positions, dtype=np.float32):
        total += cv2.remap(
            np.ascontiguousarray(picture, np.float32), column - moment * field[..., 0], row - moment * field[..., 1],
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    return total / positions
