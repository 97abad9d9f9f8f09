"""Frames of a video, one after the other: any container that FFmpeg reads, or a folder of images.

Decoding runs in its own thread, a few frames ahead of whoever iterates; nothing else is kept. Frames arrive upright
(rotation metadata applied), with square pixels, as RGB.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from tracker.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_FOLDER_RATE = 25.0
_READ_AHEAD = 8


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes:
        index: 0, 1, 2, … in presentation order.
        timestamp: seconds since the first frame.
        image: ``(H, W, 3)`` uint8 RGB, row 0 on top.
    """

    index: int
    timestamp: float
    image: UInt8[np.ndarray, "h w 3"]


class VideoReader:
    """Iterable over the frames of an open source; use it as a context manager, once. Made by :func:`open_video`.

    Attributes:
        path: what was opened.
        width, height: of the frames as they are delivered, pixels.
        frame_rate: average frames per second, as far as the source tells.
        frame_count: how many frames to expect (None when unknown); an estimate, for progress bars.
        has_audio: whether there is a sound track.
        truncated: set once iteration ended early or skipped frames because the file is damaged.
    """

    def __init__(self, path: Path, source: _VideoFile | _ImageFolder, max_frames: int | None) -> None:
        self.path = path
        self._source = source
        self._max_frames = max_frames
        self.width, self.height = source.width, source.height
        self.frame_rate, self.has_audio = source.frame_rate, source.has_audio
        expected = source.frame_count
        self.frame_count = expected if max_frames is None else min(max_frames, expected or max_frames)
        self._queue: queue.Queue[Frame | BaseException | None] = queue.Queue(_READ_AHEAD)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def truncated(self) -> bool:
        return self._source.truncated

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            while self._thread.is_alive():  # free the decoder, should it wait for room in the queue
                try:
                    self._queue.get(timeout=0.05)
                except queue.Empty:
                    continue
            self._thread.join()
        self._source.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._thread is not None:
            raise RuntimeError("a VideoReader is read once; open the video again")
        self._thread = threading.Thread(target=self._decode, name="video-reader", daemon=True)
        self._thread.start()
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _decode(self) -> None:
        last = -1.0
        index = 0
        try:
            for seconds, image in self._source.frames():
                # stamps must rise: a repeated one would stop time for everything downstream
                last = max(seconds, last + 1e-4)
                if not self._put(Frame(index, last, image)):
                    return
                index += 1
                if index == self._max_frames:
                    break
            if index == 0:
                raise UserError(f"{self.path}: no frame could be decoded; the file is damaged or holds no pictures")
            if self._max_frames is None:
                self._source.note_end(index)
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Frame | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


def open_video(path: Path | str, max_frames: int | None = None, folder_rate: float = DEFAULT_FOLDER_RATE) -> VideoReader:
    """Open a video file or a folder of images.

    Args:
        path: file of any container, or a folder (its images in natural order, so that 9 comes before 10).
        max_frames: stop after this many frames.
        folder_rate: frames per second of a folder of images.

    Raises:
        UserError: no such file, not a video, no pictures in it, or images of different sizes. A file without a single
            decodable frame is found out while iterating.
    """
    path = Path(path)
    if path.is_dir():
        return VideoReader(path, _ImageFolder(path, folder_rate), max_frames)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    return VideoReader(path, _VideoFile(path), max_frames)


class _VideoFile:
    """Frames of a container, through PyAV."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._container = av.open(str(path))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{path}: not a video that can be read ({_reason(error)})") from error
        if not self._container.streams.video:
            self._container.close()
            raise UserError(f"{path}: there is no picture track in this file")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.truncated = False
        self.has_audio = bool(self._container.streams.audio)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.frame_rate = float(rate) if rate else DEFAULT_FOLDER_RATE
        self.frame_count = self._expected_frames()
        self._decoder = self._decode()
        self._first = next(self._decoder, None)
        if self._first is None:
            self._container.close()
            raise UserError(f"{path}: no frame could be decoded; the file is damaged or holds no pictures")
        self.height, self.width = self._first[1].shape[:2]

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Seconds since the first frame, and the picture; every frame has the first one's size."""
        start = self._first[0]
        yield 0.0, self._first[1]
        self._first = (start, self._first[1][:0])
        for seconds, image in self._decoder:
            if image.shape[:2] != (self.height, self.width):
                image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
            yield seconds - start, image

    def note_end(self, count: int) -> None:
        """Remember it when far fewer frames came than the file promised."""
        promised = self._stream.frames
        if promised and count < 0.95 * promised:
            self.truncated = True

    def close(self) -> None:
        self._container.close()

    def _expected_frames(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        duration = self._container.duration
        return round(duration / av.time_base * self.frame_rate) if duration else None

    def _decode(self) -> Iterator[tuple[float, np.ndarray]]:
        count = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:  # the container itself breaks off here
                self.truncated = True
                return
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:  # one damaged packet need not end the video
                self.truncated = True
                continue
            for frame in frames:
                seconds = count / self.frame_rate if frame.pts is None else float(frame.pts * frame.time_base)
                count += 1
                yield seconds, _upright_rgb(frame, self._stream.sample_aspect_ratio)


def _upright_rgb(frame: av.VideoFrame, pixel_aspect: object) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    aspect = float(pixel_aspect) if pixel_aspect else 1.0
    if aspect > 0 and abs(aspect - 1) > 1e-3:  # stretch to square pixels, never losing lines
        height, width = image.shape[:2]
        size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class _ImageFolder:
    """Images of a folder in natural order, one frame each."""

    def __init__(self, path: Path, rate: float) -> None:
        self._files = sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=_natural)
        if not self._files:
            raise UserError(f"{path}: no images in this folder; {', '.join(IMAGE_SUFFIXES)} files are read")
        self.truncated, self.has_audio = False, False
        self.frame_rate, self.frame_count = rate, len(self._files)
        self.height, self.width = _read_image(self._files[0]).shape[:2]

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        for index, file in enumerate(self._files):
            image = _read_image(file)
            if image.shape[:2] != (self.height, self.width):
                raise UserError(
                    f"{file}: {image.shape[1]}×{image.shape[0]} pixels, the images before it have "
                    f"{self.width}×{self.height}; all frames of one video must have one size"
                )
            yield index / self.frame_rate, image

    def note_end(self, count: int) -> None:
        """A folder is as long as it is."""

    def close(self) -> None:
        """Nothing stays open."""


def _read_image(file: Path) -> np.ndarray:
    # imdecode rather than imread: OpenCV's own file access fails on some systems' non-Latin paths
    data = np.fromfile(file, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise UserError(f"{file}: not an image that can be read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _natural(file: Path) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", file.name.lower())
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts]


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).split(";")[0].strip().rstrip(".")
