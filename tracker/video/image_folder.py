"""Pictures read as if they were a video: a folder of numbered ones, or a single one."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tracker.errors import UserError
from tracker.video.lens import lens_of_photo
from tracker.video.pixels import check_size, over_black, too_large

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Files of a folder that count as frames; others are ignored."""

# Pillow warns of large pictures and of broken EXIF on the terminal. Sizes are checked here; of EXIF what is not broken is used, and a user can
# do nothing about the rest
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_SIDEWAYS = (5, 6, 7, 8)  # EXIF's orientations that swap width and height

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")

NO_PICTURE = (
    OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, ZeroDivisionError, RuntimeError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's readers raise over damaged files; each format has its own."""

DEFAULT_FOLDER_RATE = 25.0
"""Frame rate of a folder unless the caller names one: pictures carry no timing."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def picture_paths(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order of their names.

    Raises:
        UserError: there are none, or no permission to look.
    """
    try:
        found = [entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be read ({error.strerror}); change its permissions or copy it") from error
    # Files that macOS leaves behind on foreign disks bear an image's suffix but hold no image.
    paths = [entry for entry in sorted(found, key=lambda entry: natural_key(entry.name)) if not entry.name.startswith(".")]
    if not paths:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise UserError(f"{folder}: no images in this folder; put frames there ({kinds}) or name a video file")
    return paths


class ImageFolder:
    """The pictures of one folder in natural order of their names, ``frame_rate`` a second.

    Raises:
        UserError: when the folder holds no picture, or (while reading) one cannot be read or has another size.
    """

    def __init__(self, path: Path, frame_rate: float = DEFAULT_FOLDER_RATE) -> None:
        self._paths = picture_paths(path)
        self.frame_rate = frame_rate
        self.frame_count: int | None = len(self._paths)
        self.has_audio = False
        self.start_time = 0.0
        self.problem: str | None = None
        self.height, self.width = read_image(self._paths[0]).shape[:2]
        self.lens = lens_of_photo(self._paths[0])

    def pictures(self, start: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
        """Timestamps in seconds and ``(H, W, 3)`` uint8 RGB pictures, one file at a time, those before ``start`` unread."""
        for index, path in enumerate(self._paths):
            if index / self.frame_rate < start:
                continue
            image = read_image(path)
            if image.shape[:2] != (self.height, self.width):
                raise UserError(
                    f"{path}: this image is {image.shape[1]}x{image.shape[0]}, the first of the folder is "
                    f"{self.width}x{self.height}; give all frames one size"
                )
            yield index / self.frame_rate, image

    def close(self) -> None:
        """Nothing stays open between pictures."""


class StillImage:
    """A single picture, as a video of one frame, which lasts as long as one of ``frame_rate`` a second.

    Raises:
        UserError: when it cannot be read.
    """

    def __init__(self, path: Path, frame_rate: float = DEFAULT_FOLDER_RATE) -> None:
        self._image = read_image(path)
        self.height, self.width = self._image.shape[:2]
        self.lens = lens_of_photo(path)
        self.frame_rate, self.frame_count = frame_rate, 1
        self.has_audio = False
        self.start_time = 0.0
        self.problem: str | None = None

    def pictures(self, start: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
        """The picture, at 0 s."""
        yield 0.0, self._image

    def close(self) -> None:
        """Nothing is open."""


def is_still(path: Path) -> bool:
    """Whether a file is a single picture that Pillow knows; moving pictures (GIF, animated PNG and WebP) are for FFmpeg."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    try:
        with open_picture(path) as opened:
            # phones write JPEGs with further pictures behind the first, and TIFFs have pages: neither moves
            return not (opened.format in ("GIF", "PNG", "WEBP") and getattr(opened, "is_animated", False))
    except NO_PICTURE:
        return False


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture once it is turned upright, without decoding it.

    Raises:
        UserError: when the file is not a readable image.
    """
    try:
        with open_picture(path) as opened:
            turned = opened.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
            return opened.size[::-1] if turned else opened.size
    except NO_PICTURE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as an image ({reason}); replace or remove it") from error


def read_image(path: Path) -> np.ndarray:
    """One picture as ``(H, W, 3)`` uint8 RGB, turned upright by its EXIF note, alpha laid over black.

    Raises:
        UserError: when the file is not a readable image.
    """
    try:
        with open_picture(path) as opened:
            image = ImageOps.exif_transpose(opened)
            return rgb(image)
    except NO_PICTURE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as an image ({reason}); replace or remove it") from error


def rgb(image: Image.Image) -> np.ndarray:
    """A decoded picture as ``(H, W, 3)`` uint8 RGB, alpha laid over black."""
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey when it converts, so the high byte is taken by hand.
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return np.ascontiguousarray(over_black(np.asarray(image.convert("RGBA"))))
    return np.array(image.convert("RGB"))


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """A picture's header, its size checked, by Pillow's readers of photographic formats alone: others start programs (PostScript).

    Raises:
        UserError: too large. What Pillow raises else.
    """
    try:
        opened = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    with opened:
        check_size(path, *opened.size)
        yield opened
