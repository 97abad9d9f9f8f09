"""Mesh sequences, read back by trimesh."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import trimesh

from flame_assets.atomic_files import atomic_folder
from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.export import export
from tracker.track_vertices import track_vertices


@pytest.mark.parametrize(("file_format", "tolerance"), [("obj", 6e-7), ("ply", 1e-7)])
def test_every_frame_reads_back(file_format, tolerance, tmp_path):
    asset = tiny_head()
    track = talking_track(asset, 40)  # more than one chunk
    assert export(track, asset, file_format, tmp_path) == ["meshes/"]
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
    export(talking_track(asset, 1), asset, "obj", tmp_path)
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
    export(talking_track(asset, 1), asset, "obj", tmp_path)
    mesh = trimesh.load(tmp_path / "meshes" / "00000.obj", force="mesh", process=False)
    assert len(mesh.faces) == len(asset.faces)


def test_a_new_sequence_replaces_an_old_one_of_its_format(tmp_path):
    asset = tiny_head()
    export(talking_track(asset, 5), asset, "ply,obj", tmp_path)
    export(talking_track(asset, 2), asset, "obj", tmp_path)
    left = sorted(p.name for p in (tmp_path / "meshes").iterdir())
    assert left == ["00000.obj", "00000.ply", "00001.obj", *(f"{t:05d}.ply" for t in range(1, 5))]
    assert [p.name for p in tmp_path.iterdir()] == ["meshes"]


@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_writer_leaves_what_was_there(existing, tmp_path):
    asset = tiny_head()
    if existing:
        export(talking_track(asset, 2), asset, "ply", tmp_path)
        export(talking_track(asset, 1), asset, "obj", tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}

    def stops(name, done, total):
        assert (name, total) == ("obj", 6)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(talking_track(asset, 6), asset, "obj", tmp_path, progress=stops)
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == (["meshes"] if existing else [])


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("left", [("f", ".f.old"), (".f.old",), ("f", ".f.part")])
def test_what_a_killed_run_left_does_no_harm(left, fails, tmp_path):
    """Killed between the steps that put a new folder in the place of an old one, a run can tidy nothing up."""
    for name in left:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.old").write_text(name)
    if fails:
        with pytest.raises(OSError), atomic_folder(tmp_path / "f"):
            raise OSError
        assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f" / "1.old").exists()
    with atomic_folder(tmp_path / "f", "*.old") as folder:
        (folder / "2.old").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and [p.name for p in (tmp_path / "f").iterdir()] == ["2.old"]


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
