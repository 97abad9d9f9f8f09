"""Video files: H.264 in MP4 at the frames' own time stamps, with the sound of another file."""

from __future__ import annotations

import os
import queue
import threading
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from jaxtyping import UInt8

from tracker.errors import UserError

_TIME_BASE = Fraction(1, 90_000)
_READ_BEHIND = 8
# in order of preference; FFmpeg builds without x264 still have the second
_ENCODERS = (("libx264", {"preset": "veryfast", "crf": "20"}), ("mpeg4", {"q:v": "3"}))
_COPIED_SOUND = ("aac", "mp3", "ac3", "alac", "opus")  # what may lie in MP4 as it is


class VideoWriter:
    """Write frames with time stamps; use it as a context manager. Encoding runs in its own thread.

    The file appears under its name when the block ends well, and not at all otherwise.

    Args:
        path: the ``.mp4`` to write.
        width, height: of the frames, pixels. Odd sizes are padded by one row or column (4:2:0 needs even ones).
        audio_from: file whose sound goes along, cut to the length of the written frames; None for silence.
        frame_rate: nominal rate, for the encoder's rate control and the last frame's duration.

    Raises:
        UserError: no usable encoder, or the file cannot be written.
    """

    def __init__(
        self, path: Path, width: int, height: int, audio_from: Path | None = None, frame_rate: float = 25.0
    ) -> None:
        self._path, self._partial = Path(path), Path(path).with_name(Path(path).stem + ".part.mp4")
        self._size = (width, height)
        self._frame_rate = frame_rate
        self._audio_from = audio_from
        self._container: av.container.OutputContainer | None = None
        self._queue: queue.Queue[tuple[np.ndarray, float] | None] = queue.Queue(_READ_BEHIND)
        self._error: BaseException | None = None
        self._last = 0.0
        self._thread = threading.Thread(target=self._encode, name="video-writer", daemon=True)

    def __enter__(self) -> VideoWriter:
        try:
            self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "+faststart"})
        except (OSError, av.error.FFmpegError) as error:
            raise UserError(f"{self._path}: cannot be written ({error})") from error
        self._stream = self._add_picture_track()
        self._sound = _Sound.open(self._audio_from, self._container) if self._audio_from else None
        self._thread.start()
        return self

    def write(self, image: UInt8[np.ndarray, "h w 3"], timestamp: float) -> None:
        """Queue one RGB frame; ``timestamp`` in seconds must rise. The caller must not change ``image`` afterwards.

        Raises:
            ValueError: wrong picture size.
            UserError: encoding failed (a full disk, for instance).
        """
        if image.shape != (self._size[1], self._size[0], 3):
            raise ValueError(f"frame of shape {image.shape} given to a {self._size[0]}×{self._size[1]} video")
        self._raise_if_failed()
        self._queue.put((image, timestamp))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._queue.put(None)
        self._thread.join()
        try:
            if kind is None:
                self._raise_if_failed()
                if self._sound is not None:
                    self._sound.copy(self._container, self._last + 1 / self._frame_rate)
        finally:
            try:
                self._container.close()
            finally:
                if self._sound is not None:
                    self._sound.close()
                if kind is None and self._error is None:
                    os.replace(self._partial, self._path)
                self._partial.unlink(missing_ok=True)

    def _add_picture_track(self) -> av.VideoStream:
        width, height = (side + side % 2 for side in self._size)
        for name, options in _ENCODERS:
            if name not in av.codecs_available:
                continue
            stream = self._container.add_stream(name, rate=Fraction(self._frame_rate).limit_denominator(1001 * 60))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = dict(options)
            stream.codec_context.time_base = _TIME_BASE
            return stream
        raise UserError("this build of PyAV can encode neither H.264 nor MPEG-4; install the wheel from the registry")

    def _encode(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep emptying the queue, so that the caller never blocks on it
            image, timestamp = item
            try:
                odd_rows, odd_columns = image.shape[0] % 2, image.shape[1] % 2
                if odd_rows or odd_columns:
                    image = np.pad(image, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = round(timestamp / _TIME_BASE), _TIME_BASE
                self._container.mux(self._stream.encode(frame))
                self._last = timestamp
            except BaseException as error:
                self._error = error
        if self._error is None:
            try:
                self._container.mux(self._stream.encode(None))
            except BaseException as error:
                self._error = error

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise UserError(f"{self._path}: encoding failed ({self._error})") from self._error


class _Sound:
    """The first sound track of a file: copied where MP4 can hold it, else encoded as AAC."""

    def __init__(self, source: av.container.InputContainer, target: av.container.OutputContainer) -> None:
        self._source, self._input = source, source.streams.audio[0]
        self._copied = self._input.codec_context.name.removesuffix("float") in _COPIED_SOUND
        if self._copied:
            self._output = target.add_stream_from_template(self._input)
        else:
            self._output = target.add_stream("aac", rate=self._input.codec_context.sample_rate)

    @staticmethod
    def open(path: Path, target: av.container.OutputContainer) -> _Sound | None:
        """None for a folder of images or a file without sound."""
        if not Path(path).is_file():
            return None
        source = av.open(str(path))
        if not source.streams.audio:
            source.close()
            return None
        return _Sound(source, target)

    def copy(self, target: av.container.OutputContainer, seconds: float) -> None:
        """Write the sound from where the picture starts up to ``seconds`` later; damage ends it early."""
        start = self._picture_start()
        try:
            for packet in self._source.demux(self._input):
                if packet.dts is None:
                    continue
                time = float(packet.pts * packet.time_base) - start
                if time < 0:
                    continue
                if time > seconds:
                    break
                if self._copied:
                    shift = round(start / packet.time_base)
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = self._output
                    target.mux(packet)
                else:
                    for frame in packet.decode():
                        frame.pts = None
                        target.mux(self._output.encode(frame))
        except av.error.FFmpegError:
            pass  # the picture is whole; a damaged sound track may stop where its damage begins
        if not self._copied:
            target.mux(self._output.encode(None))

    def close(self) -> None:
        self._source.close()

    def _picture_start(self) -> float:
        video = self._source.streams.video
        first = video[0].start_time if video else None
        return float(first * video[0].time_base) if first else 0.0
