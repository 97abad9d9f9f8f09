"""One process at a time in a folder, with a lock that ends with its process however that ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LOCK = "lock"
"""Name of the file that is locked."""


class FolderLock:
    """Holds a folder; made by :meth:`take`.

    The operating system releases it when the process is gone, so there are no locks of dead processes to clear.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @staticmethod
    def take(folder: Path) -> FolderLock | None:
        """Lock a folder, which is made if it is not there; None where somebody else holds it or its disk knows no locks.

        Raises:
            OSError: the folder cannot be made or written.
        """
        while True:
            folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # its holder removed the folder just now
                continue
            try:
                _lock(descriptor)
            except OSError:
                os.close(descriptor)
                return None
            if _is_still(descriptor, folder / LOCK):
                return FolderLock(descriptor)
            os.close(descriptor)  # its holder removed the folder between opening and locking

    def release(self) -> None:
        """Let others in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
