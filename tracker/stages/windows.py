"""Every frame's pose, expression and gaze: windows of frames, each solved jointly and smoothed in both directions.

A window starts from closed-form poses and from the expressions that the window before ended with, so one bad frame never
spoils the next; or from an earlier track, where there is one. It is tied to the last finished frame by an anchor, and its last frames are solved again as the first
ones of the next window, so that every frame is smoothed with a past and a future and no lag appears.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import FocalPrior, project
from tracker.observe.frame_batch import FrameBatch
from tracker.residuals.anchor import AnchorResidual
from tracker.residuals.fit_head import FitHead
from tracker.residuals.state import FitState
from tracker.rotations import axis_angle_to_matrix
from tracker.solver import Term
from tracker.stages.fit_settings import FitBase, reads_of
from tracker.stages.keyframes import ReadFrames, SharedFit
from tracker.stages.landmark_error import landmark_error_percent
from tracker.stages.recipe import initial_values, run_stages
from tracker.stages.rigid import RigidPose, first_poses
from tracker.stages.start import Start

# A head turns or moves this much between two frames only at a cut (or when another person is picked up).
_CUT_ANGLE_RAD = 0.7
_CUT_SHIFT_INTER_OCULAR = 2.0


@dataclass(frozen=True)
class FrameFits:
    """Solved frames, in order.

    Attributes:
        frames: their positions in the sequence.
        values: per-frame parameters, VHAP's names.
        error_percent: median landmark error of each frame, in percent of its inter-ocular distance; the sites'
            error where no landmarks were found.
    """

    frames: Tensor
    values: dict[str, Tensor]
    error_percent: Float[Tensor, "frames"]


def fit_frames(
    head: FitHead,
    frames: Tensor,
    read: ReadFrames,
    shared: SharedFit,
    principal_point: tuple[float, float],
    settings: FitBase,
    begin: Start | None = None,
    tied: Mapping[str, Tensor] | None = None,
) -> Iterator[FrameFits]:
    """Solve ``frames`` window by window; yields the finished frames of each.

    Args:
        head: the head at its landmarks, sites and skin.
        frames: positions of the frames that have a head, increasing.
        read: gives what is known of some frames; only one window's is held at a time.
        shared: identity and focal length, constant here.
        principal_point: pixels.
        settings: with the windows' stages.
        begin: an earlier track to start from.
        tied: values of all ``frames``, one row each, to go on from with the stages of tied frames.
    """
    size, lookahead = settings.windows.frames, min(settings.windows.lookahead, settings.windows.frames - 1)
    stages = (settings.window_stages if tied is None else settings.tied_stages).values()
    reads = reads_of(stages)
    camera = FocalPrior(shared.focal_px, 0.0, principal_point)
    # the identity is fixed from here on: bake it into the head once
    head = head.with_identity(shared.identity)
    constants = {"log_focal": shared.identity.new_tensor([shared.focal_px]).log(), "shape": shared.identity[:0]}

    last: dict[str, Tensor] | None = None  # the last finished frame, (1, d) each
    last_position: Tensor | None = None
    start = 0
    while start < len(frames):
        stop = min(start + size, len(frames))
        fresh = frames[start:stop]
        positions = fresh if last_position is None else torch.cat([last_position, fresh])
        batch = read(positions, reads)
        poses = first_poses(head, batch, shared.focal_px, principal_point)
        values = initial_values(head.model, batch, poses, settings)
        names = tuple(values)
        values |= constants
        if last is not None and batch.expression_guess is None:
            values["expr"] = last["expr"].expand(len(batch), -1).clone()
        if begin is not None:
            values = begin.begun(head, batch, positions, values, principal_point)
        if tied is not None:
            values |= {name: value[stop - len(fresh) - (last is not None) : stop] for name, value in tied.items()}
        ties: list[Term] = []
        if last is not None:
            for name, value in last.items():
                values[name] = torch.cat([value, values[name][1:]])
            ties.append(Term("anchor", AnchorResidual(last)))
        steps = time_steps(head, batch, poses, shared.focal_px, settings.windows.gap_seconds)
        state = FitState(head, batch, values, frozenset(), poses.pixels_per_metre, camera, steps, shared.appearance)
        state, _ = run_stages(stages, state, settings, ties)
        finished = len(fresh) if stop == len(frames) else max(len(fresh) - lookahead, 1)
        offset = len(positions) - len(fresh)
        kept = {name: state.values[name][offset : offset + finished] for name in names}
        error = landmark_error_percent(head, batch, state.values, principal_point)[offset : offset + finished]
        yield FrameFits(fresh[:finished], kept, error)
        last = {name: value[-1:] for name, value in kept.items()}
        last_position = fresh[finished - 1 : finished]
        start += finished


def time_steps(
    head: FitHead, batch: FrameBatch, poses: RigidPose, focal_px: float, gap_seconds: float
) -> Float[Tensor, "frames"]:
    """Seconds since the frame before; infinite for the first frame, across gaps and across cuts."""
    steps = torch.full_like(batch.timestamps, torch.inf)
    steps[1:] = batch.timestamps.diff().clamp_min(1e-3)
    rotations = axis_angle_to_matrix(poses.rotation)
    trace = torch.einsum("fab,fab->f", rotations[1:], rotations[:-1])
    angle = ((trace - 1) / 2).clamp(-1, 1).acos()
    centre, _ = project(poses.translation[:, None] + head.landmarks.joint_template[1], focal_px, (0.0, 0.0))
    unit_px = (poses.pixels_per_metre * head.inter_ocular_m()).clamp_min(1)
    shift = (centre[1:, 0] - centre[:-1, 0]).norm(dim=-1) / unit_px[1:]
    apart = (angle > _CUT_ANGLE_RAD) | (shift > _CUT_SHIFT_INTER_OCULAR) | (steps[1:] > gap_seconds)
    steps[1:][apart] = torch.inf
    return steps
