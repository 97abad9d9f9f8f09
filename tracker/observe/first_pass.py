"""The one pass over the video from which everything else follows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tracker.ahead import Ahead
from tracker.landmarks.detection import Detection
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.observe.crossfades import tiny_picture
from tracker.observe.embedder import HeadEmbedder
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.guides import Guide, Whereabouts, guide_for
from tracker.observe.held_frames import HeldFrames, Look, LookedAt
from tracker.observe.look_store import LookState
from tracker.observe.observations import Observations, VideoFacts
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.shots import CutFinder, uncut
from tracker.observe.skin_colour import skin_colour
from tracker.progress import Progress, StageClock, silent
from tracker.video.frame import Frame
from tracker.video.photos import Photo
from tracker.video.reader import VideoReader, VideoSource

_DETECTED_AHEAD = 4
"""Frames with landmarks that may wait for the network."""

_LONGEST_GAP = 48
"""Frames between two searches of a video that shows no head: at 25 a second, one every two seconds."""


def observe(
    source: VideoSource,
    settings: ObserveSettings,
    *,
    embedder: HeadEmbedder | None = None,
    pictures: bool = False,
    folder: Path | None = None,
    landmarker: Path | None = None,
    person: Whereabouts | None = None,
    at_most: int | None = None,
    go_on: bool = False,
    name: str = "look",
    progress: Progress = silent,
    clock: StageClock | None = None,
) -> Observations:
    """Look at a video once: landmarks of every frame, and what the network says of the head in those that it looks at.

    Args:
        source: the video.
        settings: how.
        embedder: the network; None for landmarks alone.
        pictures: keep the head's pictures too, for colours. Needs ``embedder``, which finds the head.
        folder: where the observations are kept; None for a temporary folder that goes with them.
        landmarker: MediaPipe's model file; None for the one that comes with the project.
        person: which of several people; None for the largest head at the beginning.
        at_most: look at about so many frames, evenly spread, instead of all.
        go_on: where ``folder`` holds what an earlier pass left, which was the same in all of the above, go on from there; what is
            found is bit for bit what a pass in one go finds. Otherwise earlier observations there are replaced.
        name: of this pass, for ``progress``.
        progress, clock: to be told.

    Raises:
        UserError: the video cannot be read, or the folder not written.
    """
    clock = clock or StageClock()
    left = Observations.go_on(folder, settings) if folder is not None and go_on else None
    if left is not None and left.complete:
        return left
    if folder is not None and left is None:
        Observations.clear(folder)
    with source.open() as video:
        observations = left or Observations(folder, settings, VideoFacts(video.width, video.height, video.frame_rate))
        try:
            every = max(math.ceil((video.frame_count or 0) / at_most), 1) if at_most else 1
            notes = _look(video, every, observations, embedder, pictures, landmarker, person, name, progress, clock)
            damage = (f"{video.problem}; the {len(observations)} frames that decode were tracked",) if video.problem else ()
        except BaseException:
            observations.close()
            raise
    observations.finish((*damage, *notes))
    return observations


def _look(
    video: VideoReader,
    every: int,
    observations: Observations,
    embedder: HeadEmbedder | None,
    pictures: bool,
    landmarker: Path | None,
    person: Whereabouts | None,
    name: str,
    progress: Progress,
    clock: StageClock,
) -> tuple[str, ...]:
    """Look at every so-many-th frame; gives what the user should know."""
    total = None if video.frame_count is None else math.ceil(video.frame_count / every)
    looker = None if embedder is None else _Looker(embedder, observations.settings.stride, unrelated=bool(video.photos))
    size = 1 if looker is None else looker.group
    # groups of the same frames as in one go: a network may round otherwise in a batch of another size
    known = len(observations) - len(observations) % size
    observations.keep(known)
    if looker is not None and known:
        looker.state = observations.look.read(known - 1)
    finder = CutFinder(video.frame_rate, known)
    # frames far apart, and photos, are no shots
    frames = (uncut if every > 1 or video.photos else finder)(islice(video, 0, None, every))
    seen, held = 0, HeldFrames(embedder.look_back if embedder is not None else lambda *_: ())
    with clock.stage("landmarks"):
        detector = FaceLandmarker(landmarker)
    with ExitStack() as stack:
        stack.enter_context(detector)
        guide = guide_for(person, landmarker, watches=every == 1 and not video.photos)
        stack.callback(guide.close)
        detected: Iterator[_Detected] = _detected(detector, guide, frames, video, clock)
        if looker is not None:
            # while the network looks, the detector goes on: it knows nothing of what the network says
            detected = stack.enter_context(Ahead(detected, _DETECTED_AHEAD, "landmarks"))
        while group := list(islice(detected, size)):
            seen += len(group)
            if seen <= known:
                progress(name, seen, total)
                continue
            if looker is None:
                done = [LookedAt(f.timestamp, f.image, Look(None, f.detection, LookState()), f.cut) for f in group]
            else:
                with clock.stage("network"):
                    done = _looked_at(group, looker, held)
            for frame in done:
                _add(observations, frame, pictures, finder)
            progress(name, seen, total)
    for frame in held.rest():
        _add(observations, frame, pictures, finder)
    return guide.notes


def _add(observations: Observations, frame: LookedAt, pictures: bool, finder: CutFinder) -> None:
    """Note what was seen of a frame."""
    small = finder.small.pop(len(observations), None)
    look, image = frame.look, frame.image
    skin = None if image is None else skin_colour(image, look.detection)
    observations.add(frame.timestamp, look.detection, look.record, image if pictures else None, look.state, frame.cut, skin, None if small is None else tiny_picture(small))


@dataclass(frozen=True)
class _Detected:
    """A frame as it may be looked at, with whether it begins a shot and the landmarks in it."""

    timestamp: float
    image: UInt8[np.ndarray, "h w 3"]
    cut: bool
    detection: Detection | None


def _looked_at(frames: Sequence[_Detected], looker: _Looker, held: HeldFrames) -> list[LookedAt]:
    """Look at frames; gives those that are done with, which may be others."""
    looks = looker([f.image for f in frames], [f.detection for f in frames], [f.cut for f in frames])
    if looker.unrelated:
        return [LookedAt(f.timestamp, f.image, look) for f, look in zip(frames, looks, strict=True)]
    return [done for f, look in zip(frames, looks, strict=True) for done in held.add(f.timestamp, f.image, look, f.cut)]


def _detected(
    detector: FaceLandmarker, guide: Guide, frames: Iterable[tuple[Frame, bool]], video: VideoReader, clock: StageClock
) -> Iterator[_Detected]:
    """Landmarks of all frames: in those that are known, too, since what the detector carries from one to the next cannot be had
    otherwise."""
    frames = iter(frames)
    while True:
        with clock.stage("landmarks"):
            frame, cut = next(frames, (None, False))
            if frame is None:
                return
            photo = video.photo_at(frame.timestamp)
            if cut or photo is not None:  # whatever the one before showed
                detector.forget()
            if photo is None:
                found, visible = guide.look(detector, frame.image, frame.timestamp, cut)
            else:
                found, visible = _in_photo(detector, frame, photo), frame.image
        yield _Detected(frame.timestamp, visible, cut, found)


def _in_photo(detector: FaceLandmarker, frame: Frame, photo: Photo) -> Detection | None:
    """Landmarks in the part of the canvas that a photo covers."""
    left, top, right, bottom = photo.box
    found = detector.detect(frame.image[top:bottom, left:right], frame.timestamp)
    return None if found is None else replace(found, points=found.points + np.array([left, top], np.float32))


class _Looker:
    """Decides at which frames the network looks: every so-many-th with landmarks, and each without; and at which it looks for a head
    over the whole frame: those where none is known, ever fewer of them while there is none.

    Takes frames in groups, since a GPU looks at many at once. What it finds is the same for groups of any size.

    Args:
        embedder: what looks.
        stride: how often.
        unrelated: frames tell nothing of each other, as photos do.

    Attributes:
        group: frames to give at once.
        unrelated: as given.
    """

    def __init__(self, embedder: HeadEmbedder, stride: int, unrelated: bool = False) -> None:
        self._embedder, self._stride, self.unrelated = embedder, stride, unrelated
        self._since = stride  # frames since it looked last
        self._gap = self._wait = 0  # frames from one search to the next, and until it
        self.group = 1 if embedder.batch == 1 else embedder.batch * stride

    @property
    def state(self) -> LookState:
        """All that is carried from one frame to the next."""
        return LookState(*self._embedder.place, self._since, self._gap, self._wait)

    @state.setter
    def state(self, state: LookState) -> None:
        self._embedder.place, self._since = (state.crop, state.misses), state.since
        self._gap, self._wait = state.gap, state.wait

    def __call__(
        self, images: Sequence[np.ndarray], detections: Sequence[Detection | None], cuts: Sequence[bool] | None = None
    ) -> list[Look]:
        """Look at consecutive RGB frames; ``cuts`` says which of them begin a shot, none when it is None."""
        cuts = cuts or [False] * len(images)
        ahead: Sequence[EmbeddingRecord | None] = [None] * len(images)
        if self.group > 1:
            ahead = self._embedder.look_ahead(images, self._expected(detections, cuts))
        return [Look(*self._look(*frame), self.state) for frame in zip(images, detections, ahead, cuts, strict=True)]

    def _expected(self, detections: Sequence[Detection | None], cuts: Sequence[bool]) -> list[Detection | None]:
        """Those at which the network will look if it contradicts none of them."""
        since, due = self._since, []
        for detection, cut in zip(detections, cuts, strict=True):
            since = self._stride if cut else since + 1
            looks = detection is not None and since >= self._stride
            due.append(detection if looks else None)
            since = 0 if looks else since
        return due

    def _look(
        self, image: np.ndarray, detection: Detection | None, ahead: EmbeddingRecord | None, cut: bool
    ) -> tuple[EmbeddingRecord | None, Detection | None]:
        self._since = self._stride if cut else self._since + 1
        if self.unrelated or cut:
            self._embedder.forget()
            self._gap = self._wait = 0
        if detection is not None and self._since < self._stride:
            self._embedder.follow(detection)
            return None, detection
        record, kept = self._embedder.embed(image, detection, ahead)
        if record is not None:
            self._gap = self._wait = 0
        elif self._embedder.place[0] is None or detection is not None:
            record = self._search(image)
        if record is not None:
            self._since = 0 if kept is not None else self._stride
        return record, kept

    def _search(self, image: np.ndarray) -> EmbeddingRecord | None:
        """Look for a head over the whole frame, unless it was in vain a moment ago."""
        if self._wait > 0:
            self._wait -= 1
            return None
        record = self._embedder.find(image)
        self._gap = 0 if record is not None else min(2 * self._gap + 1, _LONGEST_GAP)
        self._wait = self._gap
        return record
