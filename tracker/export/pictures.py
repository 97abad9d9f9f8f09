"""The video's frames with their masks, one after the other, for formats that are folders of pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tracker.camera import Camera
from tracker.errors import UserError
from tracker.export.head_masks import HeadMasks
from tracker.export.registry import ExportJob
from tracker.track_vertices import track_vertices
from tracker.video.reader import at_times


@dataclass(frozen=True)
class MaskedFrame:
    """Attributes:
    number: of the frame in the track.
    image: RGB, row 0 on top.
    mask: 255 where it shows the head.
    """

    number: int
    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]


def masked_frames(job: ExportJob, masks: HeadMasks) -> Iterator[MaskedFrame]:
    """Frames in which the head was tracked, decoded anew.

    Raises:
        UserError: the video's frames are not the track's.
    """
    track = job.track
    assert job.source is not None
    numbers = np.flatnonzero(track.tracked)
    seen = track.select(numbers)
    with job.source.open_again() as video:
        for number, frame, vertices in zip(numbers, at_times(video, seen.timestamps), track_vertices(seen, job.head), strict=True):
            if frame.image.shape[:2] != tuple(track.image_size):
                height, width = track.image_size
                raise UserError(f"{video.path}: {frame.image.shape[1]}×{frame.image.shape[0]}, but the tracked video has {width}×{height}")
            yield MaskedFrame(int(number), frame.image, masks.mask(frame.image, vertices))
            job.written(int(number) + 1)


def check_tracked(job: ExportJob, name: str) -> None:
    """Raises:
    UserError: there is no frame to write.
    """
    if not job.track.tracked.any():
        raise UserError(f"format {name}: the head was tracked in no frame; nothing to write")


def intrinsics(camera: Camera) -> dict[str, Any]:
    """A camera under the names of NeRF's ``transforms.json``: pixels, and fields of view in radians."""
    return {
        "cx": camera.cx, "cy": camera.cy, "fl_x": camera.focal_px, "fl_y": camera.focal_px, "h": camera.height, "w": camera.width,
        "camera_angle_x": 2 * math.atan(camera.width / (2 * camera.focal_px)),
        "camera_angle_y": 2 * math.atan(camera.height / (2 * camera.focal_px)),
    }  # fmt: skip


def on_white(image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """What is not the head in white."""
    share = mask[..., None].astype(np.float32) / 255
    return np.rint(255 + share * (image.astype(np.float32) - 255)).astype(np.uint8)


def write_png(path: Path, picture: UInt8[np.ndarray, "h w *channels"]) -> None:
    """RGB or grey, into a folder that is not yet under its name."""
    ok, code = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not ok:
        raise ValueError(f"a picture of shape {picture.shape} cannot be encoded")
    path.write_bytes(code.tobytes())


def matrix(linear: Float[np.ndarray, "3 3"], shift: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4 4"]:
    """A rigid motion as one matrix."""
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = linear, shift
    return whole
