"""Small video files that tests write for themselves: any timing, size and codec, sound, rotation, damage."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CLOCK = Fraction(1, 90_000)
TONE_RATE = 44_100


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """``(H, W, 3)`` uint8: red top left, green top right, blue bottom left, a grey level bottom right that counts."""
    image = np.empty((height, width, 3), np.uint8)
    half_h, half_w = height // 2, width // 2
    image[:half_h, :half_w] = (200, 30, 30)
    image[:half_h, half_w:] = (30, 200, 30)
    image[half_h:, :half_w] = (30, 30, 200)
    image[half_h:, half_w:] = 20 + 10 * (index % 20)
    return image


def counted(image: np.ndarray) -> int:
    """The index (modulo 20) that :func:`picture` wrote."""
    height, width = image.shape[:2]
    return round((float(image[-height // 4 :, -width // 4 :].mean()) - 20) / 10)


def write_clip(
    path: Path,
    images: Sequence[np.ndarray],
    timestamps: Sequence[float] | None = None,
    *,
    codec: str = "mpeg4",
    pixel_format: str = "yuv420p",
    rate: int = 25,
    sample_aspect: Fraction | None = None,
    tone: str | None = None,
    tone_seconds: float = 0.0,
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write ``images`` at ``timestamps`` (seconds; ``rate`` apart by default), with a sine tone of codec ``tone``."""
    stamps = [i / rate for i in range(len(images))] if timestamps is None else timestamps
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        stream = None
        if len(images):
            stream = output.add_stream(codec, rate=rate)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = pixel_format
            stream.codec_context.time_base = CLOCK if codec != "mpeg4" else Fraction(1, 30_000)
            stream.codec_context.gop_size = 5
            stream.codec_context.bit_rate = 4_000_000
            if sample_aspect is not None:
                stream.codec_context.sample_aspect_ratio = sample_aspect
        sound = output.add_stream(tone, rate=TONE_RATE) if tone else None
        if sound is not None:
            sound.codec_context.layout = "mono"
            _write_tone(output, sound, tone_seconds)
        for image, stamp in zip(images, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(stamp / frame.time_base)
            output.mux(stream.encode(frame))
        if stream is not None:
            output.mux(stream.encode(None))
    return path


def _write_tone(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    count = 1024
    for start in range(0, round(seconds * TONE_RATE), count):
        samples = (0.3 * np.sin(2 * np.pi * 440 * (start + np.arange(count)) / TONE_RATE)).astype(np.float32)
        if stream.codec_context.format.name.startswith("s16"):
            frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        else:
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = TONE_RATE, start, Fraction(1, TONE_RATE)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


DISPLAY_MATRICES = {
    "90 clockwise": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "90 counter-clockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
}
"""``(a, b, c, d)`` of ISO/IEC 14496-12's matrix: (a, b) and (c, d) are where the stored x and y axes go (y down)."""


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Overwrite the matrix in an MP4's first track header (version 0), as a phone's camera would have written it."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
