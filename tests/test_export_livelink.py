"""``livelink.csv``: its columns, its times, and the signs of its angles on a head with known turns."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.errors import UserError
from tracker.export import export
from tracker.export.arkit_values import ARKIT_NAMES
from tracker.export.livelink import timecode
from tracker.landmarks.landmark_schemes import BLENDSHAPE_NAMES
from tracker.track_vertices import track_vertices

HEAD = tiny_head()


def written(track, folder, name="livelink"):
    (file,) = export(track, HEAD, name, folder)
    with (folder / file).open(newline="") as lines:
        rows = list(csv.reader(lines))
    return rows[0], [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def still(frames=1, **poses):
    """A head at rest, but for ``poses``."""
    track = talking_track(HEAD, frames)
    zeros = {name: np.zeros_like(getattr(track, name)) for name in ("rotation", "neck_pose", "jaw_pose", "eyes_pose", "expr")}
    return dataclasses.replace(track, **(zeros | {name: np.array(value, float) for name, value in poses.items()}))


def test_columns_are_the_apps(tmp_path):
    header, rows = written(talking_track(HEAD, 4), tmp_path)
    assert header[:6] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft"]
    assert header[16:20] == ["JawForward", "JawRight", "JawLeft", "JawOpen"]  # right before left, here and next, as in the app
    assert header[23:25] == ["MouthRight", "MouthLeft"]
    assert header[51:54] == ["NoseSneerLeft", "NoseSneerRight", "TongueOut"]
    assert header[54:] == [f"{p}{a}" for p in ("Head", "LeftEye", "RightEye") for a in ("Yaw", "Pitch", "Roll")]
    assert len(header) == 63 and {row["BlendShapeCount"] for row in rows} == {"61"} and len(rows) == 4


def test_all_of_arkits_names_and_no_others():
    assert len(ARKIT_NAMES) == 52
    assert set(ARKIT_NAMES) == set(BLENDSHAPE_NAMES) - {"_neutral"} | {"tongueOut"}


def test_values_are_the_coefficients(tmp_path):
    track = talking_track(HEAD, 5)
    _, rows = written(track, tmp_path)
    for frame, row in enumerate(rows):
        for k, name in enumerate(HEAD.expression_names):
            assert float(row[name[0].upper() + name[1:]]) == pytest.approx(track.expr[frame, k], abs=1e-9)
        assert float(row["CheekPuff"]) == 0


@pytest.mark.parametrize(
    ("axis", "column", "moves"),
    [
        ([0, 0.3, 0], "HeadYaw", lambda nose, left_ear: nose[0] > 0.01),  # to the subject's left
        ([0.3, 0, 0], "HeadPitch", lambda nose, left_ear: nose[1] < -0.01),  # down
        ([0, 0, 0.3], "HeadRoll", lambda nose, left_ear: left_ear[1] > 0.01),  # left ear up
    ],
)
def test_signs_of_the_head(axis, column, moves, tmp_path):
    """The turned mesh itself says which way the head went."""
    track = still(rotation=[axis], translation=[[0, 0, 0]])
    rest, turned = (next(track_vertices(t, HEAD)) for t in (still(translation=[[0, 0, 0]]), track))
    face = turned - rest
    assert moves(face[rest[:, 2].argmax()], face[rest[:, 0].argmax()])
    _, (row,) = written(track, tmp_path)
    assert float(row[column]) == pytest.approx(0.3, abs=1e-6)
    assert all(abs(float(row[f"Head{a}"])) < 1e-9 for a in ("Yaw", "Pitch", "Roll") if f"Head{a}" != column)


def test_the_neck_counts_and_angles_come_in_order(tmp_path):
    whole = Rotation.from_euler("YXZ", [0.5, -0.2, 0.1])
    neck = Rotation.from_rotvec([0.1, 0.2, 0])
    track = still(rotation=[(whole * neck.inv()).as_rotvec()], neck_pose=[neck.as_rotvec()])
    _, (row,) = written(track, tmp_path)
    assert [float(row[f"Head{a}"]) for a in ("Yaw", "Pitch", "Roll")] == pytest.approx([0.5, -0.2, 0.1], abs=1e-6)


def test_signs_of_the_eyes(tmp_path):
    """Both eyes look to the subject's left and up: the left one outwards, the right one inwards."""
    look = Rotation.from_euler("YXZ", [0.2, -0.1, 0]).as_rotvec()
    _, (row,) = written(still(eyes_pose=[[*look, *look]]), tmp_path)
    for side in ("Left", "Right"):
        assert [float(row[f"{side}Eye{a}"]) for a in ("Yaw", "Pitch", "Roll")] == pytest.approx([0.2, -0.1, 0], abs=1e-6)
        assert float(row[f"EyeLookUp{side}"]) == pytest.approx(0.1 / np.radians(30), abs=1e-6) and float(row[f"EyeLookDown{side}"]) == 0
    assert float(row["EyeLookOutLeft"]) == float(row["EyeLookInRight"]) == pytest.approx(0.2 / np.radians(40), abs=1e-6)
    assert float(row["EyeLookInLeft"]) == float(row["EyeLookOutRight"]) == 0


def test_degrees(tmp_path):
    track = talking_track(HEAD, 3)
    _, radians = written(track, tmp_path)
    _, degrees = written(track, tmp_path, "livelink-degrees")
    for a, b in zip(radians, degrees, strict=True):
        assert float(b["HeadYaw"]) == pytest.approx(np.degrees(float(a["HeadYaw"])), abs=1e-6)
        assert a["JawOpen"] == b["JawOpen"]


@pytest.mark.parametrize(
    ("seconds", "rate", "text"),
    [
        (0.0, 25.0, "00:00:00:00.000"),
        (1.52, 25.0, "00:00:01:13.000"),
        (3661.5, 30000 / 1001, "01:01:01:15.000"),
        (0.1001, 60.0, "00:00:00:06.006"),
        (1.99999, 25.0, "00:00:02:00.000"),  # rounding carries over
    ],
)
def test_timecodes(seconds, rate, text):
    assert timecode(seconds, rate) == text


def test_a_head_that_speaks_neither_is_refused(tmp_path):
    other = tiny_head(expressions=("happy", "sad"))
    with pytest.raises(UserError, match="neither ARKit's nor FLAME's"):
        export(talking_track(other, 2), other, "livelink", tmp_path)
