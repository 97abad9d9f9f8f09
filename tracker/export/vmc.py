"""A track as messages of the VMC protocol (OSC over UDP), which avatars' programs listen to. No format on disk: ``tools/send_vmc.py``.

A frame is one bundle: ``/VMC/Ext/OK``, ``/VMC/Ext/T`` (seconds), a ``/VMC/Ext/Bone/Pos`` for each bone, a ``/VMC/Ext/Blend/Val`` for each of
ARKit's 52 values, and ``/VMC/Ext/Blend/Apply``. Axes are Unity's: left-handed, y up, an avatar looks along +z and has its right at +x.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from tracker.errors import UserError
from tracker.export.arkit_values import ARKIT_NAMES, arkit_values, head_rotation, refuses
from tracker.head_track import HeadTrack
from tracker.track_vertices import check_head

NECK_SHARE = 0.4
"""Of the head's turn that the neck takes; the head takes the rest, as an avatar's rig looks natural."""

Message = tuple[str, tuple[Any, ...]]


def messages(track: HeadTrack, head: HeadAsset) -> Iterator[list[Message]]:
    """Address and arguments of what each frame sends.

    Raises:
        UserError: the head is not the track's, or its expressions cannot be told in ARKit's values.
    """
    check_head(track, head)
    reason = refuses(head)
    if reason:
        raise UserError(f"the head {head.name!r} cannot drive an avatar: {reason}")
    names = [name[0].upper() + name[1:] for name in ARKIT_NAMES]
    values = arkit_values(track, head)
    bones = {name: unity_quaternions(turn) for name, turn in bone_rotations(track).items()}
    for number in range(track.n_frames):
        turns: list[Message] = [
            ("/VMC/Ext/Bone/Pos", (name, 0.0, 0.0, 0.0, *map(float, quaternions[number]))) for name, quaternions in bones.items()
        ]
        blends: list[Message] = [("/VMC/Ext/Blend/Val", (name, float(v))) for name, v in zip(names, values[number], strict=True)]
        clock = float(track.timestamps[number] - track.timestamps[0])
        yield [("/VMC/Ext/OK", (1,)), ("/VMC/Ext/T", (clock,)), *turns, *blends, ("/VMC/Ext/Blend/Apply", ())]


def bone_rotations(track: HeadTrack) -> dict[str, Rotation]:
    """Turn of each bone relative to its parent. Neck times head is the whole turn of the head against the camera."""
    whole = head_rotation(track)
    neck = Rotation.from_rotvec(NECK_SHARE * whole.as_rotvec())
    left, right = (Rotation.from_rotvec(track.eyes_pose[:, part]) for part in (slice(0, 3), slice(3, 6)))
    return {"Neck": neck, "Head": neck.inv() * whole, "LeftEye": left, "RightEye": right}


def unity_quaternions(rotation: Rotation) -> Float[np.ndarray, "frames 4"]:
    """(x, y, z, w) in Unity's axes: the mirror image in x, since x points to the subject's left here and to its right there."""
    return rotation.as_quat(canonical=True) * [1, -1, -1, 1]


def play(
    track: HeadTrack, head: HeadAsset, host: str, port: int, *, loop: bool = False,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> int:  # fmt: skip
    """Send a track's frames at their own times, once or again and again. Late frames are sent at once, so that the pace is kept.

    Returns:
        How many frames were sent.

    Raises:
        UserError: python-osc is not installed, nobody can be sent to at that address, or as :func:`messages`.
    """
    try:
        from pythonosc.udp_client import UDPClient
    except ImportError as error:
        raise UserError("python-osc is not installed; run: pip install python-osc") from error
    if not 0 < port < 65536:
        raise UserError(f"--port {port}: give a number from 1 to 65535")
    bundles = [_bundle(frame) for frame in messages(track, head)]
    times = track.timestamps - track.timestamps[0]
    length = float(times[-1]) + 1 / track.frame_rate
    start, sent = clock(), 0
    try:
        client = UDPClient(host, port)
        while True:
            for bundle, when in zip(bundles, times, strict=True):
                wait = start + float(when) - clock()
                if wait > 0:
                    sleep(wait)
                client.send(bundle)
                sent += 1
            if not loop:
                return sent
            start += length
    except (socket.gaierror, OSError) as error:
        raise UserError(f"{host}:{port}: cannot be sent to ({error.strerror or error}); check --host and --port") from error


def _bundle(frame: list[Message]) -> Any:
    from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
    from pythonosc.osc_message_builder import OscMessageBuilder

    builder = OscBundleBuilder(IMMEDIATELY)
    for address, arguments in frame:
        message = OscMessageBuilder(address)
        for argument in arguments:
            message.add_arg(argument, {str: "s", int: "i", float: "f"}[type(argument)])
        builder.add_content(message.build())
    return builder.build()
