"""The overlay video: the input beside the tracked mesh drawn over it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from tqdm import tqdm

from flame_assets.asset import HeadAsset
from tracker.config import OverlaySettings
from tracker.export.vertices import track_vertices
from tracker.head_track import HeadTrack
from tracker.rendering.canvas import MeshCanvas
from tracker.rendering.clip_space import perspective, vertex_normals, world_to_clip
from tracker.video.reader import at_times, open_video
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


def write_overlay(
    path: Path,
    video: Path,
    track: HeadTrack,
    asset: HeadAsset,
    settings: OverlaySettings,
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
    quiet: bool = False,
) -> None:
    """Decode ``video`` again and write ``path``: left the input, then the mesh over it, at the input's own timing from the
    track's first frame on.

    With a ``texture`` a third picture shows the mesh in the clip's own colours. Frames without a tracked head show the input
    alone. The sound goes along.
    """
    height, width = (int(x) for x in track.image_size)
    scale = min(1.0, settings.max_side / max(width, height))
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    painter = MeshPainter(asset, track, size, settings.opacity)
    panels = 2 if texture is None else 3
    begin = float(track.timestamps[0])
    with (
        open_video(video, frame_rate=track.frame_rate, start=begin) as frames,
        VideoWriter(
            path, panels * size[0], size[1], audio_from=video, frame_rate=track.frame_rate, audio_start=frames.start_time + begin
        ) as writer,
    ):
        shown = tqdm(at_times(frames, track.timestamps), total=track.n_frames, desc="overlay", unit="frame", disable=quiet)
        for frame, vertices, valid in zip(shown, track_vertices(track, asset), track.valid, strict=True):
            image = frame.image if scale == 1 else cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
            row = np.concatenate([image] * panels, axis=1)
            if valid:
                drawn = image.copy()
                painter.paint(drawn, vertices)
                row[:, size[0] : 2 * size[0]] = drawn
                if texture is not None:
                    drawn = image.copy()
                    painter.paint_texture(drawn, texture)
                    row[:, 2 * size[0] :] = drawn
            writer.write(row, frame.timestamp - begin)


class MeshPainter:
    """Draws a head's meshes over pictures of one size.

    Args:
        asset: the head.
        track: gives the camera.
        size: width and height of the pictures to draw on, pixels (the full frame, perhaps scaled down).
        opacity: of the mesh, 0 to 1.
    """

    def __init__(self, asset: HeadAsset, track: HeadTrack, size: tuple[int, int], opacity: float = 0.75) -> None:
        width, height = size
        scale = width / int(track.image_size[1])
        cx, cy = (float(c) * scale for c in track.principal_point)
        # heads come close to webcams and stand far off in films: planes wide enough for both
        self._projection = perspective(track.focal_px * scale, cx, cy, width, height, near=0.01, far=100.0)
        self._faces = np.ascontiguousarray(asset.faces, np.int32)
        self._triangles = torch.as_tensor(self._faces)
        self._colours = vertex_colours(asset)
        self._opacity = opacity
        self._canvas = MeshCanvas(height, width)
        self._uv_faces = None if asset.uv_faces is None else np.ascontiguousarray(asset.uv_faces, np.int32)
        self._uv = asset.uv
        inside = np.any([asset.regions.get(n, np.zeros(asset.n_vertices, bool)) for n in _NOT_TEXTURED], axis=0)
        self._plain = np.concatenate([[True], inside[asset.faces].all(1)])

    def paint(self, image: UInt8[np.ndarray, "h w 3"], vertices: Float[np.ndarray, "verts 3"]) -> None:
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


def vertex_colours(asset: HeadAsset) -> Float[np.ndarray, "verts 3"]:
    """A colour per vertex from the head's regions, RGB from 0 to 255; skin where it names none."""
    colours = np.tile(np.array(_SKIN, np.float32), (asset.n_vertices, 1))
    for region, colour in _COLOURS.items():
        if region in asset.regions:
            colours[asset.regions[region]] = colour
    return colours
