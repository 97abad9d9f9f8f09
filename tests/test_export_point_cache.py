"""MDD and PC2: the bytes as their descriptions have them, and Blender's Mesh Cache."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import trimesh

from tests.heads import tiny_head
from tests.in_blender import look, needs_blender
from tests.tracks import talking_track
from tracker.export import export
from tracker.track_vertices import track_vertices

FRAMES = 40  # more than one chunk of track_vertices


def written(folder, name):
    head = tiny_head()
    track = talking_track(head, FRAMES)
    assert export(track, head, name, folder) == [f"{name}/"]
    return track, np.stack(list(track_vertices(track, head))), (folder / name / f"head.{name}").read_bytes()


def test_mdd_holds_true_times_and_vertices(tmp_path):
    track, expected, data = written(tmp_path, "mdd")
    frames, points = struct.unpack_from(">2i", data)
    assert (frames, points) == expected.shape[:2]
    times = np.frombuffer(data, ">f4", frames, 8)
    np.testing.assert_allclose(times, track.timestamps - track.timestamps[0], atol=1e-6)
    found = np.frombuffer(data, ">f4", offset=8 + 4 * frames).reshape(frames, points, 3)
    np.testing.assert_array_equal(found, expected)


def test_pc2_holds_vertices_in_even_steps(tmp_path):
    _, expected, data = written(tmp_path, "pc2")
    assert data[:12] == b"POINTCACHE2\0"
    version, points, start, step, samples = struct.unpack_from("<2i2fi", data, 12)
    assert (version, start, step) == (1, 0, 1) and (samples, points) == expected.shape[:2]
    np.testing.assert_array_equal(np.frombuffer(data, "<f4", offset=32).reshape(expected.shape), expected)


def test_the_rest_mesh_is_the_persons_neutral_face(tmp_path):
    head = tiny_head()
    track = talking_track(head, 2)
    export(track, head, "mdd", tmp_path)
    mesh = trimesh.load(tmp_path / "mdd" / "rest.obj", force="mesh", process=False, maintain_order=True)
    lines = [line.split()[1:] for line in (tmp_path / "mdd" / "rest.obj").read_text().splitlines() if line.startswith("v ")]
    expected = head.v_template + head.shapedirs[:, :, : head.n_identity] @ track.shape
    np.testing.assert_allclose(np.array(lines, float), expected, atol=2e-6)
    assert len(mesh.faces) == len(head.faces)


@needs_blender
@pytest.mark.parametrize("name", ["mdd", "pc2"])
def test_blenders_mesh_cache_gives_our_vertices_frame_by_frame(name, tmp_path):
    _, expected, _ = written(tmp_path, name)
    some = np.array([0, 1, 17, FRAMES - 1])
    seen = look(tmp_path / name / f"head.{name}", some / 25, 25, (640, 360))
    np.testing.assert_allclose(seen.vertices, expected[some], atol=1e-6)


@needs_blender
def test_blenders_mesh_cache_finds_mdd_frames_at_their_true_times(tmp_path):
    track, expected, _ = written(tmp_path, "mdd")
    some = np.array([0, 1, 17, FRAMES - 1])
    seen = look(tmp_path / "mdd" / "head.mdd", (track.timestamps - track.timestamps[0])[some], 25, (640, 360), time_mode="TIME")
    np.testing.assert_allclose(seen.vertices, expected[some], atol=1e-5)
