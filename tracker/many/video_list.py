"""Which videos are meant, and under which names their results appear."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from tracker.errors import UserError
from tracker.video.image_folder import natural_key

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv .y4m".split()
)
"""Files that count as videos where a folder is searched. A list may name others, and folders of images."""


@dataclass(frozen=True)
class NamedVideo:
    """A video and the name of its result: a relative path with ``/`` between its parts."""

    path: Path
    name: str


def find_videos(where: Path, out: Path) -> list[NamedVideo]:
    """The videos of a folder and of the folders in it, or of a list.

    A list is a text file with a path a line; lines that begin with ``#`` are comments. Relative paths start at the list's folder.
    Results of one folder mirror it: ``a/b/clip.mp4`` becomes ``a/b/clip``. Where two videos would share a name, or one's folder
    of results would hold another's, endings are kept.

    Args:
        where: the folder or the list.
        out: folder of results, which is not searched.

    Raises:
        UserError: there is no such thing, or no video in it.
    """
    if where.is_dir():
        return named(where, sorted(_videos_below(where, out), key=lambda p: natural_key(str(p))))
    try:
        lines = [line.strip() for line in where.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        raise UserError(f"{where}: no such folder or list; give a folder with videos, or a text file with a path a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: cannot be read as a list ({error}); give a folder with videos, or a text file with a path a line") from error
    listed = [where.parent / line for line in lines if line and not line.startswith("#")]
    if not listed:
        raise UserError(f"{where}: the list names no video; give a path a line")
    if any("\0" in line for line in lines):
        raise UserError(f"{where}: not a list but some other file; give a folder with videos, or a text file with a path a line")
    return named(where.parent, listed)


def _videos_below(folder: Path, out: Path) -> list[Path]:
    found, results = [], out.resolve()
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(at, name).resolve() != results]
        found += [Path(at, name) for name in files if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")]
    if not found:
        raise UserError(f"{folder}: no video in this folder or below it ({', '.join(sorted(s[1:] for s in VIDEO_SUFFIXES))})")
    return found


def named(root: Path, paths: Iterable[Path]) -> list[NamedVideo]:
    """Videos with names relative to a folder; each path once."""
    relative = {path: _relative(root, path) for path in dict.fromkeys(Path(os.path.normpath(p)) for p in paths)}
    bare = {path: name.with_suffix("") if name.suffix.lower() in VIDEO_SUFFIXES else name for path, name in relative.items()}
    counts = Counter(_folded(name) for name in bare.values())
    parents = {_folded(parent) for name in bare.values() for parent in name.parents}
    return [
        NamedVideo(path, (relative[path] if counts[_folded(name)] > 1 or _folded(name) in parents else name).as_posix())
        for path, name in bare.items()
    ]


def _folded(name: PurePath) -> str:
    return name.as_posix().casefold()  # some disks know no capitals


def _relative(root: Path, path: Path) -> PurePath:
    """Below ``root`` as it is; elsewhere the whole path, so that names do not depend on what else is in a list."""
    root, whole = Path(os.path.abspath(root)), Path(os.path.abspath(path))
    if whole.is_relative_to(root) and whole != root:
        return whole.relative_to(root)
    drive = whole.drive.replace(":", "").strip("\\/").replace("\\", "/")
    return PurePath(drive, *whole.parts[1:])
