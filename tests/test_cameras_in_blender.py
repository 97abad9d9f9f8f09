"""Cameras that the formats hold: in Blender, the head stands in the picture where the tracker sees it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from tests.heads import tiny_head
from tests.in_blender import look, needs_blender
from tests.tracks import talking_track
from tracker.camera import project
from tracker.export import EXPORTERS, export
from tracker.track_vertices import track_vertices

pytestmark = needs_blender

TOLERANCE_PX = 0.01  # a hundred times finer than what is asked for


def tracked(size, centre):
    """Head, track of two frames, pixels of every vertex."""
    head = tiny_head()
    track = talking_track(head, 2, principal_point=np.array(centre), image_size=np.array(size))
    vertices = torch.as_tensor(np.stack(list(track_vertices(track, head))))
    return head, track, project(vertices, track.focal_px, centre)[0].numpy()


@pytest.mark.parametrize("size", [(360, 640), (640, 360)])
def test_gltfs_camera_sees_our_pixels_with_the_principal_point_in_the_middle(size, tmp_path):
    head, track, pixels = tracked(size, (size[1] / 2, size[0] / 2))
    export(track, head, "glb", tmp_path)
    seen = look(tmp_path / "head.glb", track.timestamps - track.timestamps[0], 25, size[::-1])
    for ours, theirs in zip(pixels, seen.pixels, strict=True):  # Blender reorders and doubles vertices
        assert cKDTree(ours).query(theirs)[0].max() < TOLERANCE_PX and cKDTree(theirs).query(ours)[0].max() < TOLERANCE_PX


@pytest.mark.parametrize(
    ("name", "file"), [("glb", "head.glb"), ("usd", "head.usdz"), ("abc", "head.abc")]
)
def test_the_drawn_head_covers_our_pixels(name, file, tmp_path):
    """The outline in a picture that Blender draws, half pixels and all. Only glTF wants the principal point in the middle."""
    if EXPORTERS[name].missing:
        pytest.skip(f"camera of {name} NOT CHECKED: no {EXPORTERS[name].missing} installed")
    size, centre = (360, 640), (320.0, 180.0) if name == "glb" else (290.0, 200.0)
    head, track, pixels = tracked(size, centre)
    export(track, head, name, tmp_path)
    look(tmp_path / file, track.timestamps - track.timestamps[0], 25, size[::-1], picture=str(tmp_path / "seen.png"))
    seen = cv2.imread(str(tmp_path / "seen.png"), cv2.IMREAD_UNCHANGED)[..., 3] > 127
    ours = outline(pixels[-1], head.faces, size)
    ring = np.ones((3, 3), np.uint8)
    assert ours.sum() > 5000
    assert not (seen & (cv2.dilate(ours, ring) == 0)).any()
    assert not ((ours > 0) & (cv2.dilate(seen.astype(np.uint8), ring) == 0)).any()


def outline(pixels, faces, size):
    """1 in the pixels whose centres lie in a triangle."""
    mask, bits = np.zeros(size, np.uint8), 8
    for corners in np.round((pixels[faces] - 0.5) * 2**bits).astype(np.int32):  # OpenCV's pixel centres are at integers
        cv2.fillConvexPoly(mask, corners, 1, shift=bits)
    return mask
