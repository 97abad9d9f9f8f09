"""``tools/view.py``: what it sends is the track's, the picture stands where the camera saw it, and a missing viser is one line."""

from __future__ import annotations

import math
import threading
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from flame_assets.asset import save_npz
from tests.browser import open_page, why_not
from tests.gltf_evaluator import GltfPlayer
from tests.heads import tiny_head
from tests.tracks import filmed_track, talking_track
from tools import view
from tracker.camera import Camera, project
from tracker.errors import UserError
from tracker.export import export
from tracker.overlay import OverlaySettings, write_overlay
from tracker.track_vertices import track_vertices
from tracker.viewer.coloured_mesh import CANONICAL, CONFIDENCE, PLAIN, REGIONS, TEXTURE, ColouredMesh
from tracker.viewer.pictures import Pictures, behind, first_panel

FRAMES = 12
needs_viser = pytest.mark.skipif(find_spec("viser") is None, reason="viser is not installed")


@pytest.fixture(scope="module")
def head():
    return tiny_head()


@pytest.fixture(scope="module")
def result(tmp_path_factory, head) -> Path:
    """A folder as a run leaves it, and its head beside it."""
    folder = tmp_path_factory.mktemp("viewer")
    track, source = filmed_track(head, folder / "frames", FRAMES, image_size=np.array([120, 160]), focal_px=170.0, principal_point=np.array([80.0, 60.0]))
    (folder / "clip").mkdir()
    export(track, head, "npz", folder / "clip")
    write_overlay(folder / "clip" / "overlay.mp4", source.path, track, head, OverlaySettings())
    save_npz(head, folder / "head.npz")
    return folder / "clip"


@pytest.mark.parametrize("mode", [TEXTURE, PLAIN, CANONICAL, REGIONS, CONFIDENCE])
def test_every_look_is_the_frames_mesh(mode, head, tmp_path):
    track = talking_track(head, 6)
    mesh = ColouredMesh(track, head, np.full((8, 8, 3), 100, np.uint8))
    assert mode in mesh.modes
    wanted = list(track_vertices(track, head))[2]
    assert np.abs(mesh.vertices(2) - wanted).max() < 1e-6
    triangles = 0
    for name, data in mesh.glbs(2, mode, mesh.vertices(2)).items():
        (tmp_path / f"{name}.glb").write_bytes(data)
        player = GltfPlayer(tmp_path / f"{name}.glb")
        (primitive,) = player.gltf.meshes[0].primitives
        assert np.abs(player.accessor(primitive.attributes.POSITION)[: head.n_vertices] - wanted).max() < 1e-6
        triangles += len(player.accessor(primitive.indices)) // 3
        assert (primitive.attributes.COLOR_0 is None) == (mode == TEXTURE and name == "head")
    assert triangles == len(head.faces)


@pytest.mark.parametrize("mode", [TEXTURE, PLAIN, CANONICAL, REGIONS, CONFIDENCE])
def test_patches_are_the_whole_head(mode, head):
    track = talking_track(head, 6)
    mesh = ColouredMesh(track, head, np.full((8, 8, 3), 100, np.uint8))
    patches = mesh.patches(mode)
    faces = np.concatenate([p.vertices[p.triangles] for p in patches])
    assert sorted(map(tuple, faces)) == sorted(map(tuple, head.faces))
    assert 1 <= len(patches) <= 216 and all(0 <= c <= 255 for p in patches for c in mesh.patch_colour(2, mode, p))


def test_a_frame_without_a_head_has_no_confident_colour(head):
    track = talking_track(head, 12)
    mesh = ColouredMesh(track, head)
    lost = int(np.flatnonzero(~track.valid)[0])
    grey = mesh.colours(lost, CONFIDENCE)
    assert np.allclose(grey, grey[:, :1]) and not np.allclose(mesh.colours(0, CONFIDENCE), mesh.colours(0, CONFIDENCE)[:, :1])
    assert TEXTURE not in mesh.modes


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.4])
@pytest.mark.parametrize("principal", [(80.0, 60.0), (50.0, 75.0)])
def test_a_point_stands_where_the_picture_shows_it(aspect, principal):
    camera = Camera(170.0, *principal, 160, 120)
    point = torch.tensor([[0.06, -0.03, 0.3]], dtype=torch.float64)
    u, v = project(point, 170.0, principal)[0][0].tolist()
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[int(v), int(u)] = 255
    ground, fov = behind(picture, camera, aspect)
    assert ground.shape[1] / ground.shape[0] == pytest.approx(aspect, rel=0.02)
    seen = np.argwhere(ground[..., 0] == 255)[0][::-1] + 0.5
    # a pinhole with that vertical field of view, its axis in the middle of the window
    focal = ground.shape[0] / 2 / math.tan(fov / 2)
    x, y, z = (point[0] - torch.tensor([0, 0, 1.0])).tolist()
    wanted = np.array(ground.shape[1::-1]) / 2 + focal * np.array([x, -y]) / -z
    assert np.abs(seen - wanted).max() < 1.5


def test_panels_of_an_overlay(head):
    camera = Camera(100.0, 80, 60, 160, 120)
    for panels in (1, 2, 3):
        assert first_panel(np.zeros((60, 80 * panels, 3), np.uint8), camera).shape == (60, 80, 3)


def test_frames_come_in_any_order(result, head):
    from tracker.export.flame_params import load_track

    pictures = Pictures(result, load_track(result / "flame_params.npz"))
    assert pictures.there
    for frame in (0, 1, 7, 3, 4, 11, 11, 0):
        picture = pictures.at(frame)
        assert picture.shape == (120, 160, 3)
        # noise from 0 to 100 around a level that tells the frame
        assert abs(picture.mean() - (50 + 10 * frame)) < 5, frame
    pictures.close()


def test_another_video_and_a_result_without_pictures(result, head, tmp_path):
    from tracker.export.flame_params import load_track

    track = load_track(result / "flame_params.npz")
    (tmp_path / "other").mkdir()
    cv2.imwrite(str(tmp_path / "other" / "0.png"), np.zeros((50, 70, 3), np.uint8))
    with pytest.raises(UserError, match=r"70×50, but the tracked video has 160×120"):
        Pictures(result, track, tmp_path / "other")
    bare = Pictures(tmp_path, track)
    assert not bare.there and bare.at(0) is None


def test_without_viser_one_line_says_what_to_install(result, monkeypatch, capsys):
    monkeypatch.setattr(view, "find_spec", lambda name: None)
    assert view.main([str(result)]) == 2
    assert "pip install viser" in (line := capsys.readouterr().err) and line.count("\n") == 1


@pytest.fixture
def window(result):
    opened = view.open_window(view.build_parser().parse_args([str(result), "--head", str(result.parent / "head.npz"), "--port", "0"]))
    yield opened
    opened.close()


@needs_viser
def test_a_window_shows_what_its_controls_say(window):
    window.frame.value = 5
    window.show(5)
    assert "frame 5" in window.words.content
    for handle, _, (low, high) in window._plots:
        assert ((handle.data[-1] == high) == (handle.data[0] <= window._seconds[5] + 1e-9)).all() and high > low
    # it plays at the video's pace: the frame moves while it runs
    window.play.value = True
    stop = threading.Event()
    thread = threading.Thread(target=window.run, args=(stop.is_set,))
    thread.start()
    seen = set()
    for _ in range(60):
        seen.add(int(window.frame.value))
        if len(seen) > 2:
            break
        stop.wait(0.1)
    assert window._patches and not window._parts
    window.play.value = False
    window._mark()
    stop.wait(1.0)
    stop.set()
    thread.join()
    assert len(seen) > 2
    assert window._parts and not window._patches  # in full again when it stands


@needs_viser
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_browser_shows_the_head_over_its_picture(window, tmp_path):
    stop = threading.Event()
    thread = threading.Thread(target=window.run, args=(stop.is_set,))
    thread.start()
    try:
        with open_page() as page:
            page.open(window.address, 1000, 600)
            page.wait("document.querySelectorAll('canvas').length > 0")
            shots = []
            for view_name, frame in (("close", 0), ("camera", 0), ("camera", 9)):
                window.view.value, window.frame.value = view_name, frame
                window.look()
                page.run("new Promise(r => setTimeout(r, 5000))")
                shots.append(cv2.imdecode(np.frombuffer(page.picture(), np.uint8), cv2.IMREAD_COLOR).astype(int))
            assert np.abs(shots[0] - shots[1]).mean() > 5 and np.abs(shots[1] - shots[2]).mean() > 5
            hosts = [a for a in page.requests if not a.startswith((window.address, "blob:", "data:", "ws:"))]
            assert not hosts
    finally:
        stop.set()
        thread.join()
