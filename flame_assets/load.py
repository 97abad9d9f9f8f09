"""One door to every head: the default one, a ``.npz`` of this project, or FLAME files that the user brings.

Converting a FLAME file takes some seconds (unpacking, landmark registration), so the result is kept in the user's cache
folder under a name that depends on the files' contents; changed files are converted anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from flame_assets.asset import AssetError, HeadAsset, load_npz, save_npz
from flame_assets.canonical import CUBE_VERSION, canonical_coordinates
from flame_assets.checks import check_head
from flame_assets.flame_files import find_flame_files, read_flame
from flame_assets.safe_npz import LARGEST_BYTES
from flame_assets.user_cache import cache_folder, note_use, trim_cache

DEFAULT_HEAD = Path(__file__).resolve().parent / "default_head.npz"

CACHE_VERSION = "1"
"""Part of the cached files' names: a new number when conversion or registration changes its results."""


def load_head(path: Path | str | None = None, cache: Path | None = None) -> HeadAsset:
    """Load a head model, with landmarks of both schemes and canonical coordinates in the newest cube.

    Args:
        path: None for the default head; a ``.npz`` written by this project; an official FLAME ``.pkl``; or a folder that
            holds one, with ``landmark_embedding.npy``, ``mediapipe_landmark_embedding.npz`` and ``FLAME_masks.pkl`` beside
            it if they are at hand. Landmarks that the files do not bring are computed.
        cache: folder for converted heads; the user's cache folder when None.

    Raises:
        AssetError: no such file, not a head, damaged, or a pickle that wants to execute something.
    """
    return _load(DEFAULT_HEAD if path is None else Path(path), cache).with_cube(CUBE_VERSION)


def _load(path: Path, cache: Path | None) -> HeadAsset:
    if not path.exists():
        raise AssetError(f"{path}: no such head file or folder")
    if not (path.is_file() or path.is_dir()):
        raise AssetError(f"{path}: a pipe or a device, not a file; save the head to a file first")
    if path.is_dir() or path.suffix.lower() != ".npz":
        files = find_flame_files(path)
        return _cached(_digest(files.present()), cache, lambda: _complete(_checked(read_flame(files), files.model)))
    asset = load_npz(path)
    if "mediapipe" in asset.landmarks and asset.canonical is not None:
        return asset
    return _cached(_digest([path]), cache, lambda: _complete(asset))


def _checked(asset: HeadAsset, path: Path) -> HeadAsset:
    check_head(asset, path)
    return asset


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256(CACHE_VERSION.encode())
    for file in files:
        try:
            if (size := file.stat().st_size) > LARGEST_BYTES:
                raise AssetError(f"{file}: has {size / 1e9:.1f} GB, and no head needs more than {LARGEST_BYTES / 1e9:g}")
            content = file.read_bytes()
        except OSError as error:
            raise AssetError(f"{file}: cannot be read ({error.strerror})") from error
        digest.update(file.name.encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()


def _cached(digest: str, cache: Path | None, convert: Callable[[], HeadAsset]) -> HeadAsset:
    target = (cache or cache_folder("heads")) / f"{digest[:32]}.npz"
    if target.is_file():
        try:
            head = load_npz(target)
            note_use(target)
            return head
        except AssetError:
            pass  # damaged: converted and written again below
    asset = convert()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_npz(asset, target)  # whole or not at all, though several processes may convert at once
        trim_cache(target)
    except OSError:
        pass  # no room or no right to write: the head is converted each time
    return asset


def _complete(asset: HeadAsset) -> HeadAsset:
    """Add what the files did not bring: landmarks and canonical coordinates."""
    from flame_assets.landmark_registration import register_landmarks

    canonical = canonical_coordinates(asset.v_template) if asset.canonical is None else asset.canonical
    return replace(asset, landmarks=register_landmarks(asset), canonical=np.asarray(canonical, np.float32))
