"""Mesh sequences, read back by trimesh."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import trimesh

from flame_assets.atomic_files import atomic_folder
from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.errors import UserError
from tracker.export import meshes
from tracker.export.meshes import write_mesh_sequence
from tracker.export.vertices import track_vertices


@pytest.mark.parametrize(("file_format", "tolerance"), [("obj", 6e-7), ("ply", 1e-7)])
def test_every_frame_reads_back(file_format, tolerance, tmp_path):
    asset = tiny_head()
    track = talking_track(asset, 40)  # more than one chunk
    write_mesh_sequence(tmp_path / "meshes", track, asset, file_format)
    names = sorted(p.name for p in (tmp_path / "meshes").iterdir())
    assert names == [f"{t:05d}.{file_format}" for t in range(40)]
    for number, expected in enumerate(track_vertices(track, asset)):
        if number % 13 == 0 or number == 39:
            path = tmp_path / "meshes" / names[number]
            if file_format == "obj":
                lines = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("v ")]
                found = np.array(lines, float)
            else:
                mesh = trimesh.load(path, process=False)
                found = mesh.vertices
                np.testing.assert_array_equal(mesh.faces, asset.faces)
            np.testing.assert_allclose(found, expected, atol=tolerance)


def test_obj_has_uv_and_named_groups(tmp_path):
    asset = tiny_head()
    write_mesh_sequence(tmp_path / "meshes", talking_track(asset, 1), asset, "obj")
    text = (tmp_path / "meshes" / "00000.obj").read_text()
    groups = [line[2:] for line in text.splitlines() if line.startswith("g ")]
    assert groups == ["pupil", "iris", "eye", "teeth", "lips", "skin"]
    corners = np.array(
        [[c.split("/") for c in line.split()[1:]] for line in text.splitlines() if line.startswith("f ")], int
    )
    # the same triangles with the same uv, whatever their order
    found = sorted(map(tuple, (corners.reshape(-1, 6) - 1).tolist()))
    wanted = np.stack([asset.faces, asset.uv_faces], axis=-1).reshape(-1, 6)
    assert found == sorted(map(tuple, wanted.tolist()))
    mesh = trimesh.load(tmp_path / "meshes" / "00000.obj", force="mesh")
    assert mesh.visual.uv is not None and len(mesh.faces) == len(asset.faces)


def test_obj_of_a_head_without_uv(tmp_path):
    asset = dataclasses.replace(tiny_head(), uv=None, uv_faces=None)
    write_mesh_sequence(tmp_path / "meshes", talking_track(asset, 1), asset, "obj")
    mesh = trimesh.load(tmp_path / "meshes" / "00000.obj", force="mesh", process=False)
    assert len(mesh.faces) == len(asset.faces)


def test_a_new_sequence_replaces_an_old_one(tmp_path):
    asset = tiny_head()
    write_mesh_sequence(tmp_path / "meshes", talking_track(asset, 5), asset, "ply")
    write_mesh_sequence(tmp_path / "meshes", talking_track(asset, 2), asset, "obj")
    assert sorted(p.name for p in (tmp_path / "meshes").iterdir()) == ["00000.obj", "00001.obj"]
    assert [p.name for p in tmp_path.iterdir()] == ["meshes"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_writer_leaves_what_was_there(existing, tmp_path, monkeypatch):
    asset = tiny_head()
    if existing:
        write_mesh_sequence(tmp_path / "meshes", talking_track(asset, 2), asset, "ply")
    real = meshes.track_vertices

    def stops(track, asset):
        for number, vertices in enumerate(real(track, asset)):
            if number == 3:
                raise OSError(28, "No space left on device")
            yield vertices

    monkeypatch.setattr(meshes, "track_vertices", stops)
    with pytest.raises(OSError):
        write_mesh_sequence(tmp_path / "meshes", talking_track(asset, 6), asset, "obj")
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert left == (["meshes", "meshes/00000.ply", "meshes/00001.ply"] if existing else [])


def test_a_folder_comes_back_when_its_replacement_fails(tmp_path, monkeypatch):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").write_text("old")
    import os

    real, calls = os.replace, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError), atomic_folder(tmp_path / "f") as folder:
        (folder / "new").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f" / "old").read_text() == "old"


def test_wrong_head_and_wrong_format(tmp_path):
    asset = tiny_head()
    with pytest.raises(ValueError, match="stl"):
        write_mesh_sequence(tmp_path / "meshes", talking_track(asset, 1), asset, "stl")
    with pytest.raises(UserError, match="made with head"):
        write_mesh_sequence(tmp_path / "meshes", talking_track(asset, 1), tiny_head(3), "obj")
    assert list(tmp_path.iterdir()) == []
