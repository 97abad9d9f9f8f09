"""Frames in which no head is known yet: kept until one is, then looked at again from the last to the first.

A clip that begins with a head that nothing finds, or that loses one for a while, is so tracked backwards from the first sure frame. Frames are
held back, not amended: the files of observations only grow, in the frames' order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import UInt8

from densemarks_model.crops import HeadCrop
from tracker.landmarks.detection import Detection
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.look_store import LookState

MOST_FRAMES, MOST_BYTES = 256, 64_000_000
"""Frames held at once, and the bytes that they take as JPEG; the oldest are given up first."""

_QUALITY = 95


@dataclass(frozen=True)
class Look:
    """What looking at a frame gave: what the network says, if it looked, the detection unless that contradicts it, and where
    looking stands now."""

    record: EmbeddingRecord | None
    detection: Detection | None
    state: LookState

    @property
    def sure(self) -> bool:
        """Whether a head is known to be there."""
        return self.record is not None or self.detection is not None


@dataclass(frozen=True)
class LookedAt:
    """A frame that nothing more will be learnt about: its time in seconds, the RGB picture (None where there is no record that it
    could belong to), what was seen, and whether it begins a shot."""

    timestamp: float
    image: UInt8[np.ndarray, "h w 3"] | None
    look: Look
    cut: bool = False


LookBack = Callable[[HeadCrop, Iterable[UInt8[np.ndarray, "h w 3"]]], Sequence[EmbeddingRecord | None]]
"""Follows a head from where it is in a frame through those before it, given from the last to the first; may end early."""


class HeldFrames:
    """Passes frames on in their order, those without a head once it is known that nothing will come of them.

    Args:
        look_back: see :data:`LookBack`.
        most_frames, most_bytes: how much is held.
    """

    def __init__(self, look_back: LookBack, most_frames: int = MOST_FRAMES, most_bytes: int = MOST_BYTES) -> None:
        self._look_back, self._most_frames, self._most_bytes = look_back, most_frames, most_bytes
        self._held: deque[tuple[float, np.ndarray, Look, bool]] = deque()
        self._bytes = 0

    def add(self, timestamp: float, image: UInt8[np.ndarray, "h w 3"], look: Look, cut: bool = False) -> Iterator[LookedAt]:
        """Take the next frame; gives those that are done with. One that begins a shot tells nothing of those before."""
        if cut:
            yield from self.rest()
        if look.sure:
            if self._held and look.state.crop is not None:
                yield from self._looked_back(look.state.crop)
            yield from self.rest()
            yield LookedAt(timestamp, image, look, cut)
            return
        _, code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        self._held.append((timestamp, code, look, cut))
        self._bytes += code.nbytes
        while len(self._held) > self._most_frames or self._bytes > self._most_bytes:
            yield self._oldest()

    def rest(self) -> Iterator[LookedAt]:
        """Give up what is held: no head will be known."""
        while self._held:
            yield self._oldest()

    def _oldest(self) -> LookedAt:
        timestamp, code, look, cut = self._held.popleft()
        self._bytes -= code.nbytes
        return LookedAt(timestamp, None, look, cut)

    def _looked_back(self, crop: HeadCrop) -> Iterator[LookedAt]:
        records = self._look_back(crop, (_decoded(code) for _, code, *_ in reversed(self._held)))
        for record in reversed([*records, *[None] * (len(self._held) - len(records))]):
            code = self._held[0][1]
            done = self._oldest()
            yield done if record is None else replace(done, image=_decoded(code), look=replace(done.look, record=record))


def _decoded(code: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
