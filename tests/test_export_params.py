"""``flame_params.npz``: VHAP's names and shapes, the round trip, and camera matrices that agree with the projection."""

from __future__ import annotations

import dataclasses
import zipfile

import numpy as np
import pytest
import torch

from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.camera import project
from tracker.errors import UserError
from tracker.export.camera_matrices import camera_matrices
from tracker.export.flame_params import load_track, write_flame_params
from tracker.head_track import HeadTrack


@pytest.fixture
def track() -> HeadTrack:
    return talking_track(tiny_head())


def flame_like(frames: int = 7) -> HeadTrack:
    asset = dataclasses.replace(
        tiny_head(0, 4, ("expr000", "expr001")), name="my_model", expression_range=(-np.inf, np.inf)
    )
    return talking_track(asset, frames)


def test_round_trip(track, tmp_path):
    write_flame_params(tmp_path / "p.npz", track)
    loaded = load_track(tmp_path / "p.npz")
    for item in dataclasses.fields(HeadTrack):
        before, after = getattr(track, item.name), getattr(loaded, item.name)
        if isinstance(before, np.ndarray) and before.dtype.kind == "f":
            # parameters are float32 as in VHAP; the camera and the times keep double precision
            exact = item.name in ("timestamps", "principal_point")
            np.testing.assert_allclose(after, before, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6)
        elif isinstance(before, np.ndarray):
            np.testing.assert_array_equal(after, before)
        else:
            assert after == before, item.name


def test_vhap_names_and_shapes_of_a_flame_head(tmp_path):
    track = flame_like(7)
    write_flame_params(tmp_path / "p.npz", track)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as data:
        shapes = {k: data[k].shape for k in data.files}
        expected = {
            "rotation": (7, 3), "neck_pose": (7, 3), "jaw_pose": (7, 3), "eyes_pose": (7, 6), "translation": (7, 3),
            "shape": (300,), "expr": (7, 100), "timestep_id": (7,), "n_processed_frames": (), "focal_length": (1,),
            "image_size": (2,), "valid": (7,), "confidence": (7,), "timestamp": (7,), "expression_names": (2,),
            "K": (3, 3), "extrinsics_opencv": (4, 4), "extrinsics_opengl": (4, 4), "projection_opengl": (4, 4),
        }  # fmt: skip
        assert {k: shapes[k] for k in expected} == expected
        assert not data["shape"][4:].any() and not data["expr"][:, 2:].any()
        np.testing.assert_allclose(data["shape"][:4], track.shape, rtol=1e-6)
        assert data["focal_length"][0] == pytest.approx(700 / 640)
        assert data["image_size"].tolist() == [360, 640]
        assert data["timestep_id"].dtype.kind == "U" and data["timestep_id"][3] == "00003"
        assert data["n_processed_frames"] == 0  # VHAP's meaning: the first timestep
    loaded = load_track(tmp_path / "p.npz")
    assert loaded.shape.shape == (4,) and loaded.expr.shape == (7, 2)  # padding taken off again


def test_other_heads_keep_their_own_sizes(track, tmp_path):
    write_flame_params(tmp_path / "p.npz", track)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as data:
        assert data["shape"].shape == (6,) and data["expr"].shape == (20, 6)
        assert str(data["head_name"]) == "tiny-0" and len(str(data["head_sha256"])) == 64
        assert all(data[k].dtype != object for k in data.files)


def test_same_track_same_bytes(track, tmp_path):
    for name in ("a.npz", "b.npz"):
        write_flame_params(tmp_path / name, track)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_camera_matrices_agree_on_projected_points(track):
    track = dataclasses.replace(track, principal_point=np.array([301.5, 190.25]))
    matrices = camera_matrices(track.camera)
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (50, 3))
    homogeneous = np.concatenate([points, np.ones((50, 1))], axis=1)
    expected = project(torch.as_tensor(points), 700.0, (301.5, 190.25))[0].numpy()

    seen = (homogeneous @ matrices.extrinsics_opencv.T)[:, :3]
    assert (seen[:, 2] > 0).all()
    image = seen @ matrices.K.T
    np.testing.assert_allclose(image[:, :2] / image[:, 2:], expected, atol=1e-9)

    clip = homogeneous @ matrices.extrinsics_opengl.T @ matrices.projection_opengl.T
    ndc = clip[:, :3] / clip[:, 3:]
    pixels = np.stack([640 * (ndc[:, 0] + 1) / 2, 360 * (1 - ndc[:, 1]) / 2], axis=-1)
    np.testing.assert_allclose(pixels, expected, atol=1e-9)
    assert (np.abs(ndc[:, 2]) < 1).all()


def test_vhaps_camera_is_the_same_camera(track, tmp_path):
    """VHAP rebuilds the camera from focal_length, image_size and its fixed pose alone."""
    write_flame_params(tmp_path / "p.npz", track)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as data:
        height, width = data["image_size"]
        f = data["focal_length"][0] * max(height, width)
        np.testing.assert_allclose(data["K"], [[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], rtol=1e-6)
        np.testing.assert_array_equal(
            data["extrinsics_opengl"], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -1], [0, 0, 0, 1]]
        )


def test_unreadable_files_are_user_errors(track, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_track(tmp_path / "missing.npz")
    np.savez(tmp_path / "other.npz", rotation=np.zeros((2, 3)))
    with pytest.raises(UserError, match="lacks"):
        load_track(tmp_path / "other.npz")
    write_flame_params(tmp_path / "p.npz", track)
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a readable"):
        load_track(tmp_path / "cut.npz")


def test_pickled_objects_are_refused(track, tmp_path):
    write_flame_params(tmp_path / "p.npz", track)
    with np.load(tmp_path / "p.npz") as data:
        arrays = dict(data)
    arrays["timestep_id"] = arrays["timestep_id"].astype(object)
    np.savez(tmp_path / "evil.npz", **arrays)
    with pytest.raises(UserError, match="not a readable"):
        load_track(tmp_path / "evil.npz")


def test_a_failing_writer_leaves_the_old_file(track, tmp_path, monkeypatch):
    path = tmp_path / "p.npz"
    write_flame_params(path, track)
    before = path.read_bytes()
    calls = []

    def full_disk(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full_disk)
    with pytest.raises(OSError):
        write_flame_params(path, track)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["p.npz"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rotation", np.zeros((3, 3)), "rotation should have shape"),
        ("expr", np.full((20, 6), np.nan), "not finite"),
        ("timestamps", np.zeros(20), "must increase"),
        ("focal_px", float("nan"), "focal_px"),
    ],
)
def test_inconsistent_tracks_are_refused(track, field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(track, **{field: value})
