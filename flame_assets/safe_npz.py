"""Read ``.npy`` and ``.npz`` files of other origin: never unpickled, never larger than said, one kind of error.

NumPy believes headers: one that promises terabytes fills the memory before the file turns out to be short, an archive of ten megabytes may
unpack to ten gigabytes, and damaged ones raise a dozen types of zipfile, zlib, tokenize and NumPy.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO

import numpy as np

LARGEST_BYTES = 1_000_000_000
"""All arrays of a file together, unpacked; a head's take 30 MB, a track's a kilobyte a frame."""

_LONGEST, _LONGEST_HEADER = 160, 10_000


class TooLargeError(ValueError):
    """Arrays that would take more memory than they may."""


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in a ``.npy`` file that is open at its beginning.

    Raises:
        ValueError: it has no such header.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version[0]}.{version[1]} is not known")
        length = file.read(2 if version == (1, 0) else 4)
        if (count := int.from_bytes(length, "little")) > _LONGEST_HEADER:  # as much would be reserved
            raise ValueError(f"{count} bytes long")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(io.BytesIO(length + file.read(count)))
    except Exception as error:  # its text is parsed as Python's, which has errors of its own for each mistake
        raise ValueError(f"no header of an array ({_short(error)})") from None
    if any(n < 0 for n in shape):
        raise ValueError(f"an array of impossible shape {shape}")
    return shape, dtype


def read_npz(path: Path, wanted: Container[str] | None = None, largest: int | None = None) -> dict[str, np.ndarray]:
    """Arrays of a file by name.

    Args:
        wanted: names; all that are there when None.
        largest: bytes that they may take, unpacked; :data:`LARGEST_BYTES` when None.

    Raises:
        TooLargeError: they take more, or say so.
        ValueError: not such a file, damaged, or something in it is no array of numbers or text. One line that does not name the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if wanted is None or m.filename.removesuffix(".npy") in wanted]
            sizes = [_bytes_said(archive, member) for member in members]
            total = sum(max(said, member.file_size) for said, member in zip(sizes, members, strict=True))
            if total > (LARGEST_BYTES if largest is None else largest):
                raise TooLargeError(f"its arrays take {total / 1e9:.3g} GB unpacked")
            for said, member in zip(sizes, members, strict=True):
                if said > member.file_size:  # nothing is to be reserved for what is not there
                    raise ValueError(f"{member.filename} ends early")
            return {member.filename.removesuffix(".npy"): _array_of(archive, member) for member in members}
    except TooLargeError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have types of their own for damaged files
        raise ValueError(_short(error)) from None


def names_in_npz(path: Path) -> frozenset[str]:
    """Names of the arrays in a file.

    Raises:
        ValueError: as :func:`read_npz`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except Exception as error:
        raise ValueError(_short(error)) from None


def _bytes_said(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """What a member's header says that it takes."""
    with archive.open(member) as file:
        shape, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are not read")
    return math.prod(shape) * dtype.itemsize


def _array_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _short(error: BaseException) -> str:
    """Visible characters of a message in one line."""
    text = " ".join((str(error) or type(error).__name__).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
