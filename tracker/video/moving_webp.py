"""Animated WebP, by Pillow: FFmpeg's libraries do not decode it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tracker.errors import UserError
from tracker.video.image_folder import NO_PICTURE, open_picture, rgb

_USUAL_STEP = 0.1
"""Seconds that browsers show a picture for which the file says 10 ms or less."""


class MovingWebp:
    """The pictures of an animated WebP, one at a time, at their own times.

    Raises:
        UserError: when it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open_picture(path) as opened:
                self.width, self.height = opened.size
                self.frame_count: int | None = int(getattr(opened, "n_frames", 1))
        except NO_PICTURE as error:
            raise UserError(f"{path}: not one frame of this animation decodes; it is damaged or cut off") from error
        self.frame_rate = 1 / _USUAL_STEP
        self.has_audio = False
        self.start_time = 0.0
        self.problem: str | None = None
        self.lens = None

    def pictures(self, start: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
        """Timestamps in seconds and ``(H, W, 3)`` uint8 RGB pictures."""
        time = 0.0
        with open_picture(self._path) as opened:
            for number in range(self.frame_count or 0):
                try:
                    opened.seek(number)
                    opened.load()
                    image = rgb(opened)
                except NO_PICTURE as error:
                    if number == 0:
                        raise UserError(f"{self._path}: not one frame of this animation decodes; it is damaged") from error
                    self.problem = f"the file holds {number} of its {self.frame_count} frames"
                    return
                yield time, image
                step = float(opened.info.get("duration") or 0) / 1000
                time += step if step > 0.01 else _USUAL_STEP

    def close(self) -> None:
        """Nothing stays open once the pictures were read."""


def is_moving_webp(path: Path) -> bool:
    """Whether a file is an animated WebP, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)
