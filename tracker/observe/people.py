"""Who is who among the faces of a video: each is followed by its place, and known again by its colours after it was away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8
from scipy.optimize import linear_sum_assignment

from tracker.landmarks.face_boxes import overlap
from tracker.observe.colours import Colours

ALIKE = 0.33
"""Difference of colours up to which a person who was away is known again. Measured: the same person through a clip differs by 0.1, at most 0.25,
people of different clips by 0.38 to 0.65."""

_ALIKE_BESIDE = 0.6  # of one who was there a moment ago, in about the same place: light and shade may change
_RECENT = 1.0  # seconds for which a place tells who somebody is
_REACH, _REACH_PER_SECOND = 0.7, 2.5  # how far a face may be from where it is expected, in its sizes
_SCALE = 1.8  # times larger or smaller than it was
_NEVER = 1e6
_SIGHTINGS = 3
"""Times that a face must be seen to count as a person: detectors see faces in patterns for a moment."""

_EXEMPLARS, _NEW_EXEMPLAR = 12, 0.07


@dataclass(eq=False)
class Person:
    """One person of a video.

    Attributes:
        number: in the order of appearance, from 0.
        times, boxes: seconds, and the face's box then (left, top, right, bottom; pixels).
        looks: colours, with the time from which they are known.
    """

    number: int
    times: list[float] = field(default_factory=list)
    boxes: list[Float[np.ndarray, "4"]] = field(default_factory=list)
    looks: list[tuple[float, Colours]] = field(default_factory=list)

    @property
    def area(self) -> float:
        """Sum of the boxes' areas."""
        return float(sum(np.prod(box[2:] - box[:2]) for box in self.boxes))

    @property
    def certain(self) -> bool:
        """Whether it was seen often enough to be somebody."""
        return len(self.times) >= _SIGHTINGS

    def expected(self, time: float) -> Float[np.ndarray, "4"]:
        """The box at a time soon after the last: it goes on as it moved between the last two, for a moment."""
        last = self.boxes[-1]
        if len(self.boxes) < 2 or self.times[-1] - self.times[-2] > _RECENT:
            return last
        speed = (_centre(last) - _centre(self.boxes[-2])) / max(self.times[-1] - self.times[-2], 1e-3)
        shift = speed * min(time - self.times[-1], 0.5)
        limit = size(last)
        return last + np.tile(np.clip(shift, -limit, limit), 2)

    def apart(self, colours: Colours) -> float:
        """How differently from these colours the person looked, at the most alike moment."""
        return min((known.apart(colours) for _, known in self.looks), default=1.0)

    def seen(self, time: float, box: Float[np.ndarray, "4"], colours: Colours | None) -> None:
        """Note a sighting; without ``colours`` (where others are in the way) nothing is learnt of the looks."""
        self.times.append(time)
        self.boxes.append(np.asarray(box, float))
        if colours is not None and len(self.looks) < _EXEMPLARS and (not self.looks or self.apart(colours) > _NEW_EXEMPLAR):
            self.looks.append((time, colours))


class People:
    """All people seen so far. Give it the faces of frame after frame.

    Attributes:
        everyone: in the order of appearance, also those that were seen for a moment alone.
        together: two of them were seen in one frame.
        shot_begins: seconds; places before it tell nothing.
    """

    def __init__(self) -> None:
        self.everyone: list[Person] = []
        self.together = False
        self.shot_begins = -np.inf
        self._before: float | None = None

    def cut(self, time: float) -> None:
        """What is seen from this time on is another shot."""
        self.shot_begins = time

    def update(
        self, image: UInt8[np.ndarray, "h w 3"], boxes: Float[np.ndarray, "faces 4"], time: float, known: Mapping[int, Person] | None = None
    ) -> list[Person]:
        """Whose faces these are, in an RGB frame at a time in seconds; somebody new where nobody fits.

        Args:
            known: whose face is in a box, by its number, where that is certain.
        """
        colours = [Colours.of(image, box) for box in boxes]
        found: list[Person | None] = [(known or {}).get(k) for k in range(len(boxes))]
        near = [p for p in self._missing(found) if p.times[-1] >= self.shot_begins and time - p.times[-1] <= _RECENT]
        self._assign(found, near, lambda p, k: self._beside(p, boxes[k], colours[k], time))
        self._assign(found, self._missing(found), lambda p, k: _gated(p.apart(colours[k]), ALIKE))
        people = []
        for k, person in enumerate(found):
            if person is None:
                person = Person(len(self.everyone))
                self.everyone.append(person)
            alone = all(overlap(_grown(boxes[k]), _grown(other)) == 0 for n, other in enumerate(boxes) if n != k)
            person.seen(time, boxes[k], colours[k] if alone or not person.looks else None)
            people.append(person)
        self.together |= sum(p.certain for p in people) > 1
        self._before = time
        return people

    def _missing(self, found: list[Person | None]) -> list[Person]:
        return [person for person in self.everyone if not any(person is other for other in found)]

    def _beside(self, person: Person, box: np.ndarray, colours: Colours, time: float) -> float:
        """Cost of a face being that of somebody seen a moment ago."""
        expected, gap = person.expected(time), time - person.times[-1]
        scale = size(box) / size(expected)
        away = min(float(np.linalg.norm(_centre(box) - _centre(b))) for b in (expected, person.boxes[-1])) / size(expected)
        apart = person.apart(colours)
        followed = person.times[-1] == self._before
        fits = away < _REACH + _REACH_PER_SECOND * gap and 1 / _SCALE < scale < _SCALE and apart < (_ALIKE_BESIDE if followed else ALIKE)
        return away + 3 * apart if fits else _NEVER

    @staticmethod
    def _assign(found: list[Person | None], people: list[Person], cost: Callable[[Person, int], float]) -> None:
        free = [k for k, person in enumerate(found) if person is None]
        if not free or not people:
            return
        costs = np.array([[cost(person, k) for k in free] for person in people])
        for row, column in zip(*linear_sum_assignment(costs), strict=True):
            if costs[row, column] < _NEVER:
                found[free[column]] = people[row]


def size(box: Float[np.ndarray, "4"]) -> float:
    """Of a face, pixels: the mean of its box's sides, 1 at least."""
    return float(max((box[2:] - box[:2]).mean(), 1.0))


def face_box(points: Float[np.ndarray, "478 2"]) -> Float[np.ndarray, "4"]:
    """The box that the face detector gives of a face with these landmarks, about."""
    low, high = points.min(0).astype(float), points.max(0).astype(float)
    side = float((high - low).max())
    centre = (low + high) / 2 + (0, 0.05 * side)  # measured on real clips
    return np.concatenate([centre - 0.44 * side, centre + 0.44 * side])


def head_box(box: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    """The part of the picture that the head with this face takes, hair and all."""
    return box + size(box) * np.array([-0.4, -0.65, 0.4, 0.3])


def _grown(box: np.ndarray) -> np.ndarray:
    return box + size(box) * np.array([-0.15, -0.4, 0.15, 0.1])


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _gated(cost: float, limit: float) -> float:
    return cost if cost < limit else _NEVER
