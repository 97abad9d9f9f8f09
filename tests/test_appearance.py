"""Albedo and light from colours, pictures between the passes, and the texture of a clip."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest
import torch

from densemarks_model.crops import HeadCrop
from flame_assets.load import load_head
from tests.heads import tiny_head
from tests.views import lit_picture
from tracker.camera import Camera
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.observe.picture_store import PictureStore
from tracker.residuals.appearance import Appearance, estimate_appearance, harmonics
from tracker.stages.texture import TextureBuilder, push_pull

CENTRE = (256.0, 256.0)


def random_normals(frames: int, n: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(frames, n, 3, generator=draw), dim=-1)


def lamp() -> torch.Tensor:
    light = torch.zeros(9, 3)
    light[0] = 1
    light[1:4] = torch.tensor([[0.25, 0.2, 0.15], [0.1, 0.12, 0.14], [-0.2, -0.2, -0.1]])
    light[6] = 0.08
    return light


def test_harmonics_are_orthogonal_over_the_sphere():
    normals = random_normals(1, 200_000)[0]
    gram = harmonics(normals).T @ harmonics(normals) / len(normals)
    scale = gram.diagonal().sqrt()
    assert ((gram / scale / scale[:, None]) - torch.eye(9)).abs().max() < 0.02


def test_albedo_and_light_are_told_apart():
    """A head that turns shows every place under several lights; a tenth of the colours are highlights."""
    frames, n = 12, 400
    normals, light = random_normals(frames, n), lamp()
    albedo = 0.3 + 0.4 * torch.rand(n, 3, generator=torch.Generator().manual_seed(2))
    colours = albedo * (harmonics(normals) @ light)
    spoilt = torch.rand(frames, n, generator=torch.Generator().manual_seed(3)) < 0.1
    colours[spoilt] += 0.4
    found = estimate_appearance(colours, normals, torch.ones(frames, n))
    assert (found.light - light).abs().max() < 0.03
    assert (found.albedo - albedo).abs().median() < 0.01
    assert (found.albedo - albedo).abs().mean() < 0.02


def test_places_never_seen_have_no_trust():
    normals = random_normals(5, 50)
    colours = torch.full((5, 50, 3), 0.5)
    weight = torch.ones(5, 50)
    weight[:, 7] = 0
    found = estimate_appearance(colours, normals, weight)
    assert found.trust[7] == 0 and found.trust[8] > 0.9
    assert torch.isfinite(found.albedo).all() and torch.isfinite(found.light).all()


def test_pictures_are_kept_as_they_were(tmp_path):
    y, x = np.mgrid[0:80, 0:80].astype(np.float32)
    image = np.stack([2 * x + 40, 2 * y + 30, 200 - x - y], -1).clip(0, 255).astype(np.uint8)
    crop = HeadCrop(np.array([40.0, 42.0]), 40.0, 0.2)
    with PictureStore(tmp_path, 32) as store:
        store.put(3, crop, image)
        store.put(8, HeadCrop(np.array([20.0, 20.0]), 30.0), image)
        assert store.read(4) is None
        back, picture = store.read(3)
        assert np.array_equal(back.center, crop.center) and (back.side, back.roll) == (crop.side, crop.roll)
        assert np.abs(picture.astype(int) - crop.extract(image, 32)).max() <= 6  # JPEG at quality 95
    with PictureStore(tmp_path, 32) as again:
        assert np.array_equal(again.read(3)[1], picture) and again.read(8) is not None and again.read(4) is None


def test_holes_continue_their_surroundings():
    weighted = np.zeros((16, 16, 4), np.float32)
    weighted[:, :8], weighted[:, 8:] = (100, 0, 0, 1), (0, 200, 0, 1)
    weighted[4:8, 2:5] = 0
    weighted[6:10, 11:14] = 0
    full = push_pull(weighted)
    known = weighted[..., 3] > 0
    assert np.allclose(full[known], weighted[known][:, :3])
    assert full[5:7, 3, 0].min() > 80 and full[5:7, 3, 1].max() < 40
    assert full[7:9, 12, 1].min() > 160
    assert np.isfinite(push_pull(np.zeros((7, 5, 4), np.float32))).all()


def test_the_texture_shows_what_the_camera_saw():
    """Views of a painted head from the front and both sides, back to paint; lit from the left, the light taken out."""
    asset = load_head(None)
    head = HeadModel.from_asset(asset, "cpu", torch.float32)
    light = lamp()
    paint = 0.5 + 0.25 * np.sin(asset.v_template @ np.array([[60.0, 0, 30], [0, 70, 20], [40, 30, 0]]))
    camera = Camera(720.0, *CENTRE, 512, 512)
    builder = TextureBuilder(asset, camera, 256, Appearance(torch.zeros(1, 3), light, torch.zeros(1)))
    for yaw in (-0.9, -0.4, 0.0, 0.4, 0.9):
        values = {
            "rotation": torch.tensor([[0.0, yaw, 0.0]]),
            "translation": torch.tensor([[0.0, 0.0, 0.4]]),
            "log_focal": torch.tensor([math.log(720.0)]),
        }
        crop, picture = lit_picture(asset, head, values, 0, CENTRE, paint, light, 512)
        # the crop put back into the frame
        matrix = crop.matrix(512)
        matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
        frame = cv2.warpAffine(picture, matrix, (512, 512), borderValue=(0.5, 0.5, 0.5))
        vertices = HeadPoints.evaluate(head, values).positions[0].numpy()
        builder.add((255 * frame.clip(0, 1)).round().astype(np.uint8), vertices)
    texture = builder.finish().astype(float) / 255
    corners = asset.regions["face"][asset.faces].all(1) & ~asset.regions["mouth_interior"][asset.faces].any(1)
    at = (asset.uv[asset.uv_faces[corners]].mean(1) * [1, -1] + [0, 1]) * 256
    seen = texture[at[:, 1].astype(int).clip(0, 255), at[:, 0].astype(int).clip(0, 255)]
    wanted = paint[asset.faces[corners]].mean(1)
    error = np.abs(seen - wanted).mean(1)
    assert np.median(error) < 0.02 and np.percentile(error, 90) < 0.06


def test_a_head_without_uv_has_no_texture():
    bare = dataclasses.replace(tiny_head(), uv=None, uv_faces=None)
    with pytest.raises(ValueError, match="uv"):
        TextureBuilder(bare, Camera(500.0, 64.0, 64.0, 128, 128), 64, None)
