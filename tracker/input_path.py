"""Paths that a person gives: looked at before anything is read, so that nothing waits for ever or fails deep inside."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tracker.errors import UserError

_REASONS = {
    errno.EACCES: "no permission to read this; change its permissions or copy it",
    errno.EPERM: "no permission to read this; change its permissions or copy it",
    errno.ELOOP: "this link points to itself; name the file",
    errno.ENAMETOOLONG: "this name is too long for the file system; check the path",
    errno.EIO: "cannot be read from its disk; copy it to another one",
}


def check_input(path: Path, what: str, option: str = "") -> None:
    """Refuse what is neither a readable file nor a readable folder. Needs no heavy library.

    Args:
        what: what it should be, e.g. ``"video"``, for the message.
        option: that named it, e.g. ``"--config "``.

    Raises:
        UserError: not there, no permission, a link to itself, or a pipe or device, at which reading might never end.
    """
    try:
        mode = os.stat(path).st_mode
        with open(path, "rb") if stat.S_ISREG(mode) else os.scandir(path) if stat.S_ISDIR(mode) else open(os.devnull, "rb"):
            pass
    except (OSError, ValueError) as error:
        reason = _REASONS.get(getattr(error, "errno", None) or 0, f"no such file or folder; check the path of the {what}")
        raise UserError(f"{option}{path}: {reason}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{option}{path}: a pipe or a device, not a file; save the {what} to a file first")
