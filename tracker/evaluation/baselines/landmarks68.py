"""Landmark-only tracking as published trackers do it: 68 points, Adam, 50 steps a frame, each begun where the last ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from flame_assets.asset import HeadAsset, LandmarkEmbedding
from flame_assets.ibug68 import IBUG68_FROM_MEDIAPIPE
from flame_assets.load import load_head
from tracker.camera import FocalPrior, focal_prior
from tracker.errors import UserError
from tracker.evaluation.adam import minimise
from tracker.evaluation.baselines.interface import Tracked
from tracker.observe.first_pass import observe
from tracker.observe.frame_batch import FrameBatch
from tracker.observe.reading import ObservationReader
from tracker.pipeline import one_torch_thread
from tracker.progress import StageClock
from tracker.residuals.fit_head import FitHead
from tracker.residuals.state import FitState
from tracker.run_report import peak_memory_mb
from tracker.settings import TrackerSettings, load_settings
from tracker.solver import SolverConfig, Term, Values, solve
from tracker.stages.fit import assemble
from tracker.stages.keyframes import SharedFit, spread_frames
from tracker.stages.recipe import initial_values, terms_of, variables
from tracker.stages.rigid import RigidPose, first_poses
from tracker.stages.windows import FrameFits
from tracker.video.reader import VideoPart, VideoSource

_FREE = ("pose", "face")
_CUES = ("landmarks", "priors")


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
        clock, settings, asset = StageClock(), load_settings("fast"), load_head()
        head = FitHead.build(_with_68_points(asset))
        source = VideoSource(video, VideoPart(max_frames))
        with one_torch_thread(), observe(source, settings.observe, clock=clock) as observations:
            frames = np.flatnonzero(observations.found)
            if not len(frames):
                raise UserError(f"{video}: no face was found")
            camera = focal_prior(observations.facts.width, observations.facts.height)
            batch = ObservationReader.of(observations, head.model, None)(torch.as_tensor(frames))
            batch = replace(batch, expression_guess=None)  # expressions do not start from the detector's scores
            poses = first_poses(head, batch, camera.focal_px, camera.principal_point)
            chosen = spread_frames(poses.rotation / 0.3, self.keyframes)
            with clock.stage("keyframes"):
                shared = self._shared(head, batch, poses, chosen, camera, settings)
            with clock.stage("frames"):
                values = self._frames(head, batch, shared, camera.principal_point, settings)
            fits = [FrameFits(torch.as_tensor(frames), values, values["rotation"].new_zeros(len(frames)))]
            found = assemble(observations, fits, shared, camera, asset, settings.windows.max_error_percent)
        return Tracked(found.track, asset, clock.total, dict(clock.seconds), peak_memory_mb())

    def _shared(
        self, head: FitHead, batch: FrameBatch, poses: RigidPose, chosen: torch.Tensor, camera: FocalPrior,
        settings: TrackerSettings,
    ) -> SharedFit:  # fmt: skip
        part, pose = batch.select(chosen), poses.select(chosen)
        free = variables((*_FREE, "identity", "focal"), head.model, camera, settings)
        start = initial_values(head.model, part, pose, settings)
        start["shape"] = pose.rotation.new_zeros(head.model.n_identity)
        start["log_focal"] = pose.rotation.new_tensor([math.log(camera.focal_px)])
        names = frozenset(v.name for v in free)
        terms = _terms(FitState(head, part, start, names, pose.pixels_per_metre, camera), settings)
        values = minimise(terms, free, start, self.keyframe_steps)
        # no step is taken: only the solver's report on where Adam ended
        report = solve(terms, free, values, SolverConfig(max_iterations=1))
        return SharedFit(values["shape"], float(values["log_focal"].exp()), 0.0, report, chosen)

    def _frames(
        self, head: FitHead, batch: FrameBatch, shared: SharedFit, principal_point: tuple[float, float],
        settings: TrackerSettings,
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        camera = FocalPrior(shared.focal_px, 0.0, principal_point)
        head = head.with_identity(shared.identity)
        free = variables(_FREE, head.model, camera, settings)
        names = frozenset(v.name for v in free)
        constants = {"shape": shared.identity[:0], "log_focal": shared.identity.new_tensor([math.log(shared.focal_px)])}
        poses = first_poses(head, batch, shared.focal_px, principal_point)
        found: list[Values] = []
        for frame in range(len(batch)):
            index = torch.tensor([frame])
            one, pose = batch.select(index), poses.select(index)
            start = (found[-1] if found else initial_values(head.model, one, pose, settings)) | constants
            terms = _terms(FitState(head, one, start, names, pose.pixels_per_metre, camera), settings)
            solved = minimise(terms, free, start, self.steps)
            found.append({name: solved[name] for name in names})
        return {name: torch.cat([f[name] for f in found]) for name in names}


def _terms(state: FitState, settings: TrackerSettings) -> list[Term]:
    return [term for said in terms_of(_CUES, state, settings).values() for term in said]


def _with_68_points(asset: HeadAsset) -> HeadAsset:
    whole = asset.landmarks["mediapipe"]
    row_of = {int(number): row for row, number in enumerate(whole.indices)}
    rows = [row_of[n] for n in IBUG68_FROM_MEDIAPIPE if n in row_of]
    few = LandmarkEmbedding(whole.indices[rows], whole.faces[rows], whole.barycentrics[rows])
    return replace(asset, landmarks={**asset.landmarks, "mediapipe": few})
