"""Identity and focal length from a handful of well-spread frames, solved jointly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import FocalPrior, focal_inflation, focal_posterior_log_sigma
from tracker.observe.frame_batch import FrameBatch
from tracker.observe.reading import DENSE, PICTURES
from tracker.residuals.appearance import Appearance, estimate_appearance
from tracker.residuals.fit_head import FitHead
from tracker.residuals.photometric import look_at_skin
from tracker.residuals.state import FitState
from tracker.solver import Solution
from tracker.stages.fit_settings import FitBase, reads_of
from tracker.stages.recipe import initial_values, run_stages
from tracker.stages.rigid import first_poses
from tracker.stages.start import Start

# Candidates without landmarks are read in groups of so many: their maps are large, and only poses are wanted.
_READ_AT_ONCE = 64

ReadFrames = Callable[[Tensor, frozenset[str]], FrameBatch]
"""Gives what is known of some frames: landmarks, and what is asked for (see :class:`tracker.observe.ObservationReader`)."""


@dataclass(frozen=True)
class SharedFit:
    """What all frames share.

    Attributes:
        identity: coefficients.
        focal_px: pixels.
        focal_log_sigma: posterior standard deviation of ``log(focal)``, residuals that err together allowed for; 0 when it was given.
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
    head: FitHead, offered: Tensor, read: ReadFrames, camera: FocalPrior, settings: FitBase, begin: Start | None = None
) -> SharedFit:
    """Choose keyframes among the ``offered`` frames and solve identity, focal length and the keyframes' own parameters.

    Args:
        head: the head at its landmarks, sites and skin.
        offered: numbers of frames with landmarks or dense correspondences.
        read: gives what is known of some frames.
        camera: what is known of the camera.
        settings: with the keyframes' stages; one of them must free identity.
        begin: an earlier track to start from.
    """
    keyframes = choose_keyframes(head, offered, read, camera, settings.keyframes.count)
    stages = settings.keyframe_stages.values()
    # where some stage looks at colours, the keyframes tell what colours the clip has
    batch = read(keyframes, reads_of(stages) | (settings.reads & {DENSE, PICTURES}))
    poses = first_poses(head, batch, camera.focal_px, camera.principal_point)
    values = initial_values(head.model, batch, poses, settings)
    values["shape"] = poses.rotation.new_zeros(head.model.n_identity)
    values["log_focal"] = poses.rotation.new_tensor([math.log(camera.focal_px if begin is None else begin.focal_px(camera))])
    if begin is not None:
        values["shape"] = begin.shape(like=values["shape"])
        values = begin.begun(head, batch, keyframes, values, camera.principal_point)
    state = FitState(head, batch, values, frozenset(), poses.pixels_per_metre, camera)
    state, solution = run_stages(stages, state, settings)
    if solution is None:
        raise ValueError("the keyframes have no stage to solve")
    view = look_at_skin(state)
    return SharedFit(
        identity=state.values["shape"],
        focal_px=float(state.values["log_focal"].exp()),
        focal_log_sigma=_focal_sigma(solution, camera, len(keyframes)),
        solution=solution,
        keyframes=keyframes,
        appearance=None if view is None else estimate_appearance(view.colours, view.normals, view.weight),
    )


def choose_keyframes(head: FitHead, offered: Tensor, read: ReadFrames, camera: FocalPrior, count: int) -> Tensor:
    """Numbers of the offered frames that differ most in pose and expression, ``count`` at most, in order."""
    candidates = read(offered, frozenset())
    turned = first_poses(head, candidates, camera.focal_px, camera.principal_point).rotation
    blind = ~candidates.has_landmarks
    if bool(blind.any()):
        seen = (read(group, frozenset({DENSE})) for group in offered[blind.cpu()].split(_READ_AT_ONCE))
        turned[blind] = torch.cat([first_poses(head, batch, camera.focal_px, camera.principal_point).rotation for batch in seen])
    features = [turned / 0.3]  # 0.3 rad of turn counts like one fully raised expression
    if candidates.expression_guess is not None:
        features.append(candidates.expression_guess)
    return offered[spread_frames(torch.cat(features, dim=1), count).cpu()]


def _focal_sigma(solution: Solution, camera: FocalPrior, frames: int) -> float:
    variance = 0.0 if solution.shared_covariance is None else float(solution.shared_covariance[-1, -1])
    if camera.log_sigma == 0 or variance <= 0:
        return camera.log_sigma
    return focal_posterior_log_sigma(math.sqrt(variance), camera, focal_inflation(frames))
