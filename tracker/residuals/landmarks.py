"""Landmarks: where a detector saw them, against where the head has them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from flame_assets.settings_files import Settings
from tracker.camera import CAMERA_POSITION
from tracker.head_points import HeadPoints
from tracker.landmarks.landmark_schemes import N_LANDMARKS, landmark_groups
from tracker.residuals.reprojection import ReprojectionResidual
from tracker.residuals.state import FitState
from tracker.solver import Term
from tracker.solver.robust import GemanMcClure

# Groups that stay with the landmarks where a network speaks of the rest of the head.
_LANDMARK_LED = ("lips", "lids", "irises", "brows")


class ErrorPercent(Settings):
    """Expected error by landmark group, in percent of the inter-ocular distance; ``default`` is of those in no group."""

    default: float = Field(6.0, ge=0.1, le=1000)
    lips: float = Field(3.0, ge=0.1, le=1000)
    lids: float = Field(2.5, ge=0.1, le=1000)
    irises: float = Field(2.5, ge=0.1, le=1000)
    brows: float = Field(4.0, ge=0.1, le=1000)
    nose: float = Field(4.0, ge=0.1, le=1000)
    oval: float = Field(9.0, ge=0.1, le=1000)


class LandmarkSettings(Settings):
    """How far detected landmarks are believed.

    Attributes:
        error_percent: expected errors. Landmarks of one face err together, so these are larger than the scatter of single points.
        kernel_scale: residuals beyond this many expected errors count less and less (Geman–McClure); 0 for plain squares.
        hidden_cosine, visible_cosine: a landmark whose surface normal makes an angle with the line of sight of lower
            cosine than the first is ignored, of higher than the second counts fully.
        beside_dense: factor on the expected errors of the landmarks that the network covers too (not lips, lids, irises, brows),
            in frames that it looked at.
    """

    error_percent: ErrorPercent = ErrorPercent()
    kernel_scale: float = Field(3.0, ge=0, le=1000)
    hidden_cosine: float = Field(-0.1, ge=-1, le=1)
    visible_cosine: float = Field(0.25, ge=-1, le=1)
    beside_dense: float = Field(1.5, ge=0.01, le=100)


def terms(state: FitState, settings: LandmarkSettings) -> list[Term]:
    """Reprojection of the landmarks that are visible at the state's values; errors are judged relative to each frame's face
    size, seen frontally."""
    head, batch = state.head, state.batch
    expected, coverable = _by_landmark(settings, head.numbers.cpu().numpy())
    unit_px = state.pixels_per_metre * head.inter_ocular_m()
    weight = visibility(state, settings) * batch.iris_trust()[:, head.numbers]
    weight = weight * batch.has_landmarks.to(weight)[:, None]
    precision = weight.sqrt() / (torch.as_tensor(expected).to(weight) * unit_px[:, None])
    if batch.dense is not None:
        covered = batch.dense.seen.to(weight)[:, None] * torch.as_tensor(coverable).to(weight)
        precision = precision / (1 + (settings.beside_dense - 1) * covered)
    residual = ReprojectionResidual(head.landmarks, batch.points[:, head.numbers], precision, state.principal_point)
    return [Term("landmarks", residual, GemanMcClure(settings.kernel_scale) if settings.kernel_scale else None)]


def visibility(state: FitState, settings: LandmarkSettings) -> Float[Tensor, "frames n"]:
    """Weight in [0, 1] by how much each landmark's surface faces the camera.

    A detector places landmarks on the far side of a turned head by habit, not by sight; contour points slide along
    the silhouette. Both show as normals that turn away from the line of sight.
    """
    translation = state.values["translation"]
    to_camera = torch.nn.functional.normalize(translation.new_tensor(CAMERA_POSITION) - translation, dim=-1)
    turned = HeadPoints.evaluate(state.head.landmarks, state.values).turned(state.head.normals)
    cosine = torch.einsum("fna,fa->fn", turned, to_camera)
    span = settings.visible_cosine - settings.hidden_cosine
    ramp = ((cosine - settings.hidden_cosine) / max(span, 1e-6)).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _by_landmark(settings: LandmarkSettings, numbers: np.ndarray) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Expected errors as shares of the inter-ocular distance, and 1 for those that a network covers too, 0 for others."""
    percent, coverable = np.full(N_LANDMARKS, settings.error_percent.default), np.ones(N_LANDMARKS)
    for group, members in landmark_groups().items():
        percent[list(members)] = getattr(settings.error_percent, group)
        coverable[list(members)] = group not in _LANDMARK_LED
    return percent[numbers] / 100, coverable[numbers]
