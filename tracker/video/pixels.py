"""From a decoder's frame to upright RGB with square pixels.

A file can say that its picture is to be turned or mirrored before showing (the display matrix: phones film in one
orientation and note how they were held), that its pixels are not square (sample aspect ratio: DV, anamorphic film),
which of the two common YUV matrices it uses, and that some pixels are transparent. All of it is applied here once, so
that nothing downstream has to know.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Colorspace

from tracker.errors import UserError

UNSPECIFIED_COLORSPACE = 2
"""FFmpeg's AVCOL_SPC_UNSPECIFIED: the file does not name its YUV matrix."""

MAX_SIDE, MAX_PIXELS = 16_384, 200_000_000
"""Largest pictures that are read, as large as H.264 and the largest cameras make them. OpenCV cannot warp pictures of 32,768 pixels on a
side, and MediaPipe ends the process over them."""

HD_HEIGHT = 720
"""From this many rows on, an unnamed YUV matrix means BT.709, below it BT.601: what players assume."""


_TURNS = ((False, False, False), (True, True, False), (False, True, True), (True, False, True))
"""What :func:`orientation` says of a picture to be turned counter-clockwise by 0, 90, 180 and 270 degrees."""


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How the stored picture becomes the upright one: ``(transpose, flip rows, flip columns)``, in that order.

    Source: the display matrix of ISO/IEC 14496-12, ``[a b u; c d v; x y w]`` acting on row vectors in pixels
    (x right, y down). Only multiples of 90 degrees and mirrorings are honoured; other angles are taken to the nearest.
    """
    try:
        data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    except ValueError:  # PyAV knows no name for one of the frame's notes, such as EXIF, and then gives none of them
        return _TURNS[round(frame.rotation / 90) % 4]
    if data is None:
        return False, False, False
    a, b, _, c, d = struct.unpack("=9i", bytes(data)[:36])[:5]
    if a == b == c == d == 0:
        return False, False, False
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse pictures that are too large to look at.

    Raises:
        UserError: it says how large they are, and may be.
    """
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise too_large(path, f" of {width}×{height} pixels")


def too_large(path: Path, size: str = "") -> UserError:
    """The error about pictures of a size, in words."""
    return UserError(
        f"{path}: pictures{size} are too large; at most {MAX_SIDE} pixels on a side and {MAX_PIXELS // 1_000_000} million in all can be "
        "read, so make them smaller first"
    )


def square_pixel_size(width: int, height: int, sample_aspect: Fraction | None) -> tuple[int, int]:
    """Size with square pixels: the short side of the pixel is stretched, so that no detail is lost."""
    if not sample_aspect or sample_aspect == 1:
        return width, height
    if sample_aspect > 1:
        return max(1, round(width * sample_aspect)), height
    return width, max(1, round(height / sample_aspect))


def to_rgb(frame: av.VideoFrame, width: int, height: int, turn: tuple[bool, bool, bool]) -> np.ndarray:
    """Upright ``(H, W, 3)`` uint8 RGB, C-contiguous.

    Args:
        frame: any pixel format: 8 to 16 bits, grey, palette, YUV or RGB, with or without alpha (laid over black).
        width, height: size before turning, with square pixels.
        turn: what :func:`orientation` says.
    """
    colorspace = None
    if frame.colorspace == UNSPECIFIED_COLORSPACE and not frame.format.is_rgb and frame.height >= HD_HEIGHT:
        colorspace = Colorspace.ITU709
    has_alpha = frame.format.name in _ALPHA_FORMATS
    converted = frame.reformat(
        width=width, height=height, format="rgba" if has_alpha else "rgb24", src_colorspace=colorspace
    )
    image = converted.to_ndarray()
    if has_alpha:
        image = over_black(image)
    transpose, flip_rows, flip_columns = turn
    if transpose:
        image = image.transpose(1, 0, 2)
    if flip_rows:
        image = image[::-1]
    if flip_columns:
        image = image[:, ::-1]
    # The decoder pads rows to its own stride; consumers that take a pointer would read the padding as pixels.
    return np.ascontiguousarray(image)


def over_black(rgba: np.ndarray) -> np.ndarray:
    """``(H, W, 4)`` uint8 with straight alpha laid over black, ``(H, W, 3)`` uint8."""
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return rgba[..., :3]
    return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _alpha_formats() -> frozenset[str]:
    names = ("rgba", "bgra", "argb", "abgr", "pal8", "ya8", "ya16le", "ya16be", "rgba64le", "rgba64be", "gbrap")
    planar = tuple(f"yuva{layout}p" for layout in ("420", "422", "444"))
    bases = (*planar, "gbrap")
    deep = tuple(f"{base}{bits}{end}" for base in bases for bits in (9, 10, 12, 16) for end in ("le", "be"))
    return frozenset(names + planar + deep)


_ALPHA_FORMATS = _alpha_formats()
