"""The out folder: results appear in it complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracker.errors import UserError


@contextmanager
def result_folder(out: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """Make ``out/name/`` through a scratch folder beside it.

    Yields:
        ``(staging, scratch)``: write results into the first; the second is for files that nobody keeps. When the block
        ends well, everything in staging moves to ``out/name/`` (files of the same name are replaced, others are left
        alone). When it fails, both vanish and ``out/name/`` is as it was.

    Raises:
        UserError: the folder cannot be made or written.
    """
    target = out / name
    try:
        out.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_dir():
            raise UserError(f"--out: {target} is a file; move it away or choose another folder")
        if target.is_dir() and not os.access(target, os.W_OK):
            raise UserError(f"--out: {target} cannot be written; choose another folder with --out")
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".part", dir=out))
    except OSError as error:
        raise UserError(f"--out: {out} cannot be written ({error.strerror}); choose another folder with --out") from error
    staging, scratch = work / "results", work / "scratch"
    try:
        staging.mkdir()
        scratch.mkdir()
        yield staging, scratch
        target.mkdir(exist_ok=True)
        for item in sorted(staging.iterdir()):
            _move(item, target / item.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Rename within one file system; a folder of an earlier run gives way first, since folders cannot be replaced."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(source, target)
