"""Landmark embeddings for any head: MediaPipe's 478 points and the 68-point scheme, as points on its triangles.

The story: find the outer skin (what can be seen of the head from outside) and the eyes; fit a statistical model of the
landmarks to the skin, which brings every point to within a millimetre or two of its place; find the rims of lids and lips,
where a millimetre matters, and pull their landmarks onto them, the neighbours following smoothly; drop all points onto the
skin. Irises go onto the eyeballs. Landmarks that the head brings already are kept as they are and guide the others.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from flame_assets.asset import AssetError, HeadAsset, LandmarkEmbedding
from flame_assets.ibug68 import IBUG68_FROM_MEDIAPIPE
from flame_assets.normals import vertex_normals
from flame_assets.registration_model import face_model, fit_face_model
from flame_assets.registration_rims import Targets, rim_targets
from flame_assets.registration_views import outer_surface
from flame_assets.surface_points import Surface, SurfaceHits

_IRIS_RADIUS_M = 5.85e-3  # half the visible iris diameter, nearly the same in all adults (Rüfer et al., Cornea 2005)
# Centre, then the ring: towards the subject's left, up, right, down, for both eyes (read off detections).
_IRIS_DIRECTIONS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))
_HIDDEN = ("eyes", "teeth", "tongue", "mouth_interior", "left_eye_socket", "right_eye_socket")
_STIFFNESS = (30.0, 10.0, 3.0, 1.0)
_RIM_WEIGHT = 50.0


def register_landmarks(asset: HeadAsset) -> dict[str, LandmarkEmbedding]:
    """Embeddings ``"mediapipe"`` (478 points; 468 for a head without eyeballs) and ``"ibug68"`` for a head in rest pose.

    Deterministic; about five seconds. Embeddings that ``asset`` has already are kept where they are complete, and
    completed where they hold a part of the points.

    Raises:
        AssetError: no skin was found where the eye joints say that the face is.
    """
    vertices = asset.v_template.astype(np.float64)
    eyes = (asset.joint_regressor[3:].astype(np.float64) @ vertices).reshape(2, 3)
    eyeballs = [_eyeball_faces(asset, joint) for joint in (3, 4)]
    outer = outer_surface(vertices, asset.faces) & ~eyeballs[0] & ~eyeballs[1]
    for region in _HIDDEN:
        if region in asset.regions:
            outer &= ~asset.regions[region][asset.faces].all(1)
    skin = Surface(vertices, asset.faces, outer & _around_face(vertices[asset.faces], eyes, asset.name))
    fitted = fit_face_model(face_model(), skin, eyes)
    targets = _with_known(asset, rim_targets(asset, outer, eyes, fitted))
    points, normals = _settle(fitted, skin, targets)
    hits = skin.nearest(points, normals)
    exact = skin.nearest(targets.points)  # a rim's own triangles may look another way than its surroundings
    hits.faces[targets.landmarks] = exact.faces
    hits.barycentrics[targets.landmarks] = exact.barycentrics
    parts = [hits]
    if all(ball.any() for ball in eyeballs):
        parts += [_iris(vertices, asset.faces, eyeballs[i], eyes[i]) for i in (1, 0)]
    faces = np.concatenate([p.faces for p in parts]).astype(np.int32)
    weights = _quantised(np.concatenate([p.barycentrics for p in parts]))
    picked = np.array(IBUG68_FROM_MEDIAPIPE)
    computed = {
        "mediapipe": LandmarkEmbedding(np.arange(len(faces), dtype=np.int32), faces, weights),
        "ibug68": LandmarkEmbedding(np.arange(68, dtype=np.int32), faces[picked], weights[picked]),
    }
    return {scheme: _overridden(own, asset.landmarks.get(scheme)) for scheme, own in computed.items()}


def _eyeball_faces(asset: HeadAsset, joint: int) -> np.ndarray:
    """``(F,)`` bool: triangles that turn with an eye joint alone."""
    return (asset.weights[:, joint] > 0.5)[asset.faces].all(1)


def _around_face(corners: np.ndarray, eyes: np.ndarray, name: str) -> np.ndarray:
    """``(F,)`` bool: triangles within reach of the face, seen from the eyes; the back of the head only costs time."""
    span = float(np.linalg.norm(eyes[0] - eyes[1]))
    middle = corners.mean(1) - eyes.mean(0)
    near = (np.linalg.norm(middle, axis=1) < 3.2 * span) & (middle[:, 2] > -1.6 * span)
    extent = float(np.ptp(corners.reshape(-1, 3), axis=0).max())
    if near.sum() < 50 or span > extent / 2:  # eyes further apart than half a head belong to no face
        raise AssetError(f"head {name!r}: no skin around the eye joints; landmarks cannot be placed")
    return near


def _with_known(asset: HeadAsset, targets: Targets) -> Targets:
    """``targets``, replaced and completed by landmarks that the head brings."""
    known = asset.landmarks.get("mediapipe")
    if known is None:
        return targets
    merged = dict(zip(targets.landmarks.tolist(), targets.points, strict=True))
    places = known.positions(asset.v_template.astype(np.float64), asset.faces)
    merged |= {int(n): p for n, p in zip(known.indices, places, strict=True) if n < 468}
    numbers = sorted(merged)
    return Targets(np.array(numbers, np.int64), np.array([merged[n] for n in numbers]))


def _settle(fitted: np.ndarray, skin: Surface, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Let the fitted face give way to the skin and the rims: smooth displacements (Laplacian over the mesh's edges)."""
    triangles = face_model().triangles
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    i, j = edges.T
    laplacian = np.zeros((len(fitted), len(fitted)))
    np.add.at(laplacian, (i, i), 1)
    np.add.at(laplacian, (j, j), 1)
    np.add.at(laplacian, (i, j), -1)
    np.add.at(laplacian, (j, i), -1)
    x = fitted
    for stiffness in _STIFFNESS:
        hits = skin.nearest(x, vertex_normals(x, triangles))
        gap = hits.points - x
        weight = 1 / (1 + (np.linalg.norm(gap, axis=1) / 4e-3) ** 2)
        wanted = hits.points - fitted
        wanted[targets.landmarks], weight[targets.landmarks] = targets.points - fitted[targets.landmarks], _RIM_WEIGHT
        x = fitted + np.linalg.solve(np.diag(weight) + stiffness * laplacian, weight[:, None] * wanted)
    return x, vertex_normals(x, triangles)


def _iris(vertices: np.ndarray, faces: np.ndarray, eyeball: np.ndarray, joint: np.ndarray) -> SurfaceHits:
    """Centre and four rim points of the iris, on an eyeball that looks straight ahead."""
    radius = float(np.linalg.norm(vertices[np.unique(faces[eyeball])] - joint, axis=1).mean())
    angle = np.arcsin(min(_IRIS_RADIUS_M / radius, 0.9))
    turns = Rotation.from_rotvec([(-angle * up, angle * left, 0.0) for left, up in _IRIS_DIRECTIONS])
    directions = turns.apply([0.0, 0.0, 1.0])
    return Surface(vertices, faces, eyeball).nearest(joint + radius * directions, directions)


def _quantised(barycentrics: np.ndarray) -> np.ndarray:
    """Non-negative float32 rows of unit sum, in steps of 1/4096 (a micrometre): the same on every processor."""
    steps = np.rint(barycentrics.clip(0) / barycentrics.clip(0).sum(1, keepdims=True) * 4096)
    largest = barycentrics.argmax(1)
    steps[np.arange(len(steps)), largest] += 4096 - steps.sum(1)
    return (steps / 4096).astype(np.float32)


def _overridden(computed: LandmarkEmbedding, given: LandmarkEmbedding | None) -> LandmarkEmbedding:
    """``computed`` with the rows of the landmarks in ``given`` replaced by these."""
    if given is None:
        return computed
    row_of = {int(n): row for row, n in enumerate(computed.indices)}
    rows = np.array([row_of[int(n)] for n in given.indices if int(n) in row_of], np.int64)
    kept = np.array([int(n) in row_of for n in given.indices])
    faces, barycentrics = computed.faces.copy(), computed.barycentrics.copy()
    faces[rows], barycentrics[rows] = given.faces[kept], given.barycentrics[kept]
    return LandmarkEmbedding(computed.indices, faces, barycentrics)
