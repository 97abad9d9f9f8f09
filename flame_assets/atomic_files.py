"""Outputs appear under their name only when they are complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it when the block ends well, remove it when it fails.

    The temporary name keeps the ending, because some writers choose a format by it; the rest is new each time, because
    several processes may write the same file at once.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, replaces: str = "*") -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``, which takes the place of ``path`` when the block ends well.

    A folder cannot be renamed over one that holds files, so an older ``path`` steps aside first and is deleted last. What
    in it does not match the pattern ``replaces`` is carried over.
    """
    path = Path(path)
    temporary, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("part", "old"))
    if old.exists():  # a run was killed between two of the steps below
        shutil.rmtree(old) if path.exists() else os.replace(old, path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            for kept in path.iterdir():
                if not fnmatch(kept.name, replaces):
                    _carry(kept, temporary / kept.name)
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)


def _carry(source: Path, target: Path) -> None:
    """The same file under a second name; a copy of folders, and where the file system knows no second names."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)
