"""Frames tied to each other by what moves in the picture."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from densemarks_model.crops import HeadCrop
from flame_assets.load import load_head
from tests.observed import reader
from tests.views import lit_picture
from tracker.head_model import HeadModel
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.observations import Observations, VideoFacts
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.reading import GreyPicture
from tracker.observe.sites import rigid_triangles, skin_triangles
from tracker.rendering.backends import get_renderer
from tracker.residuals.fit_head import FitHead
from tracker.solver.pose_graph import solve_pose_graph
from tracker.stages.pair_motion import MotionMeter, draw_frames
from tracker.stages.ties import Nodes, Pairs, TieSettings, _in_picture, solve_ties, tie_frames

CENTRE = (160.0, 120.0)
FOCAL = 500.0


def test_a_pose_graph_is_solved_as_the_full_matrix_is() -> None:
    rng = np.random.default_rng(0)
    pairs = np.array([[0, 1], [1, 2], [0, 2], [2, 3], [0, 3], [0, 1]])
    full, diagonal, coupling = np.eye(12), np.tile(np.eye(3), (4, 1, 1)), []
    for i, j in pairs:
        rows = rng.normal(size=(5, 6))
        block = rows.T @ rows
        for a, first in enumerate((i, j)):
            diagonal[first] += block[3 * a : 3 * a + 3, 3 * a : 3 * a + 3]
            for b, second in enumerate((i, j)):
                full[3 * first : 3 * first + 3, 3 * second : 3 * second + 3] += block[3 * a : 3 * a + 3, 3 * b : 3 * b + 3]
        coupling.append(block[:3, 3:])
    gradient = rng.normal(size=(4, 3))
    step = solve_pose_graph(diagonal, pairs, np.array(coupling), gradient)
    np.testing.assert_allclose(step.ravel(), np.linalg.solve(full, -gradient.ravel()), atol=1e-10)


def test_a_pair_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="i < j"):
        solve_pose_graph(np.tile(np.eye(2), (3, 1, 1)), np.array([[2, 1]]), np.zeros((1, 2, 2)), np.zeros((3, 2)))


def _places(rng: np.random.Generator, nodes: int, count: int = 40) -> np.ndarray:
    ball = rng.normal(size=(count, 3))
    return np.tile(0.09 * ball / np.linalg.norm(ball, axis=1, keepdims=True) + [0.02, -0.01, -0.8], (nodes, 1, 1))


def _nodes(places: np.ndarray) -> Nodes:
    linear = np.array([[0.9, 0.2], [-0.2, 0.9]])
    return Nodes(np.arange(len(places)), places.mean(1), places, np.tile(linear, (len(places), 1, 1)))


def test_derivatives_of_places_in_the_picture_are_those_of_finite_differences() -> None:
    rng = np.random.default_rng(1)
    nodes = _nodes(_places(rng, 2))
    rotation, shift = Rotation.from_rotvec(rng.normal(0, 0.2, (2, 3))), rng.normal(0, 0.02, (2, 3))
    number = np.arange(2)
    _, slope = _in_picture(nodes, number, nodes.held, rotation, shift, FOCAL)
    for k in range(6):
        step = np.zeros(6)
        step[k] = 1e-5

        def at(sign: float, step: np.ndarray = step) -> np.ndarray:
            turned = Rotation.from_rotvec(sign * step[:3]) * rotation
            return _in_picture(nodes, number, nodes.held, turned, shift + sign * 0.1 * step[3:], FOCAL)[0]

        np.testing.assert_allclose(slope[..., k], (at(1) - at(-1)) / 2e-5, rtol=1e-5, atol=1e-3)


def test_planted_errors_of_poses_come_out_but_for_what_all_frames_share() -> None:
    """Each node was fitted with an error of its own; the pairs' motions say how they differ."""
    rng = np.random.default_rng(2)
    count = 12
    places = _places(rng, count)
    nodes = _nodes(places)
    wrong, off = Rotation.from_rotvec(rng.normal(0, 0.04, (count, 3))), rng.normal(0, 0.004, (count, 3))
    # what takes a node from where it was fitted to where it is
    truth, _ = _in_picture(nodes, np.arange(count), places, wrong, off, FOCAL)
    pairs = np.array([(i, i + gap) for gap in (1, 2, 4) for i in range(count - gap)])
    i, j = pairs.T
    measured = Pairs(pairs, places[i], places[j], truth[j] - truth[i], np.ones(places[i].shape[:2], bool))
    turn, shift = solve_ties(nodes, measured, FOCAL, TieSettings(held_px=50, iterations=8))
    left = Rotation.from_rotvec(turn) * wrong.inv()
    apart = np.degrees((left * left.mean().inv()).magnitude())
    assert np.degrees(wrong.magnitude()).mean() > 3
    assert apart.max() < 0.15
    assert np.linalg.norm((shift - off) - (shift - off).mean(0), axis=1).max() < 0.001


def test_a_pair_that_was_mistaken_counts_for_little() -> None:
    rng = np.random.default_rng(3)
    places = _places(rng, 5)
    pairs = np.array([(i, i + gap) for gap in (1, 2) for i in range(5 - gap)])
    motion = np.zeros((len(pairs), places.shape[1], 2))
    motion[2] = [25.0, 0.0]
    measured = Pairs(pairs, places[pairs[:, 0]], places[pairs[:, 1]], motion, np.ones(motion.shape[:2], bool))
    turn, shift = solve_ties(_nodes(places), measured, FOCAL, TieSettings())
    assert np.degrees(np.abs(turn)).max() < 0.2 and np.abs(shift).max() < 0.002


@pytest.fixture(scope="module")
def turning_head() -> dict:
    """A head with spots on its skin that turns by 50°, its pictures, and its true values."""
    asset = load_head()
    model = HeadModel.from_asset(asset, dtype=torch.float32)
    frames = 9
    rng = np.random.default_rng(4)
    spots = torch.as_tensor(rng.uniform(0.25, 0.95, (asset.n_vertices, 1)).repeat(3, 1), dtype=torch.float32)
    values = {
        "rotation": torch.stack([torch.zeros(frames), torch.linspace(-0.45, 0.45, frames), torch.zeros(frames)], 1),
        "translation": torch.tensor([[0.0, 0.0, 0.3]]).repeat(frames, 1),
        "neck_pose": torch.zeros(frames, 3),
        "eyes_pose": torch.zeros(frames, 6),
        "expr": torch.zeros(frames, asset.n_expression),
        "log_focal": torch.tensor([math.log(FOCAL)]),
    }
    light = torch.zeros(9, 3)
    light[0] = 1.0
    pictures = []
    for frame in range(frames):
        crop, picture = lit_picture(asset, model, values, frame, CENTRE, spots.numpy(), light)
        pictures.append((crop, (255 * picture).clip(0, 255).astype(np.uint8)))
    return {"asset": asset, "model": model, "values": values, "pictures": pictures}


class _Pictures:
    """Stands for the reader: pictures of frames by number."""

    def __init__(self, pictures: list) -> None:
        self._pictures = pictures

    def grey(self, frame: int, side: int) -> GreyPicture | None:
        if self._pictures[frame] is None:
            return None
        crop, picture = self._pictures[frame]
        assert side == len(picture)
        matrix = crop.matrix(side)
        linear = np.linalg.inv(matrix[:, :2])
        to_picture = np.concatenate([linear, -(linear @ matrix[:, 2])[:, None]], axis=1)
        return GreyPicture(picture[..., 0].copy(), np.ones((side, side), bool), to_picture)


def _tied(scene: dict, values: dict, pictures: list | None = None) -> dict:
    head = FitHead.build(scene["asset"])
    frames = np.arange(len(values["rotation"]))
    return tie_frames(
        head, rigid_triangles(scene["asset"]), frames, frames * 0.12, values, _Pictures(pictures or scene["pictures"]), CENTRE, TieSettings()
    )  # fmt: skip


def _apart_deg(values: dict, truth: dict) -> np.ndarray:
    """Errors of rotations after the one that all frames share is taken out."""
    off = Rotation.from_rotvec(values["rotation"].numpy()) * Rotation.from_rotvec(truth["rotation"].numpy()).inv()
    return np.degrees((off * off.mean().inv()).magnitude())


def test_poses_that_are_right_stay(turning_head: dict) -> None:
    tied = _tied(turning_head, turning_head["values"])
    assert _apart_deg(tied, turning_head["values"]).max() < 0.25
    assert (tied["translation"] - turning_head["values"]["translation"]).norm(dim=1).max() < 0.001


def test_errors_that_change_with_the_pose_come_out(turning_head: dict) -> None:
    """What the network does: it turns the head too far in one pose and not far enough in another, slowly."""
    truth = turning_head["values"]
    wrong = dict(truth)
    along = torch.linspace(0, 2 * math.pi, len(truth["rotation"]))
    error = 0.05 * torch.stack([0.6 * along.cos(), along.sin(), 0.3 * along.cos()], 1).numpy()
    turned = Rotation.from_rotvec(error) * Rotation.from_rotvec(truth["rotation"].numpy())
    wrong["rotation"] = torch.as_tensor(turned.as_rotvec(), dtype=torch.float32)
    before, after = _apart_deg(wrong, truth), _apart_deg(_tied(turning_head, wrong), truth)
    assert np.median(before) > 2
    assert np.median(after) < 0.4 * np.median(before)


def test_frames_without_a_picture_follow_their_neighbours(turning_head: dict) -> None:
    truth = turning_head["values"]
    wrong = dict(truth, rotation=truth["rotation"] + torch.tensor([0.0, 0.08, 0.0]) * (torch.arange(9) >= 5)[:, None])
    pictures = [None if frame % 2 else p for frame, p in enumerate(turning_head["pictures"])]
    tied = _tied(turning_head, wrong, pictures)
    assert np.median(_apart_deg(tied, truth)) < np.median(_apart_deg(wrong, truth))


def test_what_is_in_front_of_the_head_counts_for_nothing(turning_head: dict) -> None:
    """A hand with a pattern that stands still while the head turns behind it, where the network says that no head is seen."""
    rng = np.random.default_rng(5)
    hand = rng.integers(0, 255, (110, 70, 1), np.uint8).repeat(3, 2)
    hand = cv2.GaussianBlur(hand, (0, 0), 1.5)
    covered = []
    for crop, picture in turning_head["pictures"]:
        with_hand = picture.copy()
        with_hand[60:170, 60:130] = hand
        covered.append((crop, with_hand))

    class Masked(_Pictures):
        def grey(self, frame: int, side: int) -> GreyPicture | None:
            picture = super().grey(frame, side)
            picture.shown[60:170, 60:130] = False
            return picture

    faces = np.ascontiguousarray(turning_head["asset"].faces, np.int32)
    values = {name: v if name == "log_focal" else v[4:6] for name, v in turning_head["values"].items()}
    rigid = np.zeros(len(faces), bool)
    rigid[rigid_triangles(turning_head["asset"])] = True
    meter = MotionMeter(faces, rigid, 7, 1000)
    medians = []
    for reader_of in (_Pictures, Masked):
        pictures = [reader_of(covered).grey(frame, 224) for frame in (4, 5)]
        motion = meter(*draw_frames(turning_head["model"], faces, values, CENTRE, pictures, get_renderer("cpu")))
        medians.append(np.percentile(np.linalg.norm(motion.motion, axis=1), 80))
    assert medians[0] > 2 * medians[1] and medians[1] < 0.5


def test_without_pictures_nothing_changes(turning_head: dict) -> None:
    assert _tied(turning_head, turning_head["values"], [None] * 9) == {}


def test_a_head_that_did_not_move_shows_no_motion(turning_head: dict) -> None:
    asset, values = turning_head["asset"], turning_head["values"]
    first = {name: v if name == "log_focal" else v[:1] for name, v in values.items()}
    faces = np.ascontiguousarray(asset.faces, np.int32)
    picture = _Pictures(turning_head["pictures"]).grey(0, 224)
    frame = draw_frames(turning_head["model"], faces, first, CENTRE, [picture], get_renderer("cpu"))[0]
    rigid = np.zeros(len(faces), bool)
    rigid[rigid_triangles(asset)] = True
    motion = MotionMeter(faces, rigid, 7, 1000)(frame, frame)
    assert motion is not None and len(motion.motion) > 50
    assert np.abs(motion.motion).max() < 0.05
    np.testing.assert_array_equal(motion.before, motion.after)


def test_rigid_triangles_are_skin_without_lips_and_lids() -> None:
    asset = load_head()
    rigid = rigid_triangles(asset)
    assert set(rigid) < set(skin_triangles(asset))
    corners = asset.faces[rigid]
    assert not asset.regions["lips"][corners].any() and not asset.regions["eyelids"][corners].any()


def test_pictures_are_read_in_grey_with_their_place(tmp_path: Path) -> None:
    """A spot of the frame is bright in the picture where the map to it says."""
    frame = np.zeros((360, 640, 3), np.uint8)
    frame[196:204, 296:304] = 250
    crop = HeadCrop(np.array([310.0, 190.0]), 120.0, 0.4)
    ones = np.ones((8, 8), np.float32)
    record = EmbeddingRecord(crop, np.zeros((8, 8, 3), np.float32), ones, ones)
    with Observations(tmp_path, ObserveSettings(), VideoFacts(640, 360, 25.0)) as seen:
        seen.add(0.0, None, record, frame)
        seen.add(0.04, None, None)
        seen.finish()
        read = reader(seen, None)
        assert read.grey(1, 96) is None
        picture = read.grey(0, 96)
    x, y = picture.to_picture[:, :2] @ [300.0, 200.0] + picture.to_picture[:, 2]
    rows, columns = np.nonzero(picture.grey > 128)
    assert picture.shown.all()
    assert abs(columns.mean() + 0.5 - x) < 0.6 and abs(rows.mean() + 0.5 - y) < 0.6
