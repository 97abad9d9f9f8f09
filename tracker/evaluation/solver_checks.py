"""How the solver behaves: basin of the dense term, speed against Adam, jitter, amplitudes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from densemarks_model.loading import network_cube
from flame_assets.asset import HeadAsset
from tracker.camera import FocalPrior, focal_prior
from tracker.evaluation.adam import minimise
from tracker.evaluation.baselines import Preset, Tracker
from tracker.evaluation.motion import amplitude
from tracker.head_track import HeadTrack
from tracker.observe.embedder import HeadEmbedder
from tracker.observe.first_pass import observe
from tracker.observe.frame_batch import FrameBatch
from tracker.observe.reading import ObservationReader
from tracker.observe.sites import spread_sites
from tracker.pipeline import one_torch_thread
from tracker.residuals.fit_head import FitHead
from tracker.residuals.state import FitState
from tracker.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from tracker.settings import TrackerSettings, load_settings
from tracker.solver import SolverConfig, Term, Values, solve, total_cost
from tracker.stages.fit import head_for
from tracker.stages.keyframes import SharedFit, fit_shared
from tracker.stages.recipe import initial_values, terms_of, variables
from tracker.stages.rigid import RigidPose, first_poses
from tracker.video.reader import VideoPart, VideoSource

_FREE = ("pose", "face", "neck")


@dataclass(frozen=True)
class Prepared:
    """A clip, looked at and with its identity solved: single frames can be fitted at will."""

    head: FitHead
    batch: FrameBatch
    shared: SharedFit
    camera: FocalPrior
    settings: TrackerSettings

    @property
    def constants(self) -> Values:
        """Values that frames share."""
        return {"shape": self.shared.identity[:0], "log_focal": self.shared.identity.new_tensor([self.shared.focal_px]).log()}

    @property
    def poses(self) -> RigidPose:
        """Closed-form poses of the frames."""
        return first_poses(self.head, self.batch, self.shared.focal_px, self.camera.principal_point)

    def start(self, batch: FrameBatch, poses: RigidPose) -> Values:
        """Where the fit of frames in these poses begins."""
        return initial_values(self.head.model, batch, poses, self.settings) | self.constants

    def terms(self, names: tuple[str, ...], batch: FrameBatch, poses: RigidPose, values: Values) -> list[Term]:
        """What some cues say of frames at ``values``."""
        state = FitState(self.head, batch, values, frozenset(), poses.pixels_per_metre, self.camera)
        return [term for said in terms_of(names, state, self.settings).values() for term in said]


def prepare(video: Path, asset: HeadAsset, max_frames: int) -> Prepared:
    """Landmarks, embeddings and identity of a clip; frames with landmarks are kept."""
    settings = load_settings("balanced", changes={"observe": {"stride": 1}})
    asset = asset.with_cube(network_cube("lite"))
    embedder = HeadEmbedder("lite", "cpu", asset, spread_sites(asset, settings.observe.sites), settings.observe.landmark_doubt)
    source = VideoSource(video, VideoPart(max_frames))
    with one_torch_thread(), observe(source, settings.observe, embedder=embedder) as observations:
        head = head_for(asset, settings, observations)
        assert head.dense is not None
        camera = focal_prior(observations.facts.width, observations.facts.height)
        frames = torch.as_tensor(np.flatnonzero(observations.found))
        read = ObservationReader.of(observations, head.model, head.dense.sites)
        shared = fit_shared(head, frames, read, camera, settings)
        batch = read(frames)
    return Prepared(head.with_identity(shared.identity), batch, shared, camera, settings)


def convergence_share(prepared: Prepared, angle_deg: float = 25.0, shift: float = 0.15, seed: int = 0) -> float:
    """Share of frames whose pose the dense look-up recovers, landmarks off, from a start that is wrong by ``angle_deg`` about a
    random axis and ``shift`` head sizes in a random direction.

    Recovered means within 2° and 2 % of a head size of what it finds from the right start.
    """
    head, batch, poses = prepared.head, prepared.batch, prepared.poses
    blind = replace(batch, found=torch.zeros_like(batch.has_landmarks), expression_guess=None)
    head_size = float(np.ptp(head.model.template.numpy(), axis=0).max())

    def settle(start: RigidPose) -> Values:
        values = prepared.start(blind, start)
        free, rigid = (variables(groups, head.model, prepared.camera, prepared.settings) for groups in (_FREE, ("pose",)))
        # frames are independent here, but share one step size: each alone, as a tracker would meet it
        out = []
        for frame in range(len(batch)):
            index = torch.tensor([frame])
            one = blind.select(index)
            here = {k: v[index] if k not in prepared.constants else v for k, v in values.items()}
            terms = prepared.terms(("look_up", "priors"), one, poses.select(index), here)
            here = solve(terms, rigid, here, SolverConfig(max_iterations=15)).values
            out.append(solve(terms, free, here, SolverConfig(max_iterations=8)).values)
        return {k: torch.cat([o[k] for o in out]) for k in ("rotation", "translation", "neck_pose")}

    def skull(values: Values) -> Tensor:
        return axis_angle_to_matrix(values["rotation"]) @ axis_angle_to_matrix(values["neck_pose"])

    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(len(batch), 3))
    turn = Rotation.from_rotvec(np.deg2rad(angle_deg) * axes / np.linalg.norm(axes, axis=1, keepdims=True))
    rotation = torch.as_tensor(turn.as_matrix(), dtype=torch.float32) @ axis_angle_to_matrix(poses.rotation)
    move = rng.normal(size=(len(batch), 3))
    move *= shift * head_size / np.linalg.norm(move, axis=1, keepdims=True)
    wrong = RigidPose(matrix_to_axis_angle(rotation), poses.translation + torch.as_tensor(move, dtype=torch.float32), poses.pixels_per_metre)
    with one_torch_thread():
        right, found = settle(poses), settle(wrong)
    trace = torch.einsum("fab,fab->f", skull(right), skull(found))
    angle = torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos())
    distance = (right["translation"] - found["translation"]).norm(dim=1) / head_size
    return float(((angle < 2) & (distance < 0.02)).float().mean())


@dataclass(frozen=True)
class Schedule:
    """What a way of minimising took and reached: milliseconds a frame, the least of some runs, and the sum over frames of half
    the robust squares."""

    ms: float
    cost: float


@dataclass(frozen=True)
class AdamComparison:
    """The solver and Adam on the same residuals from the same start.

    Attributes:
        solver: Gauss–Newton steps, all frames at once.
        adam: Adam, all frames at once: what the solver is to be compared with.
        serial_adam: Adam frame after frame, each begun where the one before ended, as published trackers do.
    """

    solver: Schedule
    adam: Schedule
    serial_adam: Schedule

    def json(self) -> dict[str, float]:
        """The figures by the names that the benchmark's reports read."""
        return {
            "ms_per_frame": self.solver.ms,
            "cost": self.solver.cost,
            "adam_ms_per_frame": self.adam.ms,
            "adam_cost": self.adam.cost,
            "speedup_over_adam": self.adam.ms / self.solver.ms,
            "serial_adam_ms_per_frame": self.serial_adam.ms,
            "serial_adam_cost": self.serial_adam.cost,
            "speedup_over_serial_adam": self.serial_adam.ms / self.solver.ms,
        }


def compare_with_adam(prepared: Prepared, frames: int = 16, steps: int = 50, repeats: int = 3) -> AdamComparison:
    """Gauss–Newton steps on a window of frames against ``steps`` Adam steps, on the whole window and frame after frame.

    Landmarks, dense look-up and priors; no smoothness, which frames that are solved one by one cannot share. Times are the
    least of ``repeats`` runs.
    """
    settings = prepared.settings
    frames = min(frames, len(prepared.batch))
    index = torch.arange(frames)
    batch, poses = prepared.batch.select(index), prepared.poses.select(index)
    free = variables(_FREE, prepared.head.model, prepared.camera, settings)
    start = prepared.start(batch, poses)
    iterations = next(iter(settings.window_stages.values())).iterations

    def terms_at(part: FrameBatch, pose: RigidPose, values: Values) -> list[Term]:
        return prepared.terms(("landmarks", "look_up", "priors"), part, pose, values)

    def by_solver() -> float:
        return solve(terms_at(batch, poses, start), free, start, SolverConfig(max_iterations=iterations)).cost

    def by_adam() -> float:
        terms = terms_at(batch, poses, start)
        return total_cost(terms, minimise(terms, free, start, steps))

    def frame_by_frame() -> float:
        cost, before = 0.0, None
        for frame in range(frames):
            index = torch.tensor([frame])
            one = {
                k: v[index] if before is None or k in ("rotation", "translation") else before[k]
                for k, v in start.items()
                if k not in prepared.constants
            }
            terms = terms_at(batch.select(index), poses.select(index), one | prepared.constants)
            before = minimise(terms, free, one | prepared.constants, steps)
            cost += total_cost(terms, before)
        return cost

    def timed(minimised: Callable[[], float]) -> Schedule:
        seconds, cost = math.inf, math.nan
        for _ in range(repeats):
            began = time.perf_counter()
            cost = minimised()
            seconds = min(seconds, time.perf_counter() - began)
        return Schedule(1000 * seconds / frames, cost)

    with one_torch_thread():
        by_solver()  # the first call compiles and allocates
        return AdamComparison(timed(by_solver), timed(by_adam), timed(frame_by_frame))


def static_jitter_deg(image: np.ndarray, tracker: Tracker, frames: int = 40, noise: float = 3.0) -> float:
    """RMS rotation about its mean of a head that stands still: one RGB frame repeated with fresh camera noise (8-bit levels)."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        for k in range(frames):
            noisy = np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(Path(folder) / f"{k:05d}.png"), cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR))
        rotation = Rotation.from_matrix(tracker(Path(folder)).skull_rotation)
    away = (rotation.mean().inv() * rotation).magnitude()
    return float(np.degrees(np.sqrt((away**2).mean())))


def amplitude_kept(video: Path, tracker: Preset, max_frames: int) -> dict[str, float]:
    """Range (2nd to 98th percentile) of blinks and of the mouth's opening, relative to the same preset without smoothing."""
    smooth = tracker(video, max_frames).track
    rough = replace(tracker, without=(*tracker.without, "smoothness"))(video, max_frames).track

    def span(track: HeadTrack, names: tuple[str, ...]) -> float:
        return amplitude(track.expr[:, [track.expression_names.index(n) for n in names]].mean(1))

    return {
        label: span(smooth, names) / max(span(rough, names), 1e-6)
        for label, names in (("blink", ("eyeBlinkLeft", "eyeBlinkRight")), ("mouth", ("jawOpen",)))
    }
