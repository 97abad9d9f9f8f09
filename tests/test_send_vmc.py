"""``tools/send_vmc.py``: received over UDP and taken apart by a reader of OSC of the test's own."""

from __future__ import annotations

import socket
import struct
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flame_assets.asset import save_npz
from tests.heads import tiny_head
from tests.tracks import talking_track
from tools.send_vmc import main
from tracker.export import export
from tracker.export.vmc import play

pytest.importorskip("pythonosc", reason="python-osc is not installed")

HEAD = tiny_head()


def osc_messages(packet: bytes) -> list[tuple[str, list]]:
    """OSC 1.0: strings end in zeros up to a multiple of four bytes, numbers are big-endian, bundles hold sized elements."""
    if packet.startswith(b"#bundle\0"):
        found, at = [], 16
        while at < len(packet):
            (size,) = struct.unpack_from(">i", packet, at)
            found += osc_messages(packet[at + 4 : at + 4 + size])
            at += 4 + size
        return found
    address, at = osc_string(packet, 0)
    tags, at = osc_string(packet, at)
    arguments = []
    for tag in tags[1:]:
        if tag == "s":
            value, at = osc_string(packet, at)
        else:
            (value,), at = struct.unpack_from(f">{tag}", packet, at), at + 4
        arguments.append(value)
    assert tags[0] == "," and at == len(packet)
    return [(address, arguments)]


def osc_string(packet: bytes, at: int) -> tuple[str, int]:
    end = packet.index(b"\0", at)
    return packet[at:end].decode("ascii"), at + (end - at) // 4 * 4 + 4


@pytest.fixture
def receiver():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


def received(server, frames):
    return [osc_messages(server.recv(65535)) for _ in range(frames)]


def matrix_in_unity(quaternion):
    """What Unity does with (x, y, z, w): Hamilton's formula, in its left-handed axes."""
    return Rotation.from_quat(quaternion).as_matrix()


def test_values_and_bones_arrive(receiver, tmp_path, capsys):
    track = talking_track(HEAD, 5)
    export(track, HEAD, "npz", tmp_path)
    save_npz(HEAD, tmp_path / "head.npz")
    port = receiver.getsockname()[1]
    assert main([str(tmp_path), "--head", str(tmp_path / "head.npz"), "--port", str(port)]) == 0
    assert capsys.readouterr().out == f"sent 5 frames to 127.0.0.1:{port}\n"
    mirror = np.diag([-1.0, 1.0, 1.0])  # Unity's x is ours turned round
    for number, frame in enumerate(received(receiver, 5)):
        addresses = [address for address, _ in frame]
        assert addresses == ["/VMC/Ext/OK", "/VMC/Ext/T", *["/VMC/Ext/Bone/Pos"] * 4, *["/VMC/Ext/Blend/Val"] * 52, "/VMC/Ext/Blend/Apply"]
        assert frame[0][1] == [1] and frame[1][1][0] == pytest.approx(track.timestamps[number] - track.timestamps[0], abs=1e-6)
        values = dict(arguments for address, arguments in frame if address.endswith("Val"))
        for k, name in enumerate(HEAD.expression_names):
            assert values[name[0].upper() + name[1:]] == pytest.approx(track.expr[number, k], abs=1e-6)
        bones = {arguments[0]: arguments[1:] for address, arguments in frame if address.endswith("Pos")}
        assert set(bones) == {"Neck", "Head", "LeftEye", "RightEye"} and all(b[:3] == [0, 0, 0] for b in bones.values())
        whole = (Rotation.from_rotvec(track.rotation[number]) * Rotation.from_rotvec(track.neck_pose[number])).as_matrix()
        turned = matrix_in_unity(bones["Neck"][3:]) @ matrix_in_unity(bones["Head"][3:])
        np.testing.assert_allclose(turned, mirror @ whole @ mirror, atol=1e-5)
        eye = Rotation.from_rotvec(track.eyes_pose[number, 3:]).as_matrix()
        np.testing.assert_allclose(matrix_in_unity(bones["RightEye"][3:]), mirror @ eye @ mirror, atol=1e-5)


@pytest.mark.parametrize(
    ("turn", "goes"),
    [
        ((0, 0.4, 0), (-1, 0)),  # to the subject's left: Unity's −x
        ((0.4, 0, 0), (0, -1)),  # looks down
    ],
)
def test_signs_of_the_head(turn, goes, receiver):
    still = {"rotation": np.array([turn]), "neck_pose": np.zeros((1, 3))}
    assert play(talking_track(HEAD, 1, **still), HEAD, "127.0.0.1", receiver.getsockname()[1]) == 1
    (frame,) = received(receiver, 1)
    bones = {arguments[0]: arguments[4:] for address, arguments in frame if address.endswith("Pos")}
    ahead = matrix_in_unity(bones["Neck"]) @ matrix_in_unity(bones["Head"]) @ [0, 0, 1]
    np.testing.assert_allclose(ahead[:2], np.sin(0.4) * np.array(goes), atol=1e-5)


def test_the_pace_is_the_videos_also_in_a_loop(receiver):
    """On a clock that the test owns: frames leave at their times, a slow frame is caught up, the loop goes on without a gap."""
    track = talking_track(HEAD, 3, timestamps=np.array([2.0, 2.1, 2.5]), frame_rate=10.0)
    now, left = [100.0], []

    def sleep(seconds: float) -> None:
        left.append(round(now[0] + seconds, 6))
        now[0] += seconds
        if len(left) == 2:
            now[0] += 0.65  # the machine was busy: the first frame of the next round is late and leaves at once
        if len(left) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(track, HEAD, "127.0.0.1", receiver.getsockname()[1], loop=True, clock=lambda: now[0], sleep=sleep)
    # rounds last 0.6 s: frames at 0, 0.1, 0.5 | 0.6, 0.7, 1.1 | 1.2, …; awake again at 1.15
    assert left == [100.1, 100.5, 101.2, 101.3]
    clocks = [frame[1][1][0] for frame in received(receiver, 7)]
    assert clocks == pytest.approx([0, 0.1, 0.5, 0, 0.1, 0.5, 0], abs=1e-6)


def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    export(talking_track(HEAD, 2), HEAD, "npz", tmp_path)
    save_npz(HEAD, tmp_path / "head.npz")
    options = [str(tmp_path), "--head", str(tmp_path / "head.npz")]
    assert main([*options, "--port", "70000"]) == 2
    assert "--port 70000" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "made with head 'tiny-0'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pythonosc.udp_client", None)
    assert main(options) == 2
    assert "pip install python-osc" in capsys.readouterr().err
