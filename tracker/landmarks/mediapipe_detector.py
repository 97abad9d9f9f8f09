"""Face landmarks by MediaPipe's face landmarker.

The landmarker's own temporal filter is kept out (it is only active when a single face is sought): it trails fast motion,
and the fit smooths frames in both directions anyway, without lag.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from tracker.errors import UserError
from tracker.landmarks.landmark_schemes import INTER_OCULAR, N_LANDMARKS

DEFAULT_MODEL = Path(__file__).resolve().parents[2] / "flame_assets" / "face_landmarker_v2.task"
_FACES_SOUGHT = 2  # more than one, so that one subject can be kept apart from others
# A face whose centre jumped further than this many of its own sizes is somebody else.
_SAME_SUBJECT_SHIFT = 1.5


@dataclass(frozen=True)
class Detection:
    """One face in one frame.

    Attributes:
        points: full-frame pixels, pixel centres at (i + 0.5, j + 0.5).
        depth: MediaPipe's relative depth in pixels; towards the camera is negative.
        blendshapes: scores in [0, 1], ordered as :attr:`FaceLandmarker.blendshape_names`.
        confidence: in [0, 1]. The landmarker gives no score for a single frame's mesh, only finds it or not, so this is the
            share of the landmarks that lie inside the picture.
    """

    points: Float[np.ndarray, "478 2"]
    depth: Float[np.ndarray, "478"]
    blendshapes: Float[np.ndarray, "52"]
    confidence: float


class LandmarkSource(Protocol):
    """Anything that finds MediaPipe's 478 landmarks frame after frame."""

    def detect(self, image: UInt8[np.ndarray, "h w 3"], timestamp: float) -> Detection | None:
        """The subject's face in an RGB frame at ``timestamp`` seconds; None when there is none."""
        ...


class FaceLandmarker:
    """MediaPipe's face landmarker on whole frames; use it as a context manager.

    Args:
        model: the ``.task`` file; None for the one that comes with the project.

    Raises:
        UserError: no such file, or not a face landmarker model.
    """

    def __init__(self, model: Path | None = None) -> None:
        path = Path(model or DEFAULT_MODEL)
        if not path.is_file():
            raise UserError(f"--landmarker {path}: no such file; it must be a MediaPipe face landmarker .task file")
        os.environ.setdefault("GLOG_minloglevel", "2")
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=path.read_bytes()),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=_FACES_SOUGHT,
            output_face_blendshapes=True,
        )
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0][:120]
            raise UserError(f"--landmarker {path}: not a MediaPipe face landmarker model ({reason})") from error
        self._image = mediapipe.Image
        self._format = mediapipe.ImageFormat.SRGB
        self._milliseconds = -1
        self._last: np.ndarray | None = None
        self.blendshape_names: tuple[str, ...] = ()

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._landmarker.close()

    def detect(self, image: UInt8[np.ndarray, "h w 3"], timestamp: float) -> Detection | None:
        """The subject's face: the largest one at first, later the one nearest to where it last was."""
        height, width = image.shape[:2]
        # MediaPipe wants whole, rising milliseconds
        self._milliseconds = max(round(timestamp * 1000), self._milliseconds + 1)
        frame = self._image(image_format=self._format, data=np.ascontiguousarray(image))
        result = self._landmarker.detect_for_video(frame, self._milliseconds)
        if not result.face_landmarks:
            return None
        faces = [np.array([(p.x * width, p.y * height, p.z * width) for p in face]) for face in result.face_landmarks]
        chosen = self._choose(faces)
        face = faces[chosen]
        scores = result.face_blendshapes[chosen]
        # entry 0 is MediaPipe's "_neutral"; tongueOut is not among its scores
        if not self.blendshape_names:
            self.blendshape_names = tuple(s.category_name for s in scores)
        self._last = face[:, :2]
        inside = (face[:, :2] >= 0).all(1) & (face[:, :2] <= (width, height)).all(1)
        return Detection(
            points=face[:, :2].astype(np.float32),
            depth=face[:, 2].astype(np.float32),
            blendshapes=np.array([s.score for s in scores], np.float32),
            confidence=float(inside.mean()),
        )

    def _choose(self, faces: list[np.ndarray]) -> int:
        sizes = np.array([np.ptp(f[:, :2], axis=0).max() for f in faces])
        if self._last is None or len(faces) == 1:
            return int(sizes.argmax())
        last_centre, last_size = self._last.mean(0), np.ptp(self._last, axis=0).max()
        shifts = np.array([np.linalg.norm(f[:, :2].mean(0) - last_centre) for f in faces]) / last_size
        return int(shifts.argmin()) if shifts.min() < _SAME_SUBJECT_SHIFT else int(sizes.argmax())
