"""Where a video is cut, told from very small pictures of its frames.

A frame begins a shot where it differs from the one before far more than frames around it differ from each other, after the best shift and
whatever gain and offset, and no frame just after it looks like one just before it, as it would after a flash. So fast pans, shaking
cameras, zooms, changes of exposure and flashes are no cuts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tracker.video.frame import Frame

_SIZE = (48, 27)  # width and height of the small pictures
_SEARCH = (9, 5)  # how far one is shifted over another, in its pixels
FLAT = 5.0
"""Standard deviation of brightness below which a picture shows nothing, grey levels of 255."""

_ALIKE = 0.04  # pictures that differ no more than this where they are need not be shifted: it decides nothing

# Measured on six real clips, joined, panned, zoomed, shaken, lit and flashed: frames of one shot differ by 0.06 at most but in pans, shots of
# one room by 0.2 and more.
_CUT = 0.12
_CUT_RATIO = 2.5  # times as different as frames around
_STAYS = 0.08  # difference of every frame just after a cut from every one just before
_AHEAD_SECONDS, _LEAST_AHEAD, _MOST_AHEAD = 0.12, 4, 6

_Item = TypeVar("_Item", bound=Frame)


class CutFinder:
    """Passes frames on, each with whether it begins a shot; looks some frames ahead for it. The first one begins none.

    Args:
        frame_rate: frames per second.
        keep_from: number of the first frame whose small picture is wanted; None for no pictures.

    Attributes:
        small: pictures of the frames that were passed on, by number; whoever wants them takes them out.
        ahead: frames held back at once. A flash of fewer frames is no cut, and no shot is shorter.
    """

    def __init__(self, frame_rate: float, keep_from: int | None = None) -> None:
        self.small: dict[int, SmallPicture] = {}
        self._keep_from, self._count = keep_from, 0
        self.ahead = int(np.clip(round(_AHEAD_SECONDS * frame_rate), _LEAST_AHEAD, _MOST_AHEAD))
        self._seen: deque[SmallPicture] = deque(maxlen=2 * self.ahead + 1)  # those ahead included
        self._steps: deque[float] = deque(maxlen=2 * self.ahead + 1)  # difference of each from the one before
        self._since = 0  # frames of the present shot

    def __call__(self, frames: Iterable[_Item]) -> Iterator[tuple[_Item, bool]]:
        """Frames of a video, in order."""
        waiting: deque[_Item] = deque()
        for frame in frames:
            waiting.append(frame)
            small = SmallPicture.of(frame.image)
            if self._keep_from is not None and self._count >= self._keep_from:
                self.small[self._count] = small
            self._count += 1
            self._steps.append(difference(self._seen[-1], small) if self._seen else 0.0)
            self._seen.append(small)
            if len(waiting) > self.ahead:
                yield waiting.popleft(), self._begins(len(self._seen) - 1 - self.ahead)
        while waiting:
            at = len(self._seen) - len(waiting)
            yield waiting.popleft(), self._begins(at)

    def _begins(self, at: int) -> bool:
        """Whether the frame in place ``at`` of those seen begins a shot."""
        found = self._since > 0 and self._differs(at)
        self._since = 1 if found else self._since + 1
        return found

    def _differs(self, at: int) -> bool:
        step = self._steps[at]
        if step < _CUT:
            return False
        first = max(at - self.ahead, at - self._since, 0)
        seen, steps = list(self._seen), list(self._steps)
        before, after = steps[first + 1 : at], steps[at + 1 : at + 1 + self.ahead]
        around = max((float(np.median(side)) for side in (before, after) if side), default=0.0)
        beside = max([*before[-1:], *after[:1]], default=0.0)
        if step < _CUT_RATIO * around or step < beside / _CUT_RATIO:
            return False
        return all(difference(a, b) >= _STAYS for a in seen[first:at] for b in seen[at : at + self.ahead])


def uncut(frames: Iterable[_Item]) -> Iterator[tuple[_Item, bool]]:
    """As :class:`CutFinder`, for frames that are not looked at for cuts: there are none."""
    return ((frame, False) for frame in frames)


@dataclass(frozen=True)
class SmallPicture:
    """A very small picture.

    Attributes:
        colours: grey levels of 255.
        contrast: standard deviation of its brightness.
    """

    colours: Float[np.ndarray, "27 48 3"]
    contrast: float

    @staticmethod
    def of(image: UInt8[np.ndarray, "h w 3"]) -> SmallPicture:
        """Of an RGB frame, whatever its proportions."""
        coarse = max(min(image.shape[1] // (4 * _SIZE[0]), image.shape[0] // (4 * _SIZE[1])), 1)
        colours = cv2.resize(np.ascontiguousarray(image[::coarse, ::coarse]), _SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
        return SmallPicture(colours, float(colours.mean(2).std()))


def difference(a: SmallPicture, b: SmallPicture) -> float:
    """How different two pictures are, 0 to 2: one less the correlation of their colours at the best shift; gain and offset do not
    count. Up to :data:`_ALIKE` without a shift."""
    flat = (a.contrast < FLAT, b.contrast < FLAT)
    if any(flat):
        return 0.0 if all(flat) or max(a.contrast, b.contrast) < 2 * FLAT else 1.0
    x, y = _SEARCH
    here = (p.colours[y:-y, x:-x] for p in (a, b))
    unshifted = 1 - float(cv2.matchTemplate(*here, cv2.TM_CCOEFF_NORMED)[0, 0])
    if unshifted <= _ALIKE:
        return unshifted
    found = (cv2.matchTemplate(q.colours, p.colours[y:-y, x:-x], cv2.TM_CCOEFF_NORMED).max() for p, q in ((a, b), (b, a)))
    return float(1 - max(found))
