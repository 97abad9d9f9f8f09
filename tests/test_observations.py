"""Observations on disk: what was added is there again, whatever moment the process died at."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from densemarks_model.crops import HeadCrop
from tests.heads import tiny_head
from tests.observed import FACTS, observed, reader
from tracker.errors import UserError
from tracker.landmarks.detection import Detection
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.journal import Journal
from tracker.observe.look_store import LookState
from tracker.observe.observations import Observations, frames_left
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.sites import spread_sites

FRAMES = 6
LAYOUT = np.dtype([("number", "<i8"), ("values", "<f4", (3,))])
SETTINGS = ObserveSettings(picture_size=32)


def detection(number: int) -> Detection:
    rng = np.random.default_rng(number)
    points = rng.uniform(100, 300, (478, 2)).astype(np.float32)
    return Detection(points, rng.normal(size=478).astype(np.float32), rng.random(52).astype(np.float32), 0.8 + 0.01 * number)


def record(number: int) -> EmbeddingRecord:
    rng = np.random.default_rng(number)
    flat = rng.random((8, 8), dtype=np.float32)
    return EmbeddingRecord(HeadCrop(np.array([160.0, 120.0]), 80.0), rng.random((8, 8, 3), dtype=np.float32), flat, 0.02 * flat, flat)


def look(folder, frames: int = FRAMES) -> Observations:
    """Frames with everything; the second has no face."""
    rng = np.random.default_rng(0)
    observations = Observations(folder, SETTINGS, FACTS)
    for frame in range(frames):
        picture = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
        observations.add(frame / 25, None if frame == 1 else detection(frame), record(frame), picture)
    return observations


def state(observations: Observations) -> tuple:
    """Everything that a fit can see."""
    frames = np.arange(len(observations))
    marks = observations.landmarks.read(frames)
    maps = [observations.embeddings.read(f) for f in frames]
    pictures = [observations.pictures.read(f) for f in frames]
    return (
        observations.timestamps.tolist(), observations.confidence.tolist(), observations.found.tolist(), marks.points.tobytes(),
        marks.blendshapes.tobytes(), [None if m is None else m.coordinates.tobytes() for m in maps],
        [None if p is None else p[1].tobytes() for p in pictures],
    )  # fmt: skip


def test_a_folder_opened_again_holds_what_was_added(tmp_path):
    with look(tmp_path) as observations:
        observations.finish(("a note",))
        before = state(observations)
    with Observations.open(tmp_path) as again:
        assert state(again) == before
        assert again.settings == SETTINGS and again.facts.notes == ("a note",)
        assert again.seen.tolist() == list(range(FRAMES))
        sites = spread_sites(tiny_head(), 40)
        assert torch.isfinite(reader(again, sites)(torch.arange(FRAMES)).dense.maps).all()


def test_every_frame_that_was_added_outlives_the_process(tmp_path):
    """Nothing is closed or finished: what a killed process leaves is what the operating system was given."""
    observations = look(tmp_path)
    left = tmp_path / "left"
    left.mkdir()
    for file in tmp_path.glob("*.*"):
        (left / file.name).write_bytes(file.read_bytes())
    with Observations(left, SETTINGS, FACTS) as again:
        assert len(again) == FRAMES and state(again) == state(observations)
        assert not again.complete
    with pytest.raises(UserError, match="not looked at to its end"):
        Observations.open(left)


@pytest.mark.parametrize("file", ["landmarks.journal", "embeddings.journal", "pictures.journal", "pictures.bin", "look.journal"])
@pytest.mark.parametrize("lost", [1, 40])
def test_a_file_cut_off_anywhere_costs_the_frames_at_its_end_alone(tmp_path, file, lost):
    """And never leaves half a frame: going on gives the same as never having been stopped."""
    whole = state(look(tmp_path / "whole"))
    look(tmp_path / "cut").close()
    path = tmp_path / "cut" / file
    path.write_bytes(path.read_bytes()[:-lost])
    with Observations(tmp_path / "cut", SETTINGS, FACTS) as again:
        assert len(again) == FRAMES - 1
        rng = np.random.default_rng(0)
        pictures = [rng.integers(0, 255, (240, 320, 3), dtype=np.uint8) for _ in range(FRAMES)]
        again.add((FRAMES - 1) / 25, detection(FRAMES - 1), record(FRAMES - 1), pictures[-1])
        assert state(again) == whole


def test_a_frame_without_an_embedding_is_whole_without_one(tmp_path):
    """What a frame should have is known, so that one that lost it is told from one that never had it."""
    with Observations(tmp_path, SETTINGS, FACTS) as observations:
        for frame in range(FRAMES):
            observations.add(frame / 25, detection(frame), record(frame) if frame % 3 == 0 else None)
    with Observations(tmp_path, SETTINGS, FACTS) as again:
        assert len(again) == FRAMES and [f in again.embeddings for f in range(FRAMES)] == [f % 3 == 0 for f in range(FRAMES)]
    path = tmp_path / "embeddings.journal"
    path.write_bytes(path.read_bytes()[:-1])  # frame 3's
    with Observations(tmp_path, SETTINGS, FACTS) as again:
        assert len(again) == 3


def test_where_looking_stood_is_known_after_every_frame(tmp_path):
    states = [LookState(), LookState(HeadCrop(np.array([0.1, 1 / 3]), 2 / 3, 0.7), 2, 5), LookState(None, 3, 1)]
    with Observations(tmp_path, SETTINGS, FACTS) as observations:
        for frame, after in enumerate(states):
            observations.add(frame / 25, None, state=after)
    with Observations(tmp_path, SETTINGS, FACTS) as again:
        read = [again.look.read(f) for f in range(3)]
    assert [(s.misses, s.since) for s in read] == [(0, 0), (2, 5), (3, 1)] and read[0].crop is None and read[2].crop is None
    assert (read[1].crop.center == states[1].crop.center).all() and (read[1].crop.side, read[1].crop.roll) == (2 / 3, 0.7)


def test_finished_observations_that_lost_frames_are_refused(tmp_path):
    with look(tmp_path) as observations:
        observations.finish()
    assert frames_left(tmp_path) == (FRAMES, True)
    path = tmp_path / "landmarks.journal"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="1 of its 6 frames are lost"):
        Observations.open(tmp_path)
    assert Observations.go_on(tmp_path, SETTINGS) is None and frames_left(tmp_path / "none") == (0, False)
    Observations.clear(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_record_that_was_never_written_whole_is_cut_off(tmp_path):
    path = tmp_path / "some.journal"
    with Journal(path, LAYOUT) as journal:
        for number in range(4):
            journal.append(np.array((number, [number] * 3), LAYOUT))
    content = bytearray(path.read_bytes())
    content[-20 - LAYOUT.itemsize] ^= 1  # a bit of the third record
    path.write_bytes(bytes(content))
    with Journal(path, LAYOUT) as journal:
        assert len(journal) == 2
        assert journal.append(np.array((9, [9] * 3), LAYOUT)) == 2
        assert journal.read(2)["number"] == 9 and journal.table()["number"].tolist() == [0, 1, 9]
    with pytest.raises(UserError, match="another layout"):
        Journal(path, np.dtype([("number", "<i4")]))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else entirely", b"HTJOURN1\xff\xff\xff\x7f{}", b"HTJOURN1\x02\x00\x00\x00{}"])
def test_other_files_are_no_journals(tmp_path, content):
    path = tmp_path / "some.journal"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"some\.journal"):
        Journal(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}', '{"version": 99, "complete": true}'])
def test_damaged_facts_are_told_in_one_line(tmp_path, content):
    observed(tmp_path, [detection(0)], {}).close()
    (tmp_path / "observations.json").write_text(content)
    with pytest.raises(UserError, match=r"observations\.json") as error:
        Observations.open(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="holds no observations"):
        Observations.open(tmp_path / "nothing")


def test_a_temporary_folder_goes_with_its_observations():
    observations = observed(None, [detection(0)], {0: record(0)})
    folder = observations.folder
    assert json.loads((folder / "observations.json").read_text())["complete"]
    observations.close()
    assert not folder.exists()
