"""What a decoder hands over, and what every source of frames must be able to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tracker.video.lens import LensNote


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    Attributes:
        index: number of the frame among those delivered, from 0.
        timestamp: seconds since the video's first frame; strictly increasing, never rounded to a nominal rate.
        image: ``(H, W, 3)`` uint8 RGB, row 0 on top, C-contiguous, upright, square pixels.
    """

    index: int
    timestamp: float
    image: np.ndarray


class FrameSource(Protocol):
    """A container file or a folder, opened: its facts, and its pictures in order.

    Attributes:
        width, height: pixels of the delivered pictures (after rotation, with square pixels).
        frame_rate: average frames per second.
        frame_count: how many frames the source claims to hold, or None.
        has_audio: whether there is a sound track beside the pictures.
        start_time: container time in seconds of the picture with timestamp 0.
        lens: what the file says of the focal length, or None.
        problem: what stopped or disturbed decoding so far, as a clause without a full stop, or None.
    """

    width: int
    height: int
    frame_rate: float
    frame_count: int | None
    has_audio: bool
    start_time: float
    lens: LensNote | None
    problem: str | None

    def pictures(self, start: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
        """Timestamps in seconds (from the video's first picture) and ``(H, W, 3)`` uint8 RGB pictures, once, one at a time.

        Pictures before ``start`` seconds may be left out, where that saves decoding them; all others have the timestamps that
        they have without it.
        """
        ...

    def close(self) -> None:
        """Release the file; called once no thread decodes any more."""
        ...
