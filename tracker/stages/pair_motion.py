"""How far two frames' poses disagree with what moved in the picture between them.

A frame's picture is carried over the surface of the fitted head into another frame's pose. Where both poses are right, it falls on that
frame's picture; what optical flow still finds between the two is the poses' error relative to each other, whatever the network
or the detector said of either. The poses being nearly right, the motion left is small, and nothing is foreshortened otherwise,
so that frames may be far apart. Flow by dense inverse search (Kroeger et al., ECCV 2016), with mean-normalised patches, which
do not mind how bright a place is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, UInt8
from torch import Tensor

from tracker.camera import CAMERA_POSITION, project
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.observe.reading import GreyPicture
from tracker.rendering.renderer import Renderer
from tracker.residuals.drawn_head import clip_space_on_map
from tracker.stages.carry_kernels import carry

_BEHIND_M = 0.008  # places lie on flat triangles; ears and noses hide by more than this
_ROUND_TRIP_PX = 0.7
_MARGIN = np.ones((5, 5), np.uint8)  # flow near the edge of what is seen in both knows of what is not
_LEAST_SEEN, _LEAST_PLACES = 200, 15


@dataclass(frozen=True)
class DrawnFrame:
    """A frame's picture of the head, and the head as it was fitted there.

    Attributes:
        grey, shown: the picture, and its pixels that show the head and nothing in front of it.
        triangle, first, second: which triangle each pixel shows (−1: none), and the weights of its corners 0 and 1; row 0 on top.
        positions: vertices in camera space (camera at the origin), metres.
        at: vertices in the picture's pixels. depth: metres from the camera.
        nearest: depth of what the pixels show, metres; infinite where they show nothing.
    """

    grey: UInt8[np.ndarray, "side side"]
    shown: Bool[np.ndarray, "side side"]
    triangle: Int32[np.ndarray, "side side"]
    first: Float[np.ndarray, "side side"]
    second: Float[np.ndarray, "side side"]
    positions: Float[np.ndarray, "verts 3"]
    at: Float[np.ndarray, "verts 2"]
    depth: Float[np.ndarray, "verts"]
    nearest: Float[np.ndarray, "side side"]


@dataclass(frozen=True)
class PairMotion:
    """Motion left between two frames at n places of the head.

    Attributes:
        before, after: the places in camera space in both frames' fitted poses, metres.
        motion: from where the first picture was carried to, to where the second shows it; pixels of the second picture.
    """

    before: Float[np.ndarray, "n 3"]
    after: Float[np.ndarray, "n 3"]
    motion: Float[np.ndarray, "n 2"]


@torch.no_grad()
def draw_frames(
    head: HeadModel,
    faces: Int32[np.ndarray, "faces 3"],
    values: Mapping[str, Tensor],
    principal_point: tuple[float, float],
    pictures: Sequence[GreyPicture],
    renderer: Renderer,
) -> list[DrawnFrame]:
    """Frames with the head at ``values``, drawn for their pictures.

    Args:
        head: of the clip's identity.
        faces: its triangles.
        values: parameters of these frames, and ``log_focal``.
        principal_point: pixels.
        pictures: of each frame.
        renderer: on the head's device.
    """
    size = pictures[0].grey.shape
    to_map = torch.as_tensor(np.stack([p.to_picture for p in pictures])).to(head.template)
    mesh = clip_space_on_map(head, to_map, size, values, principal_point)
    rast = renderer.rasterize(mesh, head.faces, size).flip(1).cpu().numpy()
    world = HeadPoints.evaluate(head, values).positions
    pixels, _ = project(world, values["log_focal"].exp().expand(len(world)), principal_point)
    at = (pixels @ to_map[:, :, :2].mT + to_map[:, None, :, 2]).cpu().numpy().astype(np.float32)
    positions = (world - world.new_tensor(CAMERA_POSITION)).cpu().numpy().astype(np.float32)
    found = []
    for number, picture in enumerate(pictures):
        triangle = rast[number, ..., 3].astype(np.int32) - 1
        first, second = (np.ascontiguousarray(rast[number, ..., k]) for k in (0, 1))
        depth = np.ascontiguousarray(-positions[number, :, 2])
        corners = depth[faces[triangle.clip(0)]]
        nearest = first * corners[..., 0] + second * corners[..., 1] + (1 - first - second) * corners[..., 2]
        nearest = np.where(triangle >= 0, nearest, np.float32(np.inf)).astype(np.float32)
        found.append(DrawnFrame(picture.grey, picture.shown, triangle, first, second, positions[number], at[number], depth, nearest))
    return found


class MotionMeter:
    """Measures what moves between frames beside what their poses say.

    Args:
        faces: the head's triangles.
        rigid: those that move with the skull.
        step: pixels from one place to the next, in both directions.
        most: places of a pair at most, evenly left out beyond.
    """

    def __init__(self, faces: Int32[np.ndarray, "faces 3"], rigid: Bool[np.ndarray, "faces"], step: int, most: int) -> None:
        self._faces, self._rigid = np.ascontiguousarray(faces, np.int32), rigid
        self._step, self._most = step, most
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, before: DrawnFrame, after: DrawnFrame) -> PairMotion | None:
        """The motion left between two frames; None when they share too little that can be followed."""
        carried, seen = after.grey.copy(), np.zeros_like(after.grey)
        carry(
            after.triangle, after.first, after.second, self._faces, before.at, before.depth, before.nearest, before.grey,
            np.float32(_BEHIND_M), carried, seen,
        )  # fmt: skip
        if np.count_nonzero(seen) < _LEAST_SEEN:
            return None
        start = self._step // 2
        inner = cv2.erode(seen, _MARGIN)[start :: self._step, start :: self._step] > 0
        inner &= after.shown[start :: self._step, start :: self._step]
        surface = after.triangle[start :: self._step, start :: self._step]
        rows, columns = (start + self._step * index for index in np.nonzero(inner & self._rigid[surface.clip(0)]))
        if len(rows) < _LEAST_PLACES:
            return None
        there, back = self._flow.calc(carried, after.grey, None), self._flow.calc(after.grey, carried, None)
        motion = there[rows, columns]
        ends = np.stack([columns, rows], axis=1).astype(np.float32) + motion
        returned = cv2.remap(back, ends[:, 0], ends[:, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, 2)
        corners = self._faces[after.triangle[rows, columns]]
        weights = np.stack([after.first[rows, columns], after.second[rows, columns]], axis=1)
        weights = np.concatenate([weights, 1 - weights.sum(1, keepdims=True)], axis=1)
        came = np.einsum("nkc,nk->nc", before.at[corners], weights).astype(int).clip(0, len(before.shown) - 1)
        followed = (np.linalg.norm(motion + returned, axis=1) < _ROUND_TRIP_PX) & before.shown[came[:, 1], came[:, 0]]
        kept = np.flatnonzero(followed)
        if len(kept) < _LEAST_PLACES:
            return None
        if len(kept) > self._most:
            kept = kept[np.linspace(0, len(kept) - 1, self._most).round().astype(int)]

        def place(frame: DrawnFrame) -> np.ndarray:
            return np.einsum("nkc,nk->nc", frame.positions[corners[kept]], weights[kept])

        return PairMotion(place(before), place(after), motion[kept])
