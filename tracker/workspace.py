"""The out folder: results appear in it complete or not at all, and a run that was stopped finds its work again."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flame_assets.atomic_files import atomic_file
from tracker.errors import UserError, of_the_machine
from tracker.folder_lock import LOCK, FolderLock
from tracker.interrupts import Interrupted
from tracker.progress import Say, say_nothing

SUMMARY = "summary.json"
"""The output that lists the others; it is the last to appear."""

_ABOUT = "work.json"
_RANDOM = re.compile(r"[a-z0-9_]{8}")  # what tempfile puts between a prefix and a suffix
_SHOWN_CHANGES = 4


@contextmanager
def result_folder(
    out: Path,
    name: str,
    belongs_to: Mapping[str, Any] | None = None,
    *,
    restart: bool = False,
    say: Say = say_nothing,
) -> Iterator[tuple[Path, Path]]:
    """Make ``out/name/`` through a work folder beside it, ``out/.name.part/``.

    Args:
        out, name: where to.
        belongs_to: all that the work depends on, for JSON. Work left by a run of the same is gone on with; None to begin anew.
        restart: begin anew in any case.
        say: told what becomes of the work of earlier runs.

    Yields:
        ``(staging, scratch)``: write results into the first; the second is for files that nobody keeps, and holds what an
        earlier run of the same left there. When the block ends well, everything in staging moves to ``out/name/`` (files of the
        same name are replaced, those that the summary there lists from an earlier run and that were not written this time are
        removed, others are left alone), and the work folder goes. When it fails, that goes too, and ``out/name/`` is as it was.
        When it is interrupted (or killed), the work folder stays; :attr:`Interrupted.kept` names it.

    Raises:
        UserError: the folder cannot be made or written.
    """
    target = out / name
    try:
        _check_place(out, target, out / f".{name}.part")
        out.mkdir(parents=True, exist_ok=True)
        work = _WorkFolder.claim(out, name, None if restart else belongs_to, belongs_to, say)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG and os.path.isdir(out):
            raise UserError(f"the name of the video is too long for its folder of results, {_shortened(name)}; rename the video") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(of_the_machine(error)) from error
        raise UserError(f"--out: {_shortened(str(out))} cannot be written ({error.strerror}); choose another folder with --out") from error
    keep = False
    try:
        yield work.staging, work.scratch
        _deliver(work.staging, target)
    except KeyboardInterrupt as error:
        keep = not work.private and any(work.scratch.iterdir())
        if keep and isinstance(error, Interrupted):
            error.kept = work.folder
        raise
    finally:
        work.release(keep)


def _check_place(out: Path, target: Path, work: Path) -> None:
    """What lies where folders are to be, and is none, is said before any work is done. Links are followed but for the work folder's:
    what is in that is removed.

    Raises:
        UserError: there is such a thing, or the result's folder cannot be written.
        OSError: it cannot be known.
    """
    for path in (out, target):
        kind = _no_folder(path)
        if kind:
            raise UserError(f"--out: {path} is {kind}, and no folder; move it away or choose another folder")
    if _no_folder(work) or work.is_symlink():
        raise UserError(f"--out: {work} is in the way, where this program keeps its unfinished work; move it away or choose another folder")
    if target.is_dir() and not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UserError(f"--out: {target} cannot be written; choose another folder with --out")


def _no_folder(path: Path) -> str:
    """What is there, if anything but a folder is."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link to itself"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return "a link to nothing" if os.path.islink(path) else ""
        raise
    return "" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a device or a pipe"


def _shortened(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:40]}…{name[-20:]}"


class _WorkFolder:
    """A folder beside the result, held by this process."""

    def __init__(self, folder: Path, lock: FolderLock | None, private: bool) -> None:
        self.folder, self.private = folder, private
        self.staging, self.scratch = folder / "results", folder / "scratch"
        self._lock = lock

    @staticmethod
    def claim(out: Path, name: str, wanted: Mapping[str, Any] | None, about: Mapping[str, Any] | None, say: Say) -> _WorkFolder:
        """The work folder of a result, with what is left of ``wanted`` in it; where another run holds it, one of its own."""
        _remove_stale(out, name, say)
        folder = out / f".{name}.part"
        lock = FolderLock.take(folder)
        private = lock is None
        if private:
            say(f"another run is writing {out / name} at this moment; this one works beside it, and cannot be gone on with")
            folder = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".part", dir=out))
            lock = FolderLock.take(folder)
        work = _WorkFolder(folder, lock, private)
        try:
            work._prepare(name, wanted, about, say)
        except OSError:
            work.release(keep=bool(list(folder.glob(f"{work.scratch.name}/*"))))
            raise
        return work

    def _prepare(self, name: str, wanted: Mapping[str, Any] | None, about: Mapping[str, Any] | None, say: Say) -> None:
        """Empty it of all that is not wanted, and note what the rest belongs to."""
        if not self._goes_on(wanted, say):
            for item in self.folder.iterdir():
                if item.name != LOCK:
                    _remove(item)
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir()
        self.scratch.mkdir(exist_ok=True)
        with atomic_file(self.folder / _ABOUT) as unfinished:
            unfinished.write_text(json.dumps({"name": name, "belongs_to": about}, indent=2) + "\n", encoding="utf-8")

    def _goes_on(self, wanted: Mapping[str, Any] | None, say: Say) -> bool:
        """Whether what is here belongs to ``wanted``; says so where it does not."""
        if not self.scratch.is_dir() or not any(self.scratch.iterdir()):
            return False
        if wanted is None:
            say(f"the unfinished work of an earlier run ({self.folder}) is removed; this one begins anew")
            return False
        before = _about(self.folder).get("belongs_to")
        changes = ["its notes cannot be read"] if not isinstance(before, dict) else differences(before, json.loads(json.dumps(wanted)))
        if changes:
            shown = [*changes[:_SHOWN_CHANGES], *([f"and {len(changes) - _SHOWN_CHANGES} more"] if len(changes) > _SHOWN_CHANGES else [])]
            say(f"the unfinished work of an earlier run ({self.folder}) does not fit this one ({', '.join(shown)}); it is removed, and this one begins anew")
        return not changes

    def release(self, keep: bool) -> None:
        """Leave the folder to a later run, or remove it."""
        if not keep and os.name == "posix":
            shutil.rmtree(self.folder, ignore_errors=True)  # while others cannot get in
        if self._lock is not None:
            self._lock.release()
        if not keep and os.name != "posix":  # open files cannot be removed there
            shutil.rmtree(self.folder, ignore_errors=True)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """What changed between two records, one clause each, nested ones by dotted names."""
    changes = []
    for key in dict.fromkeys((*before, *now)):
        a, b = before.get(key), now.get(key)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            changes += differences(a, b, f"{within}{key}.")
        else:
            changes.append(f"{within}{key}: {_short(a)} → {_short(b)}")
    return changes


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def listed_outputs(folder: Path) -> list[str]:
    """What the summary in a result's folder lists, names in that folder alone; empty where there is none of this program."""
    files = read_json(folder / SUMMARY).get("files")
    names = [f.rstrip("/") for f in files if isinstance(f, str)] if isinstance(files, list) else []
    return [n for n in names if n not in ("", ".", "..") and not re.search(r"[/\\:]", n)]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a file; empty where there is none, whatever the reason."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _about(folder: Path) -> dict[str, Any]:
    return read_json(folder / _ABOUT)


def _deliver(staging: Path, target: Path) -> None:
    """Move results to where they belong, the summary last, and remove what is no result any more."""
    target.mkdir(exist_ok=True)
    items = sorted(staging.iterdir(), key=lambda item: (item.name == SUMMARY, item.name))
    stale = set(listed_outputs(target)) - {item.name for item in items} if items and items[-1].name == SUMMARY else set()
    for name in stale:
        _remove(target / name)
    for item in items:
        _move(item, target / item.name)


def _move(source: Path, target: Path) -> None:
    """Rename within one file system; a folder of an earlier run gives way first, since folders cannot be replaced."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_stale(out: Path, name: str, say: Say) -> None:
    """Folders that dead runs left and nobody can go on with: those of an older version, and those of runs beside others."""
    prefix, suffix = f".{name}-", ".part"
    for folder in out.iterdir():
        middle = folder.name[len(prefix) : -len(suffix)]
        if not (folder.name.startswith(prefix) and folder.name.endswith(suffix) and _RANDOM.fullmatch(middle) and folder.is_dir()):
            continue
        about = _about(folder)
        ours = about["name"] == name if "name" in about else {i.name for i in folder.iterdir()} <= {"results", "scratch", LOCK}
        lock = FolderLock.take(folder) if ours else None
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            say(f"removed {folder}, which a run that was killed left behind")
