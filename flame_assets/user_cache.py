"""Where things are kept that can be made or fetched again: converted heads and networks, downloads."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path


def cache_folder(kind: str = "") -> Path:
    """``densemarks-tracker/<kind>`` in the system's usual place for caches; on Linux that is ``$XDG_CACHE_HOME`` or ``~/.cache``.

    It need not be there yet.
    """
    return user_cache_path("densemarks-tracker", appauthor=False, opinion=False) / kind
