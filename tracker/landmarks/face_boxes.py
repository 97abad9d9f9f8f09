"""Where faces are in a picture, without their landmarks: MediaPipe's face detector alone, a tenth of the landmarker's work."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float, UInt8

from tracker.errors import UserError
from tracker.landmarks.mediapipe_detector import DEFAULT_MODEL, TILE_CONFIDENCE, square_tiles
from tracker.landmarks.mediapipe_graph import check_model, quiet_stderr

_CONFIDENCE = 0.5
_SAME_FACE = 0.3  # of two boxes' union that is in both, from which they show one face
_MEMBER = "face_detector.tflite"


class FaceBoxes:
    """Finds the faces of single frames; use it as a context manager.

    Args:
        model: the landmarker's ``.task`` file, whose detector is used; None for the one that comes with the project.

    Raises:
        UserError: no such file, or not a face landmarker model.
    """

    def __init__(self, model: Path | None = None) -> None:
        path = Path(model or DEFAULT_MODEL)
        check_model(path)
        self._spoke = False
        with quiet_stderr():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._image, self._rgb = mediapipe.Image, mediapipe.ImageFormat.SRGB
            try:
                with zipfile.ZipFile(path) as bundle:
                    content = bundle.read(_MEMBER)
                options = vision.FaceDetectorOptions(
                    base_options=BaseOptions(model_asset_buffer=content), min_detection_confidence=_CONFIDENCE
                )
                self._detector = vision.FaceDetector.create_from_options(options)
            except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
                reason = " ".join(str(error).split())[:120]
                raise UserError(f"--landmarker {path}: MediaPipe cannot load its face detector ({reason})") from error

    def __enter__(self) -> FaceBoxes:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with quiet_stderr():  # MediaPipe tells of what it takes down
            self._detector.close()

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], tiles: bool = False) -> Float[np.ndarray, "faces 4"]:
        """Boxes ``(left, top, right, bottom)`` of the upright faces in an RGB picture, pixels, the surest first: from the brows to the chin.

        Args:
            tiles: look at square parts of a long picture, too, in which small faces are larger for the detector.
        """
        found = self._found(image)
        if tiles:
            for left, top, side in square_tiles(*image.shape[1::-1]):
                part = self._found(image[top : top + side, left : left + side])
                part[:, :4] += (left, top, left, top)
                found = np.concatenate([found, part[part[:, 4] > TILE_CONFIDENCE]])
        kept: list[np.ndarray] = []
        for row in found[np.argsort(-found[:, 4], kind="stable")]:
            if all(overlap(row[:4], other) < _SAME_FACE for other in kept):
                kept.append(row[:4])
        return np.array(kept, float).reshape(-1, 4)

    def _found(self, image: np.ndarray) -> Float[np.ndarray, "faces 5"]:
        frame = self._image(image_format=self._rgb, data=np.ascontiguousarray(image))
        if self._spoke:
            result = self._detector.detect(frame)
        else:
            with quiet_stderr():  # at its first picture it has something to say about memory
                result = self._detector.detect(frame)
            self._spoke = True
        rows = []
        for face in result.detections:
            box = face.bounding_box
            left, top = box.origin_x, box.origin_y
            rows.append((left, top, left + box.width, top + box.height, face.categories[0].score))
        return np.array(rows, float).reshape(-1, 5)


def overlap(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    """The part of two boxes' union that is in both."""
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(shared / max(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared, 1e-9))
