"""Alembic: read back by its own library, and by Blender."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.heads import tiny_head
from tests.in_blender import look, needs_blender
from tests.tracks import talking_track
from tracker.camera import project
from tracker.export import abc_cache, export
from tracker.track_vertices import track_vertices

pytestmark = pytest.mark.skipif(find_spec("alembic3d") is None, reason="Alembic NOT CHECKED: no alembic3d installed (extra [dcc])")

OFF_CENTRE = (300.0, 205.0)
FRAMES = 40  # more than one chunk of track_vertices


def written(folder, frames=FRAMES, **changes):
    """The track, its vertices, the frames' times, the file."""
    head = tiny_head()
    track = talking_track(head, frames, principal_point=np.array(OFF_CENTRE), **changes)
    assert export(track, head, "abc", folder) == ["head.abc"]
    return track, np.stack(list(track_vertices(track, head))), track.timestamps - track.timestamps[0], folder / "head.abc"


def opened(file):
    from alembic3d import Abc, AbcGeom

    archive = Abc.IArchive(str(file))
    return archive, AbcGeom.IPolyMesh(AbcGeom.IXform(archive.getTop(), "head"), "headShape").getSchema()


def array(values, size):
    """Of imath's vectors or numbers."""
    return np.array(list(values) if size == 1 else [tuple(value) for value in values])


def test_every_frame_reads_back_equal_at_its_true_time(tmp_path):
    from alembic3d import Abc

    _, expected, times, file = written(tmp_path)
    _archive, mesh = opened(file)
    assert mesh.getNumSamples() == FRAMES
    sampling = mesh.getTimeSampling()
    np.testing.assert_allclose([sampling.getSampleTime(k) for k in range(FRAMES)], times, atol=1e-12)
    for number in (0, 1, 33, FRAMES - 1):
        found = mesh.getValue(Abc.ISampleSelector(float(times[number]))).getPositions()
        np.testing.assert_array_equal(array(found, 3).astype(np.float32), expected[number])


@pytest.mark.parametrize("frames", [1, 6])
def test_even_times_become_even_steps(frames, tmp_path):
    times = 3.7 + np.arange(frames) / 29.97
    *_, file = written(tmp_path, frames, timestamps=times, frame_rate=29.97)
    _archive, mesh = opened(file)
    kind = mesh.getTimeSampling().getTimeSamplingType()
    assert kind.isUniform() and kind.getTimePerCycle() == pytest.approx(1 / 29.97, rel=1e-9)


def test_room_is_asked_for_beforehand_and_enough(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(abc_cache, "make_sure_of_room", lambda path, size: asked.append(size))
    *_, small = written(tmp_path, 2)
    small = small.stat().st_size
    *_, file = written(tmp_path, FRAMES)
    assert small < asked[0] and file.stat().st_size < asked[1]
    assert (asked[1] - asked[0]) < 1.1 * (file.stat().st_size - small)  # not many times too much for long clips


def test_triangles_uv_and_parts_are_the_heads(tmp_path):
    head = tiny_head()
    *_, file = written(tmp_path, 2)
    _archive, mesh = opened(file)
    faces = array(mesh.getValue().getFaceIndices(), 1).reshape(-1, 3)
    np.testing.assert_array_equal(faces[:, ::-1], head.faces)  # Alembic winds them clockwise
    uv = array(mesh.getUVsParam().getExpandedValue().getVals(), 2).reshape(-1, 3, 2)
    np.testing.assert_allclose(uv[:, ::-1], head.uv[head.uv_faces], atol=1e-7)
    parts = [array(mesh.getFaceSet(name).getSchema().getValue().getFaces(), 1) for name in mesh.getFaceSetNames()]
    assert sorted(np.concatenate(parts)) == list(range(len(head.faces)))


@pytest.mark.parametrize("size", [(360, 640), (640, 360)])
def test_the_camera_has_our_picture_with_the_principal_point_off_the_middle(size, tmp_path):
    from alembic3d import AbcGeom

    track, _, _, file = written(tmp_path, 2, image_size=np.array(size))
    archive, _mesh = opened(file)
    place = AbcGeom.IXform(archive.getTop(), "camera")
    assert tuple(place.getSchema().getValue().getTranslation()) == (0, 0, 1)
    camera = AbcGeom.ICamera(place, "cameraShape").getSchema().getValue()
    window, half_width = camera.getScreenWindow(), size[1] / 2  # Alembic's window is in halves of the picture's width
    edges = [window[edge] * half_width for edge in ("left", "right", "bottom", "top")]
    cx, cy = OFF_CENTRE
    np.testing.assert_allclose(edges, [-cx, size[1] - cx, cy - size[0], cy], atol=1e-3)
    wide = 2 * np.degrees(np.arctan(half_width / track.focal_px))
    assert camera.getFieldOfView() == pytest.approx(wide, abs=1e-6)


@needs_blender
@pytest.mark.parametrize(("size", "by_hand"), [((360, 640), {}), ((640, 360), {"sensor_fit": "HORIZONTAL"})])
def test_blender_shows_our_vertices_at_our_pixels(size, by_hand, tmp_path):
    head = tiny_head()
    track, expected, times, file = written(tmp_path, 8, image_size=np.array(size))
    seen = look(file, times, 25, size[::-1], **by_hand)
    np.testing.assert_allclose(seen.vertices, expected, atol=1e-6)
    np.testing.assert_array_equal(seen.faces, head.faces)
    np.testing.assert_allclose(seen.uv.reshape(-1, 3, 2), head.uv[head.uv_faces], atol=1e-6)
    pixels = project(torch.as_tensor(expected), track.focal_px, OFF_CENTRE)[0].numpy()
    np.testing.assert_allclose(seen.pixels, pixels, atol=0.01)
