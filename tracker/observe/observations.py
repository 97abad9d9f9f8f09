"""What was seen of a video, frame by frame, in a folder: everything that a fit needs, and no video any more."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from flame_assets.atomic_files import atomic_file
from tracker.errors import UserError
from tracker.landmarks.detection import Detection
from tracker.observe.embedding_store import EmbeddingRecord, EmbeddingStore
from tracker.observe.journal import Journal
from tracker.observe.landmark_store import LandmarkStore
from tracker.observe.look_store import LookState, LookStore
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.picture_store import PictureStore

_FACTS = "observations.json"
_VERSION = 4
_FILES = (_FACTS, "landmarks.journal", "embeddings.journal", "pictures.journal", "pictures.bin", "look.journal")


@dataclass(frozen=True)
class VideoFacts:
    """What a pass over the video learnt: picture size (pixels), frames per second, and notes for the user."""

    width: int
    height: int
    frame_rate: float
    notes: tuple[str, ...] = ()


class Observations:
    """Landmarks, embeddings and pictures of every frame. Use it as a context manager, or call :meth:`close`.

    A frame is there once it is whole in every file: what a process was killed over is cut off when the folder is opened again.

    Args:
        folder: where it is kept; None for a temporary folder that goes with the object.
        settings: how the video is looked at. The picture's size must be that of the folder.
        facts: of the video; None to take the folder's own.

    Raises:
        UserError: the folder cannot be read, or ``facts`` is None and it holds no observations.
    """

    def __init__(self, folder: Path | None, settings: ObserveSettings, facts: VideoFacts | None = None) -> None:
        self._temporary = TemporaryDirectory(prefix="observations-") if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary is not None else str(folder))
        self.settings = settings
        self.complete = False
        frames = 0
        if facts is None:
            facts, self.complete, frames = _read_facts(self.folder)
        self.facts = facts
        self.folder.mkdir(parents=True, exist_ok=True)
        self.landmarks = LandmarkStore(self.folder)
        self.embeddings = EmbeddingStore(self.folder)
        self.pictures = PictureStore(self.folder, settings.picture_size)
        self.look = LookStore(self.folder)
        whole = min(len(self.landmarks), len(self.look), self.look.whole(len(self.embeddings), len(self.pictures)))
        if self.complete and whole < frames:
            self.close()
            raise UserError(f"{self.folder}: {frames - whole} of its {frames} frames are lost; observe the video again")
        self.keep(whole)
        if not self.complete:
            self._write_facts()

    @classmethod
    def open(cls, folder: Path, settings: ObserveSettings | None = None) -> Observations:
        """Observations of a finished pass, for a fit with the same settings or others.

        Raises:
            UserError: there are none, or the pass did not come to its end.
        """
        found = cls(Path(folder), settings or _read_settings(Path(folder)))
        if not found.complete:
            found.close()
            raise UserError(f"{folder}: the video was not looked at to its end; observe it again")
        return found

    @classmethod
    def go_on(cls, folder: Path, settings: ObserveSettings) -> Observations | None:
        """What an earlier pass left of itself, finished or not; None where it left nothing that can be gone on with."""
        try:
            return cls(Path(folder), settings)
        except UserError:
            return None

    @staticmethod
    def clear(folder: Path) -> None:
        """Remove the files of observations, nothing else."""
        for name in _FILES:
            (Path(folder) / name).unlink(missing_ok=True)

    def __enter__(self) -> Observations:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; a temporary folder is removed."""
        for store in (self.landmarks, self.embeddings, self.pictures, self.look):
            store.__exit__(None, None, None)
        if self._temporary is not None:
            self._temporary.cleanup()

    def __len__(self) -> int:
        """Frames seen."""
        return len(self.landmarks)

    def add(
        self,
        timestamp: float,
        detection: Detection | None,
        embedding: EmbeddingRecord | None = None,
        picture: UInt8[np.ndarray, "h w 3"] | None = None,
        state: LookState = LookState(),
        cut: bool = False,
        skin: Float[np.ndarray, "3"] | None = None,
        tiny: UInt8[np.ndarray, "14 24 3"] | None = None,
    ) -> None:
        """Add the next frame: its time in seconds, landmarks, what the network said, the RGB frame of which the network's
        crop is to be kept, where looking stands after it, whether it begins a shot, the RGB of the face's skin, and a tiny picture."""
        frame = len(self)
        if embedding is not None:
            if picture is not None:
                self.pictures.put(frame, embedding.crop, picture)
                self.pictures.flush()
            self.embeddings.put(frame, embedding)
            self.embeddings.flush()
        self.landmarks.append(timestamp, detection)
        self.landmarks.flush()
        self.look.append(state, len(self.embeddings), len(self.pictures), cut, skin, tiny)
        self.look.journal.flush()

    def keep(self, frames: int) -> None:
        """Forget everything of the frames from number ``frames`` on."""
        for store in (self.landmarks, self.embeddings, self.pictures, self.look):
            store.keep(frames)

    def finish(self, notes: tuple[str, ...] = ()) -> None:
        """Note that the pass came to its end, and what the user should know of it."""
        self.facts = VideoFacts(self.facts.width, self.facts.height, self.facts.frame_rate, (*self.facts.notes, *notes))
        self.complete = True
        for store in (self.landmarks, self.embeddings, self.pictures, self.look):
            store.sync()  # before the note that all is there
        self._write_facts()

    @property
    def found(self) -> Bool[np.ndarray, "frames"]:
        """Frames with landmarks."""
        return self.landmarks.found

    @property
    def seen(self) -> np.ndarray:
        """Numbers of the frames in which a head was seen, by landmarks or by the network."""
        return np.array([f for f in range(len(self)) if self.landmarks.has_face(f) or f in self.embeddings], int)

    @property
    def shots(self) -> Int[np.ndarray, "frames"]:
        """Number of the shot that each frame belongs to, from 0; the later half of a crossfade belongs to the shot that it leads to."""
        begins = np.zeros(len(self), int)
        begins[[(first + last + 1) // 2 for first, last in self.crossfades]] = 1
        return self.look.shots(np.arange(len(self))) + np.cumsum(begins)

    @property
    def crossfades(self) -> list[tuple[int, int]]:
        """First and last frame of each crossfade. Sought anew each time."""
        return self.look.crossfades(self.facts.frame_rate)

    @property
    def confidence(self) -> Float[np.ndarray, "frames"]:
        """The detector's confidence, 0 where no face was found."""
        return self.landmarks.confidence

    @property
    def timestamps(self) -> Float[np.ndarray, "frames"]:
        """Seconds of every frame."""
        return self.landmarks.timestamps

    def _write_facts(self) -> None:
        content = {"version": _VERSION, "complete": self.complete, "frames": len(self), **asdict(self.facts), "settings": self.settings.model_dump()}
        with atomic_file(self.folder / _FACTS) as unfinished:
            unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def frames_left(folder: Path) -> tuple[int, bool]:
    """How many frames the observations in a folder hold, about, and whether that is all; 0 where there are none."""
    path = Path(folder) / "look.journal"
    try:
        complete = bool(_content(Path(folder))["complete"])
        with Journal(path) as journal:
            return len(journal), complete
    except (UserError, KeyError):
        return 0, False


def _read_facts(folder: Path) -> tuple[VideoFacts, bool, int]:
    content = _content(folder)
    try:
        facts = VideoFacts(int(content["width"]), int(content["height"]), float(content["frame_rate"]), tuple(content["notes"]))
        return facts, bool(content["complete"]), int(content["frames"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / _FACTS}: not written by this program ({error}); observe the video again") from error


def _read_settings(folder: Path) -> ObserveSettings:
    try:
        return ObserveSettings(**_content(folder)["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / _FACTS}: its settings cannot be read; observe the video again") from error


def _content(folder: Path) -> dict:
    try:
        content = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{folder}: holds no observations ({error.strerror}); give the folder of an earlier pass") from error
    except ValueError as error:
        raise UserError(f"{folder / _FACTS}: damaged ({error}); observe the video again") from error
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise UserError(f"{folder / _FACTS}: of another version of this program; observe the video again")
    return content
