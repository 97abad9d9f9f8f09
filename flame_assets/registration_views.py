"""What is seen of a head from outside: orthographic depth maps, the outer skin, the opening of the eyes.

Heads differ in what lies behind the skin (sockets, gums, the inside of the mouth) and seldom say which triangles those are.
What a camera sees of a head needs no such naming, and it is what landmarks are about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

_SKIN_VIEWS = tuple((yaw, pitch) for yaw in (-75, -40, 0, 40, 75) for pitch in (-25, 20))
_SKIN_PIXEL_M = 1.5e-3


@dataclass(frozen=True)
class DepthMap:
    """The frontmost triangle behind each pixel of an orthographic view.

    Attributes:
        triangle: ``(H, W)`` int32, row of the mesh's triangles, -1 where there is none. Row 0 is lowest.
        depth: ``(H, W)`` position along the viewing axis in metres, larger is nearer to the viewer; -inf where empty.
        origin: ``(2,)`` view coordinates of the corner of pixel (0, 0).
        pixel: side of a pixel in metres.
    """

    triangle: np.ndarray
    depth: np.ndarray
    origin: np.ndarray
    pixel: float

    def centres(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """View coordinates ``(N, 2)`` of pixel centres."""
        return self.origin + (np.stack([columns, rows], -1) + 0.5) * self.pixel


def depth_map(
    corners: np.ndarray, window: tuple[float, float, float, float], pixel: float, rows: np.ndarray | None = None
) -> DepthMap:
    """Draw triangles as seen along -z.

    Args:
        corners: ``(F, 3, 3)`` triangle corners in view coordinates.
        window: low x, low y, high x, high y in metres.
        pixel: side of a pixel in metres.
        rows: ``(F,)`` numbers to write into ``triangle``; 0..F-1 when None.
    """
    low, high = np.array(window[:2]), np.array(window[2:])
    width, height = np.ceil((high - low) / pixel).astype(int)
    triangle = np.full((height, width), -1, np.int32)
    depth = np.full((height, width), -np.inf)
    numbers = np.arange(len(corners)) if rows is None else rows
    flat = (corners[:, :, :2] - low) / pixel - 0.5  # pixel centres at integers
    first = np.ceil(flat.min(1)).astype(int).clip(0)
    last = np.minimum(np.floor(flat.max(1)).astype(int), (width - 1, height - 1))
    ab, ac = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    drawn = (first <= last).all(1) & (np.abs(area) > 1e-12)
    for k in np.flatnonzero(drawn):
        (x0, y0), (x1, y1) = first[k], last[k]
        x = np.arange(x0, x1 + 1)[None] - flat[k, 0, 0]
        y = np.arange(y0, y1 + 1)[:, None] - flat[k, 0, 1]
        v = (x * ac[k, 1] - y * ac[k, 0]) / area[k]
        w = (y * ab[k, 0] - x * ab[k, 1]) / area[k]
        z = corners[k, 0, 2] + v * (corners[k, 1, 2] - corners[k, 0, 2]) + w * (corners[k, 2, 2] - corners[k, 0, 2])
        tile = np.s_[y0 : y1 + 1, x0 : x1 + 1]
        nearer = (v >= 0) & (w >= 0) & (v + w <= 1) & (z > depth[tile])
        depth[tile][nearer] = z[nearer]
        triangle[tile][nearer] = numbers[k]
    return DepthMap(triangle, depth, low, pixel)


def outer_surface(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """``(F,)`` bool: triangles that can be seen from the front half of the directions around a head."""
    seen = np.zeros(len(faces), bool)
    for yaw, pitch in _SKIN_VIEWS:
        view = Rotation.from_euler("YX", (-yaw, pitch), degrees=True)
        turned = view.apply(vertices)
        corners = turned[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        facing = np.flatnonzero(normal[:, 2] > 0)  # a closed surface hides what faces away
        window = (*turned[:, :2].min(0), *turned[:, :2].max(0))
        found = depth_map(corners[facing], window, _SKIN_PIXEL_M, facing).triangle
        seen[np.unique(found[found >= 0])] = True
    visible_vertex = np.zeros(len(vertices), bool)
    visible_vertex[faces[seen]] = True
    return seen | visible_vertex[faces].all(1)  # slivers between two pixels


@dataclass(frozen=True)
class EyeOpening:
    """The contour between lids and eyeball as seen from the front.

    Attributes:
        upper, lower: ``(N, 3)`` points on the edge of the lids, from the subject's right to the left.
    """

    upper: np.ndarray
    lower: np.ndarray


def eye_opening(
    vertices: np.ndarray, faces: np.ndarray, eyeball: np.ndarray, centre: np.ndarray, pixel: float = 1.5e-4
) -> EyeOpening | None:
    """Trace the eye's opening; None when the eye is closed or the eyeball lies in front of the lids.

    Args:
        vertices, faces: the whole head.
        eyeball: ``(F,)`` bool.
        centre: ``(3,)`` of the eyeball.
        pixel: resolution in metres.
    """
    reach = np.array([0.026, 0.018])
    low, high = centre[:2] - reach, centre[:2] + reach
    corners = vertices[faces]
    near = (corners[:, :, :2].max(1) > low).all(1) & (corners[:, :, :2].min(1) < high).all(1)
    near &= corners[:, :, 2].max(1) > centre[2] - 0.01
    rows = np.flatnonzero(near)
    view = depth_map(corners[rows], (*low, *high), pixel, rows)
    ball = (view.triangle >= 0) & eyeball[view.triangle.clip(0)]
    label, count = ndimage.label(ball)
    if not count:
        return None
    size = ndimage.sum_labels(ball, label, np.arange(1, count + 1))
    ball = ndimage.binary_fill_holes(label == 1 + int(size.argmax()))
    columns = np.flatnonzero(ball.any(0))
    if len(columns) * pixel < 0.012 or len(columns) == ball.shape[1]:
        return None
    top = ball.shape[0] - 1 - ball[::-1, columns].argmax(0)
    bottom = ball[:, columns].argmax(0)
    if (top - bottom).max() * pixel < 0.003 or top.max() == ball.shape[0] - 1 or bottom.min() == 0:
        return None

    def curve(rows_: np.ndarray, step: int) -> np.ndarray:
        edge = rows_ + step
        flat, z = view.centres(edge, columns), view.depth[edge, columns]
        return np.column_stack([flat, z])[np.isfinite(z)]

    return EyeOpening(curve(top, 1), curve(bottom, -1))
