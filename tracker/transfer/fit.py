"""A track of one head re-expressed on another: its shape, expressions and poses by least squares on the points that correspond.

What is solved: one shape for the clip, from frames that differ, and then every frame's expression, jaw, rotation and translation. Neck and eyes
turn as they did: their joints have the same axes in every head of FLAME's layout. The camera stays, so that the new head stands where the old
one stood, as large as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_assets.asset import HeadAsset, LandmarkEmbedding
from flame_assets.normals import vertex_normals
from flame_assets.surface_points import Surface, SurfaceHits
from tracker.camera import FocalPrior
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.head_track import HeadTrack
from tracker.progress import Progress, silent
from tracker.residuals.priors import PriorResidual
from tracker.solver import Linearization, SolverConfig, Term, Values, Variable, solve
from tracker.stages.fit_settings import FitBase
from tracker.stages.keyframes import spread_frames
from tracker.stages.recipe import variables
from tracker.track_vertices import track_vertices
from tracker.transfer.correspondence import face_vertices, head_correspondence, same_topology, skin_vertices

_FACE_POINTS, _OTHER_POINTS = 700, 250
_KEYFRAMES, _AT_ONCE = 12, 16  # frames
_MEASURED = 12  # frames whose errors are taken
_FACE_M = 0.001
_ALONG_M, _ACROSS_M = 0.002, 0.008
"""How far off points are that correspond: on the face; elsewhere along the normal and across it, since scalps have no features."""
_INDEPENDENT = 150  # points of the face: neighbours err together, so more of them tell no more
_EXACT = 0.01  # share of those errors in heads of one topology
_RANGED_SIGMA = 0.35  # of expressions that have a range, as the fit's priors have it
_STEPS = SolverConfig(max_iterations=12, relative_tolerance=1e-5)
_ROUGHLY = SolverConfig(max_iterations=30, relative_tolerance=1e-5)


@dataclass(frozen=True)
class Misfit:
    """Distances that are left, millimetres, over the vertices of some part in some frames spread over the clip.

    Attributes:
        mean, p95: to the points that correspond: mean, 95th percentile.
        surface_mean, surface_p95: to the new head's surface.
    """

    mean: float
    p95: float
    surface_mean: float
    surface_p95: float


@dataclass(frozen=True)
class Transfer:
    """A track on its new head.

    Attributes:
        track: the result.
        face, head: what is left on the face and on all visible skin.
        points: how many points correspond.
    """

    track: HeadTrack
    face: Misfit
    head: Misfit
    points: int


def transfer(track: HeadTrack, source: HeadAsset, target: HeadAsset, progress: Progress = silent) -> Transfer:
    """Re-express ``track``, which is of ``source``, on ``target``.

    Args:
        track: of the head ``source``; where its shots show several people, the first one's frames are the valid ones of the result.
        source, target: heads with MediaPipe's landmarks.
        progress: told of the frames.

    Raises:
        UserError: ``source`` is not the track's head.
    """
    track = track.of_main_person()
    pairs = _Pairs.between(source, target)
    values = _solved(track, source, target, pairs, progress)
    jaw = values.get("jaw_pose", torch.zeros(track.n_frames, 3))
    moved = replace(
        track, rotation=values["rotation"].numpy(), translation=values["translation"].numpy(), jaw_pose=jaw.numpy(),
        shape=values["shape"].numpy(), expr=values["expr"].numpy(), expression_names=target.expression_names,
        head_name=target.name, head_sha256=target.sha256(),
    )  # fmt: skip
    face, head = _misfits(track, moved, source, target, pairs)
    return Transfer(moved, face, head, len(pairs.vertices))


@dataclass(frozen=True)
class _Pairs:
    """Points that correspond.

    Attributes:
        vertices: of the source.
        hits: where they are on the target.
        face: which of them are the face's.
        fitted: rows of those that the fit looks at.
        exact: whether they are one and the same point.
    """

    vertices: np.ndarray
    hits: SurfaceHits
    face: np.ndarray
    fitted: np.ndarray
    exact: bool

    @staticmethod
    def between(source: HeadAsset, target: HeadAsset) -> _Pairs:
        vertices, hits = head_correspondence(source, target)
        face = face_vertices(source)[vertices]
        rng = np.random.default_rng(0)
        chosen = [rng.permutation(np.flatnonzero(part))[:most] for part, most in ((face, _FACE_POINTS), (~face, _OTHER_POINTS))]
        return _Pairs(vertices, hits, face, np.sort(np.concatenate(chosen)), same_topology(source, target))


@dataclass(frozen=True)
class _PointResidual:
    """Differences from wanted points, each in units of its error along and across a normal.

    Attributes:
        model: the target at the points.
        wanted: where they should be, metres.
        root: square root of each one's precision, 1/m.
    """

    model: HeadModel
    wanted: Float[Tensor, "frames n 3"]
    root: Float[Tensor, "frames n 3 3"]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        points = HeadPoints.evaluate(self.model, values)
        residual = torch.einsum("fnab,fnb->fna", self.root, points.positions - self.wanted)
        return Linearization(residual, points.jacobians(self.root, wanted) if wanted else {})


def _solved(track: HeadTrack, source: HeadAsset, target: HeadAsset, pairs: _Pairs, progress: Progress) -> Values:
    """Every frame's values, and the shape."""
    hits = pairs.hits
    places = LandmarkEmbedding(*(a[pairs.fitted] for a in (np.arange(len(hits.faces), dtype=np.int32), hits.faces, hits.barycentrics)))
    model = HeadModel.from_asset(target, dtype=torch.float64).at_points(places)
    # the box limits and the jaw are those of the fit; nothing else of its settings counts here
    free = [v for v in variables(("pose", "face", "identity"), model, FocalPrior(1.0, 0.0, (0.0, 0.0)), FitBase()) if v.name != "eyes_pose"]
    shape = torch.zeros(model.n_identity, dtype=torch.float64)
    for solving_shape, config, groups in (
        (True, _ROUGHLY, [_keyframes(track)]),
        (False, _STEPS, [np.arange(track.n_frames)[at : at + _AT_ONCE] for at in range(0, track.n_frames, _AT_ONCE)]),
    ):
        moving = [v for v in free if solving_shape or v.name != "shape"]
        found = []
        for frames in groups:
            solution = _solve(track.select(frames), source, model, pairs, shape, moving, config)
            found.append(solution)
            if not solving_shape:
                progress("transfer", int(frames[-1]) + 1, track.n_frames)
        shape = found[0]["shape"]
    return {name: torch.cat([f[name] for f in found]) for name in found[0] if name != "shape"} | {"shape": shape}


def _solve(
    part: HeadTrack, source: HeadAsset, model: HeadModel, pairs: _Pairs, shape: Tensor, moving: list[Variable], config: SolverConfig
) -> Values:
    """The values of some frames, all free ones from rest."""
    wanted, root = _wanted(part, source, pairs)
    values = {"shape": shape} | {n: torch.as_tensor(getattr(part, n), dtype=torch.float64) for n in ("rotation", "neck_pose", "eyes_pose")}
    values |= {v.name: torch.zeros(part.n_frames, 3, dtype=torch.float64) for v in moving if v.name in ("translation", "jaw_pose")}
    values["expr"] = torch.zeros(part.n_frames, model.n_expression, dtype=torch.float64)
    values.setdefault("translation", torch.zeros(part.n_frames, 3, dtype=torch.float64))
    values["translation"] = (wanted - HeadPoints.evaluate(model, values).positions).mean(1)
    ranged = np.isfinite(model.expression_range[1])
    terms = [
        Term("points", _PointResidual(model, wanted, root)),
        Term("expression prior", PriorResidual("expr", _RANGED_SIGMA if ranged else 1.0)),
        Term("shape prior", PriorResidual("shape", 1.0)),
    ]
    constant = {"neck_pose", "eyes_pose"}
    return {name: value for name, value in solve(terms, moving, values, config).values.items() if name not in constant}


def _wanted(part: HeadTrack, source: HeadAsset, pairs: _Pairs) -> tuple[Float[Tensor, "frames n 3"], Float[Tensor, "frames n 3 3"]]:
    """Where the points of some frames should be, and the root of their precisions."""
    rows, points, roots = pairs.vertices[pairs.fitted], [], []
    face = pairs.face[pairs.fitted]
    scale = (1 / _EXACT if pairs.exact else 1) * np.sqrt(min(_INDEPENDENT / max(face.sum(), 1), 1))
    for vertices in track_vertices(part, source):
        points.append(vertices[rows].astype(np.float64))
        normals = vertex_normals(vertices, source.faces)[rows].astype(np.float64)
        along = normals[:, :, None] * normals[:, None]
        elsewhere = np.eye(3) / _ACROSS_M + along * (1 / _ALONG_M - 1 / _ACROSS_M)
        everywhere = np.eye(3) / _FACE_M
        roots.append(scale * np.where((face | pairs.exact)[:, None, None], everywhere, elsewhere))
    return torch.as_tensor(np.stack(points)), torch.as_tensor(np.stack(roots))


def _keyframes(track: HeadTrack) -> np.ndarray:
    """Frames with a head, if any have one, that differ most in expression."""
    offered = np.flatnonzero(track.valid) if track.valid.any() else np.arange(track.n_frames)
    features = torch.as_tensor(np.concatenate([track.expr, 3 * track.jaw_pose], axis=1)[offered], dtype=torch.float64)
    return offered[spread_frames(features, _KEYFRAMES).numpy()]


def _misfits(track: HeadTrack, moved: HeadTrack, source: HeadAsset, target: HeadAsset, pairs: _Pairs) -> Iterator[Misfit]:
    """Of the face and of the whole head."""
    offered = np.flatnonzero(track.valid) if track.valid.any() else np.arange(track.n_frames)
    frames = np.unique(offered[np.linspace(0, len(offered) - 1, min(_MEASURED, len(offered))).round().astype(int)])
    seen = skin_vertices(source)[pairs.vertices]
    corners, allowed = target.faces[pairs.hits.faces], skin_vertices(target)[target.faces].all(1)
    apart, off = [], []
    for before, after in zip(track_vertices(track.select(frames), source), track_vertices(moved.select(frames), target), strict=True):
        there = np.einsum("nk,nkc->nc", pairs.hits.barycentrics, after[corners])[seen]
        here = before[pairs.vertices[seen]].astype(np.float64)
        apart.append(np.linalg.norm(there - here, axis=1))
        off.append(np.linalg.norm(Surface(after, target.faces, allowed).nearest(here).points - here, axis=1))
    points, surface = 1000 * np.stack(apart), 1000 * np.stack(off)
    for part in (pairs.face[seen], np.ones(seen.sum(), bool)):
        chosen = (points[:, part], surface[:, part])
        yield Misfit(*(float(f) for some in chosen for f in (some.mean(), np.percentile(some, 95))))
