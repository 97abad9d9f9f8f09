"""Landmark-only tracking as published trackers do it: 68 points, Adam, 50 steps a frame, each begun where the last ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from flame_assets.asset import HeadAsset, LandmarkEmbedding
from flame_assets.ibug68 import IBUG68_FROM_MEDIAPIPE
from flame_assets.load import load_head
from tracker.camera import FocalPrior, focal_prior
from tracker.config import TrackerConfig, load_config
from tracker.errors import UserError
from tracker.evaluation.adam import minimise
from tracker.evaluation.baselines.interface import Tracked
from tracker.fitting.keyframes import SharedFit, spread_frames
from tracker.fitting.objective import (
    FaceLandmarks,
    frame_variables,
    identity_terms,
    initial_values,
    landmark_term,
    prior_terms,
)
from tracker.fitting.observations import FrameBatch
from tracker.fitting.rigid import RigidPose
from tracker.fitting.sequence import FrameFits
from tracker.fitting.solver import SolverConfig, Term, Values, Variable, solve
from tracker.landmarks.store import LandmarkStore
from tracker.pipeline import Request, assemble, observe, one_torch_thread, read_batch
from tracker.report import StageClock, peak_memory_mb


@dataclass(frozen=True)
class Landmarks68Adam:
    """Identity and focal length from keyframes, then frame after frame, all with Adam.

    The points are MediaPipe's, the objective is the one of this project's landmark-only preset without smoothness: what differs
    is the number of points and the schedule.

    Attributes:
        keyframes: frames that identity and focal length are solved on.
        keyframe_steps, steps: Adam steps there, and in each frame.
    """

    keyframes: int = 16
    keyframe_steps: int = 300
    steps: int = 50

    def __call__(self, video: Path, max_frames: int | None = None) -> Tracked:
        clock, config, asset = StageClock(), load_config("fast"), load_head()
        face = FaceLandmarks.build(_with_68_points(asset), config.landmarks)
        request = Request(video=video, out=Path("."), config=config, preset="fast", max_frames=max_frames, quiet=True)
        with TemporaryDirectory() as folder, LandmarkStore(Path(folder)) as store, one_torch_thread():
            facts = observe(request, store, None, None, None, clock)
            if not store.found.any():
                raise UserError(f"{video}: no face was found")
            camera = focal_prior(facts.width, facts.height)
            frames = np.flatnonzero(store.found)
            batch = read_batch(store, frames, face, None, None, config)
            batch = replace(batch, expression_guess=None)
            poses = face.rigid_poses(batch, camera.focal_px, camera.principal_point)
            chosen = spread_frames(poses.rotation / 0.3, self.keyframes)
            with clock.stage("keyframes"):
                shared = self._shared(face, batch, poses, chosen, camera, config)
            with clock.stage("frames"):
                values = self._frames(face, batch, shared, camera.principal_point, config)
            fits = [FrameFits(torch.as_tensor(frames), values, values["rotation"].new_zeros(len(frames)))]
            track, _ = assemble(store, facts, fits, shared, camera, asset, config)
        return Tracked(track, asset, clock.total, dict(clock.seconds), peak_memory_mb())

    def _shared(
        self, face: FaceLandmarks, batch: FrameBatch, poses: RigidPose, chosen: torch.Tensor, camera: FocalPrior,
        config: TrackerConfig,
    ) -> SharedFit:  # fmt: skip
        part = batch.select(chosen)
        pose = RigidPose(poses.rotation[chosen], poses.translation[chosen], poses.pixels_per_metre[chosen])
        local = frame_variables(face.head, config)
        shared = [Variable("shape", shared=True), Variable("log_focal", shared=True)]
        start = initial_values(face, part, pose, config)
        start["shape"] = pose.rotation.new_zeros(face.head.n_identity)
        start["log_focal"] = pose.rotation.new_tensor([math.log(camera.focal_px)])
        terms = [
            *_terms(face, part, pose.pixels_per_metre, start, local, camera.principal_point, config),
            *identity_terms(config.priors, camera),
        ]
        values = minimise(terms, [*local, *shared], start, self.keyframe_steps)
        # no step is taken: only the solver's report on where Adam ended
        report = solve(terms, [*local, *shared], values, SolverConfig(max_iterations=1))
        return SharedFit(values["shape"], float(values["log_focal"].exp()), 0.0, report, chosen)

    def _frames(
        self, face: FaceLandmarks, batch: FrameBatch, shared: SharedFit,
        principal_point: tuple[float, float], config: TrackerConfig,
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        variables = frame_variables(face.head, config)
        constants = {"shape": shared.identity, "log_focal": shared.identity.new_tensor([math.log(shared.focal_px)])}
        poses = face.rigid_poses(batch, shared.focal_px, principal_point, shared.identity)
        found: list[Values] = []
        for frame in range(len(batch)):
            index = torch.tensor([frame])
            one = batch.select(index)
            pose = RigidPose(poses.rotation[index], poses.translation[index], poses.pixels_per_metre[index])
            start = (found[-1] if found else initial_values(face, one, pose, config)) | constants
            terms = _terms(face, one, pose.pixels_per_metre, start, variables, principal_point, config)
            solved = minimise(terms, variables, start, self.steps)
            found.append({v.name: solved[v.name] for v in variables})
        return {v.name: torch.cat([f[v.name] for f in found]) for v in variables}


def _terms(
    face: FaceLandmarks, batch: FrameBatch, pixels_per_metre: torch.Tensor, values: Values, variables: list[Variable],
    principal_point: tuple[float, float], config: TrackerConfig,
) -> list[Term]:  # fmt: skip
    seen = landmark_term(face, batch, pixels_per_metre, values, config, principal_point)
    return [seen, *prior_terms(variables, config.priors, face.head)]


def _with_68_points(asset: HeadAsset) -> HeadAsset:
    whole = asset.landmarks["mediapipe"]
    row_of = {int(number): row for row, number in enumerate(whole.indices)}
    rows = [row_of[n] for n in IBUG68_FROM_MEDIAPIPE if n in row_of]
    few = LandmarkEmbedding(whole.indices[rows], whole.faces[rows], whole.barycentrics[rows])
    return replace(asset, landmarks={**asset.landmarks, "mediapipe": few})
