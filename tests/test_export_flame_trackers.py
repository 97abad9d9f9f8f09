"""VHAP's, metrical-tracker's and Pixel3DMM's files: keys, shapes and types as these write them, and the same pixels for whoever reads them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.heads import flame_sized_head, tiny_head
from tests.tracks import talking_track
from tracker.errors import UserError
from tracker.evaluation.baselines.files import read_result
from tracker.evaluation.baselines.interface import Tracked
from tracker.export import export

HEAD = flame_sized_head()
PIXELS = 0.1
"""What a round trip may cost; single precision takes the most of it."""


def frames_of(folder):
    # written by the test itself: nothing foreign is unpickled
    return [torch.load(file, weights_only=False) for file in sorted((folder / "checkpoint").glob("*.frame"))]


def ours(track):
    known = Tracked(track, HEAD)
    return known.pixels(known.vertices)


def still_neck(frames=6, **changes):
    return talking_track(HEAD, frames, neck_pose=np.zeros((frames, 3)), **changes)


def test_vhap_has_its_keys(tmp_path):
    track = talking_track(HEAD, 6)
    assert export(track, HEAD, "vhap", tmp_path) == ["tracked_flame_params_30.npz"]
    with np.load(tmp_path / "tracked_flame_params_30.npz", allow_pickle=False) as file:
        data = dict(file)
    shapes = {
        "rotation": (6, 3), "neck_pose": (6, 3), "jaw_pose": (6, 3), "eyes_pose": (6, 6), "translation": (6, 3), "shape": (300,), "expr": (6, 100),
        "focal_length": (1,), "lights": (9, 3), "static_offset": (1, 5143, 3), "tex_extra": (3, 2048, 2048),
    }  # fmt: skip
    assert {name: data[name].shape for name in shapes} == shapes
    assert all(data[name].dtype == np.float32 for name in shapes)
    assert data.keys() - shapes.keys() == {"timestep_id", "n_processed_frames", "image_size"}
    assert data["timestep_id"].dtype.kind == "U" and int(data["n_processed_frames"]) == 0
    assert data["image_size"].tolist() == [360, 640] and data["focal_length"][0] == pytest.approx(700 / 640)
    # radiance of VHAP's light for any normal: the constant harmonic times the first row
    assert data["lights"][0] * 0.5 / np.sqrt(np.pi) == pytest.approx(1.0) and not data["lights"][1:].any()


def test_vhap_comes_back_on_the_same_pixels(tmp_path):
    track = talking_track(HEAD, 6)
    export(track, HEAD, "vhap", tmp_path)
    back = read_result(tmp_path / "tracked_flame_params_30.npz", HEAD, 25.0)
    assert np.abs(back.pixels(back.vertices) - ours(track)).max() < PIXELS


def test_vhap_refuses_a_principal_point_that_it_cannot_hold(tmp_path):
    track = talking_track(HEAD, 2, principal_point=np.array([325.0, 180.0]))
    with pytest.raises(UserError, match=r"\(320, 180\).*\(325, 180\)"):
        export(track, HEAD, "vhap", tmp_path)
    assert not list(tmp_path.iterdir())


def test_metrical_tracker_has_its_keys(tmp_path):
    assert export(still_neck(3), HEAD, "metrical-tracker", tmp_path) == ["metrical_tracker/"]
    frames = frames_of(tmp_path / "metrical_tracker")
    assert len(frames) == 3
    shapes = {
        "flame": {"exp": (1, 100), "shape": (1, 300), "tex": (1, 140), "sh": (1, 9, 3), "eyes": (1, 12), "eyelids": (1, 2), "jaw": (1, 6)},
        "camera": {"R": (1, 6), "t": (1, 3), "fl": (1, 1), "pp": (1, 2)},
        "opencv": {"R": (1, 3, 3), "t": (1, 3), "K": (1, 3, 3)},
    }
    for number, frame in enumerate(frames):
        assert {part: {k: v.shape for k, v in frame[part].items()} for part in shapes} == shapes
        assert all(v.dtype == np.float32 for part in shapes for v in frame[part].values())
        assert frame["img_size"].tolist() == [360, 640] and frame["frame_id"] == f"{number:05d}"


@pytest.mark.parametrize("centre", [(320.0, 180.0), (331.0, 171.5)])
def test_metrical_tracker_comes_back_on_the_same_pixels(centre, tmp_path):
    track = still_neck(principal_point=np.array(centre))
    export(track, HEAD, "metrical-tracker", tmp_path)
    back = read_result(tmp_path / "metrical_tracker" / "checkpoint", HEAD, 25.0)
    assert np.abs(back.pixels(back.vertices) - ours(track)).max() < PIXELS


def test_metrical_trackers_two_cameras_agree(tmp_path):
    """The second one by PyTorch3D's rules: rows times R plus t; x to the left, y up, in halves of the shorter side."""
    track = still_neck(principal_point=np.array([331.0, 171.5]))
    export(track, HEAD, "metrical-tracker", tmp_path)
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    for frame in frames_of(tmp_path / "metrical_tracker"):
        k, turn, shift = (frame["opencv"][name][0].astype(np.float64) for name in ("K", "R", "t"))
        seen = (points @ turn.T + shift) @ k.T
        camera = {name: value[0].astype(np.float64) for name, value in frame["camera"].items()}
        first, second = camera["R"][:3], camera["R"][3:]
        view = points @ np.stack([first, second, np.cross(first, second)]) + camera["t"]
        screen = camera["fl"] * view[:, :2] / view[:, 2:] + camera["pp"]
        np.testing.assert_allclose(np.array([320.0, 180.0]) - 180.0 * screen, seen[:, :2] / seen[:, 2:], atol=0.01)


def test_metrical_tracker_follows_the_skull_when_the_neck_turns(tmp_path):
    """It has no neck joint: what moves with the skull stays where it is, but for the neck's pose correctives."""
    head = dataclasses.replace(HEAD, posedirs=np.zeros_like(HEAD.posedirs))
    track = talking_track(head, 6)
    export(track, head, "metrical-tracker", tmp_path)
    known, back = Tracked(track, head), read_result(tmp_path / "metrical_tracker" / "checkpoint", head, 25.0)
    skull = head.weights[:, 0] == 0
    assert skull.sum() > 500 and np.abs(track.neck_pose).max() > 0.1
    apart = np.abs(back.pixels(back.vertices) - known.pixels(known.vertices)).max((0, 2))
    assert apart[skull].max() < PIXELS < apart[~skull].max()


def test_pixel3dmm_has_its_keys(tmp_path):
    assert export(talking_track(HEAD, 3), HEAD, "pixel3dmm", tmp_path) == ["pixel3dmm/"]
    flame = {
        "exp": (1, 100), "shape": (1, 300), "eyes": (1, 12), "eyelids": (1, 2), "jaw": (1, 6), "neck": (1, 6), "R": (1, 6),
        "R_rotation_matrix": (1, 3, 3), "t": (1, 3),
    }  # fmt: skip
    camera = {"R_base_0": (1, 3, 3), "t_base_0": (1, 3), "fl": (1, 1), "pp": (1, 2)}
    for frame in frames_of(tmp_path / "pixel3dmm"):
        assert {k: v.shape for k, v in frame["flame"].items()} == flame
        assert {k: v.shape for k, v in frame["camera"].items()} == camera
        assert all(v.dtype == np.float32 for part in ("flame", "camera") for v in frame[part].values())


@pytest.mark.parametrize("size", [(360, 640), (640, 360)])
def test_pixel3dmm_comes_back_on_the_same_pixels(size, tmp_path):
    """Its pixels are those of a square of 256 around the whole picture."""
    track = talking_track(HEAD, 6, image_size=np.array(size), principal_point=np.array([300.0, 190.0]))
    export(track, HEAD, "pixel3dmm", tmp_path)
    back = read_result(tmp_path / "pixel3dmm" / "checkpoint", HEAD, 25.0)
    margin = np.array([max(0, 640 - size[1]) / 2, max(0, 640 - size[0]) / 2])
    assert np.abs(back.pixels(back.vertices) * 640 / 256 - margin - ours(track)).max() < PIXELS


@pytest.mark.parametrize("name", ["vhap", "metrical-tracker", "pixel3dmm"])
@pytest.mark.parametrize("head", [tiny_head(), flame_sized_head(vertices=5000)], ids=["arkit", "fewer vertices"])
def test_other_heads_are_refused(name, head, tmp_path):
    with pytest.raises(UserError, match=rf"format {name}: it cannot hold the head .*5,023 vertices.*--head"):
        export(talking_track(head, 2), head, name, tmp_path / "new")
    assert not (tmp_path / "new").exists()
