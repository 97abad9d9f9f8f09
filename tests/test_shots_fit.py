"""Shots fitted apart: no value of one reaches the next, people keep their identity, and short gaps within a shot are bridged."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from densemarks_model.data.synthetic.sequences import Script, render_sequence
from flame_assets.asset import HeadAsset
from flame_assets.load import load_head
from tests.gltf_evaluator import GltfPlayer
from tests.heads import tiny_head
from tests.make_clips import write_clip
from tests.tracks import talking_track
from tracker import track
from tracker.camera import FocalPrior
from tracker.export import export
from tracker.export.flame_params import load_track
from tracker.landmarks.detection import Detection
from tracker.observe.observations import Observations, VideoFacts
from tracker.observe.observe_settings import ObserveSettings
from tracker.run_report import shots_of
from tracker.stages.fit import assemble
from tracker.stages.gaps import CONFIDENCE_SHARE, filled, nearest_index, short_gaps
from tracker.stages.identities import Identities, ShotFace, _face, chromaticity, grouped, unlikeness
from tracker.stages.windows import FrameFits
from tracker.track_vertices import track_vertices
from tracker.video.packaged_clips import EXCERPT

# --- gaps --------------------------------------------------------------------------------------------------------------


def test_only_short_gaps_within_one_shot_are_bridged():
    tracked = np.array([1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1], bool)
    shots, times = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]), np.arange(12) / 10
    assert short_gaps(tracked, shots, times, 0.35) == [(0, 3)]
    assert short_gaps(tracked, shots, times, 0.55) == [(0, 3), (6, 11)]
    assert short_gaps(tracked, 0 * shots, times, 0.35) == [(0, 3), (3, 5)]
    assert short_gaps(tracked[1:3], shots[1:3], times[1:3], 9) == []


def test_rotations_go_the_shortest_way_at_an_even_speed():
    """Through upside down, too, where axis-angle vectors change their sign; uneven times count."""
    times, turns = np.array([0.0, 0.1, 0.3, 0.4]), np.radians([170.0, 175.0, 185.0, 190.0])
    rolled = Rotation.from_rotvec(turns[:, None] * [0, 0, 1]).as_rotvec()
    assert rolled[3, 2] < 0 < rolled[0, 2]
    values = {"rotation": rolled.copy(), "translation": np.array([[0.0, 1, 2], [9, 9, 9], [9, 9, 9], [4.0, 1, 0]]), "eyes_pose": np.zeros((4, 6))}
    values["rotation"][1:3] = values["eyes_pose"][1:3] = 9
    got, confidence, frames = filled(values, np.array([0.8, 0, 0, 0.6]), times, [(0, 3)])
    assert frames.tolist() == [False, True, True, False]
    assert (Rotation.from_rotvec(got["rotation"]) * Rotation.from_rotvec(rolled).inv()).magnitude().max() < 1e-9
    assert got["translation"] == pytest.approx(np.array([[0, 1, 2], [1, 1, 1.5], [3, 1, 0.5], [4, 1, 0]]))
    assert not got["eyes_pose"].any()
    assert confidence == pytest.approx([0.8, 0.6 * CONFIDENCE_SHARE, 0.6 * CONFIDENCE_SHARE, 0.6])
    assert (values["rotation"][1] == 9).all()  # what was given stays


def test_the_nearest_frame_is_sought_in_the_same_shot_first():
    valid = np.array([0, 1, 0, 0, 0, 0, 1, 0, 0], bool)
    assert nearest_index(valid, np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])).tolist() == [1, 1, 1, 1, 6, 6, 6, 6, 6]
    assert nearest_index(valid).tolist() == [1, 1, 1, 1, 6, 6, 6, 6, 6]
    assert nearest_index(valid, np.array([0, 0, 1, 1, 1, 1, 1, 1, 1])).tolist() == [1, 1, 6, 6, 6, 6, 6, 6, 6]


def assembled(tmp_path, errors: list[float], cuts: tuple[int, ...], asset: HeadAsset, identities: Identities | None = None, gap: float = 0.2):
    """A fit of frames with these landmark errors; each frame's values are its number."""
    numbers = torch.arange(len(errors), dtype=torch.float32)
    sizes = {"rotation": 3, "neck_pose": 3, "translation": 3, "expr": asset.n_expression, "eyes_pose": 6}
    fits = [FrameFits(torch.arange(len(errors)), {k: 0.01 * numbers[:, None].expand(-1, n) for k, n in sizes.items()}, torch.tensor(errors))]
    detection = Detection(np.ones((478, 2), np.float32), np.zeros(478, np.float32), np.zeros(52, np.float32), 0.9)
    with Observations(tmp_path, ObserveSettings(), VideoFacts(640, 360, 25.0)) as observations:
        for frame in range(len(errors)):
            observations.add(frame / 25, detection, cut=frame in cuts)
        first = shared(0, asset) if identities is None else identities.people[0]
        return assemble(observations, fits, first, FocalPrior(700.0, 0.0, (320.0, 180.0)), asset, 20.0, gap, identities)


def shared(person: int, asset: HeadAsset) -> SimpleNamespace:
    return SimpleNamespace(identity=torch.full((asset.n_identity,), float(person)), focal_px=700.0, focal_log_sigma=0.0, appearance=None)


def test_interpolated_frames_are_marked_and_do_not_count(tmp_path):
    bad = 99.0
    fit = assembled(tmp_path, [1, bad, bad, 1, bad, 1, *[bad] * 6, 1], cuts=(5,), asset=tiny_head())
    found = fit.track
    assert found.interpolated.tolist() == [False, True, True, *[False] * 10]
    assert np.flatnonzero(found.valid).tolist() == [0, 1, 2, 3, 5, 12]  # across the cut nothing, nor in the long gap
    assert np.flatnonzero(found.tracked).tolist() == [0, 3, 5, 12]
    assert found.translation[1:3, 0] == pytest.approx([0.01, 0.02])
    assert found.translation[4, 0] == pytest.approx(0.03)  # of the frame before the cut, not of the equally near one after it
    assert (found.confidence[1:3] == pytest.approx(0.9 * CONFIDENCE_SHARE)) and found.confidence[4] == 0
    assert np.isinf(fit.error_percent[1:3]).all() and np.isfinite(fit.error_percent[found.tracked]).all()
    assert any("2 frames without a tracked head lie in short gaps" in note for note in fit.notes())
    assert any(note.startswith("7 frames have no tracked head") for note in fit.notes())


# --- who is who --------------------------------------------------------------------------------------------------------


def face(frames: int, shape: float = 0.0, colour: tuple[float, float] | None = (0.3, -0.2), sigma: float = 0.1) -> ShotFace:
    return ShotFace(np.arange(frames), np.full(5, shape), sigma**2 * np.eye(5), None if colour is None else np.array(colour))


def test_people_are_told_apart_by_shape_and_by_colour():
    one = face(9)
    assert unlikeness(one, face(9, shape=0.1)) < 1
    assert unlikeness(one, face(9, shape=0.5)) > 1
    assert unlikeness(one, face(9, shape=0.5, sigma=0.6)) < 1  # a shot that tells little of the shape does not speak against it
    assert unlikeness(one, face(9, colour=(0.35, -0.2))) < 1 < unlikeness(one, face(9, colour=(0.45, -0.2)))
    assert unlikeness(one, face(9, colour=None)) == np.inf


def test_shots_of_one_person_come_together_whoever_is_between():
    faces = {0: face(5), 1: face(20, shape=1.0), 2: face(30, shape=0.02), 4: face(3, shape=1.05), 7: face(1, colour=None)}
    assert grouped(faces) == [[2, 0], [1, 4], [7]]
    assert grouped({3: face(4), 5: face(4)}) == [[3, 5]]


def test_the_colour_of_skin_does_not_depend_on_brightness_or_on_frames_without_a_face():
    skin = np.array([[200, 150, 120], [0, 0, 0], [200, 150, 120]], float)
    assert chromaticity(skin) == pytest.approx(chromaticity(skin[:1] / 2))
    assert chromaticity(np.zeros((4, 3))) is None


def test_a_shot_without_a_detected_face_is_not_compared():
    """Heads that only the network saw: there are no landmarks to fit."""

    def read(*_: object) -> None:
        raise AssertionError

    unseen = _face(None, np.arange(3), np.zeros((3, 3)), read, None, None)
    assert unseen.colour is None and grouped({0: face(9), 1: unseen}) == [[0], [1]]


def test_frames_without_a_head_belong_to_the_person_of_their_values(tmp_path):
    asset = tiny_head()
    identities = Identities((shared(0, asset), shared(1, asset)), {0: 1, 2: 0})
    found = assembled(tmp_path, [1, 1, 99, 99, 1, 1], (2, 4), asset, identities).track
    assert found.person.tolist() == [1, 1, 1, 0, 0, 0] and found.shot.tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.shape == 0).all() and (found.shapes == [[0.0] * asset.n_identity, [1.0] * asset.n_identity]).all()
    assert [s["person"] for s in shots_of(found)] == [1, None, 0] and [s["first_frame"] for s in shots_of(found)] == [0, 2, 4]


# --- several people in a file ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_two() -> tuple[HeadAsset, object]:
    asset = tiny_head()
    alone = talking_track(asset, 12)
    shapes = np.stack([alone.shape, np.random.default_rng(9).normal(size=len(alone.shape))])
    two = np.repeat([0, 1], 6)
    return asset, replace(alone, shapes=shapes, person=two, shot=two, interpolated=np.arange(12) == 3)


def test_the_parameters_file_holds_shots_people_and_gaps(of_two, tmp_path):
    asset, found = of_two
    export(found, asset, "npz", tmp_path)
    again = load_track(tmp_path / "flame_params.npz")
    for name in ("shot", "person", "interpolated"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
    assert again.shapes == pytest.approx(found.shapes, abs=1e-6)
    export(replace(found, shapes=None, person=None, shot=None, interpolated=None), asset, "npz", tmp_path)
    again = load_track(tmp_path / "flame_params.npz")
    assert (again.shot, again.person, again.shapes, again.interpolated) == (None,) * 4
    with np.load(tmp_path / "flame_params.npz") as file:
        assert file["shapes"].shape == (1, asset.n_identity) and not file["interpolated"].any()


def test_the_animated_mesh_shows_each_person_in_their_frames(of_two, tmp_path):
    asset, found = of_two
    export(found, asset, "glb", tmp_path)
    file = GltfPlayer(tmp_path / "head.glb")
    for frame, wanted in enumerate(track_vertices(found, asset)):
        shown = file.vertices(float(found.timestamps[frame] - found.timestamps[0]))[: asset.n_vertices]
        assert np.abs(shown - wanted).max() < 1e-5, frame
    alone = list(track_vertices(replace(found, shapes=None, person=None), asset))
    assert np.abs(alone[8] - list(track_vertices(found, asset))[8]).max() > 1e-3


def test_the_first_person_alone_is_a_track_of_one(of_two):
    _, found = of_two
    one = found.of_main_person()
    assert one.n_people == 1 and not one.valid[6:].any() and np.array_equal(one.valid[:6], found.valid[:6]) and not one.confidence[6:].any()


@pytest.mark.parametrize("wrong", [{"person": None}, {"person": np.full(12, 2)}, {"shapes": np.zeros((2, 1))}, {"shot": np.zeros(3, int)}])
def test_tracks_of_several_people_that_cannot_be_are_refused(of_two, wrong):
    with pytest.raises(ValueError, match="track: "):
        replace(of_two[1], **wrong)


# --- films -------------------------------------------------------------------------------------------------------------


def frames_of(clip, count: int) -> list[np.ndarray]:
    with av.open(str(clip)) as video:
        return [frame.to_ndarray(format="rgb24") for frame, _ in zip(video.decode(video=0), range(count), strict=False)]


def another(images: list[np.ndarray]) -> list[np.ndarray]:
    """A face that is much wider, of another colour, in another room."""
    height, width = images[0].shape[:2]
    tinted = [np.clip(image * [0.85, 0.95, 1.15], 0, 255).astype(np.uint8) for image in images]
    wide = [cv2.resize(image, (round(1.35 * width), height))[:, -width:] for image in tinted]
    room = cv2.resize(np.random.default_rng(0).integers(0, 255, (5, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return [np.concatenate([room[:, : width // 6], image[:, width // 6 :]], axis=1) for image in wide]


def test_nothing_of_the_next_shot_reaches_the_last_frames_before_a_cut(tmp_path):
    images = frames_of(EXCERPT, 18)
    clips = {name: write_clip(tmp_path / f"{name}.mov", film, codec="png", pixel_format="rgb24") for name, film in {
        "alone": images[:10], "cut": [*images[:10], *another(images[10:])],
    }.items()}  # fmt: skip
    alone, film = (track(clips[name], "fast").track for name in ("alone", "cut"))
    assert film.shot.tolist() == [0] * 10 + [1] * 8 and film.n_people == 2
    assert film.person.tolist() == [0] * 10 + [1] * 8 and film.valid.all()
    for name in ("rotation", "translation", "expr", "eyes_pose"):
        assert np.array_equal(getattr(film, name)[:10], getattr(alone, name)), name
    assert np.array_equal(film.shape, alone.shape) and np.abs(film.shapes[1] - film.shape).max() > 0.05


@pytest.mark.slow
def test_rendered_people_keep_their_identity_through_cuts(tmp_path):
    one, other = (np.stack([image for image, _ in render_sequence(Script(seed, frames=24, yaw_deg=25, turns=0.8))]) for seed in (9305, 9310))
    film = write_clip(tmp_path / "film.mov", [*one[:12], *other[:12], *one[12:]], codec="png", pixel_format="rgb24")
    found = track(film, "fast").track
    assert found.shot.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert found.person.tolist() == [0] * 12 + [1] * 12 + [0] * 12
    distance = np.linalg.norm(found.translation - [0, 0, 1], axis=1)
    for cut in (12, 24):  # heads do not drift towards those of the next shot
        steps = np.abs(np.diff(distance))
        assert max(steps[cut - 2], steps[cut]) < 0.01 < steps[cut - 1]


def test_the_head_of_the_default_is_of_one_person():
    """Tracks of one shot say nothing of shots."""
    found = talking_track(load_head(None), 4)
    assert (found.n_people, found.n_shots) == (1, 1) and found.tracked is found.valid
    assert found.of_main_person() is found and found.shapes_of(slice(2)) is found.shape
