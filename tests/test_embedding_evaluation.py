"""The measures of embedding networks: hand-computed cases, and networks whose score is known beforehand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from densemarks_model import ModelError
from densemarks_model.evaluation import bootstrap, metrics
from densemarks_model.evaluation.clips import Clip, FaceSample, facing_landmarks, folder_clips, read_clip
from densemarks_model.evaluation.flow import FlowPair, follow, head_region
from densemarks_model.evaluation.landmarks import evaluate_landmarks, inner_landmarks, model_places, worst_landmarks
from densemarks_model.evaluation.matchers import CubeMap, CubeMatcher, FeatureMatcher, raw_features
from densemarks_model.evaluation.metrics import Measure
from densemarks_model.evaluation.network import CROP_SIZE, Network
from densemarks_model.evaluation.report import Evaluation
from densemarks_model.evaluation.speed import evaluate_speed
from densemarks_model.evaluation.synthetic import evaluate_synthetic, open_shards
from densemarks_model.evaluation.tracks import evaluate_tracks
from densemarks_model.evaluation.transfer import choose_pairs, evaluate_transfer
from tracker.video.packaged_clips import EXCERPT


def colour_network(change=lambda coordinates: coordinates) -> Network:
    """Takes a picture's colours for coordinates, and black for background; maps are a quarter of the picture's side."""

    def run(images: np.ndarray) -> SimpleNamespace:
        small = np.stack([cv2.resize(i, (56, 56), interpolation=cv2.INTER_AREA) for i in images])
        return SimpleNamespace(coordinates=change(small / 255.0), confidence=(small.max(-1) > 10) * 1.0)

    return Network("colours", "numpy", run)


def ramp_picture(shift: float = 0.0) -> np.ndarray:
    """Red grows to the right and green downwards: every pixel has a colour of its own, moved by ``shift`` pixels to the right."""
    row = (np.arange(CROP_SIZE) + 0.5) / CROP_SIZE * 200 + 40
    image = np.full((CROP_SIZE, CROP_SIZE, 3), 128.0)
    image[..., 0], image[..., 1] = row[None] - shift * 200 / CROP_SIZE, row[:, None]
    return np.round(image).clip(0, 255).astype(np.uint8)


def face_samples(people: int = 3, frames: int = 2) -> list[FaceSample]:
    points = np.random.default_rng(0).uniform(40, 180, (478, 2))
    return [
        FaceSample(f"p{p}", f"c{p}", f, ramp_picture(5.0 * p), points + np.array([5.0 * p, 0]), np.ones(478, bool), 10.0 * p)
        for p in range(people)
        for f in range(frames)
    ]


def test_cube_errors_and_iou_by_hand():
    truth = np.zeros((2, 2, 3))
    predicted = truth.copy()
    predicted[0, 0], predicted[0, 1] = (0.3, 0.4, 0.0), (9, 9, 9)
    where = np.array([[True, False], [True, True]])
    np.testing.assert_allclose(sorted(metrics.cube_errors(predicted, truth, where)), [0, 0, 0.5], atol=1e-7)
    assert metrics.mask_iou(where, np.array([[True, True], [False, True]])) == 0.5
    assert metrics.mask_iou(np.zeros(3, bool), np.zeros(3, bool)) == 1


def test_pck_by_hand():
    wanted = np.array([[0.0, 0], [10, 10], [20, 20], [30, 30]])
    found = wanted + np.array([[3, 4], [5.1, 0], [0, 0], [0, -40]])
    assert metrics.head_size(wanted) == 30
    assert metrics.pck(found, wanted, 100.0, 0.05) == 0.5  # 5 and 0 count, 5.1 and 40 do not
    assert np.isnan(metrics.pck(found[:0], wanted[:0], 100.0))


def test_spread_counts_people_equally():
    """Person 0 has three frames at x = 0, person 1 one at x = 0.2: the mean lies half way between."""
    places = np.zeros((4, 1, 3))
    places[3, 0, 0] = 0.2
    people = np.array([0, 0, 0, 1])
    found = metrics.landmark_spread(places, np.ones((4, 1), bool), people, np.array([[0.1, 0.05, 0]]))
    assert found.rms == pytest.approx(0.1) and found.median == pytest.approx(0.1)
    assert found.offset == pytest.approx(0.05) and found.landmarks == 1
    twice = metrics.landmark_spread(places, np.ones((4, 1), bool), people, np.zeros((1, 3)), np.array([3.0, 1.0]))
    assert twice.rms == pytest.approx(np.sqrt(0.75 * 0.05**2 + 0.25 * 0.15**2)) and twice.median == pytest.approx(0.05)


def test_spread_ignores_hidden_landmarks_and_those_of_one_person():
    places = np.zeros((3, 2, 3))
    places[2, 0] = 5.0  # hidden: must not matter
    visible = np.array([[True, True], [True, False], [False, False]])
    found = metrics.landmark_spread(places, visible, np.array([0, 1, 1]), np.full((2, 3), np.nan))
    assert found.rms == 0 and found.landmarks == 1 and np.isnan(found.offset)


def test_means_over_people_and_pairs():
    values, people = np.array([1.0, 3.0, 10.0, np.nan]), np.array([0, 0, 1, 1])
    assert metrics.mean_over_people(values, people, np.ones(2)) == 6
    assert metrics.mean_over_people(values, people, np.array([3.0, 1.0])) == 4
    pairs = np.array([[0, 1], [0, 1], [1, 0], [2, 0]])
    assert metrics.mean_over_pairs(np.array([1.0, 3, 5, 9]), pairs, np.ones(3)) == pytest.approx((2 + 5 + 9) / 3)
    assert metrics.mean_over_pairs(np.array([1.0, 3, 5, 9]), pairs, np.array([1.0, 1, 0])) == 3.5


def test_bootstrap_covers_the_spread_of_the_people():
    scores = np.random.default_rng(1).normal(5, 1, 40)
    low, high = bootstrap.bootstrap_interval(lambda counts: float(counts @ scores / counts.sum()), 40, 800)
    half = 1.96 * scores.std() / np.sqrt(40)
    assert low == pytest.approx(scores.mean() - half, abs=0.08) and high == pytest.approx(scores.mean() + half, abs=0.08)
    assert np.isnan(bootstrap.bootstrap_interval(lambda counts: 1.0, 1)).all()
    # a draw that leaves the statistic open does not cost the interval
    partly = bootstrap.bootstrap_interval(lambda counts: float(counts @ scores / 40) if counts[0] else float("nan"), 40, 800)
    assert partly == pytest.approx((low, high), abs=0.1)


def test_both_ways_to_an_interval_agree():
    scores = np.random.default_rng(1).normal(5, 1, 9)
    mean, *ends = bootstrap.mean_and_interval([*scores, np.nan], rounds=700, seed=3)
    assert mean == pytest.approx(scores.mean())
    assert ends == pytest.approx(bootstrap.bootstrap_interval(lambda counts: float(counts @ scores / counts.sum()), 9, 700, 3))
    assert bootstrap.draws(9, 700).sum(1).tolist() == [9.0] * 700


def test_synthetic_errors_of_a_network_that_is_wrong_by_a_known_vector(tmp_path):
    rng = np.random.default_rng(0)
    count, size, cells = 4, 64, 56
    colours = rng.integers(60, 200, (count, 1, 1, 3)).astype(np.uint8)
    images = np.broadcast_to(colours, (count, size, size, 3)).copy()
    images[:, :, : size // 2] = 0  # the left half is background
    masks = np.full((count, cells, cells, 2), 255, np.uint8)
    masks[:, :, : cells // 2] = 0
    masks[:, : cells // 2, :, 1] = 0
    coordinates = np.broadcast_to(colours / 255.0, (count, cells, cells, 3)).astype(np.float16)
    for number in range(2):
        folder = tmp_path / f"shard_{number:04d}"
        folder.mkdir()
        images.tofile(folder / "images.u8")
        coordinates.tofile(folder / "coordinates.f16")
        masks.tofile(folder / "masks.u8")
        meta = {"count": count, "image_size": size, "map_size": cells, "yaw_deg": [0, -40, 100, 10]}
        (folder / "meta.json").write_text(json.dumps(meta))
    network = colour_network(lambda c: c + np.array([0.0, 0.03, 0.04]))
    found = evaluate_synthetic(network, open_shards(tmp_path), rounds=20)
    for name in ("mean_error", "median_error", "mean_error_surface"):
        assert found[name].value == pytest.approx(0.05, abs=2e-3), name
    assert found["mask_iou"].value > 0.94 and found["mean_error"].count == 8
    assert [found[k].count for k in ("yaw_0_30", "yaw_30_60", "yaw_90_180")] == [4, 2, 2] and "yaw_60_90" not in found
    assert evaluate_synthetic(network, open_shards(tmp_path / "shard_0000"), limit=2, rounds=0)["mean_error"].count == 2


def test_shards_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"meta\.json is missing"):
        open_shards(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps({"count": 3, "image_size": 8, "map_size": 4}))
    (tmp_path / "images.u8").write_bytes(b"short")
    with pytest.raises(ModelError, match="not a folder of synthetic pictures"):
        open_shards(tmp_path)


def test_landmarks_of_a_network_that_agrees_with_the_head_model():
    """Maps that hold the model's own places at the landmarks' pixels: no spread and no offset; moved maps: the offset alone."""
    places = model_places(1)
    samples = face_samples()
    grid = np.stack(np.meshgrid(np.arange(22), np.arange(22)), -1).reshape(-1, 2)[:478] * 10 + 5.5
    samples = [FaceSample(s.person, s.clip, s.frame, s.image, grid.astype(float), s.visible, s.yaw) for s in samples]
    exact = np.zeros((CROP_SIZE, CROP_SIZE, 3))
    exact[(grid[:, 1] - 0.5).astype(int), (grid[:, 0] - 0.5).astype(int)] = places
    maps = [CubeMap(exact, np.ones((CROP_SIZE, CROP_SIZE)))] * len(samples)
    found = evaluate_landmarks(samples, maps, rounds=10, cube=1)
    assert found["spread_rms"].value < 1e-9 and found["offset"].value < 1e-9 and found["spread_rms"].count == 478
    assert found["spread_rms_inner"].count == inner_landmarks().sum() == 478 - 10 - 40 - 32
    moved = [CubeMap(exact + np.array([0, 0.01 * (s.person == "p0"), 0]), m.confidence) for s, m in zip(samples, maps, strict=True)]
    found = evaluate_landmarks(samples, moved, rounds=10, cube=1)
    assert found["offset"].value == pytest.approx(0.01 / 3)
    assert found["spread_rms"].value == pytest.approx(0.01 * np.sqrt(2) / 3)
    assert [line.split(":")[0] for line in worst_landmarks(samples, moved)] == ["p0", "p1", "p2"]


def test_transfer_is_perfect_with_an_embedding_that_knows_and_chance_with_a_shuffled_one():
    samples = face_samples()

    def shuffled(coordinates: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(int(coordinates[0].sum() * 1000))
        return np.stack([c.reshape(-1, 3)[rng.permutation(56 * 56)].reshape(c.shape) for c in coordinates])

    good, bad = CubeMatcher(colour_network()), CubeMatcher(colour_network(shuffled))
    bad.name = "shuffled"
    found = evaluate_transfer(samples, [good, bad], rounds=20)
    radius = 0.05 * metrics.head_size(samples[0].points)
    chance = np.pi * radius**2 / CROP_SIZE**2
    assert found["colours"]["pck"].value > 0.99
    assert found["shuffled"]["pck"].value < 4 * chance < 0.05
    assert found["colours"]["pck"].count == 6


def test_pairs_are_of_different_people_with_yaw_at_most_60_degrees_apart():
    samples = face_samples(4, 3)
    turned = [FaceSample(s.person, s.clip, s.frame, s.image, s.points, s.visible, 40.0 * s.frame) for s in samples]
    pairs = choose_pairs(turned, per_people=2)
    assert len(pairs) == 2 * 4 * 3 and len(set(pairs)) == len(pairs)
    for i, j in pairs:
        assert turned[i].person != turned[j].person and abs(turned[i].yaw - turned[j].yaw) <= 60
    assert sum(turned[i].yaw != turned[j].yaw for i, j in pairs) >= len(pairs) // 2


def test_tracks_measure_the_distance_and_staying_put_measures_the_motion():
    points = np.random.default_rng(2).uniform(40, 180, (50, 2))
    pair = FlowPair("p", "c", 5, ramp_picture(0), ramp_picture(12), points, points + np.array([12, 0]))
    found = evaluate_tracks([pair], [CubeMatcher(colour_network())], rounds=0)
    assert found["colours"]["epe_mean"].value < 1.0
    assert found["stay put"]["epe_mean"].value == pytest.approx(12) == found["stay put"]["epe_gap_5"].value


def test_feature_matching_is_the_cosine_nearest_neighbour_of_upsampled_features():
    """Against the definition: upsample, normalise, take the largest product."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(2, 8, 8, 6)).astype(np.float32)
    matcher = FeatureMatcher("raw", lambda images: features[: len(images)])
    source, target = matcher.describe(np.zeros((2, CROP_SIZE, CROP_SIZE, 3), np.uint8))
    points = rng.uniform(20, 200, (9, 2)).round() + 0.5
    up = [cv2.resize(f, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR) for f in features]
    unit = up[1] / np.linalg.norm(up[1], axis=-1, keepdims=True)
    for point, found in zip(points, matcher.find(source, points, target), strict=True):
        column, row = (point - 0.5).astype(int)
        score = unit @ up[0][row, column]
        at = (found - 0.5).astype(int)
        assert score[at[1], at[0]] > score.max() - 1e-4


def test_flow_chains_and_its_checks():
    """Two uniform shifts add up; a step whose way back disagrees loses its points."""
    field = np.full((60, 80, 2), 0, np.float32) + np.float32([2, -1])
    points = np.array([[20.5, 30.5], [40.0, 22.25], [79.0, 30.0]])
    end, kept = follow(points, [field, field], [-field, -field])
    np.testing.assert_allclose(end, points + np.array([4, -2]), atol=1e-5)
    assert kept.tolist() == [True, True, False]  # the last one leaves the picture
    wrong = -field.copy()
    wrong[:, :30] += 1.0
    assert follow(points, [field, field], [-field, wrong])[1].tolist() == [False, True, False]


def test_the_head_region_keeps_the_head_and_drops_the_background():
    image = np.full((CROP_SIZE, CROP_SIZE, 3), (40, 70, 160), np.uint8)
    image += np.random.default_rng(0).integers(0, 12, image.shape).astype(np.uint8)
    cv2.ellipse(image, (112, 105), (58, 85), 0, 0, 360, (190, 140, 120), -1)
    angle = np.linspace(0, 2 * np.pi, 468)
    points = np.stack([112 + 48 * np.cos(angle), 122 + 60 * np.sin(angle)], 1)
    mask = head_region(image, points, 0.0)
    assert mask[105, 112] and mask[30, 112]  # hair above the landmarks
    rows, columns = np.nonzero(mask)
    assert (((columns - 112) / 58) ** 2 + ((rows - 105) / 85) ** 2 < 1.02).all()


def test_only_landmarks_that_face_the_camera_count():
    from pathlib import Path

    import flame_assets

    with np.load(Path(flame_assets.__file__).parent / "canonical_face_468.npz") as data:
        mesh = np.concatenate([data["vertices_cm"], np.zeros((10, 3), np.float32)])

    def seen(yaw: float) -> np.ndarray:
        a = np.deg2rad(yaw)
        turned = mesh @ np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]).T
        return facing_landmarks(turned[:, :2] * [1, -1], -turned[:, 2])

    frontal, left = seen(0), seen(60)
    assert frontal[[1, 50, 280, 468, 473]].all() and frontal.mean() > 0.9  # nose tip, both cheeks, both irises
    # the nose turned to the picture's right: the subject's left cheek goes away, the right one stays
    assert left[50] and not left[[454, 323, 356]].any() and left[468:473].all()


def test_a_clip_gives_faces_and_followed_points():
    clip = Clip("excerpt", EXCERPT, "someone")
    samples, pairs = read_clip(clip, stills=2, windows=1, gaps=(2, 4))
    assert len(samples) == 2 and [p.gap for p in pairs] == [2, 4]
    for sample in samples:
        assert sample.image.shape == (CROP_SIZE, CROP_SIZE, 3) and sample.visible.sum() > 300
        assert 100 < metrics.head_size(sample.points[:468]) < 130  # a crop is 1.8 face sizes
    for pair in pairs:
        assert len(pair.source_points) == len(pair.target_points) > 50
        # the colours at both ends agree, as those of the same skin do
        one, two = (i[tuple((q - 0.5).round().astype(int).T[::-1])] for i, q in ((pair.source, pair.source_points), (pair.target, pair.target_points)))
        assert np.median(np.abs(one.astype(int) - two)) < 12


def test_folders_of_clips(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        folder_clips(tmp_path / "none")
    with pytest.raises(ModelError, match="no videos or pictures"):
        folder_clips(tmp_path)
    for name in ("a1.mp4", "a2.mp4", "b.png"):
        (tmp_path / name).touch()
    (tmp_path / "people.json").write_text('{"a1": "ann", "a2": "ann"}')
    assert [c.person for c in folder_clips(tmp_path)] == ["ann", "ann", "b"]
    (tmp_path / "people.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"people\.json: not a JSON map"):
        folder_clips(tmp_path)
    with pytest.raises(ModelError, match=r"a1\.mp4"):
        read_clip(Clip("a1", tmp_path / "a1.mp4", "ann"))


def test_weights_that_are_not_the_backbones_are_refused(tmp_path):
    import torch

    torch.save({"some": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"other\.pt: not the weights"):
        raw_features(tmp_path / "other.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a readable safetensors"):
        raw_features(tmp_path / "bad.safetensors")


def test_the_table_shows_every_measure_and_json_has_no_nan():
    result = Evaluation("lite", "torch", {"mean_error": Measure(0.02, 0.01, 0.03, 5), "yaw_0_30": Measure(0.04)})
    result.landmarks = {"spread_rms_inner": Measure(0.0123, count=7)}
    result.transfer = {"lite": {"pck": Measure(0.876), "pck_yaw_20_60": Measure(0.5)}}
    result.tracks = {"lite": {"epe_mean": Measure(2.5), "epe_gap_5": Measure(float("nan"))}, "stay put": {"epe_mean": Measure(9.0)}}
    result.speed = evaluate_speed(colour_network(), runs=3)
    assert result.speed.count == 3 and result.speed.low <= result.speed.value <= result.speed.high
    text, markdown = result.text(), result.markdown()
    for part in ("0.0200", "0.0100 to 0.0300", "yaw", "0° to 30°", "0.0123", "87.6%", "yaw apart by 20° to 60°", "2.50", "gap of 5 frames"):
        assert part in text and part in markdown
    assert r"\|yaw\| 0°" in markdown  # a bare bar would end the cell
    assert all(line.replace(r"\|", "").count("|") == 5 for line in markdown.splitlines() if line.startswith("|"))
    back = json.loads(json.dumps(result.json(), allow_nan=False))
    assert back["tracks"]["network"]["epe_gap_5"]["value"] is None
    assert set(back["tracks"]) == {"network", "stay_put"}
    assert back["synthetic"]["mean_error"] == {"value": 0.02, "interval_95": [0.01, 0.03], "count": 5}
