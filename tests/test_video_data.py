"""Clips prepared for training: tracks that follow known motion, masks, resuming, reasons for dropping, pairs for the losses."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from densemarks_model import ModelError
from densemarks_model.data.videos.__main__ import main
from densemarks_model.data.videos.masks import head_mask
from densemarks_model.data.videos.point_tracks import CoTracker3, FlowTracker
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.train.config import LossWeights
from densemarks_model.train.cube import CanonicalCube
from densemarks_model.train.objective import Objective
from densemarks_model.train.prepared_clips import PairSource
from densemarks_model.train.sources import collate

CLIP = Path(__file__).parent / "data" / "demo_excerpt.mp4"
TINY = LiteConfig(image_size=56, hidden_size=32, layers=2, heads=2, position_grid=5, taps=(1, 2), widths=(32, 32, 16), stem_width=16)


def _sliding(count: int = 8, step: float = 3.0, size: int = 120) -> np.ndarray:
    """Smooth texture that slides to the right by ``step`` pixels a frame."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (size, 3 * size, 3)).astype(np.float32), (0, 0), 2.0)
    wide = np.clip((wide - wide.mean()) * 5 + 128, 0, 255)
    frames = []
    for k in range(count):
        shift = np.array([[1, 0, step * k - size], [0, 1, 0]], np.float64)
        frames.append(cv2.warpAffine(wide, shift, (size, size), flags=cv2.INTER_LINEAR))
    return np.stack(frames).astype(np.uint8)


def test_flow_follows_known_motion_both_ways():
    frames = _sliding()
    grid = np.stack(np.meshgrid(np.arange(30, 80, 10), np.arange(20, 100, 20)), -1).reshape(-1, 2) + 0.5
    queries = np.concatenate([np.full((len(grid), 1), 3), grid], 1)
    points, seen = FlowTracker().track(frames, queries)
    expected = grid[None] + np.stack([3.0 * (np.arange(8) - 3), np.zeros(8)], 1)[:, None]
    assert seen.mean() > 0.9 and seen[3].all()
    assert np.abs(points - expected)[seen].max() < 1.0
    assert np.median(np.abs(points - expected)[seen]) < 0.15


def test_points_that_leave_the_picture_are_given_up():
    points, seen = FlowTracker().track(_sliding(step=6), np.array([[0, 110.5, 60.5], [0, 30.5, 60.5]]))
    assert not seen[4:, 0].any() and seen[:, 1].all()


def test_cotracker_is_asked_in_its_own_conventions(monkeypatch, tmp_path):
    with pytest.raises(ModelError, match="not installed"):
        CoTracker3(tmp_path / "weights.pth")
    seen = {}

    class Predictor:
        def __init__(self, checkpoint: str, offline: bool) -> None:
            seen["checkpoint"] = checkpoint

        def to(self, _device: str) -> Predictor:
            return self

        def __call__(self, video: torch.Tensor, queries: torch.Tensor, backward_tracking: bool) -> tuple[torch.Tensor, torch.Tensor]:
            seen["video"], seen["queries"] = video, queries
            places = queries[:, None, :, 1:].expand(-1, video.shape[1], -1, -1)
            return places, torch.ones(places.shape[:3])

    package, module = types.ModuleType("cotracker"), types.ModuleType("cotracker.predictor")
    module.CoTrackerPredictor = Predictor
    monkeypatch.setitem(sys.modules, "cotracker", package)
    monkeypatch.setitem(sys.modules, "cotracker.predictor", module)
    with pytest.raises(ModelError, match="no such file"):
        CoTracker3(tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(b"")
    points, visible = CoTracker3(tmp_path / "weights.pth").track(np.full((5, 16, 20, 3), 7, np.uint8), np.array([[2, 4.5, 8.5]]))
    assert seen["video"].shape == (1, 5, 3, 16, 20) and seen["video"].max() == 7
    torch.testing.assert_close(seen["queries"], torch.tensor([[[2.0, 4.0, 8.0]]]))
    np.testing.assert_allclose(points, np.broadcast_to([4.5, 8.5], (5, 1, 2)))
    assert visible.all()


def test_the_mask_of_a_disc_on_grey():
    crop = np.full((96, 96, 3), 90, np.uint8)
    crop += np.random.default_rng(0).integers(0, 12, crop.shape, dtype=np.uint8)
    cv2.circle(crop, (48, 48), 28, (210, 160, 140), -1)
    angle = np.linspace(0, 2 * np.pi, 40)
    landmarks = 48 + 18 * np.stack([np.cos(angle), np.sin(angle)], 1)
    truth = np.zeros((96, 96), np.uint8)
    cv2.circle(truth, (48, 48), 28, 1, -1)
    mask = head_mask(crop, landmarks) > 0
    assert (mask & (truth > 0)).sum() / (mask | (truth > 0)).sum() > 0.9


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    clips, out = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("prepared")
    shutil.copy(CLIP, clips / "talking.mp4")
    (clips / "broken.mp4").write_bytes(b"not a video")
    assert main([str(clips), "--out", str(out), "--frames", "12", "--quiet"]) == 0
    (out / "clips.txt").write_text(str(clips))
    return out


def test_a_clip_is_prepared(prepared):
    (file,) = prepared.glob("talking.mp4-*.npz")
    with np.load(file, allow_pickle=False) as archive:
        data = {k: archive[k] for k in archive.files}
    assert data["crops"].shape == (12, 256, 256, 3) and data["masks"].shape == (12, 64, 64)
    assert data["landmarks"].min() > 0 and data["landmarks"].max() < 1
    assert data["tracked"].mean() > 0.6
    assert 0.1 < (data["masks"] > 127).mean() < 0.8
    assert 0.5 < data["visible"].mean() <= 1
    # tracks on the face move with it, so in its own crop they stay put
    still = data["tracks"][:, data["tracked"].all(0)]
    assert np.median(np.linalg.norm(still - still[:1], axis=-1)) < 0.03


def test_broken_clips_are_dropped_with_a_reason_and_the_rest_is_not_done_again(prepared, capsys):
    clips = Path((prepared / "clips.txt").read_text())
    (ledger,) = prepared.glob("dropped-*.json")
    assert json.loads(ledger.read_text()) == {"broken.mp4": "unreadable"}
    before = {p: p.stat().st_mtime_ns for p in prepared.glob("*.npz")}
    assert main([str(clips), "--out", str(prepared), "--frames", "12", "--quiet"]) == 0
    assert "0 prepared now, 1 before, 1 dropped (1 unreadable)" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in prepared.glob("*.npz")}


def test_pairs_feed_the_papers_losses(prepared):
    source = PairSource(prepared, points=32)
    sample = source.sample(0, 56, 16, np.random.default_rng(0))
    again = source.sample(0, 56, 16, np.random.default_rng(0))
    assert all(np.array_equal(sample[k], again[k]) for k in sample)
    assert sample["image"].shape == (2, 3, 56, 56) and sample["tracks"].shape == (2, 32, 2) and sample["head"].shape == (2, 1, 16, 16)
    torch.manual_seed(0)
    objective = Objective(LiteNet(TINY), CanonicalCube(8, 6), LossWeights())
    losses = objective({"videos": collate([sample, again])})
    assert set(losses) == {"contrastive", "landmark", "head", "total"}
    losses["total"].backward()
    assert objective.cube.grid.grad.abs().sum() > 0 and objective.net.last.weight.grad.abs().sum() > 0


def test_landmarks_move_the_networks_coordinates_to_their_anchors(prepared):
    """A few steps on one pair bring the predicted places of landmarks towards the default head's."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sample = collate([PairSource(prepared, points=16).sample(0, 56, 16, np.random.default_rng(1))])
    objective = Objective(LiteNet(TINY), CanonicalCube(8, 6), LossWeights(contrastive=0.0, head=0.0))
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    curve = []
    for _ in range(30):
        loss = objective({"videos": sample})
        optimizer.zero_grad()
        loss["total"].backward()
        optimizer.step()
        curve.append(loss["landmark"].item())
    assert curve[-1] < 0.5 * curve[0]


def test_wrong_folders_are_named(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "not a folder" in capsys.readouterr().err
    assert main([str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "holds no clips" in capsys.readouterr().err
    with pytest.raises(ModelError, match="no prepared clips"):
        PairSource(tmp_path, 8)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match="not a prepared clip"):
        PairSource(tmp_path, 8).sample(0, 56, 16, None)
