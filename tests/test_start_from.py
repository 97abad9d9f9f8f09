"""Fits that begin from an earlier track: no worse than those that begin from nothing, and never spoilt by a bad one."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flame_assets.load import load_head
from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.camera import FocalPrior, project
from tracker.cli import main
from tracker.errors import UserError
from tracker.export import export
from tracker.export.flame_params import load_track
from tracker.head_points import HeadPoints
from tracker.head_track import HeadTrack
from tracker.observe.frame_batch import FrameBatch
from tracker.residuals.fit_head import FitHead
from tracker.settings import load_settings
from tracker.stages.keyframes import fit_shared
from tracker.stages.recipe import initial_values
from tracker.stages.rigid import first_poses
from tracker.stages.start import Start
from tracker.stages.windows import fit_frames
from tracker.video.packaged_clips import EXCERPT

CENTRE, FOCAL, FRAMES, SIZE = (320.0, 180.0), 700.0, 14, (360, 640)
TIMES = np.arange(FRAMES) / 25
ASSET = load_head()


@pytest.fixture(scope="module")
def scene():
    """A head that turns and speaks, where its landmarks are, and the preset of landmarks alone."""
    rng, t = np.random.default_rng(0), np.linspace(0, 1, FRAMES)
    expr = np.zeros((FRAMES, ASSET.n_expression))
    expr[:, ASSET.expression_names.index("jawOpen")] = 0.4 * np.sin(3 * t) ** 2
    expr[:, ASSET.expression_names.index("mouthSmileLeft")] = 0.6 * t
    truth = talking_track(
        ASSET, FRAMES, expr=expr, shape=rng.normal(0, 0.4, ASSET.n_identity), timestamps=TIMES, neck_pose=np.zeros((FRAMES, 3)),
        jaw_pose=np.zeros((FRAMES, 3)), rotation=np.stack([0.2 * np.sin(5 * t), 0.5 * np.sin(4 * t), 0.1 * t], 1),
        translation=np.stack([0.03 * t, 0.01 * t, 0.4 + 0.03 * t], 1), eyes_pose=np.zeros((FRAMES, 6)), valid=np.ones(FRAMES, bool),
    )  # fmt: skip
    head = FitHead.build(ASSET)
    positions = HeadPoints.evaluate(head.landmarks, values_of(truth)).positions
    pixels, _ = project(positions, FOCAL, CENTRE)
    scale = FOCAL / (1 - positions[..., 2]).mean(1, keepdim=True)
    depth = -(positions[..., 2] - positions[..., 2].mean(1, keepdim=True)) * scale
    return SimpleNamespace(head=head, truth=truth, batch=FrameBatch(pixels, depth, torch.as_tensor(TIMES)), settings=load_settings("fast"))


def values_of(track: HeadTrack) -> dict[str, torch.Tensor]:
    names = ("rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose", "expr", "shape")
    return {name: torch.as_tensor(getattr(track, name), dtype=torch.float32) for name in names}


def near(track: HeadTrack, seed: int = 1, size: float = 1.0) -> HeadTrack:
    """What another tracker may have found: a little off in everything."""
    rng = np.random.default_rng(seed)
    off = {"rotation": 0.03, "translation": 0.004, "expr": 0.05, "shape": 0.1}
    moved = {name: getattr(track, name) + size * rng.normal(0, sigma, getattr(track, name).shape) for name, sigma in off.items()}
    return dataclasses.replace(track, focal_px=track.focal_px * (1 + 0.05 * size), **moved)


def start_of(track: HeadTrack) -> Start:
    return Start.of(track, ASSET, TIMES, SIZE)


def shared_fit(scene, begin):
    every = torch.arange(FRAMES)
    return fit_shared(scene.head, every, lambda frames, reads: scene.batch.select(frames), FocalPrior(800.0, 0.2, CENTRE), scene.settings, begin)


def window_error(scene, shared, begin):
    read = lambda frames, reads: scene.batch.select(frames)  # noqa: E731
    windows = list(fit_frames(scene.head, torch.arange(FRAMES), read, shared, CENTRE, scene.settings, begin))
    return torch.cat([w.error_percent for w in windows])


def begun(scene, begin, focal=FOCAL, centre=CENTRE):
    poses = first_poses(scene.head, scene.batch, focal, centre)
    values = initial_values(scene.head.model, scene.batch, poses, scene.settings)
    values |= {"shape": begin.shape(poses.rotation), "log_focal": torch.tensor([math.log(focal)])}
    return values, begin.begun(scene.head, scene.batch, torch.arange(FRAMES), values, centre)


@pytest.mark.parametrize("seed", [1, 2])
def test_from_near_the_truth_a_short_fit_gets_further(scene, seed):
    """One iteration a stage, a fit cut short, ends lower from there; two end where twenty from nothing do."""
    cost = {}
    for iterations in (1, 2, None):
        stages = {name: {"iterations": iterations or stage.iterations} for name, stage in scene.settings.keyframe_stages.items()}
        some = SimpleNamespace(**(vars(scene) | {"settings": scene.settings.changed({"stages": {"keyframes": stages}})}))
        for begin in (None, start_of(near(scene.truth, seed))):
            cost[iterations, begin is not None] = shared_fit(some, begin).solution.cost
    assert cost[1, True] < 0.9 * cost[1, False]
    assert cost[2, True] < cost[2, False]
    assert max(cost[2, True], cost[None, True]) < 1.01 * cost[None, False]


def test_frames_end_as_near_to_their_landmarks(scene):
    begin = start_of(near(scene.truth))
    without, with_it = (window_error(scene, shared_fit(scene, some), some) for some in (None, begin))
    assert with_it.median() <= 1.02 * without.median() and with_it.max() <= 1.05 * without.max()


def test_a_start_that_is_worse_than_none_is_not_used_frame_by_frame(scene):
    turned = np.array(scene.truth.rotation)
    turned[::2, 1] += 2.0
    values, begin = begun(scene, start_of(dataclasses.replace(scene.truth, rotation=turned)))
    for name in ("rotation", "translation", "expr"):
        assert torch.equal(begin[name][::2], values[name][::2])
    torch.testing.assert_close(begin["rotation"][1::2], torch.as_tensor(scene.truth.rotation, dtype=torch.float32)[1::2])


def test_frames_that_the_track_does_not_know_begin_as_ever(scene):
    part = near(scene.truth, size=0.1).select(np.arange(4, 9))
    unsure = dataclasses.replace(part, valid=np.array([True, False, True, True, True]))
    start = start_of(unsure)
    assert start.known == 4
    values, begin = begun(scene, start)
    unknown = [0, 1, 2, 3, 5, 9, 10, 11, 12, 13]
    assert torch.equal(begin["rotation"][unknown], values["rotation"][unknown])
    assert not torch.equal(begin["rotation"][4], values["rotation"][4])


def test_another_focal_length_and_centre_keep_the_head_on_its_pixels(scene):
    """Seen with a lens 1.3 times as long and another centre, the track's head still covers the same landmarks."""
    start = start_of(scene.truth)
    values = begun(scene, start, 1.3 * FOCAL, (330.0, 172.0))[0]
    own = values | start._values(scene.head, np.arange(FRAMES), values, (330.0, 172.0))
    pixels, _ = project(HeadPoints.evaluate(scene.head.landmarks, own).positions, 1.3 * FOCAL, (330.0, 172.0))
    off = (pixels - scene.batch.points[:, scene.head.numbers]).norm(dim=-1)
    assert off.mean() < 1 and (pixels.mean(1) - scene.batch.points[:, scene.head.numbers].mean(1)).norm(dim=-1).max() < 0.5


def test_a_bent_neck_becomes_the_heads_turn_where_necks_are_at_rest(scene):
    bent = dataclasses.replace(scene.truth, neck_pose=np.tile([0.1, 0.3, -0.1], (FRAMES, 1)))
    head = dataclasses.replace(scene.head.landmarks, pose_dirs=torch.zeros_like(scene.head.landmarks.pose_dirs))
    start = start_of(bent)
    values = begun(scene, start)[0]
    assert "neck_pose" not in values
    own = values | start._values(scene.head, np.arange(FRAMES), values, CENTRE)
    wanted = HeadPoints.evaluate(head, values_of(bent)).positions
    skull = (head.weights[:, 0] == 0) & (head.weights[:, 2] == 0)
    assert skull.sum() > 100
    assert (HeadPoints.evaluate(head, own).positions - wanted)[:, skull].norm(dim=-1).max() < 2e-4


def test_a_focal_length_that_cannot_be_is_left_out(scene):
    """SMIRK's stands for an orthographic camera."""
    start = start_of(dataclasses.replace(scene.truth, focal_px=20_000.0))
    assert start.focal_px(FocalPrior(800.0, 0.2, CENTRE)) == 800.0
    assert start_of(scene.truth).focal_px(FocalPrior(800.0, 0.2, CENTRE)) == FOCAL
    assert start_of(scene.truth).focal_px(FocalPrior(800.0, 0.0, CENTRE)) == 800.0  # known


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamps": 100 + TIMES}, "has a head in none of these frames"),
        ({"image_size": np.array([720, 1280])}, "in pictures of 1280×720, the video has 640×360"),
        ({"head_sha256": "0"}, r"not 'anny-head-1'.*--to-head"),
    ],
)
def test_tracks_of_other_videos_and_heads_are_refused(scene, change, message):
    with pytest.raises(UserError, match=message):
        start_of(dataclasses.replace(scene.truth, **change))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert main(["--video", str(EXCERPT), "--max-frames", "10", "--preset", "fast", "--no-overlay", "--quiet", "--out", str(out)]) == 0
    return out / EXCERPT.stem


def test_a_run_goes_on_from_an_earlier_ones_result(first_run, tmp_path, capsys):
    options = ["--video", str(EXCERPT), "--max-frames", "12", "--preset", "fast", "--no-overlay", "--out", str(tmp_path)]
    assert main([*options, "--start-from", str(first_run)]) == 0
    out = capsys.readouterr().out
    assert "the track to start from has a head in 10 of these 12 frames" in out
    before, after = load_track(first_run / "flame_params.npz"), load_track(tmp_path / EXCERPT.stem / "flame_params.npz")
    assert after.valid.all() and np.abs(after.rotation[:10] - before.rotation).max() < 0.05
    assert after.focal_px == pytest.approx(before.focal_px, rel=0.1)


@pytest.mark.parametrize(
    ("given", "message"), [("none.npz", "none.npz: no such file"), ("tiny", "made with head 'tiny-0', not with 'anny-head-1'")]
)
def test_a_start_that_cannot_be_costs_no_pass(given, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tracker.pipeline.observe", lambda *_, **__: pytest.fail("the pass began"))
    export(talking_track(tiny_head(), 2), tiny_head(), "npz", tmp_path / "tiny")
    options = ["--video", str(EXCERPT), "--preset", "fast", "--out", str(tmp_path / "out"), "--start-from", str(tmp_path / given)]
    assert main(options) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
