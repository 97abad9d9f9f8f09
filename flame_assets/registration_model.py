"""A statistical model of the 468 face landmarks, and its fit to a head's surface.

MediaPipe's canonical mesh is a stylised face; the places where its detector puts the 468 points on a natural face differ
from it by millimetres. The model kept in ``canonical_face_model.npz`` holds the places measured on the default head
(``tools/calibrate_landmarks.py``) and how they move with that head's identity directions, so that fitting it
to another head carries the points over with the anatomy: brows stay on brows where the surface alone would not tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from flame_assets.normals import vertex_normals
from flame_assets.similarity import similarity
from flame_assets.surface_points import Surface

MODEL_FILE = Path(__file__).with_name("canonical_face_model.npz")
CANONICAL_FILE = Path(__file__).with_name("canonical_face_468.npz")

_ROUNDS = 24
_PRIOR_M = (8e-3, 4e-3)
"""Residual in metres that counts as much as one unit of a coefficient: first and last round."""
_EYE_WEIGHT = 20.0
"""How many landmarks one eye's centre counts for."""
_OUTLIER_M = (0.02, 0.004)


@dataclass(frozen=True)
class FaceModel:
    """Landmarks of a face as a linear function of identity, in the default head's frame, metres.

    Attributes:
        mean: ``(470, 3)``: 468 landmarks, then the centres of the left and the right eye.
        basis: ``(470, 3, K)`` displacement per unit-variance coefficient.
        triangles: ``(898, 3)`` triangles over the landmarks, MediaPipe's.
    """

    mean: np.ndarray
    basis: np.ndarray
    triangles: np.ndarray


@lru_cache(maxsize=1)
def face_model() -> FaceModel:
    """The model that comes with the project."""
    with np.load(MODEL_FILE, allow_pickle=False) as file, np.load(CANONICAL_FILE, allow_pickle=False) as canonical:
        return FaceModel(
            file["mean"].astype(np.float64), file["basis"].astype(np.float64), canonical["faces"].astype(np.int64)
        )


def fit_face_model(model: FaceModel, skin: Surface, eyes: np.ndarray) -> np.ndarray:
    """Place the model on a head by its eyes, then fit pose and identity to the closest points of the skin.

    Args:
        model: the landmarks' model.
        skin: the head's outer skin, in a head frame (roughly upright, facing +z).
        eyes: ``(2, 3)`` centres of the left and the right eye.

    Returns:
        ``(468, 3)`` positions near the skin.
    """
    left, right = eyes
    span, own = left - right, model.mean[468] - model.mean[469]
    scale = float(np.linalg.norm(span) / np.linalg.norm(own))
    rotation = _turn_between(own, span)
    shift = eyes.mean(0) - scale * rotation @ model.mean[468:].mean(0)
    coefficients = np.zeros(model.basis.shape[2])
    flat_basis = model.basis.reshape(-1, model.basis.shape[2])
    for step in range(_ROUNDS):
        progress = step / (_ROUNDS - 1)
        prior, outlier = (a * (b / a) ** progress for a, b in (_PRIOR_M, _OUTLIER_M))
        shape = model.mean + model.basis @ coefficients
        placed = scale * shape @ rotation.T + shift
        normals = vertex_normals(placed[:468], model.triangles)
        hits = skin.nearest(placed[:468], normals)
        along = skin.normal_of(hits)
        # closest points resist sliding along the surface only a little (point-to-plane distance, Chen and Medioni 1992)
        gap = hits.points - placed[:468]
        target = np.vstack([placed[:468] + np.einsum("nc,nc,nd->nd", gap, along, along), eyes])
        weight = 1 / (1 + (np.linalg.norm(gap, axis=1) / outlier) ** 2)
        weight = np.append(weight, (_EYE_WEIGHT, _EYE_WEIGHT))
        scale, rotation, shift = similarity(shape, target, weight)
        residual = ((target - shift) @ rotation / scale - model.mean).reshape(-1)
        rows = np.repeat(weight, 3)[:, None]
        ridge = (prior / scale) ** 2 * np.eye(len(coefficients)) * 10
        coefficients = np.linalg.solve(flat_basis.T @ (rows * flat_basis) + ridge, flat_basis.T @ (rows[:, 0] * residual))
    return (scale * (model.mean + model.basis @ coefficients) @ rotation.T + shift)[:468]


def _turn_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that turns the direction of ``a`` into that of ``b``."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / max(1 + float(a @ b), 1e-9)
