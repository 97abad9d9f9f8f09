"""Read a video as a stream of frames: open, iterate, close; open again for a second pass.

Decoding runs in a thread of its own, a few frames ahead of the consumer, so that it overlaps with the work on each
frame. At most :data:`READ_AHEAD` pictures wait in memory, whatever the length of the video.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float, UInt8

from tracker.ahead import Ahead
from tracker.errors import UserError
from tracker.input_path import check_input
from tracker.video.container import ContainerFile
from tracker.video.frame import Frame, FrameSource
from tracker.video.image_folder import DEFAULT_FOLDER_RATE, ImageFolder, StillImage, is_still
from tracker.video.moving_webp import MovingWebp, is_moving_webp
from tracker.video.photos import Photo, PhotoFolder, PhotoOptions

READ_AHEAD = 4
"""Decoded frames that may wait for the consumer."""

_SAME_TIME = 1e-4
"""Seconds by which the time of one frame may differ between two passes."""

_EXACT = 1e-6
"""Seconds by which a timestamp may miss the start or end of the wanted part for being stored in binary."""


@dataclass(frozen=True)
class VideoPart:
    """What of a video is wanted; see :func:`open_video` for the fields.

    Raises:
        UserError: values that make no part.
    """

    max_frames: int | None = None
    frame_rate: float | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise UserError(f"max-frames is {self.max_frames}; give at least 1")
        if self.frame_rate is not None and not 0 < self.frame_rate < 10_000:
            raise UserError(f"frame rate is {self.frame_rate:g}; give frames per second above 0")
        if self.start is not None and not 0 <= self.start < math.inf:
            raise UserError(f"start is {self.start:g} s; give seconds from the video's first frame, 0 or more")
        if self.end is not None and not (self.start or 0) < self.end < math.inf:
            raise UserError(f"end is {self.end:g} s; give seconds from the video's first frame, more than the start, {self.start or 0:g}")

    def frame_count(self, source: FrameSource) -> int | None:
        """How many frames to expect of an opened video, exact for an even frame rate; None when the file does not say."""
        if source.frame_count is None:
            return None

        def before(time: float) -> int:
            return min(math.ceil(max(time - _EXACT, 0.0) * source.frame_rate), source.frame_count)

        count = (source.frame_count if self.end is None else before(self.end)) - before(self.start or 0.0)
        return count if self.max_frames is None else min(self.max_frames, count)

    def pictures(self, source: FrameSource, path: Path) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
        """Timestamps (seconds from the video's first frame) and RGB pictures of this part.

        Raises:
            UserError: there is none; ``path`` names the video then.
        """
        start = (self.start or 0.0) - _EXACT
        end = math.inf if self.end is None else self.end - _EXACT
        delivered = 0
        last = 0.0
        for time, image in source.pictures(max(start, 0.0)):
            last = time
            if time >= end:
                break
            if time < start:
                continue
            yield time, image
            delivered += 1
            # said before the next one is asked for, so that no frame beyond the last wanted one is decoded
            if delivered == self.max_frames:
                return
        if not delivered:
            until = "" if self.end is None else f" and before the end, {self.end:g} s"
            raise UserError(f"{path}: no frame from the start, {self.start or 0:g} s, on{until}; the last one read is at {last:.3f} s")


class VideoReader:
    """One pass over a video; made by :func:`open_video`, used as a context manager and iterator of :class:`Frame`.

    Attributes:
        path: the file or folder.
        width, height: pixels of every frame, after rotation and with square pixels.
        frame_rate: average frames per second (the frames' own timestamps are what counts).
        frame_count: how many frames to expect (an estimate, for progress bars); None when the file does not say.
        has_audio: whether the file holds a sound track.
        start_time: container time in seconds of the frame with timestamp 0, delivered or not, for aligning the sound.
        lens: what the file says of the focal length, or None.
        photos: where the photos lie on the canvas, one a second, when the source is a folder of photos; otherwise empty.
        problem: damage on the way, or an end before the one that the file states, as a clause for a message; None so far.
        source: what is decoded.
    """

    def __init__(self, path: Path, source: FrameSource, part: VideoPart) -> None:
        self.path = path
        self.width, self.height, self.frame_rate = source.width, source.height, source.frame_rate
        self.has_audio, self.start_time = source.has_audio, source.start_time
        self.lens = source.lens
        self.photos = source.photos if isinstance(source, PhotoFolder) else ()
        self.frame_count = part.frame_count(source)
        self.source = source
        self._part = part
        self._ahead = Ahead(self._frames(), READ_AHEAD, "video-decode")
        self._closed = False

    @property
    def problem(self) -> str | None:
        """What disturbed decoding so far."""
        return self.source.problem

    def photo_at(self, timestamp: float) -> Photo | None:
        """The photo that is shown then; None in a video."""
        return self.photos[round(timestamp * self.frame_rate)] if self.photos else None

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._ahead)

    def _frames(self) -> Iterator[Frame]:
        for index, (timestamp, image) in enumerate(self._part.pictures(self.source, self.path)):
            yield Frame(index, timestamp, image)

    def close(self) -> None:
        """Stop decoding and release the file; further iteration ends at once."""
        if self._closed:
            return
        self._closed = True
        self._ahead.close()
        self.source.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def at_times(video: VideoReader, timestamps: Float[np.ndarray, "frames"]) -> Iterator[Frame]:
    """The frames of an earlier pass, found again by their times; frames that it did not deliver are left out.

    Raises:
        UserError: this pass lacks one of them.
    """
    frames = iter(video)
    for time in timestamps:
        frame = next((f for f in frames if f.timestamp > time - _SAME_TIME), None)
        if frame is None or frame.timestamp > time + _SAME_TIME:
            raise UserError(f"{video.path}: no frame at {time:.3f} s any more; was the video changed during the run?")
        yield frame


@dataclass(frozen=True)
class VideoSource:
    """A video, or a part of one, that several passes look at; every pass sees the same frames.

    Attributes:
        path: see :func:`open_video`.
        part: what of it is wanted.
        photos: what is known of the cameras when these are photos, not frames; None for a video.
    """

    path: Path
    part: VideoPart = VideoPart()
    photos: PhotoOptions | None = None

    def open(self) -> VideoReader:
        """Begin a pass over all wanted frames."""
        if self.photos is not None:
            return VideoReader(self.path, PhotoFolder(self.path, self.photos), self.part)
        return open_video(self.path, self.part.max_frames, self.part.frame_rate, self.part.start, self.part.end)

    def open_again(self) -> VideoReader:
        """Begin a pass for :func:`at_times`, which leaves out what the first pass did not deliver."""
        if self.photos is not None:
            return self.open()
        return open_video(self.path, None, self.part.frame_rate, self.part.start, self.part.end)


def open_video(
    path: str | Path,
    max_frames: int | None = None,
    frame_rate: float | None = None,
    start: float | None = None,
    end: float | None = None,
) -> VideoReader:
    """Open a video file or a folder of images, or a part of it, for one pass.

    Args:
        path: any container that FFmpeg reads, an animated GIF, a single picture, or a folder of pictures.
        max_frames: stop after so many frames.
        frame_rate: frames per second of a folder of images (25 when None), or of a file without timestamps (a raw H.264 or
            Motion JPEG stream). Files with timestamps keep them, whatever is given here.
        start, end: deliver the frames with ``start ≤ timestamp < end``, seconds from the video's first frame; they keep the
            timestamps that they have in the whole video. None: from the first, to the last.

    Raises:
        UserError: missing file, no video, no frames, wrong arguments; while iterating: no frame between ``start`` and ``end``,
            an unreadable image or one of another size in a folder.
    """
    path = Path(path)
    part = VideoPart(max_frames, frame_rate, start, end)
    check_input(path, "video")
    rate = DEFAULT_FOLDER_RATE if frame_rate is None else frame_rate
    source: FrameSource
    if path.is_dir():
        source = ImageFolder(path, rate)
    elif is_still(path):
        source = StillImage(path, rate)
    else:
        source = MovingWebp(path) if is_moving_webp(path) else ContainerFile(path, frame_rate)
    return VideoReader(path, source, part)
