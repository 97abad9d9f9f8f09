"""Where a head is in a picture of which nothing is known: the network looks at squares all over it.

The network was trained on crops that fit a head and on some in which the head is half as large, or turned. So squares of two sizes do to
see that there is one; what it says there gives the pose of a rigid head in closed form, and with it a crop that fits. A head is believed
only when the network, looking at such crops again, keeps saying the same of a head that is rigid and fills its crop, and is sure of it: it is as
ready as detectors are to see something in a wall, but then it expects large errors of itself, and says something else of the next crop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from densemarks_model.crops import HeadCrop
from tracker.observe.affine_pose import AffinePose
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.sites import DenseSites

LEVELS = (1.0, 0.5)
"""Sides of the squares, in the frame's shorter sides."""

_LONGEST = 3.0  # a frame's sides to each other, from which the squares grow with it
_STEP = 0.6  # from a square to the next, in sides
_BATCH = 16
_CANDIDATES = 3
_LOOKS = 4
_WORTH_A_LOOK, _WORTHY_ERROR, _WORTHY_STRETCH = 0.02, 0.07, 2.5

# Measured on 48 rendered heads seen from all sides, upright, lying and upside down, and on 60 pictures without one: rooms, streets, patterns, hands,
# bodies, a cat. Of real heads seen from the front and the side all but a few keep within these, and of the others none.
_LEAST_SHARE, _MOST_ERROR, _MOST_STRETCH, _MOST_SCALE, _SAME = 0.25, 0.03, 1.35, 0.05, 0.3

_OTHERWISE, _MOST_SCALE_AGAIN = ((1.25, 0.2), (0.85, -0.2)), 0.06
"""Sides and tilts (radians) of crops in which a head must be seen again, beside the one that fits, and the error then expected."""

_LEAST_INSIDE = 0.45  # of a crop in the frame: of a head that is mostly outside too little is seen to be sure

# What a head that is followed must keep: seen from behind the network is less sure of it.
_FOLLOWED_SHARE, _FOLLOWED_STRETCH, _FOLLOWED_SCALE = 0.2, 1.6, 0.1

Look = Callable[[Sequence[np.ndarray], Sequence[HeadCrop]], list[EmbeddingRecord]]
"""What the network says of crops of some pictures."""


def find_head(
    image: UInt8[np.ndarray, "h w 3"], look: Look, sites: DenseSites, crop_at: Callable[[AffinePose], HeadCrop]
) -> tuple[EmbeddingRecord, HeadCrop] | None:
    """The head that the network is surest of in an RGB frame: what it says of it, and the crop that fits; None where there is none.

    The squares of one size and roll are looked at together; the first that lead to a head end the search. Heads upside down come last.
    """
    for roll in (0.0, np.pi):
        for level in LEVELS:
            found = _candidates(image, list(squares(image.shape[1], image.shape[0], level, roll)), look, sites)
            for pose in found[:_CANDIDATES]:
                sure = _confirmed(image, pose, look, sites, crop_at)
                if sure is not None:
                    return sure
    return None


def squares(width: int, height: int, level: float, roll: float = 0.0) -> Iterator[HeadCrop]:
    """Overlapping squares that cover a frame, of ``level`` times its shorter side; of very long frames, more, so that they are few."""
    side = level * max(min(width, height), max(width, height) / _LONGEST)
    columns, rows = (_centres(length, side) for length in (width, height))
    for y in rows:
        for x in columns:
            yield HeadCrop(np.array([x, y]), side, roll)


def _centres(length: float, side: float) -> np.ndarray:
    count = 1 + int(np.ceil(max(length - side, 0) / (_STEP * side) - 1e-9))
    return np.linspace(side / 2, length - side / 2, count) if count > 1 else np.array([length / 2])


def _candidates(image: np.ndarray, crops: Sequence[HeadCrop], look: Look, sites: DenseSites) -> list[AffinePose]:
    """Poses of what may be heads, the likeliest first."""
    poses = []
    for start in range(0, len(crops), _BATCH):
        some = crops[start : start + _BATCH]
        poses += [AffinePose.of(record, sites) for record in look([image] * len(some), some)]
    worthy = [p for p in poses if p is not None and _is_worth_a_look(p)]
    return sorted(worthy, key=lambda p: -p.share / (p.stretch * (p.error + 0.01) * (p.scale + 0.01)))


def _is_worth_a_look(pose: AffinePose) -> bool:
    return pose.share > _WORTH_A_LOOK and pose.error < _WORTHY_ERROR and pose.stretch < _WORTHY_STRETCH


def _confirmed(
    image: np.ndarray, pose: AffinePose, look: Look, sites: DenseSites, crop_at: Callable[[AffinePose], HeadCrop]
) -> tuple[EmbeddingRecord, HeadCrop] | None:
    """What the network says when it looks where the head should be, again and again, until two looks agree, and two
    more from crops that fit less well; None when they do not."""
    largest = 4 * max(image.shape[:2])
    for _ in range(_LOOKS):
        crop = crop_at(pose)
        if not 8 < crop.side < largest:
            return None
        record = look([image], [crop])[0]
        after = AffinePose.of(record, sites)
        if after is None or not _is_worth_a_look(after):
            return None
        if is_sure_head(after) and after.apart(pose) < _SAME and _inside(crop, image) > _LEAST_INSIDE:
            return (record, crop_at(after)) if _is_steady(image, crop, after, look, sites) else None
        pose = after
    return None


def _is_steady(image: np.ndarray, crop: HeadCrop, pose: AffinePose, look: Look, sites: DenseSites) -> bool:
    """Whether the network says the same of crops that are wider or narrower, and tilted."""
    other = [HeadCrop(crop.center, crop.side * wider, crop.roll + tilt) for wider, tilt in _OTHERWISE]
    again = [AffinePose.of(record, sites) for record in look([image] * len(other), other)]
    return all(p is not None and p.apart(pose) < _SAME and p.scale < _MOST_SCALE_AGAIN for p in again)


def _inside(crop: HeadCrop, image: np.ndarray) -> float:
    """The part of a crop that lies in the frame; as if it were upright."""
    low = np.maximum(crop.center - crop.side / 2, 0)
    high = np.minimum(crop.center + crop.side / 2, image.shape[1::-1])
    return float(np.prod(np.maximum(high - low, 0)) / crop.side**2)


def is_sure_head(pose: AffinePose) -> bool:
    """Whether what the network says of a crop that fits is a head for certain."""
    return (
        pose.share > _LEAST_SHARE and pose.error < _MOST_ERROR and pose.stretch < _MOST_STRETCH and pose.scale < _MOST_SCALE
    )


def is_followed_head(pose: AffinePose) -> bool:
    """Whether it can be the head that was there a frame ago."""
    return pose.share > _FOLLOWED_SHARE and pose.stretch < _FOLLOWED_STRETCH and pose.scale < _FOLLOWED_SCALE
