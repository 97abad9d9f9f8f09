"""A track in ARKit's terms: 52 values from 0 to 1, and the turns of the head and the eyes as angles.

A head whose expressions are ARKit's has the values as its coefficients; those of a FLAME head come from a map between the two
heads (:mod:`tracker.export.flame_arkit`). Gaze is in the eyes' joints in both, so the eight ``eyeLook…`` values are made of those.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from tracker.export.flame_params import is_flame
from tracker.head_track import HeadTrack

_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
_SIDES = ("Left", "Right")

ARKIT_NAMES: tuple[str, ...] = (
    *(f"eye{what}{side}" for side in _SIDES for what in _EYE),
    "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft",
    *(f"mouth{what}{side}" for what in ("Smile", "Frown", "Dimple", "Stretch") for side in _SIDES),
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    *(f"mouth{what}{side}" for what in ("Press", "LowerDown", "UpperUp") for side in _SIDES),
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""The 52 values, in the order in which Live Link Face writes them."""

FULL_LOOK_RAD = {"yaw": np.radians(40.0), "pitch": np.radians(30.0)}
"""Turn of an eye at which its ``eyeLook…`` values reach 1: about as far as eyes go sideways, and up or down."""


def refuses(head: HeadAsset) -> str | None:
    """Why a head's expressions cannot be told in ARKit's values."""
    if is_flame(head.expression_names) or set(head.expression_names) & set(ARKIT_NAMES):
        return None
    return "its expressions are neither ARKit's nor FLAME's"


def arkit_values(track: HeadTrack, head: HeadAsset) -> Float[np.ndarray, "frames 52"]:
    """Values of :data:`ARKIT_NAMES` in every frame, 0 to 1; shapes that the head does not have stay 0."""
    if is_flame(head.expression_names):
        from tracker.export.flame_arkit import head_map

        values = head_map(head).arkit_values(track.expr, track.jaw_pose)
    else:
        values = np.zeros((track.n_frames, len(ARKIT_NAMES)))
        for column, name in enumerate(ARKIT_NAMES):
            if name in track.expression_names:
                values[:, column] = track.expr[:, track.expression_names.index(name)]
    _set_gaze(values, track)
    return values.clip(0, 1)


def _set_gaze(values: Float[np.ndarray, "frames 52"], track: HeadTrack) -> None:
    for side, name in enumerate(_SIDES):
        yaw, pitch, _ = eye_angles(track, side).T
        outwards = (yaw if name == "Left" else -yaw) / FULL_LOOK_RAD["yaw"]
        down = pitch / FULL_LOOK_RAD["pitch"]
        for what, value in (("Out", outwards), ("In", -outwards), ("Down", down), ("Up", -down)):
            values[:, ARKIT_NAMES.index(f"eyeLook{what}{name}")] = value.clip(0, 1)


def head_rotation(track: HeadTrack) -> Rotation:
    """Of the head in the world, the neck joint's turn included; a head that faces the camera has none."""
    return Rotation.from_rotvec(track.rotation) * Rotation.from_rotvec(track.neck_pose)


def head_angles(track: HeadTrack) -> Float[np.ndarray, "frames 3"]:
    """Yaw, pitch and roll of the head as the camera sees it, radians; see :func:`yaw_pitch_roll`."""
    return yaw_pitch_roll(head_rotation(track))


def eye_angles(track: HeadTrack, side: int) -> Float[np.ndarray, "frames 3"]:
    """The same of an eye (0 left, 1 right) within the head."""
    return yaw_pitch_roll(Rotation.from_rotvec(track.eyes_pose[:, 3 * side : 3 * side + 3]))


def yaw_pitch_roll(rotation: Rotation) -> Float[np.ndarray, "frames 3"]:
    """Angles with ``R = R_y(yaw) R_x(pitch) R_z(roll)`` in the axes that ARKit's face anchor and this project share (x to the
    subject's left, y up, z out of the face). Positive yaw turns to the subject's left, positive pitch looks down, positive roll
    lifts the left ear. Radians; continuous over frames as long as the head does not look straight up or down."""
    return np.unwrap(rotation.as_euler("YXZ"), axis=0)
