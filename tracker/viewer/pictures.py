"""The frames behind a finished track, in any order: those of its overlay, or of the video itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tracker.camera import Camera
from tracker.errors import UserError
from tracker.export.texture_png import read_picture
from tracker.head_track import HeadTrack
from tracker.photo_overlay import overlay_names
from tracker.video.reader import VideoReader, open_video

_FORWARD_SECONDS = 3.0  # a frame that is no further ahead is reached by decoding on, others by opening anew


class Pictures:
    """Pictures of a track's frames: ``at(frame)``.

    Args:
        folder: of the result; its overlay holds the input on the left.
        track: the result.
        video: the video that was tracked, where there is no overlay, or its full size is wanted.

    Raises:
        UserError: the video cannot be read, or is another.
    """

    def __init__(self, folder: Path, track: HeadTrack, video: Path | None = None) -> None:
        self._track, self._folder = track, folder
        overlay = folder / "overlay.mp4"
        self._names = list(overlay_names(track.photos)) if track.photos is not None else []
        self._path = video or (overlay if overlay.is_file() else None)
        # an overlay begins at zero with the track's first frame
        self._times = track.timestamps - (track.timestamps[0] if video is None else 0.0)
        self._video: VideoReader | None = None
        self._next = 0
        if video is not None:
            with open_video(video, frame_rate=track.frame_rate) as opened:
                if (opened.height, opened.width) != tuple(track.image_size):
                    height, width = track.image_size
                    raise UserError(f"--video {video}: {opened.width}×{opened.height}, but the tracked video has {width}×{height}; give that one")

    @property
    def there(self) -> bool:
        """Whether there are any."""
        return self._path is not None or bool(self._names and (self._folder / "overlay" / self._names[0]).is_file())

    def at(self, frame: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """The picture of a frame, RGB; None where it is not at hand."""
        if self._names:
            path = self._folder / "overlay" / self._names[frame]
            return first_panel(read_picture(path), self.camera(frame)) if path.is_file() else None
        if self._path is None:
            return None
        # overlays have times in whole steps of their own; a frame is the first that is not nearer to the one before
        before = self._times[frame] - (self._times[frame] - self._times[frame - 1]) / 2 if frame else -np.inf
        ahead = self._times[frame] - self._times[min(self._next, len(self._times) - 1)]
        if self._video is None or frame < self._next or ahead > _FORWARD_SECONDS:
            self.close()
            self._video = open_video(self._path, frame_rate=self._track.frame_rate, start=max(float(before), 0.0) or None)
        picture = next((f.image for f in self._video if f.timestamp >= before), None)
        self._next = frame + 1
        return None if picture is None else first_panel(picture, self.camera(frame))

    def camera(self, frame: int) -> Camera:
        """That took a frame's picture; of the track's full size, whatever the picture's."""
        return self._track.camera if self._track.photos is None else self._track.in_photo(frame).camera

    def close(self) -> None:
        """Let go of the video."""
        if self._video is not None:
            self._video.close()
            self._video = None


def first_panel(picture: UInt8[np.ndarray, "h w 3"], camera: Camera) -> UInt8[np.ndarray, "h w2 3"]:
    """The leftmost of panels side by side that have the camera's proportions each; a picture of those proportions as it is."""
    panels = max(round(picture.shape[1] * camera.height / (picture.shape[0] * camera.width)), 1)
    return picture[:, : picture.shape[1] // panels]


def behind(picture: UInt8[np.ndarray, "h w 3"], camera: Camera, aspect: float) -> tuple[UInt8[np.ndarray, "h2 w2 3"], float]:
    """The picture on a grey ground of a window's proportions, with the camera's axis in the middle, and the window's vertical field of
    view in radians: a head seen from the camera through that window stands where the picture shows it."""
    scale = picture.shape[1] / camera.width
    cx, cy, focal = camera.cx * scale, camera.cy * scale, camera.focal_px * scale
    height, width = picture.shape[:2]
    half_width, half_height = max(cx, width - cx), max(cy, height - cy)
    half_height = max(half_height, half_width / aspect)
    half_width = half_height * aspect
    ground = np.full((2 * round(half_height), 2 * round(half_width), 3), 60, np.uint8)
    left, top = round(half_width) - round(cx), round(half_height) - round(cy)
    ground[top : top + height, left : left + width] = picture[: ground.shape[0] - top, : ground.shape[1] - left]
    return ground, 2 * float(np.arctan(half_height / focal))
