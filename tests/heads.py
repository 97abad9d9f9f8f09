"""A small synthetic head for tests: every part that a real head file has, in 984 vertices.

The shape is an ellipsoid with a nose, two eyeballs and an upper row of teeth. It looks like an egg, but its parts
behave like a head's: blended skinning weights, pose correctives, joints that move with the identity and slightly with
expressions, a uv map with a seam, regions, and landmarks of both schemes at plausible places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from trimesh.creation import icosphere

from flame_assets.asset import HeadAsset, LandmarkEmbedding
from flame_assets.load import load_head

EXPRESSIONS = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight", "browInnerUp")

_RADII = np.array([0.075, 0.11, 0.095])
_EYE_RADIUS = 0.0125
_JOINTS = {
    "root": (0.0, -0.09, -0.02),
    "neck": (0.0, -0.05, -0.02),
    "jaw": (0.0, -0.01, 0.01),
    "left_eye": (0.032, 0.025, 0.07),
    "right_eye": (-0.032, 0.025, 0.07),
}
# centre and direction (metres) of the bump that each known expression moves; others get a place of their own at random
_MOTIONS = {
    "jawOpen": ((0.0, -0.07, 0.06), (0.0, -0.025, -0.01)),
    "eyeBlinkLeft": ((0.032, 0.045, 0.075), (0.0, -0.01, 0.003)),
    "eyeBlinkRight": ((-0.032, 0.045, 0.075), (0.0, -0.01, 0.003)),
    "mouthSmileLeft": ((0.03, -0.04, 0.075), (0.008, 0.006, -0.004)),
    "mouthSmileRight": ((-0.03, -0.04, 0.075), (-0.008, 0.006, -0.004)),
    "browInnerUp": ((0.0, 0.06, 0.075), (0.0, 0.008, 0.0)),
}
# MediaPipe numbers whose places matter to code under test: eye corners, lid middles, lips, nose tip, chin, brow
_MEDIAPIPE = {
    33: (-0.046, 0.025), 133: (-0.018, 0.025), 362: (0.018, 0.025), 263: (0.046, 0.025),
    159: (-0.032, 0.034), 145: (-0.032, 0.016), 386: (0.032, 0.034), 374: (0.032, 0.016),
    1: (0.0, -0.005), 4: (0.0, -0.002), 168: (0.0, 0.025), 13: (0.0, -0.04), 14: (0.0, -0.044),
    61: (-0.025, -0.042), 291: (0.025, -0.042), 152: (0.0, -0.095), 10: (0.0, 0.085), 9: (0.0, 0.05),
}  # fmt: skip


def tiny_head(seed: int = 0, identity: int = 6, expressions: Sequence[str] = EXPRESSIONS) -> HeadAsset:
    """Build the head.

    Args:
        seed: of everything drawn at random (bases, landmark places).
        identity: number of identity directions.
        expressions: names of the expression directions; any names are good.
    """
    rng = np.random.default_rng(seed)
    skin, skin_faces = _skin()
    eye, eye_faces = _sphere(2)
    teeth, teeth_faces = _teeth()
    left, right = (np.array(_JOINTS[k]) + _EYE_RADIUS * eye for k in ("left_eye", "right_eye"))
    parts = [(skin, skin_faces), (left, eye_faces), (right, eye_faces), (teeth, teeth_faces)]
    vertices = np.concatenate([v for v, _ in parts])
    starts = np.cumsum([0, *(len(v) for v, _ in parts)])
    faces = np.concatenate([f + start for (_, f), start in zip(parts, starts, strict=False)])
    part = np.repeat(np.arange(4), np.diff(starts))

    bumps = [_bump(vertices, *_random_motion(rng, vertices[part == 0])) for _ in range(identity)]
    moves = [_bump(vertices, *(_MOTIONS.get(n) or _random_motion(rng, skin))) for n in expressions]
    for move in moves:
        move[part != 0] = 0
    shapedirs = np.stack(bumps + moves, axis=-1) if bumps or moves else np.zeros((len(vertices), 3, 0))
    uv, uv_faces = _unwrap(vertices, faces)
    return HeadAsset(
        name=f"tiny-{seed}",
        v_template=vertices.astype(np.float32),
        shapedirs=shapedirs.astype(np.float32),
        n_identity=identity,
        posedirs=_pose_correctives(rng, vertices, part).astype(np.float32),
        joint_regressor=_joint_regressor(vertices, part).astype(np.float32),
        weights=_weights(vertices, part).astype(np.float32),
        faces=faces.astype(np.int32),
        uv=uv.astype(np.float32),
        uv_faces=uv_faces.astype(np.int32),
        expression_names=tuple(expressions),
        expression_range=(0.0, 1.0),
        regions=_regions(vertices, part),
        landmarks=_landmarks(rng, vertices, faces, part),
        canonical=((vertices - vertices.min(0)) / np.ptp(vertices, axis=0).max()).astype(np.float32),
        provenance={"source": "synthetic test head", "licence": "CC0-1.0"},
    )


def flame_sized_head(seed: int = 0, vertices: int = 5023) -> HeadAsset:
    """The small head with FLAME's number of vertices (those beyond its own lie unused at the top) and numbered expressions."""
    head = tiny_head(seed, expressions=[f"expr{k:03d}" for k in range(7)])
    more = vertices - head.n_vertices

    def longer(array: np.ndarray, axis: int = 0, value: float = 0) -> np.ndarray:
        return np.concatenate([array, np.full([more if k == axis else n for k, n in enumerate(array.shape)], value, array.dtype)], axis)

    return replace(
        head,
        name=f"flame-sized-{seed}",
        v_template=np.concatenate([head.v_template, np.repeat(head.v_template[:1], more, 0)]),
        shapedirs=longer(head.shapedirs),
        posedirs=longer(head.posedirs),
        joint_regressor=longer(head.joint_regressor, 1),
        weights=np.concatenate([head.weights, np.eye(5, dtype=np.float32)[np.ones(more, int)]]),
        regions={name: longer(mask, value=False) for name, mask in head.regions.items()},
        canonical=np.concatenate([head.canonical, np.repeat(head.canonical[:1], more, 0)]),
    )


def flame_like_head(seed: int = 0, scale: float = 1.0) -> HeadAsset:
    """A head that stands for FLAME's: 5,023 vertices in an order of their own, no teeth and no tongue, numbered expressions of unit variance that
    are known mixtures of ARKit's, another person for a mean, ``scale`` times as large and elsewhere. What the default head shows, it can show
    exactly: vertex ``k`` of it is the default head's ``provenance["source_vertex"][k]`` (-1 for those that no triangle has).
    """
    head, rng = load_head(), np.random.default_rng(seed)
    kept = np.flatnonzero(~(head.regions["teeth"] | head.regions["tongue"]))
    order = rng.permutation(5023)
    source = np.full(5023, -1)
    source[order[: len(kept)]] = kept
    place = np.full(head.n_vertices, -1)
    place[kept] = order[: len(kept)]
    triangles = (place[head.faces] >= 0).all(1)
    number = np.cumsum(triangles) - 1
    used = source >= 0

    def moved(array: np.ndarray) -> np.ndarray:
        return np.where(used.reshape(-1, *[1] * (array.ndim - 1)), array[source], array[source[used][0]])

    identity, expressions = np.split(head.shapedirs.astype(np.float64), [head.n_identity], axis=2)
    count = expressions.shape[2]
    mixture = np.linalg.qr(rng.normal(size=(count, count)))[0] * rng.uniform(2, 6, count)  # coefficients = mixture @ ARKit's values
    person = head.v_template + identity @ rng.normal(0, 0.5, head.n_identity)
    directions = np.concatenate([identity, expressions @ np.linalg.inv(mixture)], axis=2)
    regressor = np.where(used, head.joint_regressor[:, source], 0)
    return replace(
        head, name=f"flame-like-{seed}", v_template=moved(scale * person + [0.01, 0.02, -0.03]).astype(np.float32),
        shapedirs=moved(scale * directions).astype(np.float32), posedirs=moved(scale * head.posedirs),
        joint_regressor=(regressor / regressor.sum(1, keepdims=True)).astype(np.float32), weights=moved(head.weights),
        faces=place[head.faces[triangles]].astype(np.int32), uv=None, uv_faces=None, canonical=moved(head.canonical),
        expression_names=tuple(f"expr{k:03d}" for k in range(count)), expression_range=(-np.inf, np.inf),
        regions={name: mask[source] & used for name, mask in head.regions.items() if name not in ("teeth", "tongue", "upper_teeth", "lower_teeth")},
        landmarks={name: replace(e, faces=number[e.faces].astype(np.int32)) for name, e in head.landmarks.items()},
        provenance={"source": "synthetic test head", "source_vertex": source.tolist()},
    )  # fmt: skip


def _sphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    ball = icosphere(subdivisions=subdivisions)
    return np.asarray(ball.vertices, np.float64), np.asarray(ball.faces)


def _skin() -> tuple[np.ndarray, np.ndarray]:
    directions, faces = _sphere(3)
    vertices = directions * _RADII
    nose = np.exp(-((vertices[:, 0] / 0.012) ** 2) - ((vertices[:, 1] + 0.005) / 0.02) ** 2) * (vertices[:, 2] > 0)
    vertices[:, 2] += 0.02 * nose
    return vertices, faces


def _teeth() -> tuple[np.ndarray, np.ndarray]:
    """A curved strip behind the mouth, seen from the front."""
    columns, x = 9, np.linspace(-0.02, 0.02, 9)
    arch = np.stack([x, np.zeros(columns), 0.072 - 20 * x**2], -1)
    vertices = np.concatenate([arch + np.array([0, -0.032, 0]), arch + np.array([0, -0.041, 0])])
    top = np.arange(columns - 1)
    below = top + columns
    faces = np.concatenate([np.stack([top, below, below + 1], -1), np.stack([top, below + 1, top + 1], -1)])
    return vertices, faces


def _bump(vertices: np.ndarray, centre: Sequence[float], direction: Sequence[float], width: float = 0.03) -> np.ndarray:
    falloff = np.exp(-(((vertices - np.array(centre)) / width) ** 2).sum(-1))
    falloff[falloff < 1e-3] = 0  # real blendshapes are local, with exact zeros elsewhere
    return falloff[:, None] * np.array(direction)


def _random_motion(rng: np.random.Generator, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return surface[rng.integers(len(surface))], 0.006 * rng.normal(size=3)


def _weights(vertices: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Root at the bottom, neck above it, jaw in front and below; eyeballs and upper teeth rigid."""
    _, y, z = vertices.T
    weights = np.zeros((len(vertices), 5))
    above = 1 / (1 + np.exp(-(y + 0.075) / 0.01))
    jaw = above / (1 + np.exp((y + 0.045) / 0.006)) / (1 + np.exp(-(z - 0.01) / 0.01))
    weights[:, 2] = jaw
    weights[:, 1] = above - jaw
    weights[:, 0] = 1 - above
    weights[weights < 1e-3] = 0
    for number, joint in ((1, 3), (2, 4), (3, 1)):
        weights[part == number] = np.eye(5)[joint]
    return weights / weights.sum(1, keepdims=True)


def _joint_regressor(vertices: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Non-negative rows of unit sum; the eyes are their balls' centres, the others means of what surrounds them."""
    regressor = np.zeros((5, len(vertices)))
    for row, joint in enumerate(_JOINTS.values()):
        if row >= 3:
            regressor[row, part == row - 2] = 1
        else:
            height = np.abs(vertices[:, 1] - joint[1])
            regressor[row] = np.where((part == 0) & (height < 0.025), 1, 0)
    return regressor / regressor.sum(1, keepdims=True)


def _pose_correctives(rng: np.random.Generator, vertices: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Smooth offsets around the neck (columns 0-8) and the jaw (9-17); the eyes have none, as on the default head."""
    dirs = np.zeros((len(vertices), 3, 36))
    for columns, centre in ((range(9), (0.0, -0.08, 0.0)), (range(9, 18), (0.0, -0.05, 0.05))):
        for column in columns:
            dirs[:, :, column] = _bump(vertices, centre, 0.006 * rng.normal(size=3), 0.05)
    dirs[part != 0] = 0
    return dirs


def _regions(vertices: np.ndarray, part: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = vertices.T
    skin, front = part == 0, z > 0.04
    eyes = {"left_eye": part == 1, "right_eye": part == 2}
    ball = eyes["left_eye"] | eyes["right_eye"]
    centres = np.where(part[:, None] == 1, _JOINTS["left_eye"], _JOINTS["right_eye"])
    axis = (vertices - centres)[:, 2] / _EYE_RADIUS
    return {
        "face": skin & front & (y > -0.09) & (y < 0.08),
        "scalp": skin & ((y > 0.06) | ((z < 0) & (y > -0.03))),
        "ears": skin & (np.abs(x) > 0.068) & (np.abs(y) < 0.04),
        "neck": skin & (y < -0.06) & (z < 0.03),
        "lips": skin & front & (np.abs(x) < 0.03) & (np.abs(y + 0.042) < 0.015),
        "brows": skin & front & (np.abs(y - 0.05) < 0.01),
        "eyes": ball,
        **eyes,
        "irises": ball & (axis > 0.75),
        "pupils": ball & (axis > 0.95),
        "teeth": part == 3,
    }


def _unwrap(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cylinder map with its seam at the back: triangles across the seam get corners of their own."""
    turn = 0.45 + 0.45 * np.arctan2(vertices[:, 0], vertices[:, 2]) / np.pi
    height = (vertices[:, 1] - vertices[:, 1].min()) / np.ptp(vertices[:, 1])
    corner_turn = turn[faces]
    wraps = np.ptp(corner_turn, axis=1) > 0.45
    corner_turn[wraps] += 0.9 * (corner_turn[wraps] < 0.45)
    pairs = np.stack([corner_turn.clip(0, 1), height[faces]], -1).reshape(-1, 2)
    # one uv per vertex and side of the seam
    keys = np.stack([faces.reshape(-1), np.repeat(wraps, 3) & (pairs[:, 0] > 0.9)], -1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return pairs[first], inverse.reshape(faces.shape)


def _landmarks(
    rng: np.random.Generator, vertices: np.ndarray, faces: np.ndarray, part: np.ndarray
) -> dict[str, LandmarkEmbedding]:
    """Points on the front of the skin (irises on the eyeballs), found by looking along −z."""
    spread = rng.uniform((-0.055, -0.085), (0.055, 0.085), (478, 2))
    for number, place in _MEDIAPIPE.items():
        spread[number] = place
    skin = np.flatnonzero((part[faces] == 0).all(1))
    embeddings = [_embed(spread[:468], vertices, faces, skin)]
    for ball, joint in ((2, "right_eye"), (1, "left_eye")):
        ring = np.array([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)]) * 0.0055
        rows = np.flatnonzero((part[faces] == ball).all(1))
        embeddings.append(_embed(ring + _JOINTS[joint][:2], vertices, faces, rows))
    numbers = np.arange(478, dtype=np.int32)
    mediapipe = LandmarkEmbedding(numbers, *(np.concatenate(a) for a in zip(*embeddings, strict=True)))
    ibug = LandmarkEmbedding(numbers[:68], *_embed(0.9 * spread[100:168], vertices, faces, skin))
    return {"mediapipe": mediapipe, "ibug68": ibug}


def _embed(
    places: np.ndarray, vertices: np.ndarray, faces: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Front-most triangle of ``rows`` over each (x, y) place, and the place's barycentrics in it."""
    edges = vertices[faces[rows]][:, 1:, :2] - vertices[faces[rows]][:, :1, :2]
    determinant = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    front = determinant > 1e-9
    rows, edges, determinant = rows[front], edges[front], determinant[front]
    corners = vertices[faces[rows]]
    origin = corners[:, 0, :2]
    offset = places[:, None] - origin
    b = (offset[..., 0] * edges[:, 1, 1] - offset[..., 1] * edges[:, 1, 0]) / determinant
    c = (edges[:, 0, 0] * offset[..., 1] - edges[:, 0, 1] * offset[..., 0]) / determinant
    barycentrics = np.stack([1 - b - c, b, c], -1)
    depth = np.where((barycentrics >= -1e-9).all(-1), (barycentrics * corners[:, :, 2]).sum(-1), -np.inf)
    best = depth.argmax(1)
    chosen = barycentrics[np.arange(len(places)), best].clip(0)
    return rows[best].astype(np.int32), (chosen / chosen.sum(1, keepdims=True)).astype(np.float32)
