"""Landmarks that no compared tracker was fitted to: dlib's 68 points, found by dlib's own face detector.

Kazemi and Sullivan, *One millisecond face alignment with an ensemble of regression trees*, CVPR 2014; trained on iBUG 300-W.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from tracker.errors import UserError
from tracker.evaluation.baselines.interface import Tracked
from tracker.video.reader import open_video

INNER = slice(17, 68)
"""The jaw's 17 points lie wherever an outline is; brows, nose, eyes and lips are places."""

_OUTER_EYE_CORNERS = (36, 45)
_MAX_SIDE = 960
_UPPER_LIDS, _LOWER_LIDS, _EYE_CORNERS = (37, 38, 43, 44), (41, 40, 47, 46), ((36, 39), (42, 45))
_INNER_LIPS = (62, 66)


def find_landmarks(video: Path, max_frames: int | None = None) -> Float[np.ndarray, "frames 68 2"]:
    """dlib's points in every frame, full-frame pixels, NaN where its detector finds no face.

    Raises:
        UserError: dlib or its model file is not installed.
    """
    detector, predictor = _load()
    out = []
    with open_video(video, max_frames=max_frames) as frames:
        for frame in frames:
            grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
            scale = min(1.0, _MAX_SIDE / max(grey.shape))
            if scale < 1:
                grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            faces = detector(grey, 1 if max(grey.shape) < 400 else 0)
            if not len(faces):
                out.append(np.full((68, 2), np.nan))
                continue
            shape = predictor(grey, max(faces, key=lambda box: box.area()))
            # dlib's pixel centres are at whole numbers
            out.append((np.array([(p.x, p.y) for p in shape.parts()]) + 0.5) / scale)
    return np.array(out, np.float64)


def check_installed() -> None:
    """Find out before hours of tracking whether the clips can be scored.

    Raises:
        UserError: dlib or its model file is not installed.
    """
    if any(importlib.util.find_spec(name) is None for name in ("dlib", "face_recognition_models")):
        raise UserError(
            "the real suite scores with dlib's landmarks, which are not installed: python -m pip install dlib-bin==20.0.1.post1 "
            "face_recognition_models==0.3.0"
        )


def _load() -> tuple:
    check_installed()
    import dlib

    models = importlib.util.find_spec("face_recognition_models")
    assert models is not None and models.origin is not None
    file = Path(models.origin).parent / "models" / "shape_predictor_68_face_landmarks.dat"
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(file))


def projected_landmarks(tracked: Tracked) -> Float[np.ndarray, "frames 68 2"]:
    """The tracked head's own 68 points in the picture; NaN in frames without a tracked head."""
    embedding = tracked.head.landmarks["ibug68"]
    corners = tracked.vertices[:, tracked.head.faces[embedding.faces]]
    pixels = tracked.pixels(np.einsum("fnkc,nk->fnc", corners, embedding.barycentrics))
    return np.where(tracked.track.tracked[:, None, None], pixels, np.nan)


def nme_pct(points: Float[np.ndarray, "frames 68 2"], reference: Float[np.ndarray, "frames 68 2"]) -> float:
    """Mean distance of the 51 inner points, in percent of the distance between the outer eye corners; frames that both have."""
    left, right = _OUTER_EYE_CORNERS
    unit = np.linalg.norm(reference[:, left] - reference[:, right], axis=1)
    distance = np.linalg.norm(points[:, INNER] - reference[:, INNER], axis=2).mean(1)
    return float(100 * np.nanmean(distance / unit))


def lid_opening(points: Float[np.ndarray, "frames 68 2"]) -> Float[np.ndarray, "frames"]:
    """Distance between the lids over the eyes' width, mean of both eyes (Soukupova and Cech 2016)."""
    gap = np.linalg.norm(points[:, _UPPER_LIDS] - points[:, _LOWER_LIDS], axis=2).mean(1)
    width = np.mean([np.linalg.norm(points[:, a] - points[:, b], axis=1) for a, b in _EYE_CORNERS], axis=0)
    return gap / width


def lip_opening(points: Float[np.ndarray, "frames 68 2"]) -> Float[np.ndarray, "frames"]:
    """Distance between the inner lips over the distance between the outer eye corners."""
    upper, lower = _INNER_LIPS
    left, right = _OUTER_EYE_CORNERS
    return np.linalg.norm(points[:, upper] - points[:, lower], axis=1) / np.linalg.norm(points[:, left] - points[:, right], axis=1)
