"""BVH: read by a small reader that shares no code with the writer, and by Blender."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flame_assets.asset import JOINT_NAMES
from tests.heads import tiny_head
from tests.in_blender import look, needs_blender
from tests.tracks import talking_track
from tracker.export import export
from tracker.export.rig import build_rig

FRAMES = 40
TOLERANCE_DEG = 1e-4


def written(folder, **changes):
    head = tiny_head()
    track = talking_track(head, FRAMES, **changes)
    assert export(track, head, "bvh", folder) == ["head.bvh"]
    return track, head, folder / "head.bvh"


def world_turns(track):
    """Each joint's turn against the world, from the track's own axis-angle vectors."""
    root = Rotation.from_rotvec(track.rotation)
    neck = root * Rotation.from_rotvec(track.neck_pose)
    hanging = (track.jaw_pose, track.eyes_pose[:, :3], track.eyes_pose[:, 3:])
    return dict(zip(JOINT_NAMES, [root, neck, *(neck * Rotation.from_rotvec(pose) for pose in hanging)], strict=True))


def read_bvh(path):
    """World turns (frames, 3, 3) and places (frames, 3) of every joint, and the frame time: channels applied in the order they are named."""
    hierarchy, motion = path.read_text().split("MOTION\n")
    _, step, *rows = motion.splitlines()
    values, used, stack, turns, places = np.array([row.split() for row in rows], float), 0, [], {}, {}
    for line in map(str.strip, hierarchy.splitlines()):
        if match := re.match(r"(?:ROOT|JOINT|End) (\w+)", line):
            stack.append(match[1])
        elif line.startswith("OFFSET"):
            offset = np.array(line.split()[1:], float)
        elif line.startswith("CHANNELS"):
            parent = stack[-2] if len(stack) > 1 else None
            turn = np.tile(np.eye(3), (len(values), 1, 1)) if parent is None else turns[parent]
            place = (0 if parent is None else places[parent]) + turn @ offset
            for kind in line.split()[2:]:
                column, axis = values[:, used], np.eye(3)["XYZ".index(kind[0])]
                if kind.endswith("position"):
                    place = place + column[:, None] * axis
                else:
                    turn = turn @ Rotation.from_rotvec(np.radians(column)[:, None] * axis).as_matrix()
                used += 1
            turns[stack[-1]], places[stack[-1]] = turn, place
        elif line == "}":
            stack.pop()
    assert used == values.shape[1] and not stack
    return turns, places, float(step.split(":")[1])


def difference_deg(found, expected):
    return np.degrees((Rotation.from_matrix(found).inv() * expected).magnitude()).max()


def test_every_joint_turns_as_in_the_track(tmp_path):
    track, _, file = written(tmp_path)
    turns, _, step = read_bvh(file)
    assert set(turns) == set(JOINT_NAMES) and step == pytest.approx(1 / 25)
    for name, expected in world_turns(track).items():
        assert difference_deg(turns[name], expected) < TOLERANCE_DEG, name


def test_the_root_moves_and_the_other_joints_follow_at_fixed_distances(tmp_path):
    track, head, file = written(tmp_path)
    rig = build_rig(track, head)
    _, places, _ = read_bvh(file)
    np.testing.assert_allclose(places["root"], rig.translations[:, 0], atol=1e-6)
    offset = Rotation.from_rotvec(track.rotation).apply(rig.joints[1] - rig.joints[0])
    np.testing.assert_allclose(places["neck"], places["root"] + offset, atol=3e-6)


def test_angles_go_on_beyond_half_a_turn(tmp_path):
    around = np.linspace(0, 2 * np.pi, FRAMES)[:, None] * np.array([0, 1, 0])
    track, _, file = written(tmp_path, rotation=around)
    rows = np.array([line.split() for line in file.read_text().split("Frame Time:")[1].splitlines()[1:]], float)
    assert np.abs(np.diff(rows[:, 3:6], axis=0)).max() < 12
    assert difference_deg(read_bvh(file)[0]["root"], world_turns(track)["root"]) < TOLERANCE_DEG


@needs_blender
def test_blenders_bones_turn_as_the_joints_do(tmp_path):
    track, head, file = written(tmp_path)
    seen = look(file, np.arange(1, FRAMES + 1) / 25, 25, (640, 360))  # Blender has no frame before 1
    for name, expected in world_turns(track).items():
        assert difference_deg(seen.bones[name], expected) < 0.01, name
    np.testing.assert_allclose(seen.bones["root:head"], build_rig(track, head).translations[:, 0], atol=1e-5)
