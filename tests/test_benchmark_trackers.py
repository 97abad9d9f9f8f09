"""Deliberately broken trackers are ranked last by the measure meant to see it, and the adapters mean what they say."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flame_assets.ibug68 import IBUG68_FROM_MEDIAPIPE
from flame_assets.load import load_head
from flame_assets.registration_model import CANONICAL_FILE
from tests.views import lit_picture
from tracker.camera import CAMERA_POSITION
from tracker.evaluation.bands import outside
from tracker.evaluation.baselines import ABLATIONS, TRACKERS, Preset, Tracked
from tracker.evaluation.baselines.mediapipe_own import head_poses
from tracker.evaluation.html_report import html_report, overlays
from tracker.evaluation.independent_landmarks import INNER, lid_opening, nme_pct, projected_landmarks
from tracker.evaluation.markdown_report import gave_up, markdown_report, worse_than_landmarks
from tracker.evaluation.motion import amplitude, jitter_deg, lag_frames
from tracker.evaluation.picture_measures import colour_spread, flow_agreement_px, silhouette_iou
from tracker.evaluation.plots import figures, write_png
from tracker.evaluation.rows import MARK, REAL_ROWS, SYNTHETIC_ROWS, Row
from tracker.evaluation.solver_checks import compare_with_adam, prepare
from tracker.evaluation.summary import real_summary, synthetic_summary
from tracker.evaluation.synthetic_suite import ClipTruth, score
from tracker.head_model import HeadModel
from tracker.head_track import HeadTrack
from tracker.video.packaged_clips import EXCERPT

FRAMES, SIZE, FOCAL = 40, 256, 360.0


@pytest.fixture(scope="module")
def right() -> Tracked:
    """A head that turns, talks and blinks twice."""
    asset = load_head(None)
    t = np.arange(FRAMES) / 25
    expr = np.zeros((FRAMES, asset.n_expression))
    names = asset.expression_names
    expr[:, names.index("jawOpen")] = 0.4 * (1 - np.cos(7 * t)) / 2
    for side in ("Left", "Right"):
        expr[:, names.index(f"eyeBlink{side}")] = sum(np.exp(-(((t - c) / 0.05) ** 2)) for c in (0.4, 1.1))
    zero = np.zeros((FRAMES, 3))
    track = HeadTrack(
        rotation=np.stack([0.1 * np.sin(3 * t), 0.4 * np.sin(4 * t), 0 * t], 1), neck_pose=zero, jaw_pose=zero,
        eyes_pose=np.zeros((FRAMES, 6)), translation=np.stack([0.02 * np.sin(2 * t), 0 * t, 0.4 + 0 * t], 1),
        shape=np.zeros(asset.n_identity), expr=expr, focal_px=FOCAL, principal_point=np.array([SIZE / 2, SIZE / 2]),
        image_size=np.array([SIZE, SIZE]), timestamps=t, valid=np.ones(FRAMES, bool), confidence=np.ones(FRAMES),
        timestep_id=np.array([f"{f:05d}" for f in range(FRAMES)]), expression_names=names, head_name=asset.name,
        head_sha256=asset.sha256(), frame_rate=25.0,
    )  # fmt: skip
    return Tracked(track, asset, seconds=1.0)


def changed(tracked: Tracked, **arrays: np.ndarray) -> Tracked:
    return Tracked(replace(tracked.track, **arrays), tracked.head, tracked.seconds)


@pytest.fixture(scope="module")
def broken(right) -> dict[str, Tracked]:
    track, names = right.track, right.track.expression_names
    blinks = [names.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    half = track.expr.copy()
    half[:, blinks] *= 0.5
    late = np.maximum(np.arange(FRAMES) - 1, 0)
    bias = Rotation.from_euler("y", 10, degrees=True)
    noise = np.random.default_rng(0).normal(0, 0.006, (FRAMES, 3))
    return {
        "right": right,
        "biased": changed(right, rotation=(bias * Rotation.from_rotvec(track.rotation)).as_rotvec()),
        "late": changed(right, rotation=track.rotation[late], translation=track.translation[late], expr=track.expr[late]),
        "half blinks": changed(right, expr=half),
        "shaking": changed(right, rotation=track.rotation + noise),
    }


@pytest.fixture(scope="module")
def clip(right, tmp_path_factory) -> Path:
    """The right track's head, painted and filmed."""
    folder = tmp_path_factory.mktemp("clip")
    asset, track = right.head, right.track
    head = HeadModel.from_asset(asset, "cpu", torch.float32)
    waves = np.sin(asset.v_template @ np.array([[160.0, 40, 90], [-60, 190, 50], [30, 70, 140]]))
    paint = (np.array([0.7, 0.5, 0.4]) + 0.15 * waves).astype(np.float32)
    light = torch.zeros(9, 3)
    light[0] = 1
    values = {n: torch.as_tensor(getattr(track, n), dtype=torch.float32) for n in ("rotation", "translation", "expr", "shape")}
    values["log_focal"] = torch.tensor([math.log(FOCAL)])
    for frame in range(FRAMES):
        crop, picture = lit_picture(asset, head, values, frame, (SIZE / 2, SIZE / 2), paint, light, SIZE)
        matrix = crop.matrix(SIZE)
        matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
        whole = cv2.warpAffine(picture, matrix, (SIZE, SIZE), borderValue=(0.5, 0.5, 0.5))
        cv2.imwrite(str(folder / f"{frame:05d}.png"), (255 * whole[..., ::-1].clip(0, 1)).round().astype(np.uint8))
    return folder


def truth_of(tracked: Tracked) -> ClipTruth:
    return ClipTruth(
        tracked.vertices, tracked.skull_rotation, tracked.track.expr, tracked.track.eyes_pose, FOCAL, np.zeros(FRAMES)
    )


def worst(scores: dict[str, float]) -> str:
    return max(scores, key=scores.__getitem__)


def test_bias_shows_in_the_rotation(broken):
    scores = {n: score(t, truth_of(broken["right"])) for n, t in broken.items()}
    assert worst({n: s["rotation_deg_median"] for n, s in scores.items()}) == "biased"
    assert scores["biased"]["rotation_deg_median"] == pytest.approx(10, abs=0.05)
    assert scores["biased"]["rotation_change_deg_median"] < 3  # most of it is one constant turn
    perfect = scores["right"]
    assert max(v for k, v in perfect.items() if "mm" in k or "deg" in k or k == "expression") < 0.05
    # half a blink is a matter of lids, not of heads
    assert worst({n: scores[n]["posed_mm_eyes"] for n in ("right", "half blinks")}) == "half blinks"
    assert scores["half blinks"]["expression_eyeBlinkLeft"] > 0.02


def test_lag_shows_in_the_motion_and_under_the_flow(broken, clip):
    def centre(tracked: Tracked) -> np.ndarray:
        return projected_landmarks(tracked)[:, INNER].mean(1)

    lags = {n: lag_frames(centre(t), centre(broken["right"])) for n, t in broken.items()}
    assert lags["late"] == pytest.approx(1, abs=0.15)
    assert worst(lags) == "late" and abs(lags["right"]) < 0.05
    flow = {n: flow_agreement_px(broken[n], clip) for n in ("right", "late", "half blinks")}
    assert worst(flow) == "late" and flow["right"] < 0.3
    assert flow["late"] > 1.5 * flow["right"]


def test_curves_that_do_not_move_alike_have_no_lag():
    rng = np.random.default_rng(0)
    assert math.isnan(lag_frames(rng.normal(size=(60, 1)), rng.normal(size=(60, 1))))
    assert math.isnan(lag_frames(np.zeros((60, 1)), rng.normal(size=(60, 1))))
    t = np.arange(60)
    curve, late = np.sin(t / 4)[:, None], np.sin((t - 2) / 4)[:, None]
    gappy = np.where((t % 20 == 7)[:, None], np.nan, late)
    assert lag_frames(gappy, curve) == pytest.approx(2, abs=0.15)


def test_half_blinks_show_in_the_lids(broken):
    whole = amplitude(lid_opening(projected_landmarks(broken["right"])))
    kept = {n: amplitude(lid_opening(projected_landmarks(t))) / whole for n, t in broken.items()}
    assert min(kept, key=kept.__getitem__) == "half blinks" and kept["half blinks"] < 0.7
    assert all(kept[n] > 0.9 for n in kept if n != "half blinks")


def test_shaking_shows_as_jitter_and_turning_does_not(broken):
    jitters = {n: jitter_deg(t.skull_rotation, t.track.valid) for n, t in broken.items()}
    assert worst(jitters) == "shaking" and jitters["shaking"] == pytest.approx(math.degrees(0.006 * 3**0.5), rel=0.25)
    assert jitters["right"] < 0.1
    few = np.zeros(FRAMES, bool)
    few[:5] = True
    assert math.isnan(jitter_deg(broken["right"].skull_rotation, few))


def test_a_wrong_place_shows_in_landmarks_and_colours(broken, clip):
    reference = projected_landmarks(broken["right"])
    errors = {n: nme_pct(projected_landmarks(t), reference) for n, t in broken.items()}
    assert worst(errors) == "biased" and errors["right"] == 0
    colours = {n: colour_spread(broken[n], clip) for n in ("right", "late", "shaking")}
    assert min(colours, key=colours.__getitem__) == "right"
    assert colours["late"] > 1.3 * colours["right"]


def test_landmark_error_by_hand():
    reference = np.random.default_rng(0).uniform(0, 100, (4, 68, 2))
    reference[:, 36], reference[:, 45] = (0, 0), (50, 0)
    moved = reference + np.array([3.0, 4.0])
    assert nme_pct(moved, reference) == pytest.approx(100 * 5 / 50)
    reference[2] = np.nan  # a frame that dlib did not find
    moved[3] = np.nan  # one that the tracker lost
    assert nme_pct(moved, reference) == pytest.approx(100 * 5 / 50)


def test_silhouette_by_hand(right, tmp_path):
    """A mask that is the head's own outline, and one of everything."""
    own, everything = tmp_path / "own", tmp_path / "everything"
    own.mkdir(), everything.mkdir()
    for frame in range(3):
        drawn = np.zeros((SIZE, SIZE), np.uint8)
        pixels = np.round(right.pixels(right.vertices[frame][None])[0]).astype(np.int32)
        for triangle in pixels[right.head.faces]:
            cv2.fillConvexPoly(drawn, triangle, 255)
        cv2.imwrite(str(own / f"{frame:05d}.png"), drawn)
        cv2.imwrite(str(everything / f"{frame:05d}.png"), np.full_like(drawn, 255))
    assert silhouette_iou(right, own) == pytest.approx(1.0)
    assert silhouette_iou(right, everything) < 0.7


def test_mediapipes_matrix_puts_the_mean_head_where_its_canonical_face_is():
    asset = load_head(None)
    with np.load(CANONICAL_FILE, allow_pickle=False) as file:
        canonical = file["vertices_cm"].astype(np.float64)
    turn = Rotation.from_euler("xyz", [8, -35, 5], degrees=True)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 1.1 * turn.as_matrix(), [3.0, -2.0, -45.0]
    rotation, translation = head_poses(asset, matrix[None])
    head = HeadModel.from_asset(asset, "cpu", torch.float64)
    posed = head.with_shape(torch.zeros(0, dtype=torch.float64)).with_pose(torch.as_tensor(rotation))
    vertices = posed.skin(torch.as_tensor(translation)).numpy()[0] - np.asarray(CAMERA_POSITION)
    embedding = asset.landmarks["mediapipe"]
    rows = np.flatnonzero(embedding.indices < 468)
    ours = embedding.positions(vertices, asset.faces)[rows]
    theirs = canonical[embedding.indices[rows]] @ matrix[:3, :3].T + matrix[:3, 3]
    # the same rays, to within how much the two faces differ in shape
    apart = ours[:, :2] / -ours[:, 2:] - theirs[:, :2] / -theirs[:, 2:]
    size = np.ptp(theirs[:, 1] / -theirs[:, 2])
    assert np.abs(apart.mean(0)).max() < 0.01 * size
    assert np.linalg.norm(apart, axis=1).mean() < 0.05 * size


def test_names_are_those_that_reports_promise():
    assert list(TRACKERS) == [
        "landmarks68_adam", "landmarks478", "mediapipe", "dense", "dense_landmarks", "dense_landmarks_photometric",
    ]  # fmt: skip
    assert len(IBUG68_FROM_MEDIAPIPE) == 68 and max(IBUG68_FROM_MEDIAPIPE) < 468


def test_reports_hold_every_promised_name(broken, clip, tmp_path):
    clips = [{"clip": 0, **score(broken["biased"], truth_of(broken["right"]))}] * 3
    better = [{"clip": 0, **score(broken["late"], truth_of(broken["right"]))}] * 3
    synthetic = {"landmarks478": synthetic_summary(better), "dense_landmarks": synthetic_summary(clips)}
    for part in ("all", "face", "ears", "scalp", "neck", "lips", "eyes"):
        assert synthetic["dense_landmarks"]["vertex_error_mm"][part] > 1
    assert synthetic["dense_landmarks"]["rotation_error_deg"]["median"] == pytest.approx(10, abs=0.05)
    for name in ("p95",):
        assert name in synthetic["dense_landmarks"]["rotation_error_deg"]
    for name in ("translation_error_mm", "focal_error_pct", "frames_per_second"):
        assert synthetic["dense_landmarks"][name] is not None
    nothing = dict.fromkeys(
        ("independent_landmarks_nme_pct", "flow_agreement_px", "silhouette_iou", "colour_spread", "jitter_deg",
         "blink_amplitude_kept", "mouth_amplitude_kept", "motion_lag_frames", "frames_per_second", "peak_memory_mb"), math.nan,
    )  # fmt: skip
    real = real_summary({"a": nothing | {"failure_rate": 1.0}})
    assert real["failure_rate"] == 1 and real["flow_agreement_px"] is None
    scores = {
        "run": {"synthetic_clips": 3, "synthetic_frames": FRAMES, "seed": 1, "real_clips": ["a"]},
        "suites": {"synthetic": synthetic, "real": {"dense_landmarks": real}},
    }
    text = markdown_report(json.loads(json.dumps(scores, allow_nan=False)))
    assert "found no face" not in text
    fewer = {**synthetic, "dense_landmarks": synthetic["dense_landmarks"] | {"clips": 2}}
    assert gave_up(fewer, 3) == ["`dense_landmarks` found no face on 1 of 3 clips; its means are over the others."]
    assert "| ears, mm |" in text and "worse than `landmarks478`" in text  # the bias is not hidden
    assert any("head rotation" in s for s in worse_than_landmarks(synthetic, (Row("head rotation", "rotation_error_deg.median"),)))
    page = html_report(scores, overlays("painted", "right", broken["right"], clip, count=2))
    assert page.count("data:image/jpeg;base64") == 2 and page.count("<svg") > 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # it loads nothing


def test_adam_is_given_the_same_batch_as_the_solver():
    prepared = prepare(EXCERPT, load_head(None), 6)
    found = compare_with_adam(prepared, frames=6, steps=40, repeats=1)
    # its steps are taken number by number: a batch must reach what each frame reaches alone from the same start
    alone = [
        compare_with_adam(replace(prepared, batch=prepared.batch.select(torch.tensor([frame]))), steps=40, repeats=1)
        for frame in range(6)
    ]
    assert found.adam.cost == pytest.approx(sum(a.adam.cost for a in alone), rel=1e-3)
    assert all(a.adam.cost == pytest.approx(a.serial_adam.cost, rel=1e-5) for a in alone)  # one frame: no frame before
    assert found.solver.cost < found.adam.cost
    assert found.adam.cost != pytest.approx(found.serial_adam.cost, rel=1e-6)
    figures = found.json()
    assert figures["speedup_over_adam"] == pytest.approx(figures["adam_ms_per_frame"] / figures["ms_per_frame"])


def test_figures_near_a_tracker_s_own_objective_are_marked_wherever_it_stands():
    marked = [row for row in (*SYNTHETIC_ROWS, *REAL_ROWS) if row.near]
    assert {row.path for row in marked} == {"flow_agreement_px", "colour_spread"}
    guide = (Path(__file__).parent.parent / "docs" / "benchmark.md").read_text(encoding="utf-8")
    summary = dict.fromkeys((row.path for row in REAL_ROWS), 1.0) | {"interval": {}, "clips": 1}
    run = {"real_clips": ["a"]}
    for row, name in ((row, name) for row in marked for name in row.near[0]):
        assert f"| `{row.path}` {MARK} |" in guide and f"{MARK} near the objective of `{name}`" in guide
        for suite, count in (({"landmarks478": summary, name: summary}, 1), ({"landmarks478": summary}, 0)):
            scores = {"run": run, "suites": {"real": suite}}
            for text, cell in ((markdown_report(scores), "| {} |"), (html_report(scores, []), "<td>{}</td>")):
                assert text.count(cell.format(f"{row.label} {MARK}")) == count
                assert text.count(f"near the objective of `{name}`") == count
            titles = [axes.get_title() for axes in figures(scores)["real"].axes]
            assert sum(t.endswith(MARK) for t in titles) == count * sum(name in other.near[0] for other in marked)


def test_plots_show_the_suites_that_were_run(tmp_path):
    part = {"all": 10.0}
    summary = {
        "vertex_error_mm": part,
        "vertex_error_by_yaw_mm": {"0-20": 5.0, "60-90": 20.0},
        "interval": {"vertex_error_mm": {"all": [8.0, 11.0]}, "vertex_error_by_yaw_mm": {"0-20": [4.0, 6.0], "60-90": [None, None]}},
    }
    drawn = figures({"suites": {"synthetic": {"landmarks478": summary, "somebody": summary}}})
    assert sorted(drawn) == ["parts", "yaw"]
    bars = drawn["parts"].axes[0].patches
    assert [b.get_height() for b in bars if b.get_height() > 0] == [10.0, 10.0]
    heights = drawn["yaw"].axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(np.asarray(heights, float), [5.0, np.nan, np.nan, 20.0])
    write_png(drawn["yaw"], tmp_path / "yaw.png")
    picture = cv2.imread(str(tmp_path / "yaw.png"))
    assert picture is not None and (picture == 255).all(-1).mean() < 0.99  # something is drawn


def test_figures_outside_their_band_are_named(tmp_path):
    file = tmp_path / "bands.json"
    file.write_text('{"a.b": [null, 2.0], "a.c": [0.5, null], "a.d": [0, 1]}')
    assert outside({"a": {"b": 1.0, "c": 0.7, "d": 0.5}}, file) == []
    problems = outside({"a": {"b": 3.0, "c": 0.1}}, file)
    assert len(problems) == 3
    assert "a.b" in problems[0] and "a.c" in problems[1] and "no figure" in problems[2]


@pytest.mark.parametrize("name", [*TRACKERS, *ABLATIONS])
def test_settings_of_every_compared_tracker_are_within_bounds(name):
    tracker = {**TRACKERS, **ABLATIONS}[name]
    if isinstance(tracker, Preset):
        assert tracker.settings.window_stages
