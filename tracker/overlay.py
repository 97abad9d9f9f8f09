"""The overlay video: the input beside the tracked mesh drawn over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from flame_assets.asset import HeadAsset
from tracker.camera import CAMERA_POSITION
from tracker.config import OverlaySettings
from tracker.head_model import HeadModel
from tracker.rendering import get_renderer
from tracker.rendering.clip_space import perspective, to_image, vertex_normals
from tracker.track import HeadTrack
from tracker.video.reader import open_video
from tracker.video.writer import VideoWriter

_CHUNK = 32  # frames whose meshes are computed at once
_SKIN = (0.62, 0.72, 0.88)  # a cool tone that no real face has, so that mesh and skin cannot be confused
_COLOURS = {
    "eyes": (0.95, 0.95, 0.92),
    "irises": (0.10, 0.35, 0.60),
    "lips": (0.80, 0.55, 0.62),
    "teeth": (0.95, 0.95, 0.88),
    "tongue": (0.80, 0.45, 0.45),
    "brows": (0.42, 0.50, 0.64),
}
_LIGHT = (0.35, 0.45, 0.82)  # from the upper left behind the camera, unit length
_AMBIENT = 0.35


def write_overlay(
    path: Path, video: Path, track: HeadTrack, asset: HeadAsset, settings: OverlaySettings, quiet: bool = False
) -> None:
    """Decode ``video`` again and write ``path``: left the input, right the mesh over it, at the input's own timing.

    Frames without a tracked head show the input twice.
    """
    height, width = (int(x) for x in track.image_size)
    scale = min(1.0, settings.max_side / max(width, height))
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    painter = MeshPainter(asset, track, size, settings.opacity)
    with (
        open_video(video, max_frames=len(track.valid)) as frames,
        VideoWriter(path, 2 * size[0], size[1], audio_from=video) as writer,
    ):
        meshes = painter.meshes()
        for frame, vertices in zip(tqdm(frames, total=len(track.valid), desc="overlay", unit="frame", disable=quiet), meshes):
            image = frame.image if scale == 1 else cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
            drawn = image if vertices is None else painter.draw(image, vertices)
            writer.write(np.concatenate([image, drawn], axis=1), frame.timestamp)


class MeshPainter:
    """Draws a track's meshes over pictures.

    Args:
        asset: the head.
        track: its parameters.
        size: width and height of the pictures to draw on, pixels (the full frame, perhaps scaled down).
        opacity: of the mesh, 0 to 1.
    """

    def __init__(self, asset: HeadAsset, track: HeadTrack, size: tuple[int, int], opacity: float) -> None:
        self._model = HeadModel.from_asset(asset)
        self._track = track
        self._width, self._height = size
        scale = size[0] / int(track.image_size[1])
        self._focal = track.focal_px * scale
        self._centre = tuple(float(c) * scale for c in track.principal_point)
        self._opacity = opacity
        self._colours = torch.as_tensor(vertex_colours(asset))
        self._renderer = get_renderer("cpu")

    def meshes(self) -> Iterator[Float[Tensor, "verts 3"] | None]:
        """World vertices frame after frame; None where no head was tracked."""
        track = self._track
        for start in range(0, len(track.valid), _CHUNK):
            part = slice(start, start + _CHUNK)

            def rows(name: str, part: slice = part) -> Tensor:
                return torch.as_tensor(getattr(track, name)[part], dtype=torch.float32)

            shape = torch.as_tensor(track.shape, dtype=torch.float32)
            posed = self._model.with_shape(shape, rows("expr")).with_pose(
                rows("rotation"), rows("neck_pose"), rows("jaw_pose"), rows("eyes_pose")
            )
            vertices = posed.skin(rows("translation"))
            for valid, mesh in zip(track.valid[part], vertices, strict=True):
                yield mesh if valid else None

    def draw(self, image: np.ndarray, vertices: Float[Tensor, "verts 3"]) -> np.ndarray:
        """A copy of ``image`` (H, W, 3) uint8 with the mesh over it."""
        in_camera = vertices - torch.tensor(CAMERA_POSITION)
        box = self._bounding_box(in_camera)
        if box is None:
            return image
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        near, far = self._depth_range(in_camera)
        clip_from_camera = perspective(
            self._focal, self._centre[0] - left, self._centre[1] - top, width, height, near, far
        )
        homogeneous = torch.cat([in_camera, torch.ones(len(in_camera), 1)], dim=1)
        positions = (homogeneous @ torch.as_tensor(clip_from_camera, dtype=torch.float32).T)[None].contiguous()
        raster = self._renderer.rasterize(positions, self._model.faces, (height, width))
        shaded = self._shade(vertices)
        colour = to_image(self._renderer.interpolate(shaded[None], raster, self._model.faces))[0].numpy()
        covered = to_image(raster)[0, ..., 3].numpy() > 0

        # a one-pixel ramp hides the stairs of the outline
        alpha = cv2.blur(covered.astype(np.float32), (3, 3)) * covered * self._opacity
        out = image.copy()
        under = out[top:bottom, left:right]
        blended = under * (1 - alpha[..., None]) + 255 * colour * alpha[..., None]
        out[top:bottom, left:right] = blended.clip(0, 255).astype(np.uint8)
        return out

    def _shade(self, vertices: Tensor) -> Float[Tensor, "verts 3"]:
        normals = vertex_normals(vertices, self._model.faces)
        diffuse = (normals @ torch.tensor(_LIGHT)).clamp_min(0)
        return self._colours * (_AMBIENT + (1 - _AMBIENT) * diffuse)[:, None]

    def _bounding_box(self, in_camera: Tensor) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom pixels around the mesh, within the picture; None when it is outside."""
        depth = (-in_camera[:, 2]).clamp_min(1e-3)
        u = self._centre[0] + self._focal * in_camera[:, 0] / depth
        v = self._centre[1] - self._focal * in_camera[:, 1] / depth
        left, right = max(int(u.min()) - 1, 0), min(int(u.max()) + 2, self._width)
        top, bottom = max(int(v.min()) - 1, 0), min(int(v.max()) + 2, self._height)
        return (left, top, right, bottom) if right - left > 1 and bottom - top > 1 else None

    @staticmethod
    def _depth_range(in_camera: Tensor) -> tuple[float, float]:
        depth = -in_camera[:, 2]
        return max(0.9 * float(depth.min()), 1e-3), max(1.1 * float(depth.max()), 2e-3)


def vertex_colours(asset: HeadAsset) -> Float[np.ndarray, "verts 3"]:
    """A colour per vertex from the head's regions, RGB in [0, 1]; skin where it names none."""
    colours = np.tile(np.array(_SKIN, np.float32), (asset.n_vertices, 1))
    for region, colour in _COLOURS.items():
        if region in asset.regions:
            colours[asset.regions[region]] = colour
    return colours
