"""Face landmarks of one subject through a video, by MediaPipe's face landmarker.

Two instances of the landmarker share the work. The *follower* tracks one face from frame to frame. When it has nothing
to follow (at first, after a cut, after the subject turned away) the *finder* looks over the whole frame for several
faces, then over square parts of it, in which small faces are larger for the detector. Of what it finds the subject is
chosen, everything else in the frame is blanked once, and the follower locks on to the subject in that frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from tracker.landmarks.detection import Detection, LandmarkSource
from tracker.landmarks.landmark_schemes import BLENDSHAPE_NAMES, INTER_OCULAR
from tracker.landmarks.mediapipe_graph import Face, Graph, check_model

__all__ = ["DEFAULT_MODEL", "Detection", "FaceLandmarker", "LandmarkSource"]

DEFAULT_MODEL = Path(__file__).resolve().parents[2] / "flame_assets" / "face_landmarker_v2.task"

_FACES_SOUGHT = 4
TILE_CONFIDENCE = 0.75  # parts of a frame show more that looks like a face, so they must convince more
_SURE_CONFIDENCE = 0.8  # faces as they should be reach it, faces upside down never do (measured: 0.85 and more, 0.7 and less)
_SAME_SUBJECT_SHIFT = 1.0  # a centre further off than so many face sizes is somebody else, or another shot
_SAME_SUBJECT_SCALE = 2.5
_BYSTANDER_SECONDS = 2.0  # for so long a face seen beside the subject is not taken for it
_KEPT_MARGIN = 1.0  # of the frame around the subject, in face sizes, when the rest is blanked
_STEADY_CHANGE = 0.04  # change of the mesh between frames, in inter-ocular distances, that halves the confidence
_NOMINAL_STEP = 0.04  # seconds between frames that this change is meant for


class FaceLandmarker:
    """MediaPipe's face landmarker on whole frames; use it as a context manager.

    The subject is the largest face of the first frame that has one, and from then on the one nearest to where it last
    was. Without a face near that place (a cut) it is the largest one again, unless that one was seen beside the subject
    before.

    Args:
        model: the ``.task`` file; None for the one that comes with the project.

    Attributes:
        blendshape_names: MediaPipe's names of the 52 scores: "_neutral", then ARKit's without tongueOut.

    Raises:
        UserError: no such file, or not a face landmarker model.
    """

    blendshape_names: tuple[str, ...] = BLENDSHAPE_NAMES

    def __init__(self, model: Path | None = None) -> None:
        self._model = Path(model or DEFAULT_MODEL)
        check_model(self._model)
        self._follower = Graph(self._model, faces=1, follow=True)
        self._finders: dict[float, Graph] = {}
        self._last: Face | None = None
        self._last_time = 0.0
        self._following = self._turned = False
        self._bystanders: list[Face] = []

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the landmarker."""
        self._follower.close()
        for finder in self._finders.values():
            finder.close()
        self._finders.clear()

    def forget(self) -> None:
        """Take the next frame for one that has nothing to do with those before: another shot, another photo."""
        self._last, self._following, self._bystanders = None, False, []

    def detect(self, image: UInt8[np.ndarray, "h w 3"], timestamp: float) -> Detection | None:
        """The subject's face in an RGB frame, or None.

        The confidence is built here, since the landmarker gives no score for a mesh: the share of the landmarks inside
        the picture, times the steadiness of the mesh's shape since the frame before (after a similarity alignment), which
        drops when the face is covered, blurred or half turned away, but also somewhat with quick expressions: 1 for a
        rigid mesh, 1/2 for a mean change of 4 % of the inter-ocular distance within 40 ms.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            timestamp: seconds, rising; two equal ones do no harm.
        """
        image = np.ascontiguousarray(image)
        face = None
        if self._following:
            face = next(iter(self._follow(image)), None)
            if face is not None and not _same_subject(face, self._last):
                face = None
        if face is None:
            face = self._acquire(image, timestamp)
        if face is None:
            self._following = False
            return None
        confidence = _inside(face, image) * (self._steadiness(face, timestamp) if self._following else 1.0)
        self._following = True
        self._last, self._last_time = face, timestamp
        return Detection(
            points=face.landmarks[:, :2].astype(np.float32),
            depth=face.landmarks[:, 2].astype(np.float32),
            blendshapes=face.scores,
            confidence=float(confidence),
            matrix=face.matrix.astype(np.float32),
        )

    def _acquire(self, image: np.ndarray, timestamp: float) -> Face | None:
        """Look for the subject in the whole frame and set the follower on it."""
        self._following = False
        faces = self._find(image)
        subject = self._choose(faces, timestamp)
        if subject is None:
            return None
        self._bystanders = [face for face in faces if face is not subject]
        # The follower picks the face that its own detector scores best, so it is shown no other.
        followed = self._follow(_blank_around(image, subject))
        if followed and _same_subject(followed[0], subject):
            return followed[0]
        return subject

    def _follow(self, image: np.ndarray) -> list[Face]:
        """What the follower sees, in the frame's pixels; a subject upside down is shown to it the right way up."""
        return _turned_back(self._follower(_half_turned(image)), image) if self._turned else self._follower(image)

    def _find(self, image: np.ndarray) -> list[Face]:
        """The faces of one way up, see :data:`_SURE_CONFIDENCE`: the detector puts upright meshes on faces that are upside down."""
        self._turned = False
        faces = self._finder(0.5)(image) or self._find_in_tiles(image)
        if faces and self._finder(_SURE_CONFIDENCE)(image):
            return faces
        turned = _turned_back(self._finder(_SURE_CONFIDENCE)(_half_turned(image)), image)
        self._turned = bool(turned)
        return turned or faces

    def _find_in_tiles(self, image: np.ndarray) -> list[Face]:
        faces: list[Face] = []
        for left, top, side in square_tiles(*image.shape[1::-1]):
            for face in self._finder(TILE_CONFIDENCE)(image[top : top + side, left : left + side]):
                moved = Face(face.landmarks + (left, top, 0), face.scores, face.matrix)
                if not any(_same_subject(moved, other) for other in faces):
                    faces.append(moved)
        return faces

    def _finder(self, confidence: float) -> Graph:
        """Made when first needed: most videos of square format never look at tiles."""
        if confidence not in self._finders:
            self._finders[confidence] = Graph(self._model, _FACES_SOUGHT, False, confidence)
        return self._finders[confidence]

    def _choose(self, faces: list[Face], timestamp: float) -> Face | None:
        if not faces:
            return None
        if self._last is not None:
            if timestamp - self._last_time < _BYSTANDER_SECONDS:
                faces = [face for face in faces if not self._is_bystander(face)]
            near = [face for face in faces if _same_subject(face, self._last)]
            if near:
                return min(near, key=lambda face: _distance(face, self._last))
        return max(faces, key=_size, default=None)

    def _is_bystander(self, face: Face) -> bool:
        """Whether a face is nearer to one seen beside the subject than to where the subject was."""
        reach = _distance(face, self._last)
        return any(_same_subject(face, other) and _distance(face, other) < reach for other in self._bystanders)

    def _steadiness(self, face: Face, timestamp: float) -> float:
        slack = max(1.0, (timestamp - self._last_time) / _NOMINAL_STEP)
        change = shape_change(self._last.landmarks[:, :2], face.landmarks[:, :2]) / slack
        return 1.0 / (1.0 + (change / _STEADY_CHANGE) ** 2)


def _half_turned(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[::-1, ::-1])


def _turned_back(faces: list[Face], image: np.ndarray) -> list[Face]:
    """Faces found in a frame that was turned upside down, in the pixels and axes of the frame."""
    height, width = image.shape[:2]
    return [
        Face(face.landmarks * (-1, -1, 1) + (width, height, 0), face.scores, np.diag([-1.0, -1.0, 1.0, 1.0]) @ face.matrix) for face in faces
    ]


def square_tiles(width: int, height: int) -> Iterator[tuple[int, int, int]]:
    """Overlapping squares ``(left, top, side)`` that cover a frame along its long side; none for a square frame."""
    side = min(width, height)
    rest = max(width, height) - side
    if rest == 0:
        return
    for start in np.linspace(0, rest, int(np.ceil(rest / (side / 2))) + 1).round().astype(int):
        yield (int(start), 0, side) if width > height else (0, int(start), side)


def shape_change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean distance of two ``(N, 2)`` meshes after the best similarity, in inter-ocular distances of the second.

    Least-squares similarity in the plane, points taken as complex numbers.
    """
    a = (before - before.mean(0)) @ (1, 1j)
    b = (after - after.mean(0)) @ (1, 1j)
    motion = np.vdot(a, b) / max(np.vdot(a, a).real, 1e-12)
    eyes = np.linalg.norm(after[INTER_OCULAR[0]] - after[INTER_OCULAR[1]])
    return float(np.abs(motion * a - b).mean() / max(eyes, 1e-6))


def _distance(face: Face, other: Face) -> float:
    return float(np.linalg.norm(face.landmarks[:, :2].mean(0) - other.landmarks[:, :2].mean(0)))


def _size(face: Face) -> float:
    return float(np.ptp(face.landmarks[:, :2], axis=0).max())


def _same_subject(face: Face, other: Face) -> bool:
    """Whether two detections are near enough in place and size to be one person a moment apart."""
    scale = _size(face) / max(_size(other), 1e-6)
    near = _distance(face, other) < _SAME_SUBJECT_SHIFT * _size(other)
    return near and 1 / _SAME_SUBJECT_SCALE < scale < _SAME_SUBJECT_SCALE


def _inside(face: Face, image: np.ndarray) -> float:
    points = face.landmarks[:, :2]
    return float(((points >= 0) & (points <= image.shape[1::-1])).all(1).mean())


def _blank_around(image: np.ndarray, face: Face) -> np.ndarray:
    """The picture with everything grey but the face and some of its surroundings."""
    margin = _KEPT_MARGIN * _size(face)
    points = face.landmarks[:, :2]
    left, top = np.maximum(points.min(0) - margin, 0).astype(int)
    right, bottom = np.ceil(points.max(0) + margin).astype(int)
    blank = np.full_like(image, 128)
    blank[top:bottom, left:right] = image[top:bottom, left:right]
    return blank
