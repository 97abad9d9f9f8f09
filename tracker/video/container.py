"""A video file, decoded by FFmpeg's libraries through PyAV, packet by packet.

Files from the field are not clean: packets are missing, timestamps repeat, a download stopped in the middle. What
decodes is delivered; what does not is counted, and :attr:`ContainerFile.problem` says so at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from tracker.errors import UserError
from tracker.video.lens import lens_of_video
from tracker.video.pixels import check_size, orientation, square_pixel_size, to_rgb

FALLBACK_FPS = 25.0
"""Assumed where a file names no frame rate at all."""

NOT_VIDEO = frozenset({"tty", "ffmetadata", "concat", "hls", "dash", "sdp", "srt", "webvtt", "ass", "subviewer"})
"""FFmpeg formats that are no recordings: text drawn as pictures, subtitles, lists that point to other files."""

_CONCEALS_NOTHING = frozenset({"hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"})
"""Decoders that deliver damaged frames as they are or not at all, and so may use threads."""

_INDEXED = frozenset({"mov", "mp4", "matroska", "webm"})
"""Formats whose index leads to a frame's own place; elsewhere a jump is a guess, and frames are decoded from the first on."""

_NO_TIMESTAMPS = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS: raw streams of a codec, whose times would be made up."""

SEEK_MARGIN = 1.0
"""Seconds before the wanted time that decoding begins after a jump, so that repeated timestamps are mended as in a whole pass."""

_SHORTEST_STEP = 5e-5
"""Seconds from frame to frame; cameras of 10,000 frames a second are left in peace."""

MINIMUM_STEP = 1e-3
"""Seconds by which a repeated or backward timestamp is pushed past its predecessor, so that time increases strictly."""


class ContainerFile:
    """The first real video stream of a file.

    Args:
        path: the file.
        frame_rate: of files without timestamps (raw H.264, Motion JPEG); others keep their own.

    Raises:
        UserError: when the file cannot be opened, is no video, or not one frame of it decodes.
    """

    def __init__(self, path: Path, frame_rate: float | None = None) -> None:
        self._path = path
        self._wanted_rate = frame_rate
        self._open()

    def _open(self) -> None:
        path = self._path
        self._ending: str | None = None
        self._odd_times: str | None = None
        self._jumped = False
        try:
            # Playlists could make the library fetch from elsewhere; only the file itself is to be read.
            self._container = av.open(str(path.resolve()), options={"protocol_whitelist": "file"})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{path}: {_open_failure(path, error)}") from error
        try:
            self._open_stream()
        except BaseException:
            self._container.close()
            raise

    def _open_stream(self) -> None:
        container = self._container
        if NOT_VIDEO.intersection(container.format.name.split(",")):
            raise UserError(f"{self._path}: this is not a video file ({container.format.long_name}); name a video")
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not streams:
            found = "only sound" if container.streams.audio else "no pictures"
            raise UserError(f"{self._path}: {found} in this file; name one with a video track")
        stream = self._stream = streams[0]
        if stream.codec_context is None:
            raise UserError(f"{self._path}: no decoder for this video's codec; convert it to H.264 first")
        check_size(self._path, stream.codec_context.width, stream.codec_context.height)
        # Frames decoded side by side share what they know of damage as the threads happen to run, and other frames are lost
        # in each pass. Slices side by side lose the same frames but conceal damage in other ways, so that the decoders
        # that do conceal it get one thread.
        stream.thread_type = "SLICE"
        if stream.codec_context.name not in _CONCEALS_NOTHING:
            stream.codec_context.thread_count = 1
        self.has_audio = bool(container.streams.audio)
        rate = stream.average_rate or stream.guessed_rate
        self.frame_rate = float(rate) if rate else FALLBACK_FPS
        self._timeless = self._wanted_rate is not None and bool(int(container.format.flags) & _NO_TIMESTAMPS)
        if self._timeless:
            self.frame_rate = float(self._wanted_rate)
        self.frame_count = self._expected_frames()
        self._packets = 0
        self._failures = 0
        self._decoded = self._decode()
        self._first = next(self._decoded, None)
        if self._first is None:
            raise UserError(f"{self._path}: not one frame of this video decodes; it is empty or damaged")
        self.start_time = 0.0 if self._timeless else float(self._first.time or 0.0)
        self._turn = orientation(self._first)
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        self._stored_size = square_pixel_size(self._first.width, self._first.height, aspect)
        check_size(self._path, *self._stored_size)
        self.width, self.height = self._stored_size[::-1] if self._turn[0] else self._stored_size
        self.lens = lens_of_video({**container.metadata, **stream.metadata}, self.width, self.height)

    def _expected_frames(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        seconds = self._seconds()
        return max(1, round(seconds * self.frame_rate)) if seconds else None

    def _seconds(self) -> float | None:
        """Length of the video stream as the file states it."""
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if self._container.duration and not self.has_audio:
            # Matroska's writers state the time of the end, or the length; what starts late shows which
            late = max(self._container.start_time or 0, 0)
            return (self._container.duration - (late if late < self._container.duration else 0)) / av.time_base
        return None

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes, past packets that do not."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError):
                self._failures += 1
                return
            self._packets += packet.size > 0
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, OSError):
                self._failures += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._failures += 1
                else:
                    yield frame

    def pictures(self, start: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
        """Timestamps in seconds from the video's first frame, and upright ``(H, W, 3)`` uint8 RGB pictures.

        Where the file's index allows it, decoding begins not long before ``start``.
        """
        if start > SEEK_MARGIN and _INDEXED.intersection(self._container.format.name.split(",")) and not self._jump(start):
            self._container.close()
            self._open()
        last, count, mended = -math.inf, 0, 0
        step = 1.0 / self.frame_rate
        frame = self._first
        self._first = None
        while frame is not None:
            if frame.time is None or self._timeless:
                time = 0.0 if last == -math.inf else last + step
            else:
                time = float(frame.time) - self.start_time
            if time <= last:
                time = last + min(MINIMUM_STEP, step / 2)
                mended += 1
            last, count = time, count + 1
            self._odd_times = _odd_times(count, mended, last)
            yield time, to_rgb(frame, *self._stored_size, self._turn)
            frame = next(self._decoded, None)
        self._ending = self._early_end(last)

    def _jump(self, start: float) -> bool:
        """Continue at a key frame before ``start`` seconds; whether there is one from which everything decodes."""
        wanted = self.start_time + start - SEEK_MARGIN
        try:
            self._container.seek(math.floor(wanted / self._stream.time_base), stream=self._stream)
        except (av.error.FFmpegError, OSError):
            return False
        self._decoded.close()
        self._jumped = True
        self._decoded = self._decode()
        self._first = next(self._decoded, None)
        self._failures = 0  # pictures whose reference lies before the jump are no damage
        # a decoder that begins between key frames, or a file whose index lies, delivers its first picture too late
        return self._first is not None and self._first.time is not None and float(self._first.time) <= self.start_time + start

    @property
    def problem(self) -> str | None:
        """What stopped decoding early, or what was passed over so far."""
        if self._ending is None and self._failures:
            return f"the file is damaged: {self._failures} of its frames do not decode"
        return self._ending or self._odd_times

    def _early_end(self, last: float) -> str | None:
        """Whether the end of the stream came before the end that the file states."""
        expected = 0 if self._jumped else self._stream.frames
        if expected and self._packets < expected:
            return f"the file holds {self._packets} of its {expected} frames"
        seconds = self._seconds()
        if not expected and seconds and last + 1.0 / self.frame_rate < seconds - max(0.5, 0.02 * seconds):
            return f"the file ends at {last:.1f} s of its {seconds:.1f} s"
        return None

    def close(self) -> None:
        """Release the file."""
        self._decoded.close()
        self._container.close()


def _odd_times(count: int, mended: int, last: float) -> str | None:
    """Times that no camera has: most of them repeated, or a clip of no length. Smoothing, which goes by them, does little then."""
    if mended > max(2, count // 2):
        return f"the file's times are damaged: {mended} of {count} frames repeat the one before, and are taken to follow it at once"
    if count > 2 and last < (count - 1) * _SHORTEST_STEP:
        return f"the file's times are damaged: {count} frames in {last:.2g} s"
    return None


def _is_cover(stream: av.VideoStream) -> bool:
    """A picture attached to a sound file (album cover), which is no video."""
    return "attached_pic" in str(getattr(stream.disposition, "name", stream.disposition)).lower()


def _open_failure(path: Path, error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read this file"
    if path.stat().st_size == 0:
        return "the file is empty (0 bytes); name a video"
    head = path.read_bytes()[:12] if path.stat().st_size < 64 else _first_bytes(path)
    if head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return "this MP4/MOV file was cut off before its index (moov) and cannot be decoded; get a complete copy"
    return "not a video that can be read; name a video file or a folder of images"


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)
