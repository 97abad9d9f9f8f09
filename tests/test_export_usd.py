"""USD: its own validators, its own skinning, its own camera; and what Blender makes of it."""

from __future__ import annotations

import dataclasses
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.heads import tiny_head
from tests.in_blender import look, needs_blender
from tests.tracks import talking_track
from tracker.camera import project
from tracker.export import export
from tracker.track_vertices import track_vertices

pytestmark = pytest.mark.skipif(find_spec("pxr") is None, reason="USD NOT CHECKED: no usd-core installed (extra [dcc])")

TEXTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
OFF_CENTRE = (300.0, 205.0)
TOLERANCE_M, TOLERANCE_PX = 2e-6, 0.01  # fifty and a hundred times finer than what is asked for


def signed_head():
    """Like FLAME: numbered expressions of any sign and size."""
    return dataclasses.replace(tiny_head(1, 6, ["expr000", "expr001"]), expression_range=(-np.inf, np.inf))


def written(folder, head=None, frames=8, name="usd", texture=TEXTURE, **changes):
    """The track, its vertices, the frames' time codes, the file."""
    head = head or tiny_head()
    track = talking_track(head, frames, principal_point=np.array(OFF_CENTRE), **changes)
    export(track, head, name, folder, texture=texture)
    codes = (track.timestamps - track.timestamps[0]) * track.frame_rate
    file = folder / ("head.usdz" if name == "usd" else "usdc/head.usdc")
    return track, np.stack(list(track_vertices(track, head))), codes, file


def points_by_usd(file, codes):
    """The mesh as UsdSkel bakes it, with the file's own time samples."""
    from pxr import Usd, UsdGeom, UsdSkel

    stage = Usd.Stage.Open(str(file))
    assert UsdSkel.BakeSkinning(stage.Traverse())
    points = UsdGeom.Mesh(stage.GetPrimAtPath("/track/head/mesh")).GetPointsAttr()
    return np.stack([np.array(points.Get(float(np.round(code, 6)))) for code in codes])


def pixels_by_usd(file, vertices, width, height):
    """Places in the picture through the file's camera, as USD's own frustum sees them."""
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.Open(str(file))
    frustum = UsdGeom.Camera(stage.GetPrimAtPath("/track/camera")).GetCamera(Usd.TimeCode(0)).frustum
    to_clip = np.array(frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix())  # of row vectors
    clip = np.concatenate([vertices, np.ones_like(vertices[..., :1])], -1) @ to_clip
    return (clip[..., :2] / clip[..., 3:] * (1, -1) + 1) * (width / 2, height / 2)


def our_pixels(track, vertices):
    return project(torch.as_tensor(vertices), track.focal_px, tuple(track.principal_point.tolist()))[0].numpy()


@pytest.mark.parametrize("name", ["usd", "usdc"])
@pytest.mark.parametrize("make_head", [tiny_head, signed_head])
@pytest.mark.parametrize("texture", [None, TEXTURE])
def test_usds_validators_find_nothing(name, make_head, texture, tmp_path):
    from pxr import Usd, UsdValidation

    *_, file = written(tmp_path, make_head(), name=name, texture=texture)
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) >= 20
    found = UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(file)))
    assert [(error.GetName(), error.GetMessage()) for error in found] == []


@pytest.mark.parametrize("make_head", [tiny_head, signed_head])
def test_usds_skinning_gives_our_vertices_at_true_times(make_head, tmp_path):
    _, expected, codes, file = written(tmp_path, make_head(), frames=40)
    assert np.ptp(np.diff(codes)) > 0.3  # the times are uneven
    np.testing.assert_allclose(points_by_usd(file, codes), expected, atol=TOLERANCE_M)


def test_even_frames_stand_at_whole_time_codes(tmp_path):
    from pxr import Usd

    *_, file = written(tmp_path, frames=6, timestamps=3.7 + np.arange(6) / 29.97, frame_rate=29.97)
    stage = Usd.Stage.Open(str(file))
    assert (stage.GetTimeCodesPerSecond(), stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (29.97, 0, 5)
    assert stage.GetPrimAtPath("/track/head/animation").GetAttribute("rotations").GetTimeSamples() == [0, 1, 2, 3, 4, 5]


def test_one_frame_and_a_face_without_expressions(tmp_path):
    head = tiny_head()
    changes = {"expr": np.zeros((1, head.n_expression)), "jaw_pose": np.zeros((1, 3)), "neck_pose": np.zeros((1, 3)), "eyes_pose": np.zeros((1, 6))}
    _, expected, codes, file = written(tmp_path, head, frames=1, **changes)
    np.testing.assert_allclose(points_by_usd(file, codes), expected, atol=TOLERANCE_M)


@pytest.mark.parametrize("size", [(360, 640), (640, 360)])
def test_usds_camera_sees_our_pixels_with_the_principal_point_off_the_middle(size, tmp_path):
    track, vertices, _, file = written(tmp_path, image_size=np.array(size))
    np.testing.assert_allclose(pixels_by_usd(file, vertices, size[1], size[0]), our_pixels(track, vertices), atol=TOLERANCE_PX)


def test_the_mesh_is_the_heads_own(tmp_path):
    from pxr import Usd, UsdGeom, UsdShade

    head = tiny_head()
    *_, file = written(tmp_path, head)
    stage = Usd.Stage.Open(str(file))
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/track/head/mesh"))
    np.testing.assert_array_equal(np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), head.faces)
    uv = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").ComputeFlattened()
    np.testing.assert_allclose(np.array(uv).reshape(-1, 3, 2), head.uv[head.uv_faces], atol=1e-7)
    subsets = UsdShade.MaterialBindingAPI(mesh).GetMaterialBindSubsets()
    numbers = np.concatenate([np.array(subset.GetIndicesAttr().Get()) for subset in subsets])
    assert sorted(numbers) == list(range(len(head.faces)))


def test_the_package_holds_the_texture_uncompressed(tmp_path):
    import cv2

    *_, file = written(tmp_path)
    with zipfile.ZipFile(file) as package:
        assert [entry.compress_type for entry in package.infolist()] == [zipfile.ZIP_STORED] * 2
        (picture,) = (name for name in package.namelist() if name.endswith(".png"))
        found = cv2.imdecode(np.frombuffer(package.read(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(found[..., ::-1], TEXTURE)


@needs_blender
@pytest.mark.parametrize("size", [(360, 640), (640, 360)])
def test_blender_shows_our_vertices_at_our_pixels(size, tmp_path):
    track, expected, codes, file = written(tmp_path, image_size=np.array(size))
    seen = look(file, codes / 25, 25, size[::-1])
    np.testing.assert_allclose(seen.vertices, expected, atol=TOLERANCE_M)
    np.testing.assert_allclose(seen.pixels, our_pixels(track, expected), atol=TOLERANCE_PX)
