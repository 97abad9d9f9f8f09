"""What may be looked at in each frame, so that the head that is found is the one that is wanted, and not somebody else's.

Whatever looks for a head gets a picture in which everybody else's is grey. So it need not know that there are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from tracker.landmarks.detection import Detection
from tracker.landmarks.face_boxes import FaceBoxes, overlap
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.observe.colours import Colours
from tracker.observe.people import ALIKE, People, Person, face_box, head_box, size

_GREY = 128

_LONGEST_GAP = 4.0
"""Seconds between two sightings of a person in which they are taken to be there: the detector does not see faces that are turned away."""

_AROUND = 1.5  # seconds before the first and after the last of them
_WINDOW, _WINDOW_PER_SECOND, _LARGEST_WINDOW = 1.8, 1.5, 4.0  # how far around a face is looked, in its sizes

_SEEN_SECONDS = 0.25
"""To the nearest sighting, within which a person's face counts as seen; they are a sixth of a second apart."""

_WATCH_SECONDS = 0.5
"""Between two looks at who else is there, while one person is followed."""

_LOST_SECONDS = 0.3  # for which a face may be lost, and found again nearby, without anybody asking whose it is
_SAME_PLACE = 0.3  # of two boxes' union in both
_HARDLY_ALIKE = 0.5  # difference of colours beyond which a face is nobody that is known, however it is turned
_MANY = 5  # frames, for the user to be told of them


class Guide(Protocol):
    """Says what may be looked at."""

    def look(
        self, detector: FaceLandmarker, image: UInt8[np.ndarray, "h w 3"], timestamp: float, cut: bool
    ) -> tuple[Detection | None, UInt8[np.ndarray, "h w 3"]]:
        """Landmarks of the wanted person in the next frame, and the picture as others may look at it."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the people in the frames so far."""
        ...

    def close(self) -> None: ...


class Everything:
    """For frames that nothing is known to be wanted of but the largest head: photos, and frames far apart."""

    notes: tuple[str, ...] = ()

    def look(self, detector: FaceLandmarker, image: np.ndarray, timestamp: float, cut: bool) -> tuple[Detection | None, np.ndarray]:
        return detector.detect(image, timestamp), image

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Sightings:
    """Where a person's face was: ``times`` in seconds, rising, and its ``boxes`` (left, top, right, bottom; pixels)."""

    times: Float[np.ndarray, "n"]
    boxes: Float[np.ndarray, "n 4"]

    def at(self, time: float) -> tuple[Float[np.ndarray, "4"], float] | None:
        """The box at a time, between sightings about so, and the seconds to the nearest of them; None where the person is away."""
        after = int(np.searchsorted(self.times, time))
        if after < len(self.times) and self.times[after] == time:
            return self.boxes[after], 0.0
        if 0 < after < len(self.times) and self.times[after] - self.times[after - 1] <= _LONGEST_GAP:
            begin, end = self.times[after - 1], self.times[after]
            share = (time - begin) / (end - begin)
            return (1 - share) * self.boxes[after - 1] + share * self.boxes[after], float(min(time - begin, end - time))
        beside = [k for k in (after - 1, after) if 0 <= k < len(self.times)]
        nearest = min(beside, key=lambda k: abs(self.times[k] - time))
        away = float(abs(self.times[nearest] - time))
        return (self.boxes[nearest], away) if away <= _AROUND else None


@dataclass(frozen=True)
class Whereabouts:
    """Where a person is, and where everybody else."""

    wanted: Sightings
    others: tuple[Sightings, ...]


class OnePerson:
    """Leads to one of several people, as :func:`tracker.observe.survey.survey` found them."""

    notes: tuple[str, ...] = ()

    def __init__(self, people: Whereabouts) -> None:
        self._wanted, self._others = people.wanted, people.others
        self._away = False

    def look(self, detector: FaceLandmarker, image: np.ndarray, timestamp: float, cut: bool) -> tuple[Detection | None, np.ndarray]:
        where = self._wanted.at(timestamp)
        if where is None:
            if not self._away:
                detector.forget()
            self._away = True
            return None, np.full_like(image, _GREY)
        self._away = False
        box, away = where
        visible = _only(image, box, min(_WINDOW + _WINDOW_PER_SECOND * away, _LARGEST_WINDOW))
        for other in self._others:
            there = other.at(timestamp)
            if there is None or (away <= _SEEN_SECONDS < there[1]):
                continue  # whoever is not seen is behind the one who is
            _hide(visible, [there[0]], None if there[1] <= _SEEN_SECONDS < away else box)
        return detector.detect(visible, timestamp), visible

    def close(self) -> None:
        pass


def guide_for(person: Whereabouts | None, model: Path | None, watches: bool) -> Guide:
    """To one of several people where one is given; otherwise to whoever is the largest at the beginning.

    Args:
        model: MediaPipe's model file; None for the one that comes with the project.
        watches: see to it that nobody else is taken for them. Needs consecutive frames.
    """
    if person is not None:
        return OnePerson(person)
    return Watch(model) if watches else Everything()


class Watch:
    """Whoever is tracked first in a shot is the one who is tracked: nobody else is, after they left.

    Now and then it looks who else is there. Once the tracked person is lost, the heads of others are hidden, and a face that is found
    must be theirs by its place or its colours.

    Args:
        model: MediaPipe's model file; None for the one that comes with the project.
    """

    def __init__(self, model: Path | None = None) -> None:
        self._model = model
        self._finder: FaceBoxes | None = None
        self._people = People()
        self._wanted: Person | None = None
        self._last = self._next = -np.inf  # when the tracked face was seen, and when to look for others again
        self._lost = False
        self._others_alone = 0

    def close(self) -> None:
        if self._finder is not None:
            self._finder.__exit__(None, None, None)

    @property
    def notes(self) -> tuple[str, ...]:
        said = []
        count = sum(person.certain for person in self._people.everyone)
        if self._people.together:
            said.append(f"the video shows {count} people; one is tracked, whose face is the largest at the beginning (--person tracks others, or all)")
        if self._others_alone >= _MANY:
            said.append(
                f"in {self._others_alone} frames somebody else's face is seen and not the tracked person's; nobody else is taken for them "
                "(--person all tracks each person)"
            )
        return tuple(said)

    def look(self, detector: FaceLandmarker, image: np.ndarray, timestamp: float, cut: bool) -> tuple[Detection | None, np.ndarray]:
        if cut:  # whose head is the largest in another shot is seen anew
            self._people.cut(timestamp)
            self._wanted, self._lost = None, False
        lost = self._lost
        visible = image
        if lost:
            self._people.update(image, self._faces(image, tiles=True), timestamp)
            visible = self._without_others(image, timestamp)
        detection = detector.detect(visible, timestamp)
        if detection is not None and not self._is_wanted(face_box(detection.points), lost, image, timestamp):
            detector.forget()
            self._lost, detection = True, None
            visible = self._without_others(image, timestamp)
        if detection is not None:
            self._lost, self._last = False, timestamp
        elif self._wanted is not None:
            self._lost = True
            away = timestamp - self._last > _LOST_SECONDS
            self._others_alone += away and any(p.certain and p.times[-1] == timestamp for p in self._others())
        return detection, visible

    def _faces(self, image: np.ndarray, tiles: bool) -> np.ndarray:
        self._finder = self._finder or FaceBoxes(self._model)
        return self._finder(image, tiles)

    def _others(self) -> list[Person]:
        return [person for person in self._people.everyone if person is not self._wanted]

    def _without_others(self, image: np.ndarray, timestamp: float) -> np.ndarray:
        """The picture without the heads of others, also of those not seen for a while: they may have turned away."""
        assert self._wanted is not None
        lately = timestamp - self._last <= _LOST_SECONDS  # it may be the tracked one who looks like nobody for a moment
        here = [p for p in self._others() if p.times[-1] >= self._people.shot_begins]
        others = [p.boxes[-1] for p in here if p.certain or (p.times[-1] > self._last and not lately)]
        if not others:
            return image
        visible = image.copy()
        _hide(visible, others, self._wanted.boxes[-1] if timestamp - self._last <= _AROUND else None)
        return visible

    def _is_wanted(self, box: np.ndarray, lost: bool, image: np.ndarray, timestamp: float) -> bool:
        """Whether a face is the tracked person's; the first one of a shot is."""
        if self._wanted is None or (not lost and timestamp >= self._next):
            return self._met(box, image, timestamp)
        if not lost or timestamp - self._last <= _LOST_SECONDS:
            return True
        for person in self._people.everyone:
            if person.times[-1] == timestamp and overlap(person.boxes[-1], box) > _SAME_PLACE:
                return person is self._wanted
        # seen by the landmarker alone, as small faces are and those that are upside down
        colours = Colours.of(image, box)
        nearest = min((p.apart(colours) for p in self._others() if p.certain), default=1.0)
        found = self._wanted.apart(colours) < min(_HARDLY_ALIKE, nearest)
        if not found:
            self._people.update(image, box[None], timestamp)
        return found

    def _met(self, box: np.ndarray, image: np.ndarray, timestamp: float) -> bool:
        """Note how a face that is followed looks, and who else is there; False where it became somebody else's, who came in between."""
        self._next = timestamp + _WATCH_SECONDS
        if self._wanted is None:
            self._wanted = self._people.update(image, box[None], timestamp)[0]
            return True
        colours = Colours.of(image, box)
        boxes = self._faces(image, tiles=False)
        boxes = np.array([box, *(other for other in boxes if overlap(other, box) < _SAME_PLACE)])
        alike = [p for p in self._others() if p.certain and p.apart(colours) < ALIKE] if self._wanted.apart(colours) > ALIKE else []
        found = min(alike, key=lambda p: p.apart(colours), default=self._wanted)
        self._people.update(image, boxes, timestamp, {0: found})
        return found is self._wanted


def _only(image: np.ndarray, box: np.ndarray, reach: float) -> np.ndarray:
    """The picture around a face, as far as ``reach`` times its size, the rest grey."""
    centre, far = (box[:2] + box[2:]) / 2, (0.5 + reach) * size(box)
    left, top, right, bottom = _inside(np.concatenate([centre - far, centre + far]), image)
    visible = np.full_like(image, _GREY)
    visible[top:bottom, left:right] = image[top:bottom, left:right]
    return visible


def _hide(image: np.ndarray, others: Sequence[np.ndarray], own: np.ndarray | None) -> None:
    """Make the heads of others grey, in place, but for what is nearer to one's ``own`` face, in face sizes."""
    for box in others:
        left, top, right, bottom = _inside(head_box(box), image)
        if right <= left or bottom <= top:
            continue
        part = image[top:bottom, left:right]
        if own is None:
            part[:] = _GREY
            continue
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        part[_away(x, y, box) < _away(x, y, own)] = _GREY


def _away(x: np.ndarray, y: np.ndarray, box: np.ndarray) -> np.ndarray:
    return np.hypot(x - (box[0] + box[2]) / 2, y - (box[1] + box[3]) / 2) / size(box)


def _inside(box: np.ndarray, image: np.ndarray) -> tuple[int, int, int, int]:
    height, width = image.shape[:2]
    left, top, right, bottom = np.clip(box, 0, (width, height, width, height)).round().astype(int)
    return left, top, right, bottom
