"""Photos of one person, of any sizes and cameras, on one canvas.

A fit knows one picture size and one focal length. So each photo is scaled until its focal length, as far as it is known, is
the canvas's, and laid with its principal point (its centre) on the canvas's; nothing is cropped, and the rest of the canvas is black.
A head is then as far from the camera on the canvas as it was from the photo's own. Where each photo lies is kept, so that results can
be given in its own pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tracker.camera import FOCAL_PRIOR_LOG_SIGMA, FocalPrior, PhotoCameras, focal_prior, stated_focal
from tracker.errors import UserError
from tracker.video.image_folder import IMAGE_SUFFIXES, picture_paths, picture_size, read_image
from tracker.video.lens import LensNote, lens_of_photo

PHOTO_RATE = 1.0
"""Photos a second: they have no time, but everything else is counted by it."""

LARGEST_CANVAS = 4096
"""Side of the canvas at most, pixels."""


_OTHER_PHOTOS = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"})
# photos that Pillow cannot read without more libraries, or raw ones


@dataclass(frozen=True)
class PhotoOptions:
    """What is known of all photos: focal length in pixels of each, or its horizontal field of view in degrees; one at most."""

    focal_px: float | None = None
    fov_deg: float | None = None


@dataclass(frozen=True)
class Photo:
    """One photo, and where it lies.

    Attributes:
        path: its file.
        width, height: upright, pixels.
        prior: what is known of its focal length before it is looked at.
        lens: what its file says of it, or None.
        box: left, top, right and bottom on the canvas, pixels.
    """

    path: Path
    width: int
    height: int
    prior: FocalPrior
    lens: LensNote | None
    box: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels for one of its own, along x and y."""
        left, top, right, bottom = self.box
        return (right - left) / self.width, (bottom - top) / self.height


class PhotoFolder:
    """The photos of a folder (or a single one), laid on a canvas, as a source of frames one second apart.

    Args:
        path: the folder or file.
        options: what is known of the camera.

    Attributes:
        photos: in natural order of their names.
        camera: what is known of the canvas's focal length.
        left_out: names of photos in the folder that are of kinds that cannot be read.

    Raises:
        UserError: no picture, one that cannot be read, or options that no camera has.
    """

    def __init__(self, path: Path, options: PhotoOptions = PhotoOptions()) -> None:
        self.options = options
        self.left_out = tuple(sorted(p.name for p in path.iterdir() if p.suffix.lower() in _OTHER_PHOTOS)) if path.is_dir() else ()
        if self.left_out and not any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir()):
            raise UserError(f"{path}: photos like {self.left_out[0]} cannot be read; convert them to JPEG or PNG first")
        paths = picture_paths(path) if path.is_dir() else [path]
        photos = [_photo(p, options) for p in paths]
        self.camera, self.photos = on_canvas(photos)
        self.width, self.height = (round(2 * c) for c in self.camera.principal_point)
        self.frame_rate, self.frame_count = PHOTO_RATE, len(photos)
        self.has_audio, self.start_time = False, 0.0
        self.problem: str | None = None
        self.lens: LensNote | None = None  # of each photo its own, in the camera

    def pictures(self, start: float = 0.0) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
        """Number of each photo, as seconds, and the canvas with it."""
        for number, photo in enumerate(self.photos):
            if number / self.frame_rate >= start:
                yield number / self.frame_rate, self._laid(photo)

    def _laid(self, photo: Photo) -> UInt8[np.ndarray, "h w 3"]:
        image = read_image(photo.path)
        left, top, right, bottom = photo.box
        if (right - left, bottom - top) != image.shape[1::-1]:
            how = cv2.INTER_AREA if right - left < image.shape[1] else cv2.INTER_CUBIC
            image = cv2.resize(image, (right - left, bottom - top), interpolation=how)
        if image.shape[:2] == (self.height, self.width):
            return image
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        canvas[top:bottom, left:right] = image
        return canvas

    def close(self) -> None:
        """Nothing stays open between pictures."""


def _photo(path: Path, options: PhotoOptions) -> Photo:
    width, height = picture_size(path)
    lens = lens_of_photo(path)
    prior = focal_prior(width, height, options.focal_px, options.fov_deg)
    if prior.log_sigma > 0 and lens is not None:
        prior = stated_focal(width, height, lens.focal_px, lens.log_sigma)
    return Photo(path, width, height, prior, lens if prior.log_sigma > 0 else None)


def on_canvas(photos: list[Photo]) -> tuple[FocalPrior, tuple[Photo, ...]]:
    """Lay photos on a canvas: none is made smaller than it is, unless the canvas would exceed :data:`LARGEST_CANVAS`.

    Photos of whose lens nothing is known are taken for usual ones as soon as another's is known.

    Returns:
        What is known of the canvas's focal length, and the photos with their boxes.
    """
    largest = max(max(p.width, p.height) / p.prior.focal_px for p in photos)  # of all fields of view, by its tangent
    focal = min(max(p.prior.focal_px for p in photos), LARGEST_CANVAS / largest)
    sizes = [[max(round(side * focal / p.prior.focal_px), 1) for side in (p.width, p.height)] for p in photos]
    width, height = (max(along) for along in zip(*sizes, strict=True))
    laid = tuple(_at(p, size, (width, height)) for p, size in zip(photos, sizes, strict=True))
    known = min(photos, key=lambda p: p.prior.log_sigma).prior
    return FocalPrior(focal, known.log_sigma, (width / 2, height / 2), known.held), laid


def _at(photo: Photo, size: list[int], canvas: tuple[int, int]) -> Photo:
    left, top = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    return Photo(photo.path, photo.width, photo.height, photo.prior, photo.lens, (left, top, left + size[0], top + size[1]))


def own_cameras(
    photos: tuple[Photo, ...], focal_px: float, log_sigma: float, principal_point: Float[np.ndarray, "2"]
) -> PhotoCameras:
    """The canvas's camera in each photo's own pixels.

    Args:
        photos: of a canvas.
        focal_px, principal_point: of the canvas, pixels.
        log_sigma: of the canvas's focal length. Beside photos whose files tell of their lens, the others add what they are not told.
    """
    least = min(p.prior.log_sigma for p in photos)
    sigmas = np.array([log_sigma if p.prior.log_sigma <= least else math.hypot(log_sigma, p.prior.log_sigma) for p in photos])
    matrices = np.zeros((len(photos), 3, 3))
    for k, photo in zip(matrices, photos, strict=True):
        (sx, sy), (left, top) = photo.scale, photo.box[:2]
        k[:] = [[focal_px / sx, 0, (principal_point[0] - left) / sx], [0, focal_px / sy, (principal_point[1] - top) / sy], [0, 0, 1]]
    sizes = np.array([[p.height, p.width] for p in photos])
    return PhotoCameras(np.array([p.path.name for p in photos]), sizes, matrices, sigmas)


def words_on_photos(folder: PhotoFolder) -> Iterator[str]:
    """Sentences for the user on what was left out, and on what the files say of their lenses."""
    if folder.left_out:
        yield f"{len(folder.left_out)} photos like {folder.left_out[0]} cannot be read and were left out; convert them to JPEG or PNG"
    if any(photo.prior.log_sigma > 0 for photo in folder.photos):
        yield _on_lenses(folder.photos)


def _on_lenses(photos: tuple[Photo, ...]) -> str:
    told = [p for p in photos if p.lens is not None]
    if not told:
        return "no photo's file names its lens: each is taken for a usual one of its size"
    rest = len(photos) - len(told)
    first = f"focal lengths of {len(told)} of {len(photos)} photos are from their files (σ {100 * told[0].prior.log_sigma:.0f} %)"
    return first + (f"; the other {rest} are taken for usual ones (σ {100 * FOCAL_PRIOR_LOG_SIGMA:.0f} %)" if rest else "")


def refuse_for_photos(given: dict[str, object]) -> None:
    """Say so when options are given that photos cannot have.

    Raises:
        UserError: one of these values is not None.
    """
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{name} does not go with --photos; leave one of them out")
