"""Where one shot is faded into the next, told from tiny pictures of the frames.

Through a crossfade every frame is a mix of what is shown before and after it, and the mix changes evenly. So rows of frames are looked at, of many lengths:
their ends show different things, whatever shift, gain and offset, and those between lie near the straight line from one to the other, evenly spaced.
Where pictures move instead of mixing they are far from that line. Fades to and from black are rows of this kind, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tracker.observe.shots import FLAT, SmallPicture, difference

TINY = (24, 14)
"""Width and height of the pictures, pixels."""

_SECONDS = (0.24, 0.36, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)  # lengths that are tried
_LEAST = 3  # frames on either side of the middle
_LOOKED_AT = 9  # frames of a row

# Measured on six real clips (1,095 frames), on pans, zooms, shaking, flashes, cuts, light that comes up from a side and things that pass, and on crossfades of
# 8 to 60 frames between five pairs of the clips: ends of crossfades differ by 0.31 and more and are 77 grey levels apart, their frames are off the line by
# 0.19 at most; of all else that comes near, ends differ by 0.26 at most, are 31 apart, and frames are off by 0.2.
_APART, _UNLIKE, _OFF, _UNEVEN, _BETWEEN = 45.0, 0.28, 0.25, 0.18, 0.05
_AT_ONCE = 2048


def tiny_picture(small: SmallPicture) -> UInt8[np.ndarray, "14 24 3"]:
    """What is kept of a frame."""
    return np.round(cv2.resize(small.colours, TINY, interpolation=cv2.INTER_AREA)).clip(0, 255).astype(np.uint8)


def crossfades(pictures: UInt8[np.ndarray, "frames 14 24 3"], frame_rate: float, cuts: Sequence[int] = ()) -> list[tuple[int, int]]:
    """First and last frame of each crossfade, in order.

    Args:
        pictures: of all frames, see :func:`tiny_picture`.
        frame_rate: frames per second.
        cuts: frames that begin a shot; no crossfade goes over them.
    """
    found: list[tuple[int, int, float]] = []
    for half in sorted({max(round(seconds * frame_rate / 2), _LEAST) for seconds in _SECONDS}):
        found += [(middle - half + 1, middle + half - 1, off) for middle, off in _rows(pictures, half, np.array(cuts, int))]
    groups: list[list[tuple[int, int, float]]] = []
    for row in sorted(found):
        if groups and row[0] <= max(last for _, last, _ in groups[-1]):
            groups[-1].append(row)
        else:
            groups.append([row])
    # the longest rows end where the fade does; of those the one nearest to the line is in its middle
    best = (min(group, key=lambda row: (row[0] - row[1], row[2])) for group in groups)
    return [(first, last) for first, last, _ in best]


def _rows(pictures: np.ndarray, half: int, cuts: np.ndarray) -> Iterator[tuple[int, float]]:
    """Middles of rows of ``2 half + 1`` frames that go evenly from one end to the other, and how far off the line their frames are."""
    for start in range(0, len(pictures) - 2 * half, _AT_ONCE):
        count = min(_AT_ONCE, len(pictures) - 2 * half - start)
        ends = (np.asarray(pictures[at : at + count], np.float32) for at in (start, start + 2 * half))
        apart = np.sqrt(np.square(np.subtract(*ends)).mean((1, 2, 3)))
        for first in (start + np.flatnonzero(apart > _APART)).tolist():
            uncut = np.searchsorted(cuts, first, side="right") == np.searchsorted(cuts, first + 2 * half, side="right")
            off = _off(pictures[first : first + 2 * half + 1]) if uncut else None
            if off is not None:
                yield first + half, off


def _off(row: np.ndarray) -> float | None:
    """How far off the line from the first to the last picture those between are, in its lengths; None where they are too far off, go
    unevenly, or go nowhere."""
    at = np.linspace(0, len(row) - 1, _LOOKED_AT).round().astype(int)
    some: Float[np.ndarray, "9 n"] = np.asarray(row[at], np.float32).reshape(_LOOKED_AT, -1)
    way = some[-1] - some[0]
    length = float(way @ way)
    shares = (some - some[0]) @ way / length
    off = float(np.linalg.norm(some - some[0] - shares[:, None] * way, axis=1).max()) / length**0.5
    if off > _OFF or np.abs(shares - at / at[-1]).max() > _UNEVEN:
        return None
    first, middle, last = (_small(row[n]) for n in (0, len(row) // 2, -1))
    if difference(first, last) < _UNLIKE:
        return None
    # half-way to black only the brightness differs, which does not count
    black = min(first.contrast, last.contrast) < FLAT
    return off if black or min(difference(first, middle), difference(middle, last)) >= _BETWEEN else None


def _small(tiny: np.ndarray) -> SmallPicture:
    colours = cv2.resize(np.asarray(tiny, np.float32), (48, 27), interpolation=cv2.INTER_LINEAR)
    return SmallPicture(colours, float(colours.mean(2).std()))
