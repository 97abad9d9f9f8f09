"""Where things are kept that can be made or fetched again: converted heads and networks, downloads. Never larger than a limit.

========== =================================================================== ======================
folder     holds                                                               made by
========== =================================================================== ======================
(itself)   clips of the demo and the benchmark                                 pip, from packages
networks   networks in OpenVINO's form, 25 to 100 MB each                      the first run with each
heads      FLAME heads with landmarks and canonical coordinates, 40 MB each    the first run with each
compiled   the renderer's machine code, where its own folder is read-only      the first run
libraries  what matplotlib and torch would leave in the home folder            the command line
others     sources of the default head, panoramas, backbones                   tools and training
========== =================================================================== ======================
"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

LIMIT_BYTES = 2_000_000_000
"""Of all files together; what was used least recently goes first."""


def cache_folder(kind: str = "") -> Path:
    """``densemarks-tracker/<kind>`` in the system's usual place for caches; on Linux that is ``$XDG_CACHE_HOME`` or ``~/.cache``.

    It need not be there yet.
    """
    return user_cache_path("densemarks-tracker", appauthor=False, opinion=False) / kind


def keep_libraries_tidy() -> None:
    """Let libraries keep their files in the cache folder, where they would leave them in the home and the temporary folder.

    For a process of the program's own, before the libraries are imported; a user's own choice stands.
    """
    for variable, kind in (("MPLCONFIGDIR", "matplotlib"), ("TORCHINDUCTOR_CACHE_DIR", "torch")):
        os.environ.setdefault(variable, str(cache_folder("libraries") / kind))


def note_use(*files: Path) -> None:
    """Remember that cached files were used now."""
    for file in files:
        try:
            os.utime(file)
        except OSError:
            pass  # read-only, or gone


def trim_cache(written: Path, limit: int = LIMIT_BYTES) -> None:
    """Remove what was used least recently until the cache is below ``limit`` bytes. Call it with a file that was just put there.

    Files of one name but for their endings go together; ``written`` and its like stay. Nothing is done for files elsewhere, and what cannot
    be removed is left.
    """
    root = cache_folder()
    if not written.is_relative_to(root):
        return
    groups: dict[Path, list[Path]] = {}
    for file in root.rglob("*"):
        if file.is_file() and not file.is_symlink():
            groups.setdefault(file.with_suffix(""), []).append(file)
    groups.pop(written.with_suffix(""), None)
    known = []
    for files in groups.values():
        try:
            stats = [file.stat() for file in files]
        except OSError:
            continue  # another process is at it
        known.append((max(s.st_mtime for s in stats), sum(s.st_size for s in stats), files))
    total = sum(size for _, size, _ in known) + sum(f.stat().st_size for f in written.parent.glob(f"{written.stem}.*"))
    for _, size, files in sorted(known, key=lambda entry: entry[0]):
        if total <= limit:
            return
        for file in files:
            try:
                file.unlink()
            except OSError:
                pass
        total -= size
