"""What a perfect embedding network would say, and what a camera would see, of a head whose parameters are known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from densemarks_model.crops import HeadCrop
from flame_assets.asset import HeadAsset
from tracker.camera import project
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.rendering.canvas import MeshCanvas
from tracker.rendering.clip_space import perspective, vertex_normals, world_to_clip
from tracker.residuals.appearance import harmonics

MAP_SIZE = 64


def crop_around(pixels: np.ndarray) -> HeadCrop:
    """An upright square with a margin around ``(n, 2)`` pixels."""
    low, high = pixels.min(0), pixels.max(0)
    return HeadCrop((low + high) / 2, float(1.25 * (high - low).max()))


def drawn(
    asset: HeadAsset, head: HeadModel, values: dict[str, Tensor], frame: int, centre: tuple[float, float], attribute, fine: int
) -> tuple[HeadCrop, np.ndarray, np.ndarray]:
    """The crop around a frame's head; ``attribute`` at vertices (or a function of their normals) drawn into it, ``fine``
    pixels a side; and which pixels show the head. Row 0 on top."""
    one = {k: v if k in ("shape", "log_focal") else v[frame : frame + 1] for k, v in values.items()}
    positions = HeadPoints.evaluate(head, one).positions
    focal = float(values["log_focal"].exp())
    pixels, _ = project(positions, focal, centre)
    crop = crop_around(pixels[0].numpy())
    scale = fine / crop.side
    shift = np.asarray(centre) - (crop.center - crop.side / 2)
    camera = perspective(focal * scale, *(shift * scale), fine, fine, near=0.01, far=100.0)
    faces = np.ascontiguousarray(asset.faces, np.int32)
    if callable(attribute):
        attribute = attribute(vertex_normals(positions[0], torch.as_tensor(faces)))
    canvas = MeshCanvas(fine, fine)
    rast = canvas.rasterize(world_to_clip(positions[0], camera).numpy(), faces)
    picture = canvas.interpolate(np.asarray(attribute, np.float32), faces)
    return crop, picture[::-1].copy(), rast[::-1, :, 3] > 0


def perfect_record(
    asset: HeadAsset, head: HeadModel, values: dict[str, Tensor], frame: int, centre: tuple[float, float], scale: float = 0.003
) -> EmbeddingRecord:
    """Canonical coordinates of the visible surface, trusted where every part of a pixel shows the head."""
    finer = 4
    crop, coordinates, shown = drawn(asset, head, values, frame, centre, asset.canonical, finer * MAP_SIZE)

    def pooled(array: np.ndarray) -> np.ndarray:
        return array.reshape(MAP_SIZE, finer, MAP_SIZE, finer, -1).mean((1, 3))

    share = pooled(shown.astype(np.float32))
    mean = pooled(coordinates * shown[..., None]) / np.maximum(share, 1e-6)
    surface = share[..., 0].astype(np.float32)
    return EmbeddingRecord(
        crop, mean.astype(np.float32), (surface > 0.99).astype(np.float32), np.full_like(surface, scale), surface
    )


def lit_picture(
    asset: HeadAsset, head: HeadModel, values: dict[str, Tensor], frame: int, centre: tuple[float, float],
    albedo: np.ndarray, light: Tensor, size: int = 224,
) -> tuple[HeadCrop, np.ndarray]:  # fmt: skip
    """RGB picture in [0, 1] of the head with an albedo at its vertices under spherical-harmonics light; grey behind it."""

    def shaded(normals: Tensor) -> np.ndarray:
        return albedo * (harmonics(normals) @ light).numpy()

    crop, picture, shown = drawn(asset, head, values, frame, centre, shaded, size)
    return crop, np.where(shown[..., None], picture, 0.5).astype(np.float32)
