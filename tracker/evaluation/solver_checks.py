"""How the solver behaves: basin of the dense term, speed against Adam, jitter, amplitudes."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from tracker.config import SmoothnessSettings, TrackerConfig, load_config
from tracker.dense.embedder import HeadEmbedder
from tracker.dense.embedding_store import EmbeddingStore
from tracker.dense.sites import spread_sites
from tracker.evaluation.adam import minimise
from tracker.evaluation.baselines import Preset, Tracker
from tracker.evaluation.motion import amplitude
from tracker.fitting.keyframes import SharedFit, fit_shared
from tracker.fitting.objective import (
    FaceLandmarks,
    dense_terms,
    frame_variables,
    initial_values,
    landmark_term,
    prior_terms,
)
from tracker.fitting.observations import FrameBatch
from tracker.fitting.rigid import RigidPose
from tracker.fitting.sequence import with_identity
from tracker.fitting.solver import Term, Values, solve, total_cost
from tracker.head_track import HeadTrack
from tracker.landmarks.store import LandmarkStore
from tracker.pipeline import Request, observe, one_torch_thread, read_batch
from tracker.report import StageClock
from tracker.rotations import axis_angle_to_matrix, matrix_to_axis_angle


@dataclass(frozen=True)
class Prepared:
    """A clip, looked at and with its identity solved: single frames can be fitted at will."""

    face: FaceLandmarks
    batch: FrameBatch
    shared: SharedFit
    camera: FocalPrior
    config: TrackerConfig

    @property
    def constants(self) -> Values:
        """Values that frames share."""
        return {"shape": self.shared.identity[:0], "log_focal": self.shared.identity.new_tensor([self.shared.focal_px]).log()}


def prepare(video: Path, asset: HeadAsset, max_frames: int) -> Prepared:
    """Landmarks, embeddings and identity of a clip; frames with landmarks are kept."""
    config = load_config("balanced")
    config = dataclasses.replace(config, dense=dataclasses.replace(config.dense, stride=1))
    asset = asset.with_cube(network_cube("lite"))
    sites = spread_sites(asset, config.dense.sites)
    face = FaceLandmarks.build(asset, config.landmarks, "cpu", sites)
    request = Request(video=video, out=Path("."), config=config, max_frames=max_frames, quiet=True)
    with TemporaryDirectory() as folder, LandmarkStore(Path(folder)) as store, EmbeddingStore(Path(folder)) as embeddings:
        embedder = HeadEmbedder("lite", "cpu", asset, sites, config.dense.landmark_doubt)
        facts = observe(request, store, embeddings, None, embedder, StageClock())
        camera = focal_prior(facts.width, facts.height)
        frames = np.flatnonzero(store.found)

        def read(numbers: Tensor, dense: bool = True, places_only: bool = False) -> FrameBatch:
            return read_batch(store, numbers.numpy(), face, embeddings if dense else None, sites, config, not places_only)

        with one_torch_thread():
            shared = fit_shared(face, torch.as_tensor(frames), read, camera, config)
        batch = read(torch.as_tensor(frames))
    return Prepared(with_identity(face, shared.identity), batch, shared, camera, config)


def convergence_share(prepared: Prepared, angle_deg: float = 25.0, shift: float = 0.15, seed: int = 0) -> float:
    """Share of frames whose pose the dense look-up recovers, landmarks off, from a start that is wrong by ``angle_deg`` about a
    random axis and ``shift`` head sizes in a random direction.

    Recovered means within 2° and 2 % of a head size of what it finds from the right start.
    """
    face, batch, camera, config = prepared.face, prepared.batch, prepared.camera, prepared.config
    blind = dataclasses.replace(batch, found=torch.zeros_like(batch.has_landmarks), expression_guess=None)
    poses = face.rigid_poses(batch, prepared.shared.focal_px, camera.principal_point)
    head_size = float(np.ptp(face.head.template.numpy(), axis=0).max())

    def settle(start: RigidPose) -> Values:
        values = initial_values(face, blind, start, config) | prepared.constants
        variables = frame_variables(face.head, config)
        rigid = [v for v in variables if v.name in ("rotation", "translation")]
        # frames are independent here, but share one step size: each alone, as a tracker would meet it
        out = []
        for frame in range(len(batch)):
            index = torch.tensor([frame])
            one = blind.select(index)
            pose = RigidPose(poses.rotation[index], poses.translation[index], poses.pixels_per_metre[index])
            terms = [*dense_terms(face, one, pose.pixels_per_metre, config.dense, camera.principal_point), *prior_terms(variables, config.priors, face.head)]
            here = {k: v[index] if k not in prepared.constants else v for k, v in values.items()}
            here = solve(terms, rigid, here, config.solver(15)).values
            out.append(solve(terms, variables, here, config.solver(8)).values)
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
    face, camera, config = prepared.face, prepared.camera, prepared.config
    frames = min(frames, len(prepared.batch))
    batch = prepared.batch.select(torch.arange(frames))
    poses = face.rigid_poses(batch, prepared.shared.focal_px, camera.principal_point)
    variables = frame_variables(face.head, config)
    start = initial_values(face, batch, poses, config) | prepared.constants

    def terms_of(part: FrameBatch, pose: RigidPose, values: Values) -> list[Term]:
        return [
            landmark_term(face, part, pose.pixels_per_metre, values, config, camera.principal_point),
            *dense_terms(face, part, pose.pixels_per_metre, config.dense, camera.principal_point),
            *prior_terms(variables, config.priors, face.head),
        ]

    def by_solver() -> float:
        return solve(terms_of(batch, poses, start), variables, start, config.solver(config.tracking.iterations)).cost

    def by_adam() -> float:
        terms = terms_of(batch, poses, start)
        return total_cost(terms, minimise(terms, variables, start, steps))

    def frame_by_frame() -> float:
        cost, before = 0.0, None
        for frame in range(frames):
            index = torch.tensor([frame])
            pose = RigidPose(poses.rotation[index], poses.translation[index], poses.pixels_per_metre[index])
            one = {
                k: v[index] if before is None or k in ("rotation", "translation") else before[k]
                for k, v in start.items()
                if k not in prepared.constants
            }
            terms = terms_of(batch.select(index), pose, one | prepared.constants)
            before = minimise(terms, variables, one | prepared.constants, steps)
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
    loose = {"smoothness": dict.fromkeys((f.name for f in dataclasses.fields(SmoothnessSettings)), math.inf)}
    smooth = tracker(video, max_frames).track
    rough = Preset(tracker.preset, {**tracker.changes, **loose})(video, max_frames).track

    def span(track: HeadTrack, names: tuple[str, ...]) -> float:
        return amplitude(track.expr[:, [track.expression_names.index(n) for n in names]].mean(1))

    return {
        label: span(smooth, names) / max(span(rough, names), 1e-6)
        for label, names in (("blink", ("eyeBlinkLeft", "eyeBlinkRight")), ("mouth", ("jawOpen",)))
    }
