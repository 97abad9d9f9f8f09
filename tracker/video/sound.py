"""The input's sound, carried over into the output video.

Packets are copied as they are where the codec may live in an MP4 file (no loss, no work); other codecs are decoded and
encoded as AAC. Sound is fed in step with the pictures, so that the file interleaves well, and ends with the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

COPIED_CODECS = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})
"""Audio codecs whose packets go into MP4 unchanged."""

_DECODE_ERRORS = (av.error.FFmpegError, OSError, ValueError)


class SoundTrack:
    """One audio stream on its way from a source file into an output container that has not begun yet.

    Args:
        source: file that holds the sound.
        output: container to add a stream to.
        start: seconds of the source's clock that become 0 in the output; None: the start of its video track.

    Attributes:
        present: whether the source has a sound track that can be carried over.
        copied: whether packets are copied without decoding.
    """

    def __init__(self, source: Path, output: av.container.OutputContainer, start: float | None) -> None:
        self._output = output
        self._start = start or 0.0
        self._input: av.container.InputContainer | None = None
        self._pending: av.Packet | None = None
        self._time = 0.0
        self.present = False
        self.copied = False
        try:
            # A sound track that cannot be read must not cost the picture.
            self._input = av.open(str(source.resolve()), options={"protocol_whitelist": "file"})
            if start is None:
                self._start = _video_start(self._input)
            streams = self._input.streams.audio
            if streams and streams[0].codec_context is not None:
                self._connect(streams[0])
        except _DECODE_ERRORS:
            self.present = False

    def _connect(self, stream: av.AudioStream) -> None:
        context = stream.codec_context
        self._in_stream = stream
        # FFmpeg's decoders of one codec differ in their names' ending
        self.copied = context.name.removesuffix("float") in COPIED_CODECS and context.sample_rate > 0
        if self.copied:
            self._out_stream = self._output.add_stream_from_template(stream)
            self._packets = self._copy()
        else:
            layout = "stereo" if context.layout.nb_channels > 1 else "mono"
            rate = context.sample_rate if context.sample_rate in _AAC_RATES else 48_000
            self._out_stream = self._output.add_stream("aac", rate=rate)
            self._out_stream.codec_context.layout = layout
            self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            self._packets = self._encode(rate)
        self.present = True

    def _copy(self) -> Iterator[av.Packet]:
        for packet in self._input.demux(self._in_stream):
            if packet.size == 0 or packet.pts is None:
                continue
            base = packet.time_base
            end = (packet.pts + (packet.duration or 0)) * base
            if end <= self._start:
                continue
            shift = round(Fraction(self._start) / base)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            packet.stream = self._out_stream
            yield packet

    def _encode(self, rate: int) -> Iterator[av.Packet]:
        written = 0
        for frame in self._decoded_frames():
            for resampled in self._resampler.resample(frame):
                # Time is counted in samples from the first one kept, as the encoder wants it: without gaps.
                if written == 0:
                    resampled_start = float(frame.time or 0.0) - self._start
                    written = max(0, round(resampled_start * rate))
                resampled.pts = written
                resampled.time_base = Fraction(1, rate)
                written += resampled.samples
                yield from self._out_stream.encode(resampled)
        yield from self._out_stream.encode(None)

    def _decoded_frames(self) -> Iterator[av.AudioFrame]:
        for packet in self._input.demux(self._in_stream):
            try:
                frames = packet.decode()
            except _DECODE_ERRORS:
                continue
            for frame in frames:
                if frame.time is None or frame.time + frame.samples / frame.sample_rate > self._start:
                    yield frame

    def pump(self, until: float) -> None:
        """Write the sound up to ``until`` seconds of output time; a damaged source ends the sound early."""
        while self.present:
            if self._pending is None:
                try:
                    self._pending = next(self._packets, None)
                except _DECODE_ERRORS:
                    self._pending = None
                if self._pending is None:
                    self.present = False
                    return
                self._time = float(self._pending.pts * self._pending.time_base)
            if self._time >= until:
                return
            packet, self._pending = self._pending, None
            self._output.mux(packet)

    def close(self) -> None:
        """Release the source file."""
        if self._input is not None:
            self._input.close()


def _video_start(container: av.container.InputContainer) -> float:
    video = container.streams.video
    return float(video[0].start_time * video[0].time_base) if video and video[0].start_time else 0.0


_AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})
