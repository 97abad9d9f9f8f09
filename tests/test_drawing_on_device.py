"""The overlay and the texture drawn by torch and a renderer, against the compiled loops of the CPU.

The code for devices runs here on the CPU's renderer; the tests at the end run it on a GPU where there is one.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from densemarks_model.crops import HeadCrop
from flame_assets.load import load_head
from tests.devices import needs_cuda
from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.camera import Camera
from tracker.errors import UserError
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.overlay import DevicePainter, MeshPainter, painter_for
from tracker.residuals.appearance import Appearance
from tracker.stages.texture import DeviceTextureBuilder, TextureBuilder, texture_builder
from tracker.track_vertices import track_vertices, vertices_on_device

SIZE = (320, 180)
FRAMES = 4


@pytest.fixture(scope="module")
def asset():
    return load_head(None)


@pytest.fixture(scope="module")
def track(asset):
    return talking_track(asset, FRAMES, translation=np.tile([0.02, 0.01, 0.5], (FRAMES, 1)))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    draw = np.random.default_rng(0)
    return cv2.resize(draw.integers(0, 256, (12, 20, 3), np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    draw = np.random.default_rng(1)
    return cv2.resize(draw.integers(0, 256, (16, 16, 3), np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)


def agree(found: np.ndarray, expected: np.ndarray, levels: int, share: float) -> None:
    apart = np.abs(found.astype(int) - expected.astype(int)).max(-1)
    assert found.shape == expected.shape and found.dtype == np.uint8
    assert (apart <= levels).mean() >= share, np.percentile(apart, [50, 90, 99, 99.9, 100])


def check_painter(asset, track, picture, texture, device: str, share: float) -> None:
    compiled = MeshPainter(asset, track, SIZE, 0.75, texture)
    other = DevicePainter(asset, track, SIZE, 0.75, texture, device)
    before = picture.copy()
    for here, there in zip(vertices_on_device(track, asset), vertices_on_device(track, asset, device), strict=True):
        for found, expected in zip(other.pictures(picture, there), compiled.pictures(picture, here), strict=True):
            agree(found, expected, 2, share)
            assert (expected != picture).any(-1).mean() > 0.05  # there is something to compare
    assert np.array_equal(picture, before)


def check_texture(asset, track, picture, device: str, share: float) -> None:
    width, height = SIZE
    camera = Camera(track.focal_px * width / 640, width / 2, height / 2, width, height)
    light = torch.zeros(9, 3)
    light[0], light[1] = 1, torch.tensor([0.3, 0.2, -0.2])
    appearance = Appearance(torch.zeros(1, 3), light, torch.zeros(1))
    y, x = np.mgrid[0:64, 0:64] / 63
    trust = (0.5 + 0.5 * np.sin(5 * x + 3 * y)).astype(np.float32)
    record = EmbeddingRecord(HeadCrop(np.array([160.0, 90.0]), 220.0, 0.3), np.zeros((64, 64, 3), np.float32), trust, trust, trust)
    compiled = TextureBuilder(asset, camera, 256, appearance)
    other = DeviceTextureBuilder(asset, camera, 256, appearance, device)
    for number, (here, there) in enumerate(zip(track_vertices(track, asset), vertices_on_device(track, asset, device), strict=True)):
        compiled.add(picture, here, record if number % 2 else None)
        other.add(picture, there, record if number % 2 else None)
    expected = compiled.finish()
    agree(other.finish(), expected, 2, share)
    assert expected.std() > 20


def test_overlay_by_torch_is_that_of_the_compiled_loops(asset, track, picture, texture):
    check_painter(asset, track, picture, texture, "cpu", 0.999)


def test_overlay_without_a_texture(track, asset, picture):
    vertices = next(vertices_on_device(track, asset))
    compiled, other = MeshPainter(asset, track, SIZE, 0.5), DevicePainter(asset, track, SIZE, 0.5, None, "cpu")
    (expected,), (found,) = compiled.pictures(picture, vertices), other.pictures(picture, vertices)
    agree(found, expected, 1, 1.0)


def test_texture_by_torch_is_that_of_the_compiled_loops(asset, track, picture):
    check_texture(asset, track, picture, "cpu", 0.995)


def test_the_cpu_keeps_its_compiled_loops(asset, track, texture):
    assert isinstance(painter_for(asset, track, SIZE, 1.0, texture, "cpu"), MeshPainter)
    assert isinstance(texture_builder(asset, track.camera, 64, None), TextureBuilder)


@pytest.mark.parametrize("make", [painter_for, texture_builder])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_without_a_renderer_is_refused_in_one_line(asset, track, make):
    arguments = (asset, track, SIZE, 1.0, None) if make is painter_for else (asset, track.camera, 64, None)
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        make(*arguments, "cuda")


def test_a_head_without_uv_has_no_texture_on_any_device():
    bare = dataclasses.replace(tiny_head(), uv=None, uv_faces=None)
    with pytest.raises(ValueError, match="no uv"):
        DeviceTextureBuilder(bare, Camera(500.0, 64.0, 64.0, 128, 128), 64, None, "cpu")


@needs_cuda
def test_overlay_on_cuda_is_that_of_the_cpu(asset, track, picture, texture):
    check_painter(asset, track, picture, texture, "cuda", 0.98)  # the two rasterisers differ along edges


@needs_cuda
def test_texture_on_cuda_is_that_of_the_cpu(asset, track, picture):
    check_texture(asset, track, picture, "cuda", 0.97)


@needs_cuda
def test_vertices_on_cuda_are_those_of_the_cpu(asset, track):
    for found, expected in zip(track_vertices(track, asset, "cuda"), track_vertices(track, asset), strict=True):
        assert np.abs(found - expected).max() < 1e-5
