"""What the picture itself says of a track: optical flow under the mesh, colours on it, and its outline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from flame_assets.asset import LandmarkEmbedding
from tracker.camera import CAMERA_POSITION
from tracker.evaluation.baselines.interface import Tracked
from tracker.observe.sites import skin_triangles, spread_points, surface_triangles
from tracker.rendering import get_renderer
from tracker.rendering.clip_space import perspective, world_to_clip
from tracker.rendering.visibility import visible_points
from tracker.video.reader import open_video

_PLACES = 600
_FLOW_SIDE = 640  # pixels of the longer side on which flow is measured
_ROUND_TRIP_PX = 1.0
_DEPTH_SIDE = 256
_TOLERANCE_M = 0.006
_SEEN_FRAMES = 8  # a place seen in fewer frames tells nothing of its stability


@dataclass
class Places:
    """Places on a tracked head, in the picture.

    Attributes:
        tracked: the tracker's result.
        embedding: the places.
    """

    tracked: Tracked
    embedding: LandmarkEmbedding
    _camera: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        c = self.tracked.track.camera
        scale = _DEPTH_SIDE / max(c.width, c.height)
        self._size = (max(int(c.height * scale), 1), max(int(c.width * scale), 1))
        sy, sx = self._size[0] / c.height, self._size[1] / c.width
        self._camera = perspective(c.focal_px * sx, c.cx * sx, c.cy * sy, self._size[1], self._size[0], near=0.01, far=100.0)
        self._faces = torch.as_tensor(np.ascontiguousarray(self.tracked.head.faces, np.int32))
        self._renderer = get_renderer("auto", "cpu")

    def pixels(self, frame: int) -> Float[np.ndarray, "n 2"]:
        """Full-frame pixels of the places."""
        corners = self.tracked.vertices[frame][self.tracked.head.faces[self.embedding.faces]]
        return self.tracked.pixels(np.einsum("nkc,nk->nc", corners, self.embedding.barycentrics)[None])[0]

    def visible(self, frame: int) -> Bool[np.ndarray, "n"]:
        """Places in the picture with nothing of the head in front of them."""
        world = torch.as_tensor(self.tracked.vertices[frame] + np.asarray(CAMERA_POSITION, np.float32))
        corners = world[self._faces.long()[torch.as_tensor(self.embedding.faces).long()]]
        points = (corners * torch.as_tensor(self.embedding.barycentrics)[..., None]).sum(1)
        mesh = world_to_clip(world, self._camera)[None]
        rast = self._renderer.rasterize(mesh, self._faces, self._size)
        seen = visible_points(world_to_clip(points, self._camera)[None], rast, mesh, self._faces, _TOLERANCE_M)[0]
        c, at = self.tracked.track.camera, self.pixels(frame)
        return seen.numpy().astype(bool) & (at > 1).all(1) & (at < [c.width - 1, c.height - 1]).all(1)


def flow_agreement_px(tracked: Tracked, video: Path) -> float:
    """Mean over pairs of frames of the median distance between the motion of visible places and the optical flow there.

    Dense inverse search (Kroeger et al., ECCV 2016); places whose flow forwards and back does not return to within a pixel are
    left out. Full-frame pixels. NaN when there is no pair of tracked frames.
    """
    head = tracked.head
    places = Places(tracked, spread_points(head, surface_triangles(head), _PLACES))
    scale = min(1.0, _FLOW_SIDE / max(tracked.track.image_size))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    found = []
    for frame, image in _frames(tracked, video):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
        if not tracked.track.tracked[frame]:
            before = None
            continue
        now = (grey, places.pixels(frame), places.visible(frame))
        if before is not None:
            use = before[2] & now[2]
            forward, back = flow.calc(before[0], grey, None), flow.calc(grey, before[0], None)
            start = before[1][use] * scale
            moved = _sample(forward, start)
            closed = np.linalg.norm(moved + _sample(back, start + moved), axis=1) < _ROUND_TRIP_PX
            apart = np.linalg.norm(now[1][use] * scale - start - moved, axis=1)[closed] / scale
            if len(apart) >= 20:
                found.append(np.median(apart))
        before = now
    return float(np.mean(found)) if found else float("nan")


def colour_spread(tracked: Tracked, video: Path) -> float:
    """How much the colour under a place of the skin changes over the clip: median over places of the standard deviation, in
    levels of 255, after each frame's brightness has been taken out. A texture made of these colours is as blurred as this."""
    head = tracked.head
    places = Places(tracked, spread_points(head, skin_triangles(head), _PLACES))
    rows = []
    for frame, image in _frames(tracked, video):
        if not tracked.track.tracked[frame]:
            continue
        smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
        colour = _sample(smooth.astype(np.float32), places.pixels(frame))
        rows.append(np.where(places.visible(frame)[:, None], colour, np.nan))
    if not rows:
        return float("nan")
    colours = np.stack(rows)
    often = np.isfinite(colours[..., 0]).sum(0) >= _SEEN_FRAMES
    if not often.any():
        return float("nan")
    colours = colours[:, often]
    usual = np.nanmedian(colours, axis=0)
    shown = np.isfinite(colours).any((1, 2))
    colours = colours[shown]
    gain = np.nanmedian(usual / np.maximum(colours, 1), axis=(1, 2))
    colours = colours * gain[:, None, None]
    return float(np.median(np.sqrt(np.nanvar(colours, axis=0).mean(1))))


def silhouette_iou(tracked: Tracked, masks: Path) -> float:
    """Mean overlap (intersection over union) of the drawn head with a person's mask, above the head's chin.

    The mask's body counts for nothing below the chin; its hair does count, so that no bald mesh reaches one.

    Args:
        tracked: the tracker's result.
        masks: folder of pictures in the frames' order, bright where the person is.
    """
    head, found = tracked.head, []
    files = sorted(p for p in masks.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    chin = head.landmarks["ibug68"]
    for frame, file in enumerate(files[: tracked.track.n_frames]):
        if not tracked.track.tracked[frame]:
            continue
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        height, width = (int(n) for n in tracked.track.image_size)
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 127
        drawn = np.zeros((height, width), np.uint8)
        pixels = tracked.pixels(tracked.vertices[frame][None])[0]
        for triangle in np.round(pixels[head.faces]).astype(np.int32):
            cv2.fillConvexPoly(drawn, triangle, 1)
        corners = tracked.vertices[frame][head.faces[chin.faces[8]]]
        row = int(tracked.pixels((chin.barycentrics[8] @ corners)[None, None])[0, 0, 1])
        drawn[max(row, 0) :], mask[max(row, 0) :] = 0, False
        columns = np.flatnonzero(drawn.any(0))
        if len(columns):
            found.append((mask & (drawn > 0)).sum() / max((mask | (drawn > 0)).sum(), 1))
    return float(np.mean(found)) if found else float("nan")


def _frames(tracked: Tracked, video: Path) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    with open_video(video, max_frames=tracked.track.n_frames) as frames:
        for number, frame in enumerate(frames):
            yield number, frame.image


def _sample(picture: np.ndarray, at: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """Bilinear values at pixel positions (centres at halves)."""
    x, y = (at[:, i].astype(np.float32)[None] - 0.5 for i in (0, 1))
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
