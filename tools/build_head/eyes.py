"""True spheres for eyeballs, and lids that sit on them.

The source's eyeballs are too large (about 33 mm across on a head of adult size, against 24-26 mm in people), and the
lids are modelled for that size. So the lids are seated anew: tissue in front of the eye is shifted along the optical
axis by the difference between the surface of the old sphere and that of the new one, and what is left between the
lid margin and the new sphere is removed by a small radial correction. The source's socket, a bag around the old
eyeball, is replaced by a thin one around the new eyeball that starts under the lid margin.

The sphere is parametrised about the optical axis (+z at rest): rings of vertices at fixed polar angles, one of which
is the edge of the pupil and one the edge of the iris.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RADIUS = 0.0130
"""Radius of the mean eyeball in metres: between the 12 mm of anatomy and what the source's lids can be seated on."""
IRIS_RADIUS = 0.01170 / 2
"""The visible iris is 11.7 mm across with little variation between adults."""
PUPIL_RADIUS = 0.0040 / 2
SEGMENTS = 24
_BACK_ANGLES = (31.5, 38.0, 46.0, 56.0, 67.0, 78.0, 90.0, 106.0, 124.0, 144.0, 162.0)

LID_CLEARANCE = 0.00025
"""Distance from the eyeball to the inner edge of the lid margin."""
CORNER = (0.85, 1.10)
"""Distance from the optical axis, in radii, up to which the margin is pulled onto the eyeball, and beyond which not."""
SEAT_REACH = (0.012, 0.024)
"""Distance from the optical axis up to which tissue is shifted fully, and beyond which it is not shifted."""
FOLD_ANGLE, FOLD_GAP = 0.22, 0.0005
"""The fold under the lid margin: radians beyond the margin, metres off the eyeball."""
BAG_RINGS, BAG_GAP = (0.25, 0.5, 0.8), 0.0012
"""Rings of the bag: share of the way from the fold to the point behind the eyeball; distance from the eyeball."""


def ring_angles() -> np.ndarray:
    """Polar angles of the rings in radians, from pupil edge to the back; poles not included."""
    front = [PUPIL_RADIUS, (PUPIL_RADIUS + IRIS_RADIUS) / 2, IRIS_RADIUS]
    return np.concatenate([np.arcsin(np.array(front) / RADIUS), np.deg2rad(_BACK_ANGLES)])


@dataclass(frozen=True)
class Sphere:
    """The unit eyeball.

    Attributes:
        directions: ``(n, 3)`` unit vectors: front pole, the rings from front to back, back pole.
        faces: ``(f, 3)`` triangles, counter-clockwise from outside.
        uv: ``(n_uv, 2)`` polar map of the sphere in [0, 1]², front pole in the middle. uv_faces: ``(f, 3)``.
        pupil_ring, iris_ring, equator: vertex indices of rings, in order.
    """

    directions: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    pupil_ring: np.ndarray
    iris_ring: np.ndarray
    equator: np.ndarray


def unit_sphere() -> Sphere:
    """Rings about +z, closed by a fan at each pole. The mesh is its own mirror image in x."""
    polar, turn = ring_angles(), np.arange(SEGMENTS) * (2 * np.pi / SEGMENTS)
    rings = np.stack(
        [
            np.outer(np.sin(polar), np.cos(turn)),
            np.outer(np.sin(polar), np.sin(turn)),
            np.repeat(np.cos(polar)[:, None], SEGMENTS, 1),
        ],
        -1,
    )
    directions = np.concatenate([[[0.0, 0.0, 1.0]], rings.reshape(-1, 3), [[0.0, 0.0, -1.0]]])
    index = 1 + np.arange(len(polar) * SEGMENTS).reshape(len(polar), SEGMENTS)
    last = len(directions) - 1
    faces = [[0, index[0, k], index[0, (k + 1) % SEGMENTS]] for k in range(SEGMENTS)]
    for r in range(len(polar) - 1):
        faces += strip(index[r], index[r + 1])
    faces += [[last, index[-1, (k + 1) % SEGMENTS], index[-1, k]] for k in range(SEGMENTS)]
    angle = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi
    azimuth = np.arctan2(directions[:, 1], directions[:, 0])
    uv = 0.5 + 0.5 * angle[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], -1)
    uv, uv_faces = _split_back_pole(uv, np.array(faces), last, azimuth)
    equator = index[int(np.argmin(np.abs(polar - np.pi / 2)))]
    return Sphere(directions, np.array(faces), uv, uv_faces, index[0], index[2], equator)


def strip(inner: np.ndarray, outer: np.ndarray) -> list[list[int]]:
    """Triangles between two closed rings, ``outer`` further along; normals point out when rings turn with +z."""
    n, faces = len(inner), []
    for k in range(n):
        a, b, c, d = inner[k], inner[(k + 1) % n], outer[k], outer[(k + 1) % n]
        # the diagonal changes side with x, so that left and right halves mirror each other
        faces += [[a, c, b], [b, c, d]] if (k < n // 4 or k >= n * 3 // 4) else [[a, c, d], [a, d, b]]
    return [[int(v) for v in f] for f in faces]


def _split_back_pole(
    uv: np.ndarray, faces: np.ndarray, pole: int, azimuth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The back pole is the rim of the polar map: every triangle that touches it gets a uv point of its own."""
    uv_faces, extra = faces.copy(), []
    for row in np.flatnonzero((faces == pole).any(1)):
        others = faces[row][faces[row] != pole]
        middle = np.exp(1j * azimuth[others]).mean()
        extra.append([0.5 + 0.5 * middle.real / abs(middle), 0.5 + 0.5 * middle.imag / abs(middle)])
        uv_faces[row, faces[row] == pole] = len(uv) + len(extra) - 1
    return np.concatenate([uv, extra]), uv_faces


@dataclass(frozen=True)
class Seat:
    """Where one person's eyeball is, and how the lids were moved to meet it.

    Attributes:
        old_centre, old_radius: the source's eyeball, metres.
        centre, radius: the new eyeball.
        correction: ``(rings, n, 3)`` residual displacement of the lid rings, from the lid margin outwards.
        axes: ``(n, 3)`` unit axes about which the fold under each point of the margin turns away from the opening.
        fold: ``(n, 3)`` unit directions of the fold at rest. fold_distance: ``(n,)`` its distance from ``centre``.
    """

    old_centre: np.ndarray
    old_radius: float
    centre: np.ndarray
    radius: float
    correction: np.ndarray
    axes: np.ndarray
    fold: np.ndarray
    fold_distance: np.ndarray


CORRECTION_DECAY = (1.0, 0.85, 0.55, 0.3, 0.15, 0.05, 0.0)
"""Share of the margin's radial correction that the lid rings take, from the margin outwards."""
LID_THICKNESS = (0.0, 0.0007, 0.0010, 0.0013, 0.0015, 0.0015, 0.0015)
"""Least distance of the lid rings from the eyeball, from the margin outwards."""


def shift_lids(points: np.ndarray, old: tuple[np.ndarray, float], new: tuple[np.ndarray, float]) -> np.ndarray:
    """Move ``points`` ``(..., 3)`` along z by the gap between the front surfaces of two spheres on the same axis."""
    (centre0, radius0), (centre1, radius1) = old, new
    offset = points - centre0
    rho = np.linalg.norm(offset[..., :2], axis=-1)
    full, none = SEAT_REACH
    inside = np.minimum(rho, min(full, 0.93 * radius0, 0.93 * radius1))
    surface0 = centre0[2] + np.sqrt(radius0**2 - inside**2)
    surface1 = centre1[2] + np.sqrt(radius1**2 - inside**2)
    fade = np.clip((none - rho) / (none - full), 0, 1)
    behind = np.clip((offset[..., 2] + 0.25 * radius0) / (0.5 * radius0), 0, 1)
    shift = (surface1 - surface0) * smoothstep(fade) * smoothstep(behind)
    moved = points.copy()
    moved[..., 2] += shift
    return moved


def smoothstep(t: np.ndarray) -> np.ndarray:
    """3t² − 2t³ on [0, 1]."""
    return t * t * (3 - 2 * t)


def seat_eye(eyeball: np.ndarray, rings: np.ndarray, mean_radius: float) -> Seat:
    """Place the new eyeball of one person.

    Args:
        eyeball: ``(n, 3)`` vertices of the source's eyeball.
        rings: ``(r, m, 3)`` lid rings from the margin (r = 0) outwards.
        mean_radius: mean radius of the source's eyeball over people, metres.
    """
    centre0 = eyeball.mean(0)
    radius0 = float(np.linalg.norm(eyeball - centre0, axis=1).mean())
    for _ in range(20):  # slide along the axis until the lid margin lies on the old sphere on average
        outward = rings[0] - centre0
        distance = np.linalg.norm(outward, axis=1)
        gap = distance.mean() - radius0 - LID_CLEARANCE
        centre0 = centre0 + [0.0, 0.0, gap / (outward[:, 2] / distance).mean()]
    # globes vary less in size than the source's eyeballs do; the front pole stays where it was
    radius = RADIUS * (radius0 / mean_radius) ** 0.4
    centre = centre0 + [0.0, 0.0, radius0 - radius]
    margin = shift_lids(rings[0], (centre0, radius0), (centre, radius))
    outward = margin - centre
    distance = np.linalg.norm(outward, axis=1, keepdims=True)
    # the corners of the eye lie beside the eyeball, not on it
    beside = np.linalg.norm(outward[:, :2], axis=1, keepdims=True) / radius
    on_eyeball = smoothstep(np.clip((CORNER[1] - beside) / (CORNER[1] - CORNER[0]), 0, 1))
    residual = outward / distance * (radius + LID_CLEARANCE - distance)
    residual *= np.where(distance < radius + LID_CLEARANCE, 1.0, on_eyeball)
    correction = np.array(CORRECTION_DECAY)[:, None, None] * residual
    lids = shift_lids(rings, (centre0, radius0), (centre, radius)) + correction - centre
    distance = np.linalg.norm(lids, axis=-1, keepdims=True)
    lack = radius + np.array(LID_THICKNESS)[:, None, None] - distance
    correction += np.maximum(lack, 0) * lids / distance
    middle = (margin + residual).mean(0) - centre
    axes = np.cross(middle, margin + residual - centre)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    fold = _under(margin + residual - centre, axes)
    # not nearer than the margin: beside the eyeball, in the corners, the bag has to start behind the margin
    fold_distance = np.maximum(np.linalg.norm(margin + residual - centre, axis=1), radius) + FOLD_GAP
    return Seat(centre0, radius0, centre, radius, correction, axes, fold, fold_distance)


def socket(seat: Seat, margin: np.ndarray) -> np.ndarray:
    """Fold under the lid margin and the bag around the eyeball: ``(m * (1 + len(BAG_RINGS)) + 1, 3)``.

    Args:
        margin: ``(m, 3)`` seated (and possibly blinking) lid margin.
    """
    turned = _under(margin - seat.centre, seat.axes)
    return np.concatenate([seat.centre + seat.fold_distance[:, None] * turned, _bag(seat)])


def _under(outward: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Unit directions ``(m, 3)`` turned about ``axes`` by the fold's angle (Rodrigues' formula)."""
    direction = outward / np.linalg.norm(outward, axis=1, keepdims=True)
    c, s = np.cos(FOLD_ANGLE), np.sin(FOLD_ANGLE)
    along = axes * np.sum(axes * direction, axis=1, keepdims=True)
    return direction * c + np.cross(axes, direction) * s + along * (1 - c)


def _bag(seat: Seat) -> np.ndarray:
    """Rings from the fold at rest to the point behind the eyeball; they do not move with the lids."""
    fold = np.arccos(np.clip(seat.fold[:, 2], -1, 1))
    azimuth = np.arctan2(seat.fold[:, 1], seat.fold[:, 0])
    rings = []
    for share in BAG_RINGS:
        polar = fold + share * (np.pi - fold)
        direction = [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)]
        rings.append(seat.centre + (seat.radius + BAG_GAP) * np.stack(direction, -1))
    return np.concatenate([*rings, seat.centre[None] - [[0.0, 0.0, seat.radius + BAG_GAP]]])
