"""Read a video as a stream of frames: open, iterate, close; open again for a second pass.

Decoding runs in a thread of its own, a few frames ahead of the consumer, so that it overlaps with the work on each
frame. At most :data:`READ_AHEAD` pictures wait in memory, whatever the length of the video.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float

from tracker.errors import UserError
from tracker.video.container import ContainerFile
from tracker.video.frame import Frame, FrameSource
from tracker.video.image_folder import DEFAULT_FOLDER_RATE, ImageFolder, StillImage, is_still

READ_AHEAD = 4
"""Decoded frames that may wait for the consumer."""

_SAME_TIME = 1e-4
"""Seconds by which the time of one frame may differ between two passes."""

_POLL = 0.1
"""Seconds after which a waiting decoder looks whether the reader was closed."""


class VideoReader:
    """One pass over a video; made by :func:`open_video`, used as a context manager and iterator of :class:`Frame`.

    Attributes:
        path: the file or folder.
        width, height: pixels of every frame, after rotation and with square pixels.
        frame_rate: average frames per second (the frames' own timestamps are what counts).
        frame_count: how many frames to expect (an estimate, for progress bars); None when the file does not say.
        has_audio: whether the file holds a sound track.
        start_time: container time in seconds of the first frame, for aligning the sound.
        truncated: True once decoding met the end before the end that the file states, or damage on the way.
        problem: what ``truncated`` is about, as a clause for a message, else None.
    """

    def __init__(self, path: Path, source: FrameSource, max_frames: int | None, folder_rate: float) -> None:
        self.path = path
        self.width, self.height, self.frame_rate = source.width, source.height, source.frame_rate
        self.has_audio, self.start_time = source.has_audio, source.start_time
        self.frame_count = source.frame_count
        if max_frames is not None and self.frame_count is not None:
            self.frame_count = min(max_frames, self.frame_count)
        self._source = source
        self._max_frames = max_frames
        self._folder_rate = folder_rate
        self._queue: queue.Queue[Frame | BaseException | None] = queue.Queue(READ_AHEAD)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._finished = False

    @property
    def problem(self) -> str | None:
        """What disturbed decoding so far."""
        return self._source.problem

    @property
    def truncated(self) -> bool:
        """Whether decoding met damage or an early end."""
        return self.problem is not None

    def reopen(self) -> VideoReader:
        """A fresh reader of the same video, from its first frame."""
        return open_video(self.path, self._max_frames, self._folder_rate)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._finished or self._closed.is_set():
            raise StopIteration
        if self._thread is None:
            self._thread = threading.Thread(target=self._decode_ahead, name="video-decode", daemon=True)
            self._thread.start()
        item = self._queue.get()
        if isinstance(item, Frame):
            return item
        self._finished = True
        if item is None:
            raise StopIteration
        raise item

    def _decode_ahead(self) -> None:
        last_item: BaseException | None = None
        try:
            for index, (timestamp, image) in enumerate(self._pictures()):
                if not self._put(Frame(index, timestamp, image)):
                    return
        except BaseException as error:  # handed to the consumer's thread, where it can be caught
            last_item = error
        self._put(last_item)

    def _pictures(self) -> Iterator:
        pictures = self._source.pictures()
        if self._max_frames is None:
            return pictures
        # zip asks the range first, so that no frame beyond the last wanted one is decoded.
        return (picture for _, picture in zip(range(self._max_frames), pictures, strict=False))

    def _put(self, item: Frame | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    def close(self) -> None:
        """Stop decoding and release the file; further iteration ends at once."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._source.close()

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


def open_video(
    path: str | Path, max_frames: int | None = None, folder_rate: float = DEFAULT_FOLDER_RATE
) -> VideoReader:
    """Open a video file or a folder of images for one pass.

    Args:
        path: any container that FFmpeg reads, an animated GIF, a single picture, or a folder of pictures.
        max_frames: stop after so many frames.
        folder_rate: frames per second of a folder of images; files bring their own timing.

    Raises:
        UserError: missing file, no video, no frames, wrong arguments; while iterating: an unreadable image or one of
            another size in a folder.
    """
    path = Path(path)
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max-frames is {max_frames}; give at least 1")
    if not 0 < folder_rate < 10_000:
        raise UserError(f"frame rate of the folder is {folder_rate}; give frames per second above 0")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path of the video")
    source: FrameSource
    if path.is_dir():
        source = ImageFolder(path, folder_rate)
    else:
        source = StillImage(path) if is_still(path) else ContainerFile(path)
    return VideoReader(path, source, max_frames, folder_rate)
