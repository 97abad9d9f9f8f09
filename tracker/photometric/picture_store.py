"""Pictures of the head in every frame on disk, so that memory does not grow with a video's length."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from jaxtyping import UInt8

from densemarks_model.crops import HeadCrop

_QUALITY = 95


class PictureStore:
    """Put crops under frame numbers, read them back. Use it as a context manager.

    Crops are kept as JPEG, about 20 kB each at 224 × 224 pixels.

    Args:
        folder: where the scratch file goes; it is removed at the end.
        size: side of the crops, pixels.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._path = Path(folder) / "pictures.bin"
        self._size = size
        self._places: dict[int, tuple[int, int, HeadCrop]] = {}

    def __enter__(self) -> PictureStore:
        self._file = open(self._path, "w+b")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def put(self, frame: int, crop: HeadCrop, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Cut ``crop`` out of an RGB frame and keep it."""
        picture = crop.extract(image, self._size)
        _, code = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        start = self._file.seek(0, 2)
        self._file.write(code.tobytes())
        self._places[frame] = (start, len(code), crop)

    def read(self, frame: int) -> tuple[HeadCrop, UInt8[np.ndarray, "size size 3"]] | None:
        """The crop of a frame and its RGB picture, None where there is none."""
        place = self._places.get(int(frame))
        if place is None:
            return None
        start, length, crop = place
        self._file.seek(start)
        code = np.frombuffer(self._file.read(length), np.uint8)
        return crop, cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
