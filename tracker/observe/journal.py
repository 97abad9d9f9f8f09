"""Records of one size in a file that only grows: what was written before a crash is there after it."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np

from tracker.errors import UserError

_MAGIC = b"HTJOURN1"
_CHECK = "check"


class Journal:
    """Appends records to a file and reads them back by number. Use it as a context manager.

    The file begins with the records' layout, and each record carries a checksum. On reopening, everything from the first
    record on that is not whole (the process was killed while it wrote it) is cut off.

    Args:
        path: of the file; one that exists is gone on with.
        layout: fields of a record; None to take the file's own.

    Raises:
        UserError: the file exists and is no journal, or one of another layout, or ``layout`` is None and there is no file.
    """

    def __init__(self, path: Path, layout: np.dtype | None = None) -> None:
        self.path = Path(path)
        if self.path.is_file() and self.path.stat().st_size > 0:
            self._reopen(layout)
        elif layout is None:
            raise UserError(f"{path}: no such file; it belongs to a folder of observations")
        else:
            self._begin(layout)

    def _begin(self, layout: np.dtype) -> None:
        self._layout = _with_check(layout)
        description = json.dumps(layout.descr).encode()
        header = _MAGIC + struct.pack("<I", len(description)) + description
        self._start, self._count = len(header), 0
        self._file = open(self.path, "w+b")
        self._file.write(header)

    def _reopen(self, layout: np.dtype | None) -> None:
        content = open(self.path, "r+b")
        try:
            begin = content.read(len(_MAGIC) + 4)
            if begin[: len(_MAGIC)] != _MAGIC:
                raise ValueError("another kind of file")
            (length,) = struct.unpack("<I", begin[len(_MAGIC) :])
            stored = _layout_of(json.loads(content.read(length)))
            if layout is not None and stored != layout:
                raise ValueError("records of another layout")
        except (ValueError, struct.error, TypeError) as error:
            content.close()
            raise UserError(f"{self.path}: not a journal of this program ({error}); remove the folder and look again") from error
        self._layout, self._start, self._file = _with_check(stored), len(begin) + length, content
        self._count = self._whole_records()
        content.truncate(self._start + self._count * self._layout.itemsize)

    def _whole_records(self) -> int:
        number, size = 0, self._layout.itemsize
        self._file.seek(self._start)
        while len(content := self._file.read(size)) == size:
            if zlib.crc32(content[4:]) != int.from_bytes(content[:4], "little"):
                break
            number += 1
        return number

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def __len__(self) -> int:
        return self._count

    @property
    def layout(self) -> np.dtype:
        """Fields of a record, without its checksum."""
        names = [n for n in self._layout.names or () if n != _CHECK]
        return np.dtype([(n, self._layout[n].base, self._layout[n].shape) for n in names])

    def append(self, record: np.ndarray) -> int:
        """Add a record (a zero-dimensional array of the layout); returns its number."""
        content = record.tobytes()
        self._file.seek(0, 2)
        self._file.write(zlib.crc32(content).to_bytes(4, "little") + content)
        self._count += 1
        return self._count - 1

    def flush(self) -> None:
        """Hand everything to the operating system, where a crash of this process cannot reach it."""
        self._file.flush()

    def sync(self) -> None:
        """Put everything on the disk, where a power cut cannot reach it."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self, number: int) -> np.ndarray:
        """Record ``number``."""
        if not 0 <= number < self._count:
            raise IndexError(f"{self.path.name}: record {number} of {self._count}")
        self._file.seek(self._start + number * self._layout.itemsize)
        return np.frombuffer(self._file.read(self._layout.itemsize), self._layout)[0]

    def table(self) -> np.ndarray:
        """All records so far, mapped from the file: fields that are not looked at are not read."""
        self._file.flush()
        if self._count == 0:
            return np.empty(0, self._layout)
        return np.memmap(self.path, self._layout, mode="r", offset=self._start, shape=(self._count,))

    def keep(self, count: int) -> None:
        """Forget every record from number ``count`` on."""
        if count < self._count:
            self._file.flush()
            self._file.truncate(self._start + count * self._layout.itemsize)
            self._count = count


def _with_check(layout: np.dtype) -> np.dtype:
    return np.dtype([(_CHECK, "<u4"), *layout.descr])


def _layout_of(description: object) -> np.dtype:
    if not isinstance(description, list):
        raise TypeError("no description of its records")
    return np.dtype([(f[0], f[1], *(tuple(s) for s in f[2:])) for f in description])
