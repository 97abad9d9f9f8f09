"""Every frame's pose, expression and gaze: windows of frames, each solved jointly and smoothed in both directions.

A window starts from closed-form poses and from the expressions that the window before ended with, so one bad frame never
spoils the next. It is tied to the last finished frame by an anchor, and its last frames are solved again as the first
ones of the next window, so that every frame is smoothed with a past and a future and no lag appears.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import project
from tracker.config import TrackerConfig
from tracker.fitting.keyframes import ReadFrames, SharedFit
from tracker.fitting.kinematics import HeadPoints
from tracker.fitting.objective import (
    FaceLandmarks,
    colour_terms,
    compare_terms,
    dense_terms,
    frame_variables,
    initial_values,
    landmark_term,
    prior_terms,
    smoothness_terms,
)
from tracker.fitting.observations import FrameBatch
from tracker.fitting.rigid import RigidPose
from tracker.fitting.solver import Linearization, Term, Variable, solve
from tracker.head_model import HeadModel
from tracker.photometric.light import Appearance
from tracker.rotations import axis_angle_to_matrix

# A head turns or moves this much between two frames only at a cut (or when another person is picked up).
_CUT_ANGLE_RAD = 0.7
_CUT_SHIFT_INTER_OCULAR = 2.0
_ANCHOR_PRECISION = 1e3


@dataclass(frozen=True)
class FrameFits:
    """Solved frames, in order.

    Attributes:
        frames: their positions in the sequence.
        values: per-frame parameters, VHAP's names.
        error_percent: median landmark error of each frame, in percent of its inter-ocular distance; the dense places'
            error where no landmarks were found.
    """

    frames: Tensor
    values: dict[str, Tensor]
    error_percent: Float[Tensor, "frames"]


def fit_frames(
    face: FaceLandmarks,
    frames: Tensor,
    read: ReadFrames,
    shared: SharedFit,
    principal_point: tuple[float, float],
    config: TrackerConfig,
) -> Iterator[FrameFits]:
    """Solve ``frames`` window by window; yields the finished frames of each.

    Args:
        face: the head at its landmarks.
        frames: positions of the frames that have a face, increasing.
        read: gives what is known of some frames; only one window's is held at a time.
        shared: identity and focal length, constant here.
        principal_point: pixels.
        config: settings.
    """
    window, lookahead = config.tracking.window, min(config.tracking.lookahead, config.tracking.window - 1)
    variables = frame_variables(face.head, config)
    constants = {"shape": shared.identity, "log_focal": shared.identity.new_tensor([shared.focal_px]).log()}
    # the identity is fixed from here on: bake it into the landmarks' template once
    face = with_identity(face, shared.identity)
    constants["shape"] = shared.identity[:0]

    last: dict[str, Tensor] | None = None  # the last finished frame, (1, d) each
    last_position: Tensor | None = None
    start = 0
    while start < len(frames):
        stop = min(start + window, len(frames))
        fresh = frames[start:stop]
        positions = fresh if last_position is None else torch.cat([last_position, fresh])
        batch = read(positions)
        poses = face.rigid_poses(batch, shared.focal_px, principal_point)
        values = initial_values(face, batch, poses, config) | constants
        terms: list[Term] = []
        if last is not None:
            for name, value in last.items():
                values[name] = torch.cat([value, values[name][1:]])
            if batch.expression_guess is None:
                values["expr"] = last["expr"].expand(len(batch), -1).clone()
            terms.append(Term("anchor", AnchorResidual(last)))
        values = _solve_window(face, batch, poses, variables, values, terms, shared.appearance, principal_point, config)
        finished = len(fresh) if stop == len(frames) else max(len(fresh) - lookahead, 1)
        offset = len(positions) - len(fresh)
        kept = {v.name: values[v.name][offset : offset + finished] for v in variables}
        error = _median_error(face, batch, values, principal_point)[offset : offset + finished]
        yield FrameFits(fresh[:finished], kept, error)
        last = {name: value[-1:] for name, value in kept.items()}
        last_position = fresh[finished - 1 : finished]
        start += finished


@dataclass(frozen=True)
class AnchorResidual:
    """Holds the first frame of a window at values found before."""

    values: Mapping[str, Tensor]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        rows, jacobians, start = [], {}, 0
        width = sum(v.shape[-1] for v in self.values.values())
        for name, anchor in self.values.items():
            difference = (values[name] - anchor) * _ANCHOR_PRECISION
            difference[1:] = 0
            rows.append(difference)
            if name in wanted:
                size = anchor.shape[-1]
                jacobian = difference.new_zeros(len(difference), width, 1, size)
                jacobian[0, start : start + size, 0] = _ANCHOR_PRECISION * torch.eye(size, dtype=difference.dtype, device=difference.device)
                jacobians[name] = jacobian
            start += anchor.shape[-1]
        return Linearization(torch.cat(rows, dim=-1)[..., None], jacobians)


def _solve_window(
    face: FaceLandmarks,
    batch: FrameBatch,
    poses: RigidPose,
    variables: list[Variable],
    values: dict[str, Tensor],
    extra: list[Term],
    appearance: Appearance | None,
    principal_point: tuple[float, float],
    config: TrackerConfig,
) -> dict[str, Tensor]:
    focal_px = float(values["log_focal"].exp())
    settled = [
        *prior_terms(variables, config.priors, face.head),
        *smoothness_terms(variables, config.smoothness, time_steps(batch, poses, face, focal_px, config)),
        *extra,
    ]
    terms = [
        landmark_term(face, batch, poses.pixels_per_metre, values, config, principal_point),
        *dense_terms(face, batch, poses.pixels_per_metre, config.dense, principal_point),
        *settled,
    ]
    values = solve(terms, variables, values, config.solver(config.tracking.iterations)).values
    if face.dense is not None and batch.dense is not None and config.dense.outline_inflation > 0 and config.dense.refine_iterations > 0:
        terms = [
            landmark_term(face, batch, poses.pixels_per_metre, values, config, principal_point),
            *dense_terms(face, batch, poses.pixels_per_metre, config.dense, principal_point, values),
            *settled,
        ]
        values = solve(terms, variables, values, config.solver(config.dense.refine_iterations)).values
    if config.dense.compare and face.dense is not None and batch.dense is not None:
        terms = [
            landmark_term(face, batch, poses.pixels_per_metre, values, config, principal_point),
            *compare_terms(face, batch, values, config.dense, principal_point),
            *settled,
        ]
        values = solve(terms, variables, values, config.solver(config.dense.compare_iterations)).values
    if batch.pictures is not None:
        terms = [
            landmark_term(face, batch, poses.pixels_per_metre, values, config, principal_point),
            *dense_terms(face, batch, poses.pixels_per_metre, config.dense, principal_point, values),
            *colour_terms(face, batch, values, appearance, config.photometric, principal_point),
            *settled,
        ]
        values = solve(terms, variables, values, config.solver(config.photometric.iterations)).values
    return values


def time_steps(
    batch: FrameBatch,
    poses: RigidPose,
    face: FaceLandmarks,
    focal_px: float,
    config: TrackerConfig,
) -> Float[Tensor, "frames"]:
    """Seconds since the frame before; infinite for the first frame, across gaps and across cuts."""
    steps = torch.full_like(batch.timestamps, torch.inf)
    steps[1:] = batch.timestamps.diff().clamp_min(1e-3)
    rotations = axis_angle_to_matrix(poses.rotation)
    trace = torch.einsum("fab,fab->f", rotations[1:], rotations[:-1])
    angle = ((trace - 1) / 2).clamp(-1, 1).acos()
    centre, _ = project(poses.translation[:, None] + face.points.joint_template[1], focal_px, (0.0, 0.0))
    unit_px = (poses.pixels_per_metre * face.inter_ocular_m()).clamp_min(1)
    shift = (centre[1:, 0] - centre[:-1, 0]).norm(dim=-1) / unit_px[1:]
    apart = (angle > _CUT_ANGLE_RAD) | (shift > _CUT_SHIFT_INTER_OCULAR) | (steps[1:] > config.tracking.gap_seconds)
    steps[1:][apart] = torch.inf
    return steps


def with_identity(face: FaceLandmarks, identity: Tensor) -> FaceLandmarks:
    """The same head with its identity baked into the templates and no identity left to solve for."""
    dense = face.dense
    if dense is not None:
        dense = replace(dense, points=_baked(dense.points, identity))
    skin = face.skin
    if skin is not None:
        skin = replace(skin, points=_baked(skin.points, identity))
    return replace(face, head=_baked(face.head, identity), points=_baked(face.points, identity), dense=dense, skin=skin)


def _baked(model: HeadModel, identity: Tensor) -> HeadModel:
    shaped = model.with_shape(identity)
    return replace(
        model,
        template=shaped.vertices,
        joint_template=shaped.joints,
        identity_dirs=model.identity_dirs[..., :0],
        joint_identity_dirs=model.joint_identity_dirs[..., :0],
    )


def _median_error(
    face: FaceLandmarks, batch: FrameBatch, values: Mapping[str, Tensor], principal_point: tuple[float, float]
) -> Float[Tensor, "frames"]:
    head = HeadPoints.evaluate(face.points, values)
    focal = values["log_focal"].exp().expand(len(batch))
    pixels, _ = project(head.positions, focal, principal_point)
    distance = (pixels - batch.points[:, face.numbers]).norm(dim=-1)
    error = 100 * distance.median(dim=1).values / batch.inter_ocular_px().clamp_min(1e-6)
    if face.dense is None or batch.dense is None or bool(batch.has_landmarks.all()):
        return error
    # frames without landmarks are judged by the dense places, in the same unit
    seen = batch.dense
    places = HeadPoints.evaluate(face.dense.points, values, seen.offsets)
    pixels, per_metre = project(places.positions, focal, principal_point)
    unit_px = face.inter_ocular_m() * per_metre[:, :, 0, 0].mean(1)
    distance = torch.where(seen.precision > 0, (pixels - seen.pixels).norm(dim=-1), torch.nan)
    by_places = (100 * distance.nanmedian(dim=1).values / unit_px).nan_to_num(torch.inf)
    return torch.where(batch.has_landmarks, error, by_places)
