"""The second seam: observations in, a track out. No video, no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from flame_assets.asset import HeadAsset
from tracker.camera import FocalPrior, focal_prior
from tracker.errors import UserError
from tracker.head_track import POSE_SIZES, HeadTrack
from tracker.observe.observations import Observations
from tracker.observe.reading import DENSE, PICTURES, ObservationReader
from tracker.observe.sites import skin_triangles, spread_points, spread_sites
from tracker.progress import Progress, StageClock, silent
from tracker.residuals.appearance import Appearance
from tracker.residuals.fit_head import FitHead
from tracker.stages.fit_settings import FitBase, WindowSettings
from tracker.stages.gaps import filled, nearest_index, short_gaps
from tracker.stages.identities import Identities, fit_identities
from tracker.stages.keyframes import SharedFit
from tracker.stages.start import Start
from tracker.stages.tied_windows import fit_shot
from tracker.stages.windows import FrameFits

_CROSSFADES_TOLD = 8  # in a note
_DEFAULT_LIMIT = WindowSettings().max_error_percent

DENSE_ONLY_CONFIDENCE = 0.5
"""Confidence at most of frames whose face no detector found and the dense cues alone tracked."""

# Landmark error up to which a frame's confidence is the detector's own: percent, and at most this share of the limit.
_FULL_ERROR_PERCENT, _FULL_ERROR_SHARE = 2.0, 0.1


@dataclass(frozen=True)
class Fit:
    """A track, and what its fit found beside it.

    Attributes:
        track: the result.
        error_percent: each frame's median landmark error, percent of its inter-ocular distance; infinite without a tracked head.
        focal_log_sigma: posterior standard deviation of ``log(focal)``, 0 when it was given.
        appearance: albedo and light of the skin, or None; of the first person where shots show several.
        found: frames whose landmarks counted.
        started: how many frames an earlier track knew; None when there was none.
        crossfades: first and last frame of each, about.
    """

    track: HeadTrack
    error_percent: Float[np.ndarray, "frames"]
    focal_log_sigma: float
    appearance: Appearance | None
    found: Bool[np.ndarray, "frames"]
    started: int | None = None
    crossfades: tuple[tuple[int, int], ...] = ()

    def notes(self) -> Iterator[str]:
        """What the user should know of how the frames were tracked, one sentence each."""
        track = self.track
        if self.crossfades:
            some = ", ".join(f"{first}–{last}" for first, last in self.crossfades[:_CROSSFADES_TOLD])
            yield f"crossfades at about frames {some}{' and others' if len(self.crossfades) > _CROSSFADES_TOLD else ''}: their frames show two pictures at once"
        if self.started is not None:
            yield f"the track to start from has a head in {self.started} of these {track.n_frames} frames"
        if track.n_people > 1:
            yield (
                f"the shots show {track.n_people} people, who have an identity each; formats that hold one identity (vhap, gaussian-avatars, "
                "nerf, texture) hold that of the person in most frames"
            )
        blind = int((track.tracked & ~self.found).sum())
        if blind:
            yield (
                f"{blind} frames have no detected face, or one that the network contradicts, and were tracked by the dense cues "
                f"alone, with confidence at most {DENSE_ONLY_CONFIDENCE:g}"
            )
        between = int((track.valid & ~track.tracked).sum())
        if between:
            yield f"{between} frames without a tracked head lie in short gaps and are interpolated (interpolated=True)"
        missing = int((~track.valid).sum())
        if missing:
            yield f"{missing} frames have no tracked head; they hold the nearest tracked frame's values, with valid=False"


def fit(
    observations: Observations,
    asset: HeadAsset,
    settings: FitBase,
    camera: FocalPrior | None = None,
    *,
    start: HeadTrack | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    clock: StageClock | None = None,
) -> Fit:
    """Fit a head to observations: identity and focal length on keyframes, then every frame. Shots are fitted apart, but for the
    identity of people whom several of them show.

    Args:
        observations: what was seen.
        asset: the head, in the cube of the network that looked.
        settings: a preset's stages and cues.
        camera: what is known of it; the usual prior when None.
        start: an earlier track of this head and video, whose values the solver starts from where they are no worse than its own.
        device: where the fit runs.
        progress, clock: to be told.

    Raises:
        UserError: no head in any frame; ``start`` is of another head, or of no frame of these.
    """
    clock, facts = clock or StageClock(), observations.facts
    camera = camera or focal_prior(facts.width, facts.height)
    tracked = observations.seen
    if len(tracked) == 0:
        raise UserError(
            f"no face was found in any of the {len(observations)} frames; the face must be larger than about "
            f"40 pixels and not turned away{''.join(f'. Besides, {note}' for note in facts.notes)}"
        )
    begin = None if start is None else Start.of(start, asset, observations.timestamps, (facts.height, facts.width))
    head = head_for(asset, settings, observations, device)
    sites = None if head.dense is None else head.dense.sites
    read = ObservationReader.of(observations, head.model, sites)
    shots = observations.shots
    with clock.stage("keyframes"):
        offered = without_crossfades(tracked, shots, observations.crossfades)
        identities = fit_identities(head, offered, shots, observations.look.skin, read, camera, settings, begin, progress)
    fits: list[FrameFits] = []
    with clock.stage("frames"):
        for shot, person in identities.person_of_shot.items():
            own, shared = torch.as_tensor(tracked[shots[tracked] == shot]), identities.people[person]
            known, before = begin if person == 0 else None, sum(len(f.frames) for f in fits)

            def said(name: str, frames: int, before: int = before) -> None:
                progress(name, before + frames, len(tracked))

            fits += fit_shot(asset, head, own, read, shared, camera.principal_point, settings, known, said)
    windows = settings.windows
    found = assemble(
        observations, fits, identities.people[0], camera, asset, windows.max_error_percent, windows.gap_seconds, identities
    )
    return found if begin is None else replace(found, started=begin.known)


def without_crossfades(
    tracked: Int[np.ndarray, "tracked"], shots: Int[np.ndarray, "frames"], crossfades: Sequence[tuple[int, int]]
) -> Int[np.ndarray, "kept"]:
    """Frames that show one picture, from which identities are to be learnt; of shots that have no other frames, all."""
    if not crossfades:
        return tracked
    mixed = np.concatenate([np.arange(first, last + 1) for first, last in crossfades])
    clear = ~np.isin(tracked, mixed)
    return tracked[clear | ~np.isin(shots[tracked], shots[tracked[clear]])]


def head_for(
    asset: HeadAsset, settings: FitBase, observations: Observations, device: torch.device | str = "cpu"
) -> FitHead:
    """The head at what the cues of ``settings`` look at: landmarks, sites, points of the skin."""
    sites = spread_sites(asset, observations.settings.sites) if DENSE in settings.reads else None
    skin = spread_points(asset, skin_triangles(asset), settings.cue("photometric").points) if PICTURES in settings.reads else None
    return FitHead.build(asset, device, sites, skin)


def assemble(
    observations: Observations,
    fits: list[FrameFits],
    shared: SharedFit,
    camera: FocalPrior,
    asset: HeadAsset,
    max_error_percent: float,
    gap_seconds: float = 0.0,
    identities: Identities | None = None,
) -> Fit:
    """Put the windows together. Frames without a head are interpolated where the gap is short; others take the values of the nearest
    tracked frame, in their own shot where it has any.

    Args:
        shared: of the only person, or the first one.
        gap_seconds: gaps up to here are short.
        identities: of people and their shots; None where there is but one person.

    Raises:
        UserError: no frame's landmark error is below ``max_error_percent``.
    """
    total, facts, shots = len(observations), observations.facts, observations.shots
    error = np.full(total, np.inf)
    frames = torch.cat([f.frames for f in fits]).cpu().numpy()
    error[frames] = torch.cat([f.error_percent for f in fits]).cpu().numpy()
    tracked = error <= max_error_percent
    if not tracked.any():
        raise UserError(_unfitted(float(error.min()), max_error_percent, camera))
    row_of = np.zeros(total, int)
    row_of[frames] = np.arange(len(frames))
    nearest = nearest_index(tracked, shots)
    rows = row_of[nearest]

    def column(name: str, width: int) -> np.ndarray:
        if name not in fits[0].values:
            return np.zeros((total, width))
        return torch.cat([f.values[name] for f in fits]).cpu().numpy()[rows]

    values = {name: column(name, width) for name, width in (POSE_SIZES | {"expr": asset.n_expression}).items()}
    confidence = np.where(tracked, _quality(error, max_error_percent) * _detected(observations), 0.0)
    gaps = short_gaps(tracked, shots, observations.timestamps, gap_seconds)
    values, confidence, between = filled(values, confidence, observations.timestamps, gaps)
    track = HeadTrack(
        **values,
        shape=shared.identity.cpu().numpy(),
        focal_px=shared.focal_px,
        principal_point=np.array(camera.principal_point),
        image_size=np.array([facts.height, facts.width]),
        timestamps=observations.timestamps,
        valid=tracked | between,
        confidence=confidence,
        timestep_id=np.array([f"{t:05d}" for t in range(total)]),
        expression_names=asset.expression_names,
        head_name=asset.name,
        head_sha256=asset.sha256(),
        frame_rate=facts.frame_rate,
        shot=shots if shots.any() else None,
        interpolated=between if between.any() else None,
        **_people(identities, shots[nearest]),
    )
    error[~tracked] = np.inf
    mixed = tuple(observations.crossfades)
    return Fit(track, error, shared.focal_log_sigma, shared.appearance, observations.found, crossfades=mixed)


def _people(identities: Identities | None, shots: Int[np.ndarray, "frames"]) -> dict[str, np.ndarray]:
    """Identities of a track with several people, and which one each frame of these shots has."""
    if identities is None or len(identities.people) == 1:
        return {}
    person_of = identities.person_of_shot
    return {
        "shapes": np.stack([one.identity.cpu().numpy() for one in identities.people]),
        "person": np.array([person_of[shot] for shot in shots.tolist()]),
    }


def _quality(error: np.ndarray, limit: float) -> np.ndarray:
    """Share of the detector's confidence that a frame keeps: all of it up to 2 % error, none at the limit that makes it
    invalid; a stricter limit is stricter all the way."""
    full = min(_FULL_ERROR_PERCENT, _FULL_ERROR_SHARE * limit)
    return np.clip((limit - error) / (limit - full), 0, 1)


def _detected(observations: Observations) -> np.ndarray:
    return np.where(observations.found, observations.confidence, DENSE_ONLY_CONFIDENCE)


def _unfitted(best: float, limit: float, camera: FocalPrior) -> str:
    """Why no frame is valid, as far as one can tell."""
    if limit < _DEFAULT_LIMIT and best < _DEFAULT_LIMIT:
        return (
            f"no frame's landmark error is below windows.max_error_percent: {limit:g}; the best one has {best:.2g} %, so raise that setting "
            f"(the default is {_DEFAULT_LIMIT:g})"
        )
    if camera.log_sigma == 0:
        return (
            f"the head model could not be fitted to any frame with the given camera (focal length {camera.focal_px:g} px, principal point "
            f"{camera.principal_point[0]:g}, {camera.principal_point[1]:g}); leave --focal-px, --fov or --intrinsics out if they may be wrong"
        )
    return "the head model could not be fitted to any frame; are these really faces?"
