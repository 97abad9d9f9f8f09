"""Stages as data become solves: variables by their groups, terms by their cues."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tracker.camera import FocalPrior
from tracker.head_model import HeadModel
from tracker.observe.frame_batch import FrameBatch
from tracker.residuals.cues import cues
from tracker.residuals.state import FitState
from tracker.solver import Solution, SolverConfig, Term, Values, Variable, solve
from tracker.stages.fit_settings import FitBase, Stage
from tracker.stages.rigid import RigidPose

_FOCAL_SIGMAS = 4.0  # how far from its prior a focal length may move, in standard deviations


def variables(groups: Iterable[str], head: HeadModel, camera: FocalPrior, settings: FitBase) -> list[Variable]:
    """The variables of some groups, with their limits.

    Heads whose expressions open the jaw (the ARKit shapes) keep the jaw joint at rest: both at once would be the same
    motion twice. A focal length that is known is no variable.
    """
    free, found = set(groups), []
    if "pose" in free:
        found += [Variable("rotation"), Variable("translation")]
    if "face" in free:
        low, high = head.expression_range
        limit = settings.limits.eyes_rad
        found += [Variable("expr", lower=low, upper=high), Variable("eyes_pose", lower=-limit, upper=limit)]
        if not has_jaw_expressions(head):
            # about x the jaw opens (positive) and hardly goes beyond closed; sideways and twist are small
            low_jaw, high_jaw = (head.template.new_tensor(bound) for bound in ([-0.1, -0.2, -0.1], [0.6, 0.2, 0.1]))
            found.append(Variable("jaw_pose", lower=low_jaw, upper=high_jaw))
    if "neck" in free:
        found.append(Variable("neck_pose", lower=-settings.limits.neck_rad, upper=settings.limits.neck_rad))
    if "identity" in free:
        found.append(Variable("shape", shared=True))
    if "focal" in free and camera.log_sigma > 0:
        low, high = focal_limits(camera)
        found.append(Variable("log_focal", shared=True, lower=low, upper=high))
    return found


def focal_limits(camera: FocalPrior) -> tuple[float, float]:
    """Between which values the logarithm of an unknown focal length may move."""
    middle, reach = math.log(camera.focal_px), _FOCAL_SIGMAS * camera.log_sigma
    return middle - reach, middle + reach


def has_jaw_expressions(head: HeadModel) -> bool:
    """Whether expression shapes of the head open the jaw, so that its joint need not."""
    return "jawOpen" in head.expression_names


def initial_values(head: HeadModel, batch: FrameBatch, poses: RigidPose, settings: FitBase) -> Values:
    """Starting values of the frames' variables."""
    frames, zeros = len(batch), poses.rotation.new_zeros
    guess = batch.expression_guess
    values = {
        "rotation": poses.rotation,
        "translation": poses.translation,
        "expr": zeros(frames, head.n_expression) if guess is None else guess,
        "eyes_pose": zeros(frames, 6),
    }
    if not has_jaw_expressions(head):
        values["jaw_pose"] = zeros(frames, 3)
    if "neck" in settings.groups:
        values["neck_pose"] = zeros(frames, 3)
    return values


def terms_of(names: Iterable[str], state: FitState, settings: FitBase) -> dict[str, list[Term]]:
    """What each of some cues has to say of a state."""
    return {name: cues()[name].terms(state, settings.cue(name)) for name in names}


def run_stages(
    stages: Iterable[Stage], state: FitState, settings: FitBase, extra: Sequence[Term] = ()
) -> tuple[FitState, Solution | None]:
    """Solve stage after stage, each from where the last one ended.

    Args:
        stages: what is free and what counts.
        state: the frames, and where their values begin.
        settings: of the cues, and limits.
        extra: terms that count in every stage.

    Returns:
        The state at the end, and the solver's report on the last solve; None when no stage had anything to solve.
    """
    solution = None
    for stage in stages:
        free = variables(stage.free, state.head.model, state.camera, settings)
        state = state.freeing(frozenset(v.name for v in free))
        for _ in range(stage.rounds):
            said = terms_of(stage.cues, state, settings)
            if stage.needs is not None and not said.get(stage.needs):
                break
            terms = [*(term for found in said.values() for term in found), *extra]
            solution = solve(terms, free, state.values, SolverConfig(max_iterations=stage.iterations))
            state = state.at(solution.values)
    return state, solution

