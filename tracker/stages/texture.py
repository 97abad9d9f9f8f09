"""The texture of a clip: what the camera saw of the skin, laid out in the head's uv map."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor

from flame_assets.asset import HeadAsset
from flame_assets.settings_files import Settings
from tracker.camera import CAMERA_POSITION, Camera, project
from tracker.head_track import HeadTrack
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.observations import Observations
from tracker.rendering.backends import get_renderer
from tracker.rendering.canvas import MeshCanvas
from tracker.rendering.clip_space import perspective, to_image, vertex_normals, world_to_clip
from tracker.residuals.appearance import Appearance, harmonics
from tracker.track_vertices import vertices_on_device
from tracker.video.reader import VideoSource, at_times

_FRAMES = 60  # a texture is averaged over at most so many
_GRAZING = 0.2
_DEPTH_TOLERANCE_M = 0.006
_GOOD = 4.0  # summed weight from which a texel needs no help from its neighbours


class TextureSettings(Settings):
    """The texture: its side, pixels."""

    size: int = Field(1024, ge=16, le=8192)


def unwrap_texture(
    source: VideoSource,
    observations: Observations,
    track: HeadTrack,
    asset: HeadAsset,
    appearance: Appearance | None,
    size: int,
    device: torch.device | str = "cpu",
) -> UInt8[np.ndarray, "size size 3"]:
    """A clip's texture, from frames spread evenly over those with a tracked head that the network looked at; of the first person
    where shots show several.

    Args:
        source: the video, decoded once more.
        observations: they tell which pixels show the head and nothing in front of it.
        track, asset: the fitted head; it has uv coordinates.
        appearance: the clip's light, to be taken out of the colours; None keeps them as they are.
        size: side of the texture, pixels.
        device: where to draw.
    """
    usable = [t for t in np.flatnonzero(track.of_main_person().tracked) if t in observations.embeddings]
    picked = set(usable[:: max(math.ceil(len(usable) / _FRAMES), 1)])
    builder = texture_builder(asset, track.camera, size, appearance, device)
    with source.open_again() as video:
        shown = zip(at_times(video, track.timestamps), vertices_on_device(track, asset, device), strict=True)
        for number, (frame, vertices) in enumerate(shown):
            if number in picked:
                builder.add(frame.image, vertices, observations.embeddings.read(number))
    return builder.finish()


def texture_builder(
    asset: HeadAsset, camera: Camera, size: int, appearance: Appearance | None, device: torch.device | str = "cpu"
) -> TextureBuilder | DeviceTextureBuilder:
    """The builder that works on ``device``; there must be a renderer for it. See :class:`TextureBuilder`."""
    if torch.device(device).type == "cpu":
        return TextureBuilder(asset, camera, size, appearance)
    return DeviceTextureBuilder(asset, camera, size, appearance, device)


class TextureBuilder:
    """Averages frames in uv space; memory does not grow with their number. This one by OpenCV and compiled loops.

    Args:
        asset: a head with uv coordinates.
        camera: the clip's.
        size: side of the texture, pixels.
        appearance: the clip's light, to be taken out of the colours; None keeps them as they are.

    Raises:
        ValueError: the head has no uv coordinates.
    """

    def __init__(self, asset: HeadAsset, camera: Camera, size: int, appearance: Appearance | None) -> None:
        self._camera, self._size = camera, size
        self._faces = np.ascontiguousarray(asset.faces, np.int32)
        triangle, weights, self._texels = _texel_places(asset, size)
        self._corners = self._faces[triangle]
        self._weights = weights.astype(np.float32)
        self._light = None if appearance is None else appearance.light.cpu().numpy().astype(np.float32)
        self._sum = np.zeros((len(weights), 4), np.float32)
        self._depth_size, self._projection = _depth_camera(camera)
        self._canvas = MeshCanvas(*self._depth_size)

    def add(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        vertices: Float[np.ndarray, "verts 3"] | Tensor,
        record: EmbeddingRecord | None = None,
    ) -> None:
        """Take in an RGB frame that shows the head at ``vertices`` (world, metres).

        ``record`` tells which pixels show the head and nothing in front of it; without one all are believed.
        """
        vertices = np.asarray(vertices)
        points = torch.as_tensor(vertices, dtype=torch.float32)
        normals = vertex_normals(points, torch.as_tensor(self._faces)).numpy()
        depth = self._depth_picture(points)
        place = np.einsum("nk,nkc->nc", self._weights, vertices[self._corners].astype(np.float32))
        normal = np.einsum("nk,nkc->nc", self._weights, normals[self._corners])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        towards = np.asarray(CAMERA_POSITION, np.float32) - place
        distance = towards[:, 2]
        facing = np.einsum("nc,nc->n", normal, towards) / np.linalg.norm(towards, axis=1)
        c = self._camera
        x = c.cx + c.focal_px * -towards[:, 0] / np.maximum(distance, 1e-3)
        y = c.cy + c.focal_px * towards[:, 1] / np.maximum(distance, 1e-3)
        fy, fx = self._depth_size[0] / c.height, self._depth_size[1] / c.width
        nearest = _sample(depth, x * fx, y * fy, cv2.INTER_NEAREST)
        visible = (distance > 0) & (distance < nearest + _DEPTH_TOLERANCE_M)
        weight = np.where(visible, np.clip((facing - _GRAZING) / (1 - _GRAZING), 0, 1) ** 2, 0)
        if record is not None:
            on_map = record.crop.to_crop(np.stack([x, y], axis=1), record.trust.shape[0])
            weight = weight * _sample(record.trust, on_map[:, 0], on_map[:, 1])
        colour = _sample(image, x, y).astype(np.float32)
        if self._light is not None:
            shading = harmonics(torch.as_tensor(normal)).numpy() @ self._light
            colour = colour / np.clip(shading, 0.4, 2.0)
        self._sum[:, :3] += weight[:, None] * colour
        self._sum[:, 3] += weight

    def _depth_picture(self, points: torch.Tensor) -> np.ndarray:
        """Distance along the viewing direction of what shows, metres, row 0 on top; 0 where nothing does."""
        rast = self._canvas.rasterize(world_to_clip(points, self._projection).numpy(), self._faces)
        w = (CAMERA_POSITION[2] - points[:, 2:]).numpy()
        depth = self._canvas.interpolate(w, self._faces)
        return np.ascontiguousarray(np.where(rast[..., 3:] > 0, depth, 0)[::-1, :, 0])

    def finish(self) -> UInt8[np.ndarray, "size size 3"]:
        """The texture, RGB, row 0 at v = 1; what was never seen continues its surroundings."""
        return _finished(self._sum, self._texels)


class DeviceTextureBuilder:
    """As :class:`TextureBuilder`, on a device; only the sums are fetched, once at the end."""

    def __init__(
        self, asset: HeadAsset, camera: Camera, size: int, appearance: Appearance | None, device: torch.device | str
    ) -> None:
        triangle, weights, self._texels = _texel_places(asset, size)
        self._renderer, self._device, self._camera = get_renderer("auto", device), device, camera
        self._faces = torch.as_tensor(asset.faces, dtype=torch.int32, device=device)
        self._corners = self._faces[torch.as_tensor(triangle, device=device)].long()
        self._weights = torch.as_tensor(weights, dtype=torch.float32, device=device)[:, None]
        self._light = None if appearance is None else appearance.light.to(device, torch.float32)
        self._sum = self._weights.new_zeros(len(weights), 4)
        self._depth_size, projection = _depth_camera(camera)
        self._projection = projection.to(device)

    @torch.no_grad()
    def add(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        vertices: Float[np.ndarray, "verts 3"] | Tensor,
        record: EmbeddingRecord | None = None,
    ) -> None:
        points = torch.as_tensor(vertices, dtype=torch.float32, device=self._device)
        place = (self._weights @ points[self._corners])[:, 0]
        normal = (self._weights @ vertex_normals(points, self._faces)[self._corners])[:, 0]
        normal = torch.nn.functional.normalize(normal, dim=1, eps=1e-9)
        towards = place.new_tensor(CAMERA_POSITION) - place
        distance = towards[:, 2]
        facing = (normal * towards).sum(1) / towards.norm(dim=1)
        c = self._camera
        pixels, _ = project(place, c.focal_px, (c.cx, c.cy))
        relative = pixels / pixels.new_tensor((c.width, c.height))
        nearest = _sample_on_device(self._depth_picture(points), relative, "nearest")[:, 0]
        visible = (distance > 0) & (distance < nearest + _DEPTH_TOLERANCE_M)
        weight = torch.where(visible, ((facing - _GRAZING) / (1 - _GRAZING)).clamp(0, 1).square(), 0)
        if record is not None:
            size = record.trust.shape[0]
            matrix = record.crop.matrix(size)
            back = torch.as_tensor(np.linalg.inv(matrix[:, :2]).T, dtype=torch.float32, device=self._device)
            on_map = (pixels - pixels.new_tensor(matrix[:, 2])) @ back / size
            weight = weight * _sample_on_device(torch.as_tensor(record.trust, device=self._device)[..., None], on_map)[:, 0]
        colour = _sample_on_device(torch.as_tensor(image, device=self._device).float(), relative)
        if self._light is not None:
            colour = colour / (harmonics(normal) @ self._light).clamp(0.4, 2.0)
        self._sum += weight[:, None] * torch.cat([colour, torch.ones_like(colour[:, :1])], dim=1)

    def _depth_picture(self, points: Float[Tensor, "verts 3"]) -> Float[Tensor, "h w 1"]:
        """Distance along the viewing direction of what shows, metres, row 0 on top; 0 where nothing does."""
        mesh = world_to_clip(points, self._projection)[None]
        rast = self._renderer.rasterize(mesh, self._faces, self._depth_size)
        return to_image(self._renderer.interpolate(mesh[..., 3:].contiguous(), rast, self._faces))[0]

    def finish(self) -> UInt8[np.ndarray, "size size 3"]:
        return _finished(self._sum.cpu().numpy(), self._texels)


def _depth_camera(camera: Camera) -> tuple[tuple[int, int], Float[Tensor, "4 4"]]:
    """(height, width) and projection of the small pictures that tell what hides what."""
    scale = min(1.0, 512 / max(camera.width, camera.height))
    height, width = max(int(camera.height * scale), 1), max(int(camera.width * scale), 1)
    fx = width / camera.width
    return (height, width), perspective(camera.focal_px * fx, camera.cx * fx, camera.cy * fx, width, height, near=0.01, far=100.0)


def _finished(
    total: Float[np.ndarray, "texels 4"], texels: Bool[np.ndarray, "size size"]
) -> UInt8[np.ndarray, "size size 3"]:
    filled = np.zeros((*texels.shape, 4), np.float32)
    filled[texels] = total / _GOOD
    return np.clip(push_pull(filled) + 0.5, 0, 255).astype(np.uint8)


def _sample_on_device(
    image: Float[Tensor, "h w c"], at: Float[Tensor, "n 2"], mode: str = "bilinear"
) -> Float[Tensor, "n c"]:
    """Values at positions relative to the picture's size (0 at its outer edges, 1 at the opposite ones), 0 outside."""
    grid = (2 * at - 1)[None, None]
    sampled = torch.nn.functional.grid_sample(image.permute(2, 0, 1)[None], grid, mode, "zeros", align_corners=False)
    return sampled[0, :, 0].T


def _sample(image: np.ndarray, x: np.ndarray, y: np.ndarray, method: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Values at pixel positions (centres at halves), 0 outside. In rows, because OpenCV maps no picture of 32,768 rows."""
    count, width = len(x), 1024
    padded = -(-count // width) * width
    at = [np.full(padded, -9.0, np.float32) for _ in range(2)]
    at[0][:count], at[1][:count] = x - 0.5, y - 0.5
    grid = [a.reshape(-1, width) for a in at]
    out = cv2.remap(image, *grid, method, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return out.reshape(padded, *image.shape[2:])[:count]


def push_pull(weighted: Float[np.ndarray, "h w 4"]) -> Float[np.ndarray, "h w 3"]:
    """Fill holes from coarser levels of a pyramid (Gortler et al., *The lumigraph*, SIGGRAPH 1996).

    Args:
        weighted: colours times weight, and the weight; weights of one and more stand for themselves.
    """
    total = np.maximum(weighted[..., 3:], 1e-9)
    share = np.minimum(weighted[..., 3:], 1)
    here = weighted[..., :3] / total
    if min(weighted.shape[:2]) <= 1:
        return here
    coarse = cv2.resize(weighted, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) * 4
    above = cv2.resize(push_pull(coarse), weighted.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return here * share + above * (1 - share)


def _texel_places(asset: HeadAsset, size: int) -> tuple[np.ndarray, np.ndarray, Bool[np.ndarray, "size size"]]:
    """Triangle and barycentrics of every texel that the uv map covers, and where those texels are (row 0 at v = 1)."""
    if asset.uv is None or asset.uv_faces is None:
        raise ValueError(f"head {asset.name!r} has no uv coordinates")
    flat = np.concatenate([asset.uv * 2 - 1, np.zeros((len(asset.uv), 1)), np.ones((len(asset.uv), 1))], axis=1)
    rast = MeshCanvas(size, size).rasterize(flat.astype(np.float32), np.ascontiguousarray(asset.uv_faces, np.int32))[::-1]
    covered = rast[..., 3] > 0
    u, v = rast[..., 0][covered], rast[..., 1][covered]
    return rast[..., 3][covered].astype(np.int64) - 1, np.stack([u, v, 1 - u - v], axis=1), covered
