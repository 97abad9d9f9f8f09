"""Overlays of photos: one picture each, under the photo's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from flame_assets.asset import HeadAsset
from tracker.camera import PhotoCameras
from tracker.errors import UserError
from tracker.export.texture_png import write_picture
from tracker.head_track import HeadTrack
from tracker.overlay import OverlaySettings, Shown, Watch, nobody_watches, painter_for
from tracker.progress import Progress, silent
from tracker.track_vertices import vertices_on_device
from tracker.video.image_folder import read_image
from tracker.video.reader import VideoSource


def write_photo_overlays(
    folder: Path,
    source: VideoSource,
    track: HeadTrack,
    asset: HeadAsset,
    settings: OverlaySettings,
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    watch: Watch = nobody_watches,
) -> None:
    """Write ``folder/NAME.png`` for each photo: it, the mesh over it, and with a ``texture`` the head in the photos' own colours.

    The mesh is drawn in the photo's own pixels; photos larger than the settings' side are shown smaller. A photo without a tracked
    head is shown as it is. ``device`` is where the head is posed and drawn; there must be a renderer for it. ``watch`` sees every one.

    Raises:
        UserError: a photo cannot be read any more.
    """
    assert track.photos is not None
    folder.mkdir(parents=True, exist_ok=True)
    names = overlay_names(track.photos)
    for shown in photo_pictures(source, track, asset, settings, texture, device):
        # not by OpenCV, which cannot write under every name that a file system allows
        write_picture(folder / next(names), np.concatenate(shown.panels, axis=1))
        watch(shown)
        progress("overlay", shown.number + 1, track.n_frames)


def photo_pictures(
    source: VideoSource,
    track: HeadTrack,
    asset: HeadAsset,
    settings: OverlaySettings,
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Shown]:
    """Every photo of ``track`` as :func:`write_photo_overlays` shows it.

    Raises:
        UserError: a photo cannot be read any more.
    """
    assert track.photos is not None
    with source.open() as opened:
        paths = {p.path.name: p.path for p in opened.photos}
    more = 1 if texture is None else 2
    for number, vertices in enumerate(vertices_on_device(track, asset, device)):
        photo, path = track.in_photo(number), paths[str(track.photos.names[number])]
        height, width = (int(n) for n in photo.image_size)
        size = settings.panel(width, height)
        image = read_image(path)
        if image.shape[:2] != (height, width):
            raise UserError(f"{path}: was changed during the run; run again")
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if size != (width, height) else image
        drawn = [image] * more
        if track.valid[number]:
            drawn = painter_for(asset, photo, size, settings.opacity, texture, device).pictures(image, vertices)
        yield Shown(number, float(track.timestamps[number]), [image, *drawn], vertices)


def overlay_names(cameras: PhotoCameras) -> Iterator[str]:
    """``NAME.png`` for each photo; with the photo's ending where several have one name but for that."""
    photos = [str(name) for name in cameras.names]
    stems = [Path(p).stem for p in photos]
    for photo, stem in zip(photos, stems, strict=True):
        yield f"{stem}.png" if stems.count(stem) == 1 else f"{photo}.png"
