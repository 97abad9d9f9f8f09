"""The strip of pictures: the first, the middle, the last and the worst frames, each with the mesh over it, cut out around the head."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from flame_assets.asset import HeadAsset
from tracker.camera import Camera, project
from tracker.head_track import HeadTrack
from tracker.overlay import OverlaySettings, Shown, overlay_pictures
from tracker.photo_overlay import photo_pictures
from tracker.video.reader import VideoSource, open_video

_WORST = 3
_APART_SECONDS = 0.5  # between two of the worst: neighbours show the same
_MOST_PHOTOS = 12
_SIDE = 220  # of a panel cut out around the head, pixels
_WHOLE = 720  # longer side of the one picture that is shown whole
_MARGIN = 0.25  # around the head, of its size
_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """Attributes:
    frame: its number in the track.
    seconds: when it is shown, from the track's first frame.
    caption: why it was chosen.
    jpeg: the panels side by side.
    width, height: pixels.
    """

    frame: int
    seconds: float
    caption: str
    jpeg: bytes
    width: int
    height: int


class Strip:
    """Gathers the chosen frames of a track while its overlay is written, or afterwards.

    Args:
        track: where the head is.
        error_percent: ``(frames,)``, each frame's landmark error, percent; infinite without a head.
    """

    def __init__(self, track: HeadTrack, error_percent: Float[np.ndarray, "frames"]) -> None:
        self._track = track
        self._captions = chosen_frames(track, error_percent)
        self._whole = middle_frame(track)
        self._pictures: dict[int, Picture] = {}
        self.whole: Picture | None = None
        """One frame in full, once it was seen."""

    @property
    def pictures(self) -> list[Picture]:
        """Those seen so far, in the order of their frames."""
        return [self._pictures[frame] for frame in sorted(self._pictures)]

    def see(self, shown: Shown) -> None:
        """Look at a frame of the overlay; the :data:`tracker.overlay.Watch` of this strip."""
        self._keep(shown.number, shown)

    def draw(
        self,
        source: VideoSource,
        asset: HeadAsset,
        settings: OverlaySettings,
        texture: UInt8[np.ndarray, "size size 3"] | None,
        device: torch.device | str,
    ) -> None:
        """Look at the chosen frames of a run that writes no overlay; of a long video only what lies shortly before each is decoded.

        Raises:
            UserError: the video cannot be read any more.
        """
        for frame in sorted(self._captions):
            one = self._track.select(np.array([frame]))
            if one.photos is not None:
                self._keep(frame, next(photo_pictures(source, one, asset, settings, texture, device)))
                continue
            with open_video(source.path, frame_rate=one.frame_rate, start=float(one.timestamps[0])) as video:
                self._keep(frame, next(overlay_pictures(video, one, asset, settings, texture, device)))

    def _keep(self, frame: int, shown: Shown) -> None:
        if frame not in self._captions:
            return
        track = self._track
        camera = track.camera if track.photos is None else track.in_photo(frame).camera
        scale = shown.panels[0].shape[1] / camera.width
        box = _head_box(shown, camera, scale) if track.valid[frame] else None
        seconds, caption = float(track.timestamps[frame] - track.timestamps[0]), self._captions[frame]
        panels = [_fitted(p if box is None else p[box[1] : box[3], box[0] : box[2]], _SIDE, _SIDE) for p in shown.panels]
        self._pictures[frame] = _picture(frame, seconds, caption, np.concatenate(panels, axis=1))
        if frame == self._whole:
            self.whole = _picture(frame, seconds, caption, _fitted(shown.panels[-1], _WHOLE, _WHOLE))


def chosen_frames(track: HeadTrack, error_percent: Float[np.ndarray, "frames"]) -> dict[int, str]:
    """Frames that the strip shows, increasing, and why: the first, the middle and the last with a head, and the worst; of a few photos all."""
    heads = np.flatnonzero(track.valid)
    captions: dict[int, list[str]] = {}
    if track.photos is not None and track.n_frames <= _MOST_PHOTOS:
        captions = {frame: [str(track.photos.names[frame])] for frame in range(track.n_frames)}
    elif len(heads):
        for frame, word in ((heads[0], "first"), (middle_frame(track), "middle"), (heads[-1], "last")):
            captions.setdefault(int(frame), []).append(word)
    for place, frame in enumerate(worst_frames(track, error_percent), 1):
        words = "worst" if place == 1 else f"{place}. worst"
        captions.setdefault(frame, []).append(f"{words}: {error_percent[frame]:.2f} %")
    return {frame: ", ".join(captions[frame]) for frame in sorted(captions)}


def middle_frame(track: HeadTrack) -> int:
    """The middle one of the frames with a head; of all, where there is none."""
    heads = np.flatnonzero(track.valid)
    return int(heads[len(heads) // 2]) if len(heads) else track.n_frames // 2


def worst_frames(track: HeadTrack, error_percent: Float[np.ndarray, "frames"]) -> list[int]:
    """The tracked frames whose landmark error is largest, worst first, none close to another."""
    tracked = track.valid & np.isfinite(error_percent)  # interpolated frames have a head and no error
    order = [int(f) for f in np.argsort(-np.where(tracked, error_percent, -np.inf), kind="stable")[: tracked.sum()]]
    picked: list[int] = []
    for frame in order:
        apart = all(abs(track.timestamps[frame] - track.timestamps[other]) >= _APART_SECONDS for other in picked)
        if apart and len(picked) < _WORST:
            picked.append(frame)
    return picked


def _head_box(shown: Shown, camera: Camera, scale: float) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of a square around the head, within the panel; None when the head is out of the picture."""
    points = shown.vertices.detach().cpu().double()
    pixels = project(points, camera.focal_px, (camera.cx, camera.cy))[0].numpy() * scale
    height, width = shown.panels[0].shape[:2]
    low, high = pixels.min(0), pixels.max(0)
    middle, half = (low + high) / 2, (high - low).max() * (0.5 + _MARGIN)
    left, top = np.maximum(middle - half, 0).astype(int)
    right, bottom = np.minimum(np.ceil(middle + half), (width, height)).astype(int)
    return (left, top, right, bottom) if right - left >= 8 and bottom - top >= 8 else None


def _fitted(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _picture(frame: int, seconds: float, caption: str, image: UInt8[np.ndarray, "h w 3"]) -> Picture:
    code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return Picture(frame, seconds, caption, code.tobytes(), image.shape[1], image.shape[0])
