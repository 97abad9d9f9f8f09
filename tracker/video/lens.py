"""What a file itself says of the lens that it was taken with: EXIF in photos, QuickTime's notes in videos of phones.

Makers state the focal length that would show as much on 35 mm film, by the picture's diagonal (CIPA DC-008), rounded to a millimetre;
or the true one, in millimetres, with the sensor's pixels to the inch. Both mean the whole sensor: what a digital zoom or a
stabiliser cut away is not always in them, so that they are told with a standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)

PHOTO_LOG_SIGMA = 0.05
"""Standard deviation of the logarithm of a photo's stated focal length: rounding, and makers who go by the width."""

VIDEO_LOG_SIGMA = 0.1
"""The same for videos, of which stabilisation and the wide format cut away a share that is not stated."""

_FILM_MM = (5.0, 2000.0)  # no lens lies outside
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # EXIF's units of the sensor's resolution
_SAME_SHAPE = 0.02  # a picture whose sides' ratio is not the camera's has been cropped
_QUICKTIME_KEYS = ("com.apple.quicktime.camera.focal_length.35mm_equivalent", "camera.focal_length.35mm_equivalent")


@dataclass(frozen=True)
class LensNote:
    """A focal length as a file states it.

    Attributes:
        focal_px: pixels of the upright, whole picture.
        log_sigma: standard deviation of its logarithm.
        words: what the file says, for the user.
    """

    focal_px: float
    log_sigma: float
    words: str


def lens_of_photo(path: Path) -> LensNote | None:
    """What a picture's EXIF says; None where it says nothing, nothing possible, or the picture has been cropped since."""
    try:
        with Image.open(path) as picture:
            size, exif = picture.size, picture.getexif()
            note = exif.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # Pillow's reader of EXIF raises whatever a broken note makes it meet, and a note is no reason to stop
        return None
    taken = (_number(note.get(ExifTags.Base.ExifImageWidth)), _number(note.get(ExifTags.Base.ExifImageHeight)))
    if min(taken) > 0 and not _same_shape(size, taken):
        return None
    film = _number(note.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if _FILM_MM[0] <= film <= _FILM_MM[1]:
        return LensNote(_from_film(film, *size), PHOTO_LOG_SIGMA, f"EXIF: {film:g} mm on 35 mm film")
    return _from_sensor(note, size, taken)


def lens_of_video(metadata: Mapping[str, str], width: int, height: int) -> LensNote | None:
    """What a video's container says, as phones of Apple write it; None where it says nothing, or nothing possible.

    Args:
        metadata: of the container and of its video track.
        width, height: of the upright picture, pixels.
    """
    for key in _QUICKTIME_KEYS:
        film = _number(metadata.get(key))
        if _FILM_MM[0] <= film <= _FILM_MM[1]:
            return LensNote(_from_film(film, width, height), VIDEO_LOG_SIGMA, f"the file: {film:g} mm on 35 mm film")
    return None


def _from_film(film_mm: float, width: int, height: int) -> float:
    return film_mm * math.hypot(width, height) / FILM_DIAGONAL_MM


def _from_sensor(note: Mapping[int, object], size: tuple[int, int], taken: tuple[float, float]) -> LensNote | None:
    """From the lens's own focal length and the sensor's pixels to the inch."""
    focal_mm = _number(note.get(ExifTags.Base.FocalLength))
    unit = _MM_PER_UNIT.get(int(_number(note.get(ExifTags.Base.FocalPlaneResolutionUnit))) or 2, 0.0)
    resolution = _number(note.get(ExifTags.Base.FocalPlaneXResolution))
    if focal_mm <= 0 or unit <= 0 or resolution <= 0:
        return None
    resized = max(size) / max(taken) if min(taken) > 0 else 1.0
    focal_px = focal_mm * resolution / unit * resized
    film = focal_px * FILM_DIAGONAL_MM / math.hypot(*size)
    if not _FILM_MM[0] <= film <= _FILM_MM[1]:
        return None
    return LensNote(focal_px, PHOTO_LOG_SIGMA, f"EXIF: {focal_mm:g} mm, {resolution / unit:.0f} pixels to the millimetre of the sensor")


def _same_shape(size: tuple[int, int], taken: tuple[float, float]) -> bool:
    """Whether two sizes have one ratio of sides, in whichever order they are noted."""
    a, b = max(size) / min(size), max(taken) / min(taken)
    return abs(math.log(a / b)) < _SAME_SHAPE


def _number(value: object) -> float:
    """A plain finite number; 0 for anything else (broken fractions, text, tuples)."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0
