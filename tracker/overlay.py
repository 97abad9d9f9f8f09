"""The overlay video: the input beside the tracked mesh drawn over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor

from flame_assets.asset import HeadAsset
from flame_assets.settings_files import Settings
from tracker.head_track import HeadTrack
from tracker.progress import Progress, silent
from tracker.rendering.backends import get_renderer
from tracker.rendering.canvas import MeshCanvas
from tracker.rendering.clip_space import perspective, to_image, vertex_normals, world_to_clip
from tracker.track_vertices import vertices_on_device
from tracker.video.reader import VideoReader, at_times, open_video
from tracker.video.writer import VideoWriter

_SKIN = (158, 184, 224)  # a cool tone that no real face has, so that mesh and skin cannot be confused
_COLOURS = {
    "lips": (204, 140, 158),
    "brows": (107, 128, 163),
    "teeth": (242, 242, 224),
    "tongue": (204, 115, 115),
    "eyes": (242, 242, 235),
    "left_iris": (40, 90, 150),
    "right_iris": (40, 90, 150),
}
_NOT_TEXTURED = ("eyes", "teeth", "tongue", "left_eyeball", "right_eyeball")
_LIGHT = (0.35, 0.45, 0.82)  # from the upper left behind the camera, unit length
_AMBIENT = 0.35


class OverlaySettings(Settings):
    """The overlay video: opacity of the mesh in [0, 1], and the longer side of each panel at most, pixels."""

    opacity: float = Field(0.75, ge=0, le=1)
    max_side: int = Field(960, ge=2, le=4096)

    def panel(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in which a picture of that size is shown, pixels: its own, or smaller."""
        scale = min(1.0, self.max_side / max(width, height))
        return max(round(width * scale), 2), max(round(height * scale), 2)


@dataclass(frozen=True)
class Shown:
    """One frame as the overlay shows it.

    Attributes:
        number: of the frame in its track.
        timestamp: of the frame, seconds.
        panels: the input, the mesh over it and, where there is a texture, the textured head, all of one size; the input again in
            place of the others where no head was tracked.
        vertices: of the head, world, metres.
    """

    number: int
    timestamp: float
    panels: list[UInt8[np.ndarray, "h w 3"]]
    vertices: Float[Tensor, "verts 3"]


Watch = Callable[[Shown], None]
"""Called with each frame of an overlay while it is written."""


def nobody_watches(shown: Shown) -> None:
    """A :data:`Watch` that looks away."""


def write_overlay(
    path: Path,
    video: Path,
    track: HeadTrack,
    asset: HeadAsset,
    settings: OverlaySettings,
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    watch: Watch = nobody_watches,
) -> None:
    """Decode ``video`` again and write ``path``: left the input, then the mesh over it, at the input's own timing from the
    track's first frame on.

    With a ``texture`` a third picture shows the mesh in the clip's own colours. Frames without a tracked head show the input
    alone. The sound goes along. ``device`` is where the head is posed and drawn; there must be a renderer for it. ``watch`` sees
    every frame.
    """
    height, width = (int(x) for x in track.image_size)
    size = settings.panel(width, height)
    panels = 2 if texture is None else 3
    begin = float(track.timestamps[0])
    with (
        open_video(video, frame_rate=track.frame_rate, start=begin) as frames,
        VideoWriter(
            path, panels * size[0], size[1], audio_from=video, frame_rate=track.frame_rate, audio_start=frames.start_time + begin
        ) as writer,
    ):
        for shown in overlay_pictures(frames, track, asset, settings, texture, device):
            writer.write(np.concatenate(shown.panels, axis=1), shown.timestamp - begin)
            watch(shown)
            progress("overlay", shown.number + 1, track.n_frames)


def overlay_pictures(
    frames: VideoReader,
    track: HeadTrack,
    asset: HeadAsset,
    settings: OverlaySettings,
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Shown]:
    """Every frame of ``track`` as :func:`write_overlay` shows it; ``frames`` is the video, opened at the first of them or before."""
    height, width = (int(x) for x in track.image_size)
    size = settings.panel(width, height)
    painter = painter_for(asset, track, size, settings.opacity, texture, device)
    more = 1 if texture is None else 2
    seen = zip(at_times(frames, track.timestamps), vertices_on_device(track, asset, device), track.valid, strict=True)
    for number, (frame, vertices, valid) in enumerate(seen):
        image = frame.image if size == (width, height) else cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        yield Shown(number, frame.timestamp, [image, *(painter.pictures(image, vertices) if valid else [image] * more)], vertices)


class Painter(Protocol):
    """Draws a head over pictures of one size."""

    def pictures(self, image: UInt8[np.ndarray, "h w 3"], vertices: Float[Tensor, "verts 3"]) -> list[UInt8[np.ndarray, "h w 3"]]:
        """``image`` with the mesh over it and, where there is a texture, with the head in the texture's colours.

        Args:
            vertices: world, metres, on the painter's device.
        """
        ...


def painter_for(
    asset: HeadAsset,
    track: HeadTrack,
    size: tuple[int, int],
    opacity: float,
    texture: UInt8[np.ndarray, "size size 3"] | None,
    device: torch.device | str,
) -> Painter:
    """The painter of a device: compiled loops on the CPU, the renderer elsewhere."""
    if torch.device(device).type == "cpu":
        return MeshPainter(asset, track, size, opacity, texture)
    return DevicePainter(asset, track, size, opacity, texture, device)


class MeshPainter:
    """See :class:`Painter`; on the CPU, without gradients and with every buffer used again.

    Args:
        asset: the head.
        track: gives the camera.
        size: width and height of the pictures to draw on, pixels (the full frame, perhaps scaled down).
        opacity: of the mesh, 0 to 1.
        texture: RGB, row 0 at v = 1, for a head with uv coordinates.
    """

    def __init__(
        self,
        asset: HeadAsset,
        track: HeadTrack,
        size: tuple[int, int],
        opacity: float = 0.75,
        texture: UInt8[np.ndarray, "size size 3"] | None = None,
    ) -> None:
        self._projection = _projection(track, size)
        self._faces = np.ascontiguousarray(asset.faces, np.int32)
        self._triangles = torch.as_tensor(self._faces)
        self._colours = vertex_colours(asset)
        self._opacity = opacity
        self._texture = texture
        self._canvas = MeshCanvas(size[1], size[0])
        self._uv_faces = None if asset.uv_faces is None else np.ascontiguousarray(asset.uv_faces, np.int32)
        self._uv = asset.uv
        self._plain = _not_textured(asset)

    def pictures(
        self, image: UInt8[np.ndarray, "h w 3"], vertices: Float[Tensor, "verts 3"]
    ) -> list[UInt8[np.ndarray, "h w 3"]]:
        drawn = [image.copy()]
        self.paint(drawn[0], vertices)
        if self._texture is not None:
            drawn.append(image.copy())
            self.paint_texture(drawn[1], self._texture)
        return drawn

    def paint(self, image: UInt8[np.ndarray, "h w 3"], vertices: Float[np.ndarray, "verts 3"] | Tensor) -> None:
        """Blend a mesh (world vertices, metres) into ``image``, in place."""
        points = torch.as_tensor(vertices, dtype=torch.float32)
        normals = vertex_normals(points, self._triangles).numpy()
        diffuse = (normals @ np.array(_LIGHT, np.float32)).clip(0)
        shaded = self._colours * (_AMBIENT + (1 - _AMBIENT) * diffuse)[:, None]
        self._canvas.rasterize(world_to_clip(points, self._projection).numpy(), self._faces)
        self._canvas.paint(image, shaded, self._faces, self._opacity)

    def paint_texture(self, image: UInt8[np.ndarray, "h w 3"], texture: UInt8[np.ndarray, "size size 3"]) -> None:
        """Draw the mesh of the last :meth:`paint` in a texture's colours into ``image``, in place; eyes and teeth stay."""
        assert self._uv is not None and self._uv_faces is not None
        rast = self._canvas.rasterized[::-1]
        uv = self._canvas.interpolate(self._uv, self._uv_faces)[::-1]
        size = texture.shape[0]
        x = np.ascontiguousarray(uv[..., 0] * size - 0.5)
        y = np.ascontiguousarray((1 - uv[..., 1]) * size - 0.5)
        colours = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        shown = ~self._plain[rast[..., 3].astype(np.int64)]
        image[shown] = colours[shown]


class DevicePainter:
    """See :class:`Painter`; posing, shading, drawing and blending on one device, one copy of the finished pictures back.

    Args: as :class:`MeshPainter`'s, and the device.
    """

    def __init__(
        self,
        asset: HeadAsset,
        track: HeadTrack,
        size: tuple[int, int],
        opacity: float,
        texture: UInt8[np.ndarray, "size size 3"] | None,
        device: torch.device | str,
    ) -> None:
        def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(array, dtype=dtype, device=device)

        self._renderer = get_renderer("auto", device)
        self._device, self._size, self._opacity = device, size, opacity
        self._projection = _projection(track, size).to(device)
        self._faces = tensor(asset.faces, torch.int32)
        self._colours = tensor(vertex_colours(asset))
        self._light = tensor(np.array(_LIGHT))
        self._texture = None
        if texture is not None:
            assert asset.uv is not None and asset.uv_faces is not None
            self._texture = tensor(texture)[None]
            # v counts from the bottom of the texture, rows from its top
            self._uv = tensor(asset.uv * [1, -1] + [0, 1])[None]
            self._uv_faces = tensor(asset.uv_faces, torch.int32)
            self._plain = tensor(_not_textured(asset), torch.bool)

    @torch.no_grad()
    def pictures(
        self, image: UInt8[np.ndarray, "h w 3"], vertices: Float[Tensor, "verts 3"]
    ) -> list[UInt8[np.ndarray, "h w 3"]]:
        width, height = self._size
        frame = torch.as_tensor(image, device=self._device).float()
        points = vertices.float()
        diffuse = (vertex_normals(points, self._faces) @ self._light).clamp_min(0)
        shaded = self._colours * (_AMBIENT + (1 - _AMBIENT) * diffuse)[:, None]
        rast = self._renderer.rasterize(world_to_clip(points, self._projection)[None], self._faces, (height, width))
        colours = to_image(self._renderer.interpolate(shaded[None], rast, self._faces))[0]
        number = to_image(rast)[0, ..., 3:].long()
        drawn = [torch.where(number > 0, torch.lerp(frame, colours, self._opacity), frame)]
        if self._texture is not None:
            uv = self._renderer.interpolate(self._uv, rast, self._uv_faces)
            colours = to_image(self._renderer.texture(self._texture, uv, "clamp"))[0]
            drawn.append(torch.where(self._plain[number], frame, colours))
        return list((torch.stack(drawn) + 0.5).clamp(0, 255).byte().cpu().numpy())


def _projection(track: HeadTrack, size: tuple[int, int]) -> Float[Tensor, "4 4"]:
    width, height = size
    scale = width / int(track.image_size[1])
    cx, cy = (float(c) * scale for c in track.principal_point)
    # heads come close to webcams and stand far off in films: planes wide enough for both
    return perspective(track.focal_px * scale, cx, cy, width, height, near=0.01, far=100.0)


def _not_textured(asset: HeadAsset) -> Bool[np.ndarray, "faces_and_one"]:
    """By a rasteriser's numbers (triangle + 1, 0 for nothing): what a texture leaves as it is."""
    inside = np.any([asset.regions.get(n, np.zeros(asset.n_vertices, bool)) for n in _NOT_TEXTURED], axis=0)
    return np.concatenate([[True], inside[asset.faces].all(1)])


def vertex_colours(asset: HeadAsset) -> Float[np.ndarray, "verts 3"]:
    """A colour per vertex from the head's regions, RGB from 0 to 255; skin where it names none."""
    colours = np.tile(np.array(_SKIN, np.float32), (asset.n_vertices, 1))
    for region, colour in _COLOURS.items():
        if region in asset.regions:
            colours[asset.regions[region]] = colour
    return colours
