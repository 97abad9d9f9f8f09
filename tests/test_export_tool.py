"""``tools/export.py``: further formats of a finished track."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from flame_assets.asset import save_npz
from tests.gltf_evaluator import GltfPlayer
from tests.heads import tiny_head
from tests.tracks import talking_track
from tools.export import main
from tracker.export import export
from tracker.head_track import HeadTrack


@pytest.fixture
def result(tmp_path):
    """A folder as a run leaves it, and the head's file beside it."""
    head = tiny_head()
    export(talking_track(head, 3), head, "npz", tmp_path / "clip")
    save_npz(head, tmp_path / "head.npz")
    return tmp_path / "clip"


def run(result, *options: str) -> int:
    return main([str(result), "--head", str(result.parent / "head.npz"), *options])


def test_writes_beside_the_track(result, capsys):
    assert run(result, "--to", "obj,glb") == 0
    assert sorted(p.name for p in result.iterdir()) == ["flame_params.npz", "head.glb", "meshes"]
    assert len(list((result / "meshes").iterdir())) == 3
    assert capsys.readouterr().out == f"written to {result}: head.glb, meshes/\n"


def test_a_bare_file_and_another_folder(result, tmp_path, capsys):
    bare = tmp_path / "some_track.npz"
    (result / "flame_params.npz").rename(bare)
    assert run(bare, "--to", "ply", "--folder", str(tmp_path / "new" / "place"), "--head", str(tmp_path / "head.npz"), "--quiet") == 0
    assert len(list((tmp_path / "new" / "place" / "meshes").glob("*.ply"))) == 3
    assert capsys.readouterr() == ("", "")


def test_written_again_the_parameters_are_the_same_bytes(result, tmp_path):
    before = (result / "flame_params.npz").read_bytes()
    assert run(result, "--to", "npz", "--folder", str(tmp_path)) == 0
    assert (tmp_path / "flame_params.npz").read_bytes() == before


def test_the_texture_goes_along(result, tmp_path):
    texture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert cv2.imwrite(str(result / "texture.png"), texture[..., ::-1])
    assert run(result, "--to", "texture,glb", "--folder", str(tmp_path)) == 0
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "texture.png"))[..., ::-1], texture)
    assert len(GltfPlayer(tmp_path / "head.glb").gltf.images) == 1


def test_an_earlier_runs_texture_does_not(result, capsys):
    """A run without a texture leaves an older texture.png where it is."""
    assert cv2.imwrite(str(result / "texture.png"), np.zeros((16, 16, 3), np.uint8))
    (result / "summary.json").write_text(json.dumps({"files": ["flame_params.npz", "head.glb"]}))
    assert run(result, "--to", "glb") == 0
    assert not GltfPlayer(result / "head.glb").gltf.images
    assert run(result, "--to", "texture") == 2
    assert "there is no texture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        ("", ["--to", "fbx"], "unknown format 'fbx'; known are npz, glb"),
        ("flame_params.npz", ["--to", "obj"], "flame_params.npz: no such file; give the flame_params.npz of a finished run"),
        ("", ["--to", "obj", "--head", "missing.npz"], "--head: missing.npz: no such head file or folder"),
        ("texture.png", ["--to", "glb"], "texture.png: not a readable picture"),
    ],
)
def test_mistakes_are_one_line(spoil, options, message, result, capsys):
    if spoil.endswith("npz"):
        (result / spoil).unlink()
    elif spoil:
        (result / spoil).write_bytes(b"")
    assert run(result, *options) == 2
    err = capsys.readouterr().err
    assert err.startswith("export.py: error: ") and message in err and err.count("\n") == 1


def test_another_head_is_refused(result, capsys):
    save_npz(tiny_head(5), result.parent / "head.npz")
    assert run(result, "--to", "obj") == 2
    assert "made with head 'tiny-0'" in capsys.readouterr().err
    assert [p.name for p in result.iterdir()] == ["flame_params.npz"]


def test_an_interrupt_leaves_nothing(result, monkeypatch, capsys):
    def interrupted(track: HeadTrack, head: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tracker.export.meshes.track_vertices", interrupted)
    assert run(result, "--to", "obj") == 130
    assert capsys.readouterr().err == "interrupted; no unfinished file was left behind\n"
    assert [p.name for p in result.iterdir()] == ["flame_params.npz"]
