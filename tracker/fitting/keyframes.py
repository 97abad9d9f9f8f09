"""Identity and focal length from a handful of well-spread frames, solved jointly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import FocalPrior
from tracker.config import TrackerConfig
from tracker.fitting.objective import (
    FaceLandmarks,
    compare_terms,
    dense_terms,
    frame_variables,
    identity_terms,
    initial_values,
    landmark_term,
    look_at_face,
    prior_terms,
)
from tracker.fitting.observations import FrameBatch
from tracker.fitting.photometric import look_at_skin
from tracker.fitting.rigid import RigidPose
from tracker.fitting.solver import Solution, Values, Variable, solve
from tracker.photometric.light import Appearance, estimate_appearance

# Landmarks are re-weighted by visibility once the poses are known better than the closed form gives them.
_ROUNDS = 2
# Candidates without landmarks are read in groups of so many: their maps are large, and only poses are wanted.
_READ_AT_ONCE = 64


class ReadFrames(Protocol):
    """Gives what is known of some frames, with the dense correspondences or without; with ``places_only``, where the places
    were seen but neither outlines nor pictures."""

    def __call__(self, frames: Tensor, dense: bool = True, places_only: bool = False) -> FrameBatch: ...


@dataclass(frozen=True)
class SharedFit:
    """What all frames share.

    Attributes:
        identity: coefficients.
        focal_px: pixels.
        focal_log_sigma: posterior standard deviation of ``log(focal)``, 0 when it was given.
        solution: the solver's report on the keyframes.
        keyframes: their frame numbers.
        appearance: albedo and light of the skin, or None.
    """

    identity: Float[Tensor, "identity"]
    focal_px: float
    focal_log_sigma: float
    solution: Solution
    keyframes: Tensor
    appearance: Appearance | None = None


def spread_frames(features: Float[Tensor, "frames k"], count: int) -> Tensor:
    """Farthest-point sampling: ``count`` rows that cover the features, the one nearest their median first (sorted)."""
    start = int((features - features.median(0).values).square().sum(1).argmin())
    chosen = [start]
    distance = (features - features[start]).square().sum(1)
    while len(chosen) < min(count, len(features)):
        farthest = int(distance.argmax())
        if float(distance[farthest]) <= 0:
            break
        chosen.append(farthest)
        distance = torch.minimum(distance, (features - features[farthest]).square().sum(1))
    return torch.tensor(sorted(chosen), device=features.device)


def fit_shared(
    face: FaceLandmarks,
    offered: Tensor,
    read: ReadFrames,
    camera: FocalPrior,
    config: TrackerConfig,
) -> SharedFit:
    """Choose keyframes among the ``offered`` frames and solve identity, focal length and the keyframes' own parameters.

    Args:
        face: the head at its landmarks and dense places.
        offered: numbers of frames with landmarks or dense correspondences.
        read: gives what is known of some frames.
        camera: what is known of the camera.
        config: settings.
    """
    principal_point = camera.principal_point
    candidates = read(offered, False)
    turned = face.rigid_poses(candidates, camera.focal_px, principal_point).rotation
    blind = ~candidates.has_landmarks
    if bool(blind.any()):
        groups = offered[blind.cpu()].split(_READ_AT_ONCE)
        seen = (read(group, True, places_only=True) for group in groups)
        turned[blind] = torch.cat([face.rigid_poses(batch, camera.focal_px, principal_point).rotation for batch in seen])
    features = [turned / 0.3]  # 0.3 rad of turn counts like one fully raised expression
    if candidates.expression_guess is not None:
        features.append(candidates.expression_guess)
    keyframes = spread_frames(torch.cat(features, dim=1), config.keyframes.count)
    batch = read(offered[keyframes.cpu()], True)
    poses = face.rigid_poses(batch, camera.focal_px, principal_point)

    local = frame_variables(face.head, config)
    shared = [Variable("shape", shared=True)]
    if camera.log_sigma > 0:
        log_prior = math.log(camera.focal_px)
        shared.append(
            Variable("log_focal", shared=True, lower=log_prior - 4 * camera.log_sigma, upper=log_prior + 4 * camera.log_sigma)
        )
    values = initial_values(face, batch, poses, config)
    values["shape"] = poses.rotation.new_zeros(face.head.n_identity)
    values["log_focal"] = poses.rotation.new_tensor([math.log(camera.focal_px)])
    values = _settle_pose(face, batch, poses, config, principal_point, values)

    for _ in range(_ROUNDS):
        terms = [
            landmark_term(face, batch, poses.pixels_per_metre, values, config, principal_point),
            *prior_terms(local, config.priors, face.head),
            *identity_terms(config.priors, camera),
        ]
        solution = solve(terms, [*local, *shared], values, config.solver(config.keyframes.iterations))
        values = solution.values
    if face.dense is not None and batch.dense is not None:
        solution = _add_dense(face, batch, poses, [*local, *shared], values, camera, config)
        values = solution.values
    appearance = None
    looked = look_at_face(face, batch, values, principal_point)
    if looked is not None:
        skin, pictures, visible = looked
        view = look_at_skin(skin, pictures, values, principal_point, visible)
        appearance = estimate_appearance(view.colours, view.normals, view.weight)
    return SharedFit(
        identity=values["shape"],
        focal_px=float(values["log_focal"].exp()),
        focal_log_sigma=_focal_sigma(solution, camera),
        solution=solution,
        keyframes=offered[keyframes.cpu()],
        appearance=appearance,
    )


def _add_dense(
    face: FaceLandmarks,
    batch: FrameBatch,
    poses: RigidPose,
    variables: list[Variable],
    values: Values,
    camera: FocalPrior,
    config: TrackerConfig,
) -> Solution:
    """Go on from the landmarks' solution with the dense term, which sees the whole head."""
    principal_point, settings = camera.principal_point, config.dense
    local = [v for v in variables if not v.shared]
    shared_terms = [*prior_terms(local, config.priors, face.head), *identity_terms(config.priors, camera)]
    for _ in range(_ROUNDS):
        terms = [
            landmark_term(face, batch, poses.pixels_per_metre, values, config, principal_point),
            *dense_terms(face, batch, poses.pixels_per_metre, settings, principal_point, values),
            *shared_terms,
        ]
        solution = solve(terms, variables, values, config.solver(settings.keyframe_iterations))
        values = solution.values
    if settings.compare:
        terms = [
            landmark_term(face, batch, poses.pixels_per_metre, values, config, principal_point),
            *compare_terms(face, batch, values, settings, principal_point),
            *shared_terms,
        ]
        solution = solve(terms, variables, values, config.solver(settings.keyframe_iterations))
    return solution


def _settle_pose(
    face: FaceLandmarks,
    batch: FrameBatch,
    poses: RigidPose,
    config: TrackerConfig,
    principal_point: tuple[float, float],
    values: Values,
) -> Values:
    """Rigid pose and expression first: identity must not explain a pose that is still wrong."""
    local = frame_variables(face.head, config)
    rigid = [v for v in local if v.name in ("rotation", "translation")]
    for free, iterations in ((rigid, 6), (local, 4)):
        terms = [
            landmark_term(face, batch, poses.pixels_per_metre, values, config, principal_point),
            *dense_terms(face, batch, poses.pixels_per_metre, config.dense, principal_point),
            *prior_terms(local, config.priors, face.head),
        ]
        values = solve(terms, free, values, config.solver(iterations)).values
    return values


def _focal_sigma(solution: Solution, camera: FocalPrior) -> float:
    if camera.log_sigma == 0 or solution.shared_covariance is None:
        return camera.log_sigma
    return math.sqrt(max(float(solution.shared_covariance[-1, -1]), 0.0))
