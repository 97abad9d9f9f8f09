"""Pictures of the head in every frame on disk, so that memory does not grow with a video's length."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from jaxtyping import UInt8

from densemarks_model.crops import HeadCrop
from tracker.observe.journal import Journal

_QUALITY = 95
_ENTRY = np.dtype([("frame", "<i8"), ("start", "<i8"), ("length", "<i8"), ("checksum", "<u4"), ("crop", "<f8", 4)])


class PictureStore:
    """Put crops under frame numbers, read them back. Use it as a context manager.

    Crops are kept as JPEG, about 20 kB each at 224 × 224 pixels.

    Args:
        folder: where the files go; those that are there already are gone on with.
        size: side of the crops, pixels.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._size = size
        self._list = Journal(Path(folder) / "pictures.journal", _ENTRY)
        self._file = open(Path(folder) / "pictures.bin", "a+b")
        self._places: dict[int, tuple[int, int, HeadCrop]] = {}
        for row in self._list.table():
            if not self._is_whole(row):
                break
            self._note(row)
        self.keep(max(self._places, default=-1) + 1)

    def _is_whole(self, row: np.ndarray) -> bool:
        self._file.seek(int(row["start"]))
        return zlib.crc32(self._file.read(int(row["length"]))) == int(row["checksum"])

    def _note(self, row: np.ndarray) -> None:
        x, y, side, roll = (float(v) for v in row["crop"])
        self._places[int(row["frame"])] = (int(row["start"]), int(row["length"]), HeadCrop(np.array([x, y]), side, roll))

    def __enter__(self) -> PictureStore:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._list.close()
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def put(self, frame: int, crop: HeadCrop, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Cut ``crop`` out of an RGB frame and keep it."""
        picture = crop.extract(image, self._size)
        _, code = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        content = code.tobytes()
        row = np.zeros((), _ENTRY)
        row["frame"], row["start"], row["length"] = frame, self._file.seek(0, 2), len(content)
        row["checksum"], row["crop"] = zlib.crc32(content), (*crop.center, crop.side, crop.roll)
        self._file.write(content)
        self._list.append(row)
        self._note(row)

    def flush(self) -> None:
        """Hand what was added to the operating system."""
        self._file.flush()
        self._list.flush()

    def sync(self) -> None:
        """Put what was added on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._list.sync()

    def keep(self, frames: int) -> None:
        """Forget the pictures of frames from number ``frames`` on."""
        self._places = {f: place for f, place in self._places.items() if f < frames}
        self._list.keep(len(self._places))  # frames are put in order
        self._file.truncate(max((start + length for start, length, _ in self._places.values()), default=0))

    def read(self, frame: int) -> tuple[HeadCrop, UInt8[np.ndarray, "size size 3"]] | None:
        """The crop of a frame and its RGB picture, None where there is none."""
        place = self._places.get(int(frame))
        if place is None:
            return None
        start, length, crop = place
        self._file.seek(start)
        code = np.frombuffer(self._file.read(length), np.uint8)
        return crop, cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
