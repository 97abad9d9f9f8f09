"""Which points of two heads correspond: one is laid over the other by a similarity and a thin-plate spline through the landmarks that both
have; then the nearest point of the surface that looks the same way counts.

The spline knows the face alone. Beyond it, the skull and the ears follow in rounds: points that came to lie near the surface say where their
neighbourhood goes. Heads of one topology need none of this: there the same vertex is the same point.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from flame_assets.asset import HeadAsset
from flame_assets.normals import vertex_normals
from flame_assets.similarity import similarity
from flame_assets.surface_points import Surface, SurfaceHits

_SKIN_LANDMARKS = 468  # further ones are irises
_SPLINE_SMOOTHING = 1e-7  # m²: landmarks of two heads agree to a fraction of a millimetre
_FARTHEST_M = 0.006
_ABOUT_M = 0.015
_ROUNDS = (0.025, 0.012, 0.006)  # metres within which the surface draws a point of the skull, round by round
_FOLLOWED = 400  # points of the skull that draw their neighbourhood along
_HIDDEN = ("eyes", "left_eyeball", "right_eyeball", "teeth", "tongue", "mouth_interior", "left_eye_socket", "right_eye_socket")


def same_topology(source: HeadAsset, target: HeadAsset) -> bool:
    """Whether two heads have the same triangles between the same vertices, as FLAME's editions do."""
    return source.n_vertices == target.n_vertices and np.array_equal(source.faces, target.faces)


def correspondence(source: HeadAsset, target: HeadAsset) -> tuple[np.ndarray, SurfaceHits, Float[np.ndarray, "3 3"]]:
    """Vertices of ``source``'s face, where they are on ``target``, and how displacements turn and scale from one to the other."""
    aligned, laid, turn = _laid_by_landmarks(source, target)
    vertices = np.flatnonzero(face_vertices(source))
    hits = _skin_surface(target).nearest(laid[vertices], vertex_normals(aligned, source.faces)[vertices])
    near = np.linalg.norm(hits.points - laid[vertices], axis=1) < _FARTHEST_M
    return vertices[near], _some(hits, near), turn


def head_correspondence(source: HeadAsset, target: HeadAsset) -> tuple[Int[np.ndarray, "n"], SurfaceHits]:
    """Vertices of all of ``source``'s visible skin, and where they are on ``target``'s; for heads of one topology, of all vertices that a
    triangle has."""
    if same_topology(source, target):
        return _same_vertices(target)
    aligned, laid, _ = _laid_by_landmarks(source, target)
    skin = np.flatnonzero(skin_vertices(source))
    face = face_vertices(source)[skin]
    surface, normals = _skin_surface(target), vertex_normals(aligned, source.faces)[skin]
    rng = np.random.default_rng(0)
    start, goal = aligned[skin], laid[skin]
    for reach in _ROUNDS:
        hits = surface.nearest(goal, normals)
        drawn = np.linalg.norm(hits.points - goal, axis=1) < reach
        chosen = rng.permutation(np.flatnonzero(drawn))[:_FOLLOWED]
        if len(chosen) < 10:
            break
        moved = RBFInterpolator(start[chosen], hits.points[chosen] - start[chosen], kernel="linear", smoothing=1e-3, neighbors=60)
        goal = np.where(face[:, None], goal, start + moved(start))
    hits = surface.nearest(goal, normals)
    near = np.linalg.norm(hits.points - goal, axis=1) < _FARTHEST_M
    return skin[near], _some(hits, near)


def skin_vertices(head: HeadAsset) -> Bool[np.ndarray, "verts"]:
    """Vertices that are seen from outside: neither eyes nor the mouth's inside, and part of a triangle."""
    hidden = (head.weights[:, 3:] > 0.5).any(1)
    for name in _HIDDEN:
        hidden |= head.regions.get(name, False)
    used = np.zeros(head.n_vertices, bool)
    used[head.faces] = True
    return used & ~hidden


def face_vertices(head: HeadAsset) -> Bool[np.ndarray, "verts"]:
    """The face, as the head names it; the skin about its landmarks where it names none (a FLAME file without its masks)."""
    if "face" in head.regions:
        return head.regions["face"]
    marks = head.landmarks["mediapipe"]
    places = marks.positions(head.v_template, head.faces)[marks.indices < _SKIN_LANDMARKS]
    return skin_vertices(head) & (cKDTree(places).query(head.v_template)[0] < _ABOUT_M)


def _laid_by_landmarks(source: HeadAsset, target: HeadAsset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All vertices of ``source`` after the similarity and after the spline, and the similarity's turn and scale."""
    first, second = source.landmarks["mediapipe"], target.landmarks["mediapipe"]
    common, a, b = np.intersect1d(first.indices, second.indices, return_indices=True)
    skin = common < _SKIN_LANDMARKS
    here = first.positions(source.v_template.astype(np.float64), source.faces)[a[skin]]
    there = second.positions(target.v_template.astype(np.float64), target.faces)[b[skin]]
    scale, rotation, shift = similarity(here, there)
    aligned = scale * source.v_template @ rotation.T + shift
    spline = RBFInterpolator(scale * here @ rotation.T + shift, there, smoothing=_SPLINE_SMOOTHING, neighbors=60)
    laid = np.array(aligned)
    face = face_vertices(source)
    laid[face] = spline(aligned[face])
    return aligned, laid, scale * rotation


def _skin_surface(head: HeadAsset) -> Surface:
    """The triangles that skin can be on: with an area, and not of the eyes."""
    a, b, c = head.v_template[head.faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0
    balls = (head.weights[:, 3:] > 0.5).any(1)
    return Surface(head.v_template, head.faces, area & ~balls[head.faces].any(1))


def _same_vertices(head: HeadAsset) -> tuple[np.ndarray, SurfaceHits]:
    vertices, place = np.unique(head.faces.ravel(), return_index=True)
    triangle, corner = np.divmod(place, 3)
    return vertices, SurfaceHits(triangle, np.eye(3)[corner], head.v_template[vertices].astype(np.float64))


def _some(hits: SurfaceHits, rows: np.ndarray) -> SurfaceHits:
    return SurfaceHits(hits.faces[rows], hits.barycentrics[rows], hits.points[rows])
