"""Landmark embeddings for heads that bring none: MediaPipe's canonical face is bent onto the head.

The canonical face mesh is placed by the head's eye joints, then deformed onto the skin step by step (non-rigid iterative
closest points with as-rigid-as-possible regularisation, from stiff to soft; Amberg, Romdhani, Vetter, CVPR 2007; Sorkine,
Alexa, SGP 2007). Rims that the head names (lids, lips) attract the mesh's own rims, because there a millimetre matters.
Irises are placed on the eyeballs. The 68-point scheme picks from the same points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from flame_assets.asset import AssetError, HeadAsset, LandmarkEmbedding
from flame_assets.surface_points import Surface, SurfaceHits

_CANONICAL = Path(__file__).with_name("canonical_face_468.npz")
_HIDDEN_REGIONS = ("eyes", "teeth", "tongue", "mouth_interior", "left_eye_socket", "right_eye_socket", "neck", "ears")
_IRIS_RADIUS_M = 5.85e-3  # half the visible iris diameter, nearly the same in all adults (Rüfer et al., Cornea 2005)
_STIFFNESS = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5)
_ROUNDS_PER_STIFFNESS = 4
_RIM_WEIGHT = 6.0

_RIGHT_LIDS = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
_LEFT_LIDS = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
_LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
_RIMS = {
    "right_lid_rim": _RIGHT_LIDS,
    "left_lid_rim": _LEFT_LIDS,
    "lip_outer_rim": _LIPS_OUTER,
    "lip_inner_rim": _LIPS_INNER,
}

# Iris points after the centre: towards the subject's left, up, right, down (read off detections on real faces).
_IRIS_DIRECTIONS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))

IBUG68_FROM_MEDIAPIPE = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw line
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,  # mouth
)  # fmt: skip
"""MediaPipe's number of each of the 68 points (Sagonas et al., *300 Faces in-the-Wild*, ICCV-W 2013)."""


def register_landmarks(asset: HeadAsset) -> dict[str, LandmarkEmbedding]:
    """Embeddings ``"mediapipe"`` (478 points) and ``"ibug68"`` for a head in rest pose. Deterministic, a few seconds.

    Raises:
        AssetError: the head has no eyeballs where its eye joints are, so that the face cannot be located.
    """
    eyes = _eyeballs(asset)
    bent, skin, normals = _bend_canonical_face(asset, eyes)
    hits = skin.nearest(bent, normals)
    irises = [_iris(asset, *eyes[side]) for side in ("right", "left")]
    faces = np.concatenate([hits.faces, *(i.faces for i in irises)]).astype(np.int32)
    barycentrics = np.concatenate([hits.barycentrics, *(i.barycentrics for i in irises)])
    barycentrics = barycentrics.clip(0)
    barycentrics = (barycentrics / barycentrics.sum(1, keepdims=True)).astype(np.float32)
    picked = np.array(IBUG68_FROM_MEDIAPIPE)
    return {
        "mediapipe": LandmarkEmbedding(np.arange(478, dtype=np.int32), faces, barycentrics),
        "ibug68": LandmarkEmbedding(np.arange(68, dtype=np.int32), faces[picked], barycentrics[picked]),
    }


def _eyeballs(asset: HeadAsset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per side, the eye joint's position and the ``(F,)`` mask of the eyeball's triangles."""
    joints = asset.joint_regressor @ asset.v_template
    out = {}
    components = _components(asset)
    for side, joint in (("left", joints[3]), ("right", joints[4])):
        best, best_distance = None, np.inf
        for component in components:
            used = np.unique(asset.faces[component])
            radii = np.linalg.norm(asset.v_template[used] - joint, axis=1)
            # an eyeball surrounds its joint at about one centimetre
            if radii.max() < 0.03 and abs(radii.mean() - 0.0125) < best_distance:
                best, best_distance = component, abs(radii.mean() - 0.0125)
        if best is None:
            raise AssetError(f"head {asset.name!r}: no eyeball around the {side} eye joint; landmarks cannot be placed")
        mask = np.zeros(len(asset.faces), bool)
        mask[best] = True
        out[side] = (joint.astype(np.float64), mask)
    return out


def _components(asset: HeadAsset) -> list[np.ndarray]:
    """Triangle rows of each connected piece of the mesh."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    f = asset.faces
    rows, columns = np.concatenate([f[:, 0], f[:, 1]]), np.concatenate([f[:, 1], f[:, 2]])
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(asset.n_vertices,) * 2)
    _, label = connected_components(graph, directed=False)
    of_face = label[f[:, 0]]
    return [np.flatnonzero(of_face == piece) for piece in np.unique(of_face)]


def _skin_faces(asset: HeadAsset) -> np.ndarray:
    """``(F,)`` bool: triangles of the outer skin of the face."""
    largest = max(_components(asset), key=len)
    allowed = np.zeros(len(asset.faces), bool)
    allowed[largest] = True
    for region in _HIDDEN_REGIONS:
        if region in asset.regions:
            allowed &= ~asset.regions[region][asset.faces].all(1)
    return allowed


def _bend_canonical_face(
    asset: HeadAsset, eyes: dict[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, Surface, np.ndarray]:
    """The canonical mesh's vertices on the head, the skin they lie on, and their normals."""
    with np.load(_CANONICAL, allow_pickle=False) as file:
        source, triangles = file["vertices_cm"].astype(np.float64), file["faces"]
    skin = Surface(asset.v_template, asset.faces, _skin_faces(asset))
    placed = _place_by_eyes(source, {side: joint for side, (joint, _) in eyes.items()})
    edges = np.unique(np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1), axis=0)
    rims = {
        numbers: _Rim(asset.v_template[asset.regions[name]].astype(np.float64))
        for name, numbers in _RIMS.items()
        if name in asset.regions
    }
    # The mesh's own lids and lips stand at their rims only when their rims are known; elsewhere closest points decide.
    x = placed.copy()
    for stiffness in _STIFFNESS:
        for _ in range(_ROUNDS_PER_STIFFNESS):
            normals = _vertex_normals(x, triangles)
            hits = skin.nearest(x, normals)
            target, weight = hits.points.copy(), np.ones(len(x))
            distance = np.linalg.norm(target - x, axis=1)
            weight *= 1 / (1 + (distance / (3 * np.median(distance) + 1e-4)) ** 2)
            for numbers, rim in rims.items():
                rows = list(numbers)
                target[rows], weight[rows] = rim.nearest(x[rows]), _RIM_WEIGHT
            x = _rigid_as_possible(placed, x, edges, target, weight, stiffness)
    return x, skin, _vertex_normals(x, triangles)


def _place_by_eyes(source: np.ndarray, joints: dict[str, np.ndarray]) -> np.ndarray:
    """Scale and shift the canonical face so that its eye openings lie in front of the eyeballs' centres."""
    openings = {"right": source[list(_RIGHT_LIDS)].mean(0), "left": source[list(_LEFT_LIDS)].mean(0)}
    wanted = joints["left"] - joints["right"]
    scale = np.linalg.norm(wanted) / np.linalg.norm(openings["left"] - openings["right"])
    middle = (joints["left"] + joints["right"]) / 2 + np.array([0, 0, 0.010])
    return (source - (openings["left"] + openings["right"]) / 2) * scale + middle


class _Rim:
    """A closed curve through unordered points: nearest point on the segments between neighbours."""

    def __init__(self, points: np.ndarray) -> None:
        # neighbours around the rim by angle about its middle, in its own plane
        middle = points.mean(0)
        _, _, axes = np.linalg.svd(points - middle)
        flat = (points - middle) @ axes[:2].T
        order = np.argsort(np.arctan2(flat[:, 1], flat[:, 0]))
        loop = points[order]
        steps = np.linspace(0, 1, 16, endpoint=False)[None, :, None]
        dense = loop[:, None] * (1 - steps) + np.roll(loop, -1, axis=0)[:, None] * steps
        self._points = dense.reshape(-1, 3)
        self._tree = cKDTree(self._points)

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        return self._points[self._tree.query(queries)[1]]


def _rigid_as_possible(
    rest: np.ndarray, current: np.ndarray, edges: np.ndarray, target: np.ndarray, weight: np.ndarray, stiffness: float
) -> np.ndarray:
    """One local/global step: rotations (with one global scale) from the current shape, then positions."""
    i, j = edges.T
    rest_edge, edge = rest[i] - rest[j], current[i] - current[j]
    scale = float((np.linalg.norm(edge, axis=1) * np.linalg.norm(rest_edge, axis=1)).sum() / (rest_edge**2).sum())
    covariance = np.zeros((len(rest), 3, 3))
    outer = rest_edge[:, :, None] * edge[:, None, :]
    np.add.at(covariance, i, outer)
    np.add.at(covariance, j, outer)
    u, _, vt = np.linalg.svd(covariance)
    sign = np.ones((len(rest), 3))
    sign[:, 2] = np.sign(np.linalg.det(np.einsum("nab,nbc->nac", u, vt)))
    rotation = np.einsum("nba,nb,ncb->nac", vt, sign, u)

    wanted_edge = scale * np.einsum("eab,eb->ea", (rotation[i] + rotation[j]) / 2, rest_edge)
    matrix = np.diag(weight)
    np.add.at(matrix, (i, i), stiffness)
    np.add.at(matrix, (j, j), stiffness)
    np.add.at(matrix, (i, j), -stiffness)
    np.add.at(matrix, (j, i), -stiffness)
    right = weight[:, None] * target
    np.add.at(right, i, stiffness * wanted_edge)
    np.add.at(right, j, -stiffness * wanted_edge)
    return np.linalg.solve(matrix, right)


def _vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], face_normals)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-15)


def _iris(asset: HeadAsset, joint: np.ndarray, eyeball: np.ndarray) -> SurfaceHits:
    """Centre and four rim points of the iris, on an eyeball that looks straight ahead."""
    ball = Surface(asset.v_template, asset.faces, eyeball)
    used = np.unique(asset.faces[eyeball])
    radius = float(np.linalg.norm(asset.v_template[used] - joint, axis=1).mean())
    angle = np.arcsin(min(_IRIS_RADIUS_M / radius, 0.9))
    directions = []
    for right, up in _IRIS_DIRECTIONS:
        turn = Rotation.from_rotvec(angle * np.array([-up, right, 0.0]))
        directions.append(turn.apply([0.0, 0.0, 1.0]))
    return ball.nearest(joint + radius * np.array(directions), np.array(directions))
