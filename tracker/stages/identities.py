"""Who is seen in which shot: each person has one identity, however many shots show them.

Every shot is first fitted alone, to landmarks of a few keyframes. Two shots show one person where neither the shape of the face nor the
colour of its skin speaks against it; otherwise each has an identity of its own, which costs little, while one identity for two people
fits neither. Then each person's identity is fitted to all their shots. A video of one shot is fitted at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from tracker.camera import FocalPrior
from tracker.progress import Progress, silent
from tracker.residuals.cues import cues
from tracker.residuals.fit_head import FitHead
from tracker.stages.fit_settings import FitBase
from tracker.stages.keyframes import ReadFrames, SharedFit, fit_shared
from tracker.stages.start import Start

# Keyframes are chosen among at most this many frames, evenly spread over the video.
_KEYFRAME_CANDIDATES = 1000

_FEW = 8  # keyframes of a shot that is fitted alone, to be compared

# Measured on pairs of clips, fitted as here. Of 31 pairs of pieces of real clips, of one person in one light, 0.9 are taken for one person; of 12 rendered people who
# are seen twice in other light, hair and clothes 0.1; of 660 pairs of different people 0.01.
_DIRECTIONS = 40  # of shape that move the face most
_SHAPE, _COLOUR = 1.7, 0.1


@dataclass(frozen=True)
class Identities:
    """People of a video.

    Attributes:
        people: what the frames of each share; who is in most frames comes first. All have one focal length, which is the first one's.
        person_of_shot: number of the person in each shot in which a head was seen.
    """

    people: tuple[SharedFit, ...]
    person_of_shot: dict[int, int]


@dataclass(frozen=True)
class ShotFace:
    """The face of one shot.

    Attributes:
        frames: numbers of those with a head.
        shape: identity coefficients times the directions that move the face most.
        covariance: of those.
        colour: of the skin, see :func:`chromaticity`; None where no face was seen.
    """

    frames: Int[np.ndarray, "frames"]
    shape: Float[np.ndarray, "k"]
    covariance: Float[np.ndarray, "k k"]
    colour: Float[np.ndarray, "2"] | None


def fit_identities(
    head: FitHead,
    tracked: Int[np.ndarray, "tracked"],
    shots: Int[np.ndarray, "frames"],
    skin: Float[np.ndarray, "frames 3"],
    read: ReadFrames,
    camera: FocalPrior,
    settings: FitBase,
    begin: Start | None = None,
    progress: Progress = silent,
) -> Identities:
    """Tell people apart and fit identity and focal length to keyframes.

    Args:
        head: the head at its landmarks, sites and skin.
        tracked: numbers of the frames in which a head was seen.
        shots: number of each frame's shot.
        skin: RGB of the skin in each frame, zeros where no face was found.
        read: gives what is known of some frames.
        camera: what is known of it.
        settings: of the fit.
        begin: an earlier track to start from; the first person's, of whom alone it tells the shape.
        progress: told of the shots that are fitted to be compared.
    """
    numbers = np.unique(shots[tracked]).tolist()
    if len(numbers) == 1:
        return Identities((_fit(head, tracked, read, camera, settings, begin),), {numbers[0]: 0})
    few = _landmarks_alone(settings)
    faces = {}
    for number in numbers:
        faces[number] = _face(head, tracked[shots[tracked] == number], skin, read, camera, few)
        progress("shots", len(faces), len(numbers))
    groups = grouped(faces)
    frames = [np.sort(np.concatenate([faces[n].frames for n in group])) for group in groups]
    first = _fit(head, frames[0], read, camera, settings, begin)
    # one camera took all shots, as far as a track can say
    known = FocalPrior(first.focal_px, 0.0, camera.principal_point)
    others = (_fit(head, some, read, known, settings) for some in frames[1:])
    return Identities((first, *others), {n: person for person, group in enumerate(groups) for n in group})


def grouped(faces: dict[int, ShotFace]) -> list[list[int]]:
    """Shots of the same person together, by number; who is in most frames first.

    The longest shots are the surest, so shots are taken in order of length, and each is compared with the longest of every group.
    """
    groups: list[list[int]] = []
    for number in sorted(faces, key=lambda n: (-len(faces[n].frames), n)):
        unlike = [unlikeness(faces[group[0]], faces[number]) for group in groups]
        nearest = int(np.argmin(unlike)) if unlike else -1
        if unlike and unlike[nearest] < 1:
            groups[nearest].append(number)
        else:
            groups.append([number])
    return sorted(groups, key=lambda group: (-sum(len(faces[n].frames) for n in group), min(group)))


def unlikeness(a: ShotFace, b: ShotFace) -> float:
    """How much speaks against two faces being one person's: below 1 they are taken for one. Infinite where one was never seen.

    The difference of their shapes counts by its covariance, which is that of two independent fits; since landmarks of one face err
    together it is too small, for which the limits, measured, allow.
    """
    if a.colour is None or b.colour is None:
        return math.inf
    apart = a.shape - b.shape
    shape = math.sqrt(float(apart @ np.linalg.solve(a.covariance + b.covariance, apart)) / len(apart))
    return math.hypot(shape / _SHAPE, float(np.linalg.norm(a.colour - b.colour)) / _COLOUR)


def chromaticity(skin: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "2"] | None:
    """Logarithms of red and of blue to green, of the median of frames in which a face was found: brightness does not count."""
    seen = skin[(skin > 0).any(1)]
    if len(seen) == 0:
        return None
    red, green, blue = np.median(seen, axis=0).clip(1, None)
    return np.log([red / green, blue / green])


def _face(
    head: FitHead, frames: np.ndarray, skin: Float[np.ndarray, "frames 3"], read: ReadFrames, camera: FocalPrior, settings: FitBase
) -> ShotFace:
    faced = frames[(skin[frames] > 0).any(1)]
    if len(faced) == 0:  # the network alone saw the head: from behind, or far to the side
        return ShotFace(frames, np.zeros(_DIRECTIONS), np.eye(_DIRECTIONS), None)
    fit = _fit(head.landmarks_only(), faced, read, camera, settings)
    directions = face_directions(head)
    shape = fit.identity.cpu().numpy().astype(np.float64)
    covariance = np.eye(len(shape)) * settings.cue("priors").identity ** 2
    if fit.solution.shared_covariance is not None:
        covariance = fit.solution.shared_covariance.cpu().numpy()[: len(shape), : len(shape)].astype(np.float64)
    return ShotFace(frames, directions @ shape, directions @ covariance @ directions.T, chromaticity(skin[frames]))


def face_directions(head: FitHead) -> Float[np.ndarray, "k identity"]:
    """Orthonormal directions of identity that change the face's shape most, place, turn and size aside."""
    points = head.landmarks.template.cpu().numpy().astype(np.float64)
    moves = head.landmarks.identity_dirs.cpu().numpy().astype(np.float64).reshape(3 * len(points), -1)
    axes, centred = np.eye(3), points - points.mean(0)
    similarities = [*(np.tile(axis, (len(points), 1)) for axis in axes), *(np.cross(axis, centred) for axis in axes), centred]
    rigid, _ = np.linalg.qr(np.stack([s.ravel() for s in similarities], axis=1))
    _, _, directions = np.linalg.svd(moves - rigid @ (rigid.T @ moves), full_matrices=False)
    return directions[:_DIRECTIONS]


def _fit(
    head: FitHead, frames: np.ndarray, read: ReadFrames, camera: FocalPrior, settings: FitBase, begin: Start | None = None
) -> SharedFit:
    offered = frames[:: math.ceil(len(frames) / _KEYFRAME_CANDIDATES)]
    return fit_shared(head, torch.as_tensor(offered), read, camera, settings, begin)


def _landmarks_alone(settings: FitBase) -> FitBase:
    """Settings for shots that are fitted to be compared: the same for all presets that fit landmarks alike."""
    blind: Sequence[str] = [name for name, cue in cues().items() if cue.reads]
    return settings.without(*blind).changed({"keyframes": {"count": min(settings.keyframes.count, _FEW)}})
