"""The one exception that a person at the command line is meant to read, and what the machine itself may lack."""

from __future__ import annotations

import errno

_LONGEST = 600

_LACKS = {
    errno.ENOSPC: "disk full: {}; free some space, or choose another disk with --out",
    errno.EDQUOT: "disk full: your quota of space is used up ({}); free some, or choose another disk with --out",
    errno.EFBIG: "disk full: a file would be larger than this system lets it be ({}); choose another disk with --out",
    errno.EROFS: "the disk is read-only ({}); choose another one with --out",
    errno.EACCES: "no permission ({}); choose another folder with --out",
    errno.EPERM: "no permission ({}); choose another folder with --out",
    errno.ENOENT: "a file or folder vanished while it was in use ({}); run again",
    errno.ENOTDIR: "a folder vanished while it was in use ({}); run again",
    errno.ESTALE: "a file or folder vanished while it was in use ({}); run again",
    errno.EIO: "a disk failed ({}); choose another one with --out",
    errno.EMFILE: "too many open files for this system's limit ({}); raise it (ulimit -n)",
    errno.ENFILE: "too many open files on this system ({}); close other programs",
    errno.EAGAIN: "this system's limit of processes or threads is reached ({}); close other programs",
    errno.ENOMEM: "not enough memory ({}); close other programs, or make the video smaller first",
}


class UserError(Exception):
    """Input or environment that the program cannot work with.

    The message is one line that says what is wrong, where, and what to do. The command line prints it without a
    traceback and exits with :attr:`exit_code`.
    """

    exit_code = 2


def of_the_machine(error: BaseException) -> str | None:
    """What the machine lacks, as a message to a person, where that is what an exception is about; else None."""
    if isinstance(error, OSError) and error.errno in _LACKS:
        return _LACKS[error.errno].format(error.filename or error.strerror)
    text = str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "bad allocation" in text or "bad_alloc" in text:
        return _LACKS[errno.ENOMEM].format(text or "an allocation failed")
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return _LACKS[errno.EAGAIN].format(text)
    return None


def one_line(text: str) -> str:
    """A message as one line of visible characters, of a length that can be read."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    # what is wrong stands at the end, and what it is about at the beginning
    return line if len(line) <= _LONGEST else line[: _LONGEST // 3] + " … " + line[-_LONGEST // 2 :]
