"""Who is in a video, and where, found in one pass with the face detector alone."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_assets.atomic_files import atomic_file
from tracker.landmarks.face_boxes import FaceBoxes
from tracker.observe.guides import Sightings, Whereabouts
from tracker.observe.people import People
from tracker.observe.shots import CutFinder
from tracker.progress import Progress, StageClock, silent
from tracker.video.reader import VideoSource

_LOOKS_PER_SECOND = 6
_FILE = "people.npz"


@dataclass(frozen=True)
class Survey:
    """The people of a video, those whose faces cover more of it first: by area and time together."""

    people: tuple[Sightings, ...]

    def __len__(self) -> int:
        return len(self.people)

    def person(self, number: int) -> Whereabouts | None:
        """Where a person is, counted from 1, and everybody else; None where there is nobody else to be told from."""
        if len(self.people) < 2:
            return None
        return Whereabouts(self.people[number - 1], tuple(p for k, p in enumerate(self.people, 1) if k != number))


def survey(
    source: VideoSource,
    folder: Path,
    landmarker: Path | None = None,
    progress: Progress = silent,
    clock: StageClock | None = None,
) -> Survey:
    """Find the people of a video; what an earlier survey left in ``folder`` is taken from there.

    A few frames a second are looked at. A person who leaves and comes back is known by colours: those of the face, the hair and
    the clothes.

    Args:
        source: the video.
        folder: where what is found is kept.
        landmarker: MediaPipe's model file; None for the one that comes with the project.
        progress, clock: to be told.

    Raises:
        UserError: the video cannot be read, or the model not loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = _read(folder / _FILE)
    if known is not None:
        return known
    with (clock or StageClock()).stage("people"):
        found = _found(source, landmarker, progress)
    _write(folder / _FILE, found)
    return found


def _found(source: VideoSource, landmarker: Path | None, progress: Progress) -> Survey:
    people = People()
    with source.open() as video, FaceBoxes(landmarker) as finder:
        every = max(round(video.frame_rate / _LOOKS_PER_SECOND), 1)
        for number, (frame, cut) in enumerate(CutFinder(video.frame_rate)(video)):
            if cut:
                people.cut(frame.timestamp)
            if cut or number % every == 0:
                people.update(frame.image, finder(frame.image, tiles=True), frame.timestamp)
            progress("people", number + 1, video.frame_count)
    certain = sorted((p for p in people.everyone if p.certain), key=lambda p: -p.area)
    return Survey(tuple(Sightings(np.array(p.times), np.array(p.boxes)) for p in certain))


def _write(path: Path, found: Survey) -> None:
    arrays = {}
    for number, person in enumerate(found.people):
        arrays[f"times_{number}"], arrays[f"boxes_{number}"] = person.times, person.boxes
    with atomic_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, count=np.array(len(found)), **arrays)


def _read(path: Path) -> Survey | None:
    """None where there is no whole one."""
    try:
        with np.load(path, allow_pickle=False) as content:
            numbers = range(int(content["count"]))
            return Survey(tuple(Sightings(content[f"times_{n}"], content[f"boxes_{n}"]) for n in numbers))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
