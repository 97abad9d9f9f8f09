"""The shipped Cycles clips are what their truths say, seen by a detector that knows nothing of them; scoring them is honest."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from densemarks_model.data.synthetic.sequences import Motion
from flame_assets.load import load_head
from tools import benchmark, render_cycles_suite
from tracker.errors import UserError
from tracker.evaluation import cycles_suite
from tracker.evaluation.cycles_suite import FOLDER, SAMPLED, known_clips, read_truths
from tracker.evaluation.html_report import html_report
from tracker.evaluation.markdown_report import markdown_report
from tracker.evaluation.summary import synthetic_summary
from tracker.evaluation.synthetic_suite import ClipTruth, KnownClip, score, score_clips
from tracker.landmarks.landmark_schemes import INTER_OCULAR
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.video import open_video

SIZE, FRAMES = 384, 40


@pytest.fixture(scope="module")
def clips() -> list[KnownClip]:
    return known_clips()


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def videos(clips):
    out = []
    for clip in clips:
        with open_video(clip.video) as video:
            out.append((video.frame_rate, list(video)))
    return out


@pytest.fixture(scope="module")
def seen(videos):
    """MediaPipe's points in every frame of every clip; None where it finds no face."""
    found = []
    for _, frames in videos:
        with FaceLandmarker() as detector:
            found.append([detector.detect(f.image, f.timestamp) for f in frames])
    return found


def curve(clip: KnownClip, head, name: str) -> np.ndarray:
    return clip.truth.expression[:, head.expression_names.index(name)]


def following(truth: ClipTruth, head, turn: Rotation | None = None) -> SimpleNamespace:
    """What a tracker would give that knows the truth, turned by ``turn`` about the head's centre."""
    vertices, skull = truth.vertices.astype(np.float64), truth.skull_rotation
    if turn is not None:
        centre = vertices.mean(1, keepdims=True)
        vertices, skull = (vertices - centre) @ turn.as_matrix().T + centre, turn.as_matrix() @ skull
    frames = len(vertices)
    track = SimpleNamespace(
        expr=truth.expression, eyes_pose=truth.eyes, focal_px=truth.focal_px, valid=np.ones(frames, bool), tracked=np.ones(frames, bool), n_frames=frames,
        expression_names=head.expression_names,
    )  # fmt: skip
    return SimpleNamespace(vertices=vertices, skull_rotation=skull, head=head, track=track, seconds=1.0, focal_log_sigma=float("nan"))


def pixels(clip: KnownClip, points: np.ndarray) -> np.ndarray:
    return clip.truth.focal_px * points[..., :2] / -points[..., 2:] * [1, -1] + SIZE / 2


def test_the_shipped_files_are_complete_and_small(clips, videos):
    assert len(clips) >= 6
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) < 8 * 2**20
    assert (FOLDER / "PROVENANCE.md").is_file()
    for clip, (rate, frames) in zip(clips, videos, strict=True):
        assert rate == pytest.approx(12.5) and len(frames) == FRAMES == len(clip.truth.yaw)
        assert frames[0].image.shape == (SIZE, SIZE, 3)
        assert frames[-1].timestamp == pytest.approx((FRAMES - 1) / 12.5, abs=1e-3)
        assert np.abs(np.diff([f.image.astype(float).mean() for f in frames])).max() < 25  # no picture is black or out of place


def test_truths_are_the_vertices_that_were_rendered(clips):
    with np.load(FOLDER / "truth.npz", allow_pickle=False) as file:
        rendered = file["rendered"]
    for clip, sample in zip(clips, rendered, strict=True):
        off = clip.truth.vertices[[0, FRAMES // 3, -1], ::SAMPLED] - sample
        assert 1000 * np.linalg.norm(off, axis=-1).max() < 0.01


def test_nobody_lies_within_the_identity_basis(head):
    """What no identity coefficients can explain of a person's shape, after a fit of all of them."""
    outside = np.any([head.regions[r] for r in ("face", "scalp", "ears")], axis=0)
    basis = head.shapedirs[outside, :, : head.n_identity].reshape(-1, head.n_identity)
    left = []
    for person in read_truths(FOLDER / "truth.npz", head).values():
        bend = person.bend[outside].reshape(-1)
        rest = bend - basis @ np.linalg.lstsq(basis, bend, rcond=None)[0]
        left.append(1000 * np.linalg.norm(rest.reshape(-1, 3), axis=1).mean())
    assert min(left) > 1.5 and sorted(left)[-2] > 2.3


def test_motions_are_as_promised(clips, head):
    profile = [c for c in clips if 68 < abs(c.truth.yaw[0]) < 78]
    assert len(profile) >= 2
    assert {int(np.sign(c.truth.yaw[0])) for c in profile} == {-1, 1}
    assert all(np.abs(c.truth.yaw[FRAMES // 2]).max() < 15 for c in profile)
    assert sum(c.truth.yaw.max() > 70 and c.truth.yaw.min() < -70 for c in clips) >= 2
    for clip in clips:
        assert curve(clip, head, "jawOpen").max() > 0.2 and curve(clip, head, "eyeBlinkLeft").max() > 0.9
        assert len(np.unique(clip.truth.eyes[:, 1].round(3))) >= 4  # glances
    ratios = [c.truth.focal_px / SIZE for c in clips]
    assert min(ratios) <= 1.1 and max(ratios) >= 2.0


def test_the_committed_script_is_what_was_rendered(head):
    performances = read_truths(FOLDER / "truth.npz", head)
    assert list(performances) == [clip.shows for clip in render_cycles_suite.CLIPS]
    for number, (clip, performance) in enumerate(zip(render_cycles_suite.CLIPS, performances.values(), strict=True)):
        motion = Motion(clip.script, np.random.default_rng([render_cycles_suite.MOTION_SEED, number]))
        for index in (0, 17, FRAMES - 1):
            expression, pose, body, _ = motion.at(index)
            np.testing.assert_allclose(performance.expression[index], expression, atol=1e-6)
            np.testing.assert_allclose(performance.neck[index], pose.neck, atol=1e-9)
            np.testing.assert_allclose(Rotation.from_rotvec(performance.rotation[index]).as_matrix(), body, atol=1e-9)
        assert performance.focal_px == clip.script.focal_ratio * SIZE
        assert clip.panorama not in ("sunrise", "studio")  # places of training's panoramas


def test_a_detector_sees_the_head_where_the_truth_has_it(clips, seen, head):
    """Corners of the open eyes and the nose's wings, in frontal frames, to a twenty-fifth of the eyes' distance."""
    embedding = head.landmarks["mediapipe"]
    rows = {int(k): r for r, k in enumerate(embedding.indices)}
    wanted = [33, 133, 362, 263, 129, 358]
    for clip, found in zip(clips, seen, strict=True):
        points = np.stack([embedding.positions(v, head.faces) for v in clip.truth.vertices])
        truth = pixels(clip, points[:, [rows[k] for k in wanted]])
        span = np.linalg.norm(truth[:, 0] - truth[:, 3], axis=1)
        frontal = (np.abs(clip.truth.yaw) < 20) & (curve(clip, head, "eyeBlinkLeft") < 0.3)
        frontal &= np.array([f is not None for f in found])
        assert frontal.sum() >= 3, clip.label
        theirs = np.stack([found[k].points[wanted] for k in np.flatnonzero(frontal)])
        off = theirs - truth[frontal]
        assert np.abs(np.median(off, axis=(0, 1))).max() < 1.5, clip.label  # pixels
        assert np.median(np.linalg.norm(off, axis=-1) / span[frontal, None]) < 0.04, clip.label


def test_frames_and_truths_are_in_step(clips, seen):
    """The detector's eyes move as the truth's in the same frame, not as in the frame before or after."""
    errors = []
    for clip, found in zip(clips, seen, strict=True):
        head = load_head()
        embedding = head.landmarks["mediapipe"]
        columns = [int(np.flatnonzero(embedding.indices == k)[0]) for k in INTER_OCULAR]
        truth = pixels(clip, np.stack([embedding.positions(v, head.faces) for v in clip.truth.vertices])[:, columns]).mean(1)
        good = [k for k in range(1, FRAMES - 1) if found[k] is not None and abs(clip.truth.yaw[k]) < 30]
        theirs = np.stack([found[k].points[list(INTER_OCULAR)].mean(0) for k in good])
        errors.append([np.median(np.linalg.norm(theirs - truth[np.array(good) + shift], axis=1)) for shift in (-1, 0, 1)])
    mean = np.mean(errors, 0)
    assert mean[1] < 0.8 * min(mean[0], mean[2])


def test_the_truth_scores_zero_and_a_turned_one_its_turn(clips, head):
    truth = clips[0].truth
    perfect = score(following(truth, head), truth)
    assert max(v for k, v in perfect.items() if "mm" in k or "_deg" in k or k.startswith("expression")) < 0.01
    turned = score(following(truth, head, Rotation.from_euler("y", 10, degrees=True)), truth)
    assert turned["rotation_deg_median"] == pytest.approx(10, abs=1e-3)
    assert turned["posed_mm_face"] > 5 and turned["aligned_mm_face"] < 0.01


def test_another_head_is_refused_in_one_line(monkeypatch, head):
    other = replace(head, v_template=head.v_template * np.float32(1.01))
    monkeypatch.setattr(cycles_suite, "load_head", lambda: other)
    with pytest.raises(UserError, match="render the suite again") as caught:
        known_clips()
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"truth\.npz"):
        known_clips(tmp_path)
    (tmp_path / "truth.npz").write_bytes((FOLDER / "truth.npz").read_bytes())
    with pytest.raises(UserError, match=r"clip_0\.mp4"):
        known_clips(tmp_path)


def test_rows_are_one_a_clip_and_a_tracker_that_gives_up_has_none_there(clips, head):
    truths = {c.video: c.truth for c in clips}

    def blind(video):
        if video == clips[1].video:
            raise UserError("no face")
        return following(truths[video], head)

    said, kept = [], []
    trackers = {"knows": lambda video: following(truths[video], head), "blind": blind}
    rows = score_clips(trackers, clips[:3], said.append, lambda name, clip, tracked: kept.append((name, clip.video)))
    assert [r["clip"] for r in rows["knows"]] == [0, 1, 2] and [r["clip"] for r in rows["blind"]] == [0, 2]
    assert len(said) == 6 and len(kept) == 5 and any("no face" in line for line in said)
    assert synthetic_summary(rows["blind"])["clips"] == 2


def test_the_command_reports_it_first(monkeypatch, clips, head):
    """Tables, page and JSON of ``--suites cycles``, by a tracker that is 10 degrees off."""
    truths = {c.video: c.truth for c in clips}
    bias = Rotation.from_euler("y", 10, degrees=True)
    monkeypatch.setitem(benchmark.TRACKERS, "landmarks478", lambda video: following(truths[video], head, bias))
    options = benchmark.build_parser().parse_args(["--suites", "cycles", "--trackers", "landmarks478"])
    scores, _ = benchmark.measure(options)
    scores = json.loads(json.dumps(scores, allow_nan=False))
    assert scores["suites"]["cycles"]["landmarks478"]["rotation_error_deg"]["median"] == pytest.approx(10, abs=1e-3)
    assert [row["clip"] for row in scores["clips"]["cycles"]["landmarks478"]] == list(range(len(clips)))
    text = markdown_report(scores)
    assert text.startswith(f"{len(clips)} clips rendered by Cycles, {FRAMES} frames each") and "| head rotation, median, ° | 10" in text
    assert "Clips rendered by Cycles" in html_report(scores, [])
    assert benchmark.SUITES[0] == "cycles" and benchmark.QUICK_SUITES == ("synthetic", "real")
