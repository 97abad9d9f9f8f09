"""Write frames as H.264 in MP4, each at its own time, with the input's sound.

Encoding runs in a thread of its own behind a short queue. The file grows under a temporary name and gets its own name
only when it is complete; when anything fails it is removed, so that no half-written video is left behind.

H.264 comes from x264 where PyAV has it (the wheels on PyPI do: FFmpeg's libraries are built as LGPL-3.0-or-later there
and load the GPL-2.0-or-later library x264 beside them; nothing of either is part of this project). Builds without it
fall back to another H.264 encoder or to FFmpeg's own MPEG-4 Part 2.
"""

from __future__ import annotations

import os
import queue
import threading
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from tracker.errors import UserError
from tracker.video.sound import SoundTrack

FF_QP2LAMBDA = 118
"""FFmpeg's unit of ``global_quality``."""

ENCODERS: tuple[tuple[str, dict[str, str], Fraction], ...] = (
    ("libx264", {"preset": "superfast", "crf": "21"}, Fraction(1, 90_000)),
    ("libopenh264", {}, Fraction(1, 90_000)),
    ("mpeg4", {"flags": "+qscale", "global_quality": str(3 * FF_QP2LAMBDA)}, Fraction(1, 60_000)),
)
"""Encoders in order of preference: name, options, clock. MPEG-4 Part 2 allows no finer clock than 1/65535 s."""

TIME_BASE = Fraction(1, 90_000)
"""Clock of the queue: MPEG's own, fine enough for every common frame rate."""

BITS_PER_PIXEL = 0.15
"""Aimed at by encoders that have no constant quality."""

QUEUE_FRAMES = 4
"""Pictures that may wait for the encoder."""

_BT709 = 1
_STUDIO_RANGE = 1


class VideoWriter:
    """An MP4 file that takes RGB frames with timestamps; use as a context manager, or call :meth:`close`.

    Leaving the context with an exception, or any failure of the encoder, removes the file (see :meth:`abort`).

    Args:
        path: the file to write; replaced if it exists, and only once complete.
        width, height: pixels of the frames; an odd size is padded to an even one by repeating the last row or column.
        audio_from: file whose sound goes along, cut to the length of the written frames; None, a folder of images or a
            file without sound: silence.
        frame_rate: nominal rate, used for the length of the last frame and the encoder's rate control only.
        audio_start: time in that file that belongs to timestamp 0 (``VideoReader.start_time``); None takes the start
            of the file's video track.

    Raises:
        UserError: when the file cannot be created.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        audio_from: str | Path | None = None,
        frame_rate: float = 25.0,
        audio_start: float | None = None,
    ) -> None:
        self.path = Path(path)
        self.width, self.height = width, height
        self.encoded_width, self.encoded_height = width + width % 2, height + height % 2
        self.frames_written = 0
        self._frame_rate = frame_rate
        self._last_pts = -1
        self._step = max(1, round(1 / self._frame_rate / TIME_BASE))
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part")
        try:
            # FFmpeg creates the file with the first packet only; a place that cannot be written is to be known now.
            self._temporary.touch()
            self._container = av.open(str(self._temporary.absolute()), "w", format="mp4")
        except (OSError, av.error.FFmpegError) as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another folder") from error
        try:
            self._stream = self._add_video_stream()
            self._sound = (
                SoundTrack(Path(audio_from), self._container, audio_start)
                if audio_from is not None and Path(audio_from).is_file()
                else None
            )
        except BaseException:
            self._container.close()
            self._temporary.unlink(missing_ok=True)
            raise
        self._queue: queue.Queue[tuple[np.ndarray, int] | None] = queue.Queue(QUEUE_FRAMES)
        self._error: BaseException | None = None
        self._open = True
        self._thread = threading.Thread(target=self._encode_all, name="video-encode", daemon=True)
        self._thread.start()

    @property
    def encoder(self) -> str:
        """Name of the encoder in use."""
        return self._stream.codec_context.codec.name

    def _add_video_stream(self) -> av.VideoStream:
        rate = Fraction(self._frame_rate).limit_denominator(1001)
        for name, options, clock in ENCODERS:
            if name not in av.codecs_available:
                continue
            stream = self._container.add_stream(name, rate=rate, options=dict(options))
            stream.width, stream.height, stream.pix_fmt = self.encoded_width, self.encoded_height, "yuv420p"
            context = stream.codec_context
            context.time_base = stream.time_base = clock
            context.bit_rate = 0 if "crf" in options else round(BITS_PER_PIXEL * self.width * self.height * rate)
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _STUDIO_RANGE
            return stream
        names = ", ".join(name for name, *_ in ENCODERS)
        raise UserError(f"{self.path}: this build of PyAV has no video encoder ({names}); install the wheel from PyPI")

    def write(self, image: np.ndarray, timestamp: float) -> None:
        """Queue one frame.

        Args:
            image: ``(H, W, 3)`` uint8 RGB of the writer's size; kept by reference until encoded, so do not change it.
            timestamp: seconds from the start, later than the frame before.

        Raises:
            UserError: when the encoder has failed (disk full).
            ValueError: for another size or type, or a timestamp that does not increase.
        """
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise ValueError(f"frame is {image.shape} {image.dtype}, expected ({self.height}, {self.width}, 3) uint8")
        pts = round(timestamp / TIME_BASE)
        if pts <= self._last_pts:
            raise ValueError(f"timestamp {timestamp} s does not come after the previous frame")
        self._raise_failure()
        self._last_pts = pts
        self._queue.put((image, pts))
        self.frames_written += 1

    def _encode_all(self) -> None:
        held: tuple[np.ndarray, int] | None = None
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep draining, so that the producer never blocks on a dead encoder
            try:
                if held is not None:
                    self._encode(held[0], held[1], item[1] - held[1])
                held = item
            except BaseException as error:  # raised again in the producer's thread
                self._error = error
        if self._error is None and held is not None:
            try:
                self._finish(held)
            except BaseException as error:  # raised again in close()
                self._error = error

    def _encode(self, image: np.ndarray, pts: int, duration: int) -> None:
        """One frame, with the length until the next one: known only when that has come."""
        if (self.encoded_height, self.encoded_width) != image.shape[:2]:
            odd = ((0, self.encoded_height - self.height), (0, self.encoded_width - self.width), (0, 0))
            image = np.pad(image, odd, mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )
        frame.pts, frame.time_base, frame.duration = pts, TIME_BASE, duration
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        if self._sound is not None:
            self._sound.pump(float((pts + duration) * TIME_BASE))

    def _finish(self, last: tuple[np.ndarray, int]) -> None:
        self._encode(last[0], last[1], self._step)
        for packet in self._stream.encode(None):
            self._container.mux(packet)

    def _stop(self) -> None:
        self._open = False
        self._queue.put(None)
        self._thread.join()
        if self._sound is not None:
            self._sound.close()

    def close(self) -> None:
        """Finish the file and give it its name; with no frame written, leave nothing.

        Raises:
            UserError: when writing failed; nothing is left then.
        """
        if not self._open:
            return
        self._stop()
        try:
            self._raise_failure()
            self._container.close()
            if self.frames_written:
                os.replace(self._temporary, self.path)
        except (OSError, av.error.FFmpegError) as error:
            raise self._failure(error) from error
        finally:
            self._temporary.unlink(missing_ok=True)

    def abort(self) -> None:
        """Give up: remove what was written so far."""
        if not self._open:
            return
        self._stop()
        try:
            self._container.close()
        except (OSError, ValueError, av.error.FFmpegError):
            pass  # the file is thrown away in any case
        finally:
            self._temporary.unlink(missing_ok=True)

    def _failure(self, error: BaseException) -> UserError:
        return UserError(f"{self.path}: writing failed ({error}); free some space or choose another folder")

    def _raise_failure(self) -> None:
        error = self._error
        if isinstance(error, (OSError, av.error.FFmpegError)):
            raise self._failure(error) from error
        if error is not None:
            raise error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()
