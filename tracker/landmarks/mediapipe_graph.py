"""MediaPipe's face landmarker without its surprises: arrays in, arrays out, one mode per object, a quiet console."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracker.errors import UserError

_STEP_MS = 1_000_000
_CROP_SIDE = 256
_CROP_MARGIN = 1.5
_EYE_CORNERS = (33, 263)
_REQUIRED_MEMBERS = frozenset({"face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite"})


@dataclass(frozen=True)
class Face:
    """One face as the graph sees it: ``(478, 3)`` pixels and depth, ``(52,)`` scores, ``(4, 4)`` transformation."""

    landmarks: np.ndarray
    scores: np.ndarray
    matrix: np.ndarray


class Graph:
    """One instance of the landmarker.

    ``follow=True`` is its video mode for a single face: the crop of a frame comes from the landmarks of the frame
    before, so that profile views survive in which the face detector fails, and the detector's time is saved. In this
    mode MediaPipe also filters the landmarks over time (a one-euro filter whose strength depends on the timestamps), which lags behind
    motion by a third of a frame. Each call is therefore stamped far later than the one before: the filter then lets
    everything through. It also makes repeated or backward timestamps of a video harmless.

    ``follow=False`` looks at each frame alone and finds up to ``faces`` faces.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(self, model: Path, faces: int, follow: bool, detection_confidence: float = 0.5) -> None:
        with quiet_stderr():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._image, self._rgb = mediapipe.Image, mediapipe.ImageFormat.SRGB
            options = vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=model.read_bytes()),
                running_mode=vision.RunningMode.VIDEO if follow else vision.RunningMode.IMAGE,
                num_faces=faces,
                min_face_detection_confidence=detection_confidence,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
            try:
                self._landmarker = vision.FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError, OSError) as error:
                reason = " ".join(str(error).split())[:120]
                raise UserError(f"--landmarker {model}: MediaPipe cannot load this model ({reason})") from error
        self._follow = follow
        self._clock = 0
        self._quiet_calls = 1

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Faces in an ``(H, W, 3)`` uint8 RGB picture, in its pixels."""
        height, width = image.shape[:2]
        # MediaPipe takes the buffer for densely packed rows; a view with a stride would be misread without an error.
        frame = self._image(image_format=self._rgb, data=np.ascontiguousarray(image))
        if self._quiet_calls:
            self._quiet_calls -= 1
            with quiet_stderr():
                result = self._run(frame)
        else:
            result = self._run(frame)
        faces = []
        for points, scores, matrix in zip(
            result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True
        ):
            landmarks = np.array([(p.x, p.y, p.z) for p in points]) * (width, height, width)
            landmarks[:, :2] -= _crop_offset(landmarks)
            faces.append(Face(landmarks, np.array([s.score for s in scores], np.float32), np.asarray(matrix)))
        return faces

    def _run(self, frame: object) -> object:
        if not self._follow:
            return self._landmarker.detect(frame)
        self._clock += _STEP_MS
        return self._landmarker.detect_for_video(frame, self._clock)

    def close(self) -> None:
        """Release the graph and its threads."""
        self._landmarker.close()


def _crop_offset(landmarks: np.ndarray) -> np.ndarray:
    """By how many pixels (x, y) the graph reports landmarks too far along its crop's axes.

    On the CPU the crop for the network is warped so that the centre of the crop's first pixel falls on the corner of
    the region, half a crop pixel off; the result is scaled back without that half. With a region of s·256 pixels the
    error is (s - 1) / 2 pixels along both axes of the region: nothing for a face of 170 pixels, 2 pixels for one of
    850. Found by comparing frames with their mirror images; with the correction no offset is left at any scale (tests).
    """
    right, left = landmarks[list(_EYE_CORNERS), :2]
    axis = (left - right) / max(float(np.linalg.norm(left - right)), 1e-6)
    across = np.array((-axis[1], axis[0]))
    side = _CROP_MARGIN * max(np.ptp(landmarks[:, :2] @ axis), np.ptp(landmarks[:, :2] @ across))
    return 0.5 * (side / _CROP_SIDE - 1) * (axis + across)


def check_model(path: Path) -> None:
    """Refuse what is no face landmarker bundle before MediaPipe's native code sees it.

    Raises:
        UserError: missing file, not a ``.task`` bundle, or one for another task.
    """
    if not path.is_file():
        raise UserError(f"--landmarker {path}: no such file; it must be a MediaPipe face landmarker .task file")
    try:
        with zipfile.ZipFile(path) as bundle:
            missing = _REQUIRED_MEMBERS.difference(bundle.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"--landmarker {path}: not a MediaPipe .task file; name a face landmarker bundle") from error
    if missing:
        raise UserError(
            f"--landmarker {path}: not a face landmarker with blendshapes (no {sorted(missing)[0]} inside); "
            "name face_landmarker_v2_with_blendshapes or its like"
        )


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep native code from writing to standard error: MediaPipe logs there before any level can be set.

    Python's own errors are not lost: they travel as exceptions.
    """
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, ValueError, AttributeError):
        yield  # no standard error to keep quiet
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
