"""Poses of frames tied to each other by what moves in the picture, over the whole clip.

The network errs alike in frames that look alike, and otherwise in others: its errors turn the head slowly one way and the other as
the pose changes, and no smoothness over neighbours sees that. The picture does. Frames some tenths of a second apart (the ties' *nodes*)
are compared in pairs, near and far (:mod:`tracker.stages.pair_motion`), and all nodes' poses are solved together: each is held near its fitted pose, weakly,
each pair where the picture says, firmly. The correction of the frames in between is interpolated. It is a pose graph, as mapping from
video knows it (Grisetti et al., *A tutorial on graph-based SLAM*, 2010), on a head instead of a room.

Which way the head faces on the whole the ties cannot tell; that stays with what was fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy.spatial.transform import Rotation
from torch import Tensor

from flame_assets.settings_files import ListOf, Settings
from tracker.camera import CAMERA_POSITION
from tracker.head_points import HeadPoints
from tracker.observe.reading import ObservationReader
from tracker.rendering.backends import get_renderer
from tracker.residuals.fit_head import FitHead
from tracker.solver.pose_graph import solve_pose_graph
from tracker.stages.pair_motion import DrawnFrame, MotionMeter, PairMotion, draw_frames

_AT_ONCE = 16  # nodes drawn together
_METRES = 0.1  # unit of a node's shift in the solve, so that a head's turn and its shift move pixels alike
_PAIRS_AT_ONCE = 1000
_NUDGE = 1e-6


class TieSettings(Settings):
    """How frames are tied. Lengths in pixels are of the pictures that are compared.

    Attributes:
        seconds: from a node to the next, at least.
        reach: which nodes are compared with each: the one so many before.
        side: of the pictures that are compared, pixels.
        places: at which a pair's motion is measured, at most.
        error_px: expected error of a pair's motion.
        weight: a pair counts as so many independent places at most.
        held_px: expected error of a node's fitted pose, as it shows in the picture.
        held_weight: it counts as so many independent places.
        kernel_scale: motions beyond this many expected errors count less and less (Geman–McClure).
        iterations: of the solve.
    """

    seconds: float = Field(0.11, gt=0, le=100)
    reach: ListOf[int] = (1, 2, 4, 8, 16)
    side: int = Field(224, ge=48, le=1024)
    places: int = Field(150, ge=15, le=10_000)
    error_px: float = Field(0.5, ge=0.01, le=100)
    weight: float = Field(10.0, gt=0, le=10_000)
    held_px: float = Field(3.0, ge=0.01, le=1000)
    held_weight: float = Field(8.0, gt=0, le=10_000)
    kernel_scale: float = Field(3.0, ge=0.01, le=1000)
    iterations: int = Field(4, ge=1, le=100)


@dataclass(frozen=True)
class Nodes:
    """Frames that are compared, and how each is held. Camera space is in metres with the camera at the origin.

    Attributes:
        rows: which of the frames they are.
        centre: what each turns about, camera space.
        held: places of the head in the fitted pose, camera space.
        to_picture: from full-frame pixels to those of the picture that is compared, without the shift.
    """

    rows: Int[np.ndarray, "nodes"]
    centre: Float[np.ndarray, "nodes 3"]
    held: Float[np.ndarray, "nodes n 3"]
    to_picture: Float[np.ndarray, "nodes 2 2"]


@dataclass(frozen=True)
class Pairs:
    """What was measured between nodes, p pairs with q places each; where there were fewer, the rest is not known.

    Attributes:
        nodes: numbers (i, j) of the nodes, i < j.
        before, after: the places in both nodes' fitted poses, camera space.
        motion: what is left to move, pixels of j's picture.
        known: whether it is a place.
    """

    nodes: Int[np.ndarray, "p 2"]
    before: Float[np.ndarray, "p q 3"]
    after: Float[np.ndarray, "p q 3"]
    motion: Float[np.ndarray, "p q 2"]
    known: Bool[np.ndarray, "p q"]


def tie_frames(
    head: FitHead,
    rigid: Int[np.ndarray, "triangles"],
    frames: Int[np.ndarray, "frames"],
    timestamps: Float[np.ndarray, "frames"],
    values: Mapping[str, Tensor],
    read: ObservationReader,
    principal_point: tuple[float, float],
    settings: TieSettings,
) -> dict[str, Tensor]:
    """Rotations and translations of a shot's frames as the ties ask for, by name; nothing where there is nothing to compare.

    Args:
        head: of the clip's identity, baked in.
        rigid: triangles that move with the skull.
        frames: numbers of the shot's frames that have a head, increasing.
        timestamps: their times, seconds.
        values: fitted, one row a frame; and ``log_focal``.
        read: gives the pictures.
        principal_point: pixels.
        settings: how.
    """
    measured = _measure(head, rigid, frames, timestamps, values, read, principal_point, settings)
    if measured is None:
        return {}
    nodes, pairs = measured
    turn, shift = solve_ties(nodes, pairs, float(values["log_focal"].exp()), settings)

    def between(of_nodes: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(timestamps, timestamps[nodes.rows], column) for column in of_nodes.T], axis=1)

    return _moved(head, values, between(turn), between(shift), between(nodes.centre))


def solve_ties(
    nodes: Nodes, pairs: Pairs, focal_px: float, settings: TieSettings
) -> tuple[Float[np.ndarray, "nodes 3"], Float[np.ndarray, "nodes 3"]]:
    """How far each node turns about its centre (axis-angle vector, radians, camera's axes) and then shifts (metres).

    Gauss–Newton with the weights of places taken anew in each iteration. What is measured between i and j stays where it is when both
    move alike: the motion of the places in j's picture less that of the same places in i's is to be what was measured.
    """
    count = len(nodes.rows)
    rotation, shift = Rotation.identity(count), np.zeros((count, 3))
    number = np.arange(count)
    hold = settings.held_weight / nodes.held.shape[1] / settings.held_px**2
    for _ in range(settings.iterations):
        moved, slope = _in_picture(nodes, number, nodes.held, rotation, shift, focal_px)
        diagonal = hold * np.einsum("knai,knaj->kij", slope, slope) + _NUDGE * np.eye(6)
        gradient = hold * np.einsum("knai,kna->ki", slope, moved)
        coupling = np.zeros((len(pairs.nodes), 6, 6))
        for some in np.array_split(np.arange(len(pairs.nodes)), -(-len(pairs.nodes) // _PAIRS_AT_ONCE)):
            i, j = pairs.nodes[some].T
            # kept in single precision, in which they were measured, since they are all that grows with the clip; solved in double
            there, then, motion, known = (a[some].astype(np.float64) for a in (pairs.before, pairs.after, pairs.motion, pairs.known))
            before, slope_i = _in_picture(nodes, i, there, rotation, shift, focal_px)
            after, slope_j = _in_picture(nodes, j, then, rotation, shift, focal_px)
            residual = after - before - motion
            weight = _weights(residual, known, settings)
            weighted_i, weighted_j = slope_i * weight[..., None, None], slope_j * weight[..., None, None]
            np.add.at(diagonal, i, np.einsum("pqai,pqaj->pij", weighted_i, slope_i))
            np.add.at(diagonal, j, np.einsum("pqai,pqaj->pij", weighted_j, slope_j))
            np.add.at(gradient, i, -np.einsum("pqai,pqa->pi", weighted_i, residual))
            np.add.at(gradient, j, np.einsum("pqai,pqa->pi", weighted_j, residual))
            coupling[some] = -np.einsum("pqai,pqaj->pij", weighted_i, slope_j)
        step = solve_pose_graph(diagonal, pairs.nodes, coupling, gradient)
        rotation = Rotation.from_rotvec(step[:, :3]) * rotation
        shift = shift + _METRES * step[:, 3:]
    return rotation.as_rotvec(), shift


def _weights(residual: np.ndarray, known: np.ndarray, settings: TieSettings) -> np.ndarray:
    """``(p, q)``: what multiplies squared residuals; a pair's places err together, so there are only so many of them."""
    squared = (residual**2).sum(-1) / (settings.kernel_scale * settings.error_px) ** 2
    share = np.minimum(settings.weight / np.maximum(known.sum(1, keepdims=True), 1), 1)
    return known * share / (settings.error_px * (1 + squared)) ** 2


def _in_picture(
    nodes: Nodes, number: np.ndarray, places: np.ndarray, rotation: Rotation, shift: np.ndarray, focal_px: float
) -> tuple[Float[np.ndarray, "k n 2"], Float[np.ndarray, "k n 2 6"]]:
    """How far places have moved in their nodes' pictures from where they were fitted, pixels, and the derivative with respect to a
    further turn and shift (in units of :data:`_METRES`) of the node."""
    centre = nodes.centre[number][:, None]
    arm = (places - centre) @ np.swapaxes(rotation[number].as_matrix(), 1, 2)
    now = arm + centre + shift[number][:, None]

    def pixels(points: np.ndarray) -> np.ndarray:
        return focal_px * points[..., :2] / -points[..., 2:] * [1, -1]

    linear = nodes.to_picture[number][:, None]
    moved = (linear @ (pixels(now) - pixels(places))[..., None])[..., 0]
    inverse = 1 / -now[..., 2]
    slope = np.zeros((*now.shape[:2], 2, 3))
    slope[..., 0, 0], slope[..., 1, 1] = focal_px * inverse, -focal_px * inverse
    slope[..., 0, 2], slope[..., 1, 2] = focal_px * now[..., 0] * inverse**2, -focal_px * now[..., 1] * inverse**2
    slope = linear @ slope
    # d(ω × a) · r = ω · (a × r)
    turning = np.cross(arm[..., None, :], slope)
    return moved, np.concatenate([turning, _METRES * slope], axis=-1)


def _measure(
    head: FitHead,
    rigid: np.ndarray,
    frames: np.ndarray,
    timestamps: np.ndarray,
    values: Mapping[str, Tensor],
    read: ObservationReader,
    principal_point: tuple[float, float],
    settings: TieSettings,
) -> tuple[Nodes, Pairs] | None:
    """Nodes of one shot and what moves between them; None where there is too little to compare."""
    faces = head.model.faces.cpu().numpy().astype(np.int32)
    is_rigid = np.zeros(len(faces), bool)
    is_rigid[rigid] = True
    meter = MotionMeter(faces, is_rigid, max(settings.side // 32, 2), settings.places)
    held_faces = faces[rigid[np.linspace(0, len(rigid) - 1, min(settings.places, len(rigid))).astype(int)]]
    kept: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    recent: list[DrawnFrame] = []
    numbers, found = [], []
    for row, drawn, to_picture in _drawn(head, faces, frames, timestamps, values, read, principal_point, settings):
        node = len(kept)
        recent = [*recent[-max(settings.reach) :], drawn]
        skull = drawn.positions[faces[rigid]].reshape(-1, 3)
        kept.append((row, skull.mean(0), drawn.positions[held_faces].mean(1), to_picture))
        for back in settings.reach:
            if back < len(recent):
                motion = meter(recent[-1 - back], drawn)
                if motion is not None:
                    numbers.append((node - back, node))
                    found.append(motion)
    if not found:
        return None
    which, centre, held, linear = (np.array(part) for part in zip(*kept, strict=True))
    return Nodes(which, centre, held.astype(np.float64), linear), _padded(np.array(numbers), found)


def _drawn(
    head: FitHead,
    faces: np.ndarray,
    frames: np.ndarray,
    timestamps: np.ndarray,
    values: Mapping[str, Tensor],
    read: ObservationReader,
    principal_point: tuple[float, float],
    settings: TieSettings,
) -> Iterator[tuple[int, DrawnFrame, Float[np.ndarray, "2 2"]]]:
    """The nodes in order: row, what is drawn, and the linear map to its picture."""
    renderer = get_renderer("auto", head.model.device)
    last, waiting = -np.inf, []

    def flush() -> Iterator[tuple[int, DrawnFrame, np.ndarray]]:
        index = torch.as_tensor([row for row, _ in waiting])
        there = {name: v if name == "log_focal" else v[index] for name, v in values.items()}
        pictures = [picture for _, picture in waiting]
        drawn = draw_frames(head.model, faces, there, principal_point, pictures, renderer)
        for (row, picture), frame in zip(waiting, drawn, strict=True):
            yield row, frame, picture.to_picture[:, :2]
        waiting.clear()

    for row in range(len(frames)):
        if timestamps[row] - last < settings.seconds - _NUDGE:
            continue
        picture = read.grey(int(frames[row]), settings.side)
        if picture is None:
            continue
        last = timestamps[row]
        waiting.append((row, picture))
        if len(waiting) == _AT_ONCE:
            yield from flush()
    if waiting:
        yield from flush()


def _padded(numbers: np.ndarray, found: Sequence[PairMotion]) -> Pairs:
    most = max(len(m.motion) for m in found)

    def stacked(name: str) -> np.ndarray:
        # places that are missing repeat the first, so that nothing is divided by zero
        parts = [getattr(m, name) for m in found]
        return np.stack([np.concatenate([p, np.repeat(p[:1], most - len(p), axis=0)]) for p in parts])

    known = np.stack([np.arange(most) < len(m.motion) for m in found])
    return Pairs(numbers, stacked("before"), stacked("after"), stacked("motion"), known)


def _moved(
    head: FitHead, values: Mapping[str, Tensor], turn: np.ndarray, shift: np.ndarray, centre: np.ndarray
) -> dict[str, Tensor]:
    """Rotation and translation of frames whose head turns by ``turn`` about ``centre`` and then shifts by ``shift``, camera space."""
    rotation, translation = (values[name].cpu().numpy().astype(np.float64) for name in ("rotation", "translation"))
    points = HeadPoints.evaluate(head.landmarks, values)
    joint = points.posed.joints.expand(len(rotation), -1, 3)[:, 0].cpu().numpy().astype(np.float64)
    middle = centre + np.asarray(CAMERA_POSITION)
    more = Rotation.from_rotvec(turn)
    where = more.apply(joint + translation - middle) + middle + shift  # of the root joint, which the head's rotation leaves in place
    like = values["rotation"]
    turned = (more * Rotation.from_rotvec(rotation)).as_rotvec()
    return {"rotation": torch.as_tensor(turned).to(like), "translation": torch.as_tensor(where - joint).to(like)}
