"""Stages that work ahead in threads: what they find is what one after the other finds, and they end when the run does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flame_assets.load import load_head
from tests.colour_network import colour_embedder
from tests.make_clips import write_clip
from tests.test_finder import frame_with, head_in_colours
from tracker.ahead import Ahead
from tracker.errors import UserError
from tracker.landmarks.detection import Detection
from tracker.loaded import Loaded
from tracker.observe import first_pass
from tracker.observe.first_pass import observe
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.sites import spread_sites
from tracker.video.packaged_clips import EXCERPT
from tracker.video.reader import VideoPart, VideoSource

FRAMES = 12


def alive(name: str) -> bool:
    return any(t.name == name for t in threading.enumerate())


def test_items_come_in_order_and_only_a_few_are_made_ahead():
    made = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    with Ahead(items(), 3, "numbers") as ahead:
        assert not made  # nothing before the first is asked for
        assert next(ahead) == 0
        time.sleep(0.3)
        assert made == [0, 1, 2, 3, 4]  # one taken, three that wait, one that has no room
        assert list(ahead) == list(range(1, 20)) and list(ahead) == []
    assert not alive("numbers")


def test_an_error_comes_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise UserError("damaged")

    taken = []
    with Ahead(items(), 8, "numbers") as ahead, pytest.raises(UserError, match="damaged"):
        for item in ahead:
            taken.append(item)
    assert taken == [1, 2] and list(ahead) == []


def test_nothing_is_made_any_more_once_it_is_closed():
    made = []
    with Ahead((made.append(n) or n for n in range(10_000)), 2, "numbers") as ahead:
        next(ahead)
    assert not alive("numbers") and list(ahead) == [] and len(made) < 10


def one_after_the_other(items: Iterator, size: int, name: str):
    """What :class:`Ahead` is compared with."""

    class Plain:
        def __enter__(self):
            return items

        def __exit__(self, *_: object) -> None:
            pass

    return Plain()


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_landmarks_and_network_together_find_what_one_after_the_other_finds(tmp_path, monkeypatch):
    """Bit for bit, by the real detector and network."""
    settings, loaded = ObserveSettings(), Loaded()
    asset = loaded.head(None)
    embedder = loaded.embedder("lite", "cpu", asset, loaded.sites(None, asset, settings.sites), settings.landmark_doubt)
    source = VideoSource(EXCERPT, VideoPart(FRAMES))

    def look(name: str) -> dict[str, bytes]:
        fresh = embedder.for_head(asset, loaded.sites(None, asset, settings.sites), settings.landmark_doubt)
        observe(source, settings, embedder=fresh, pictures=True, folder=tmp_path / name).close()
        return files(tmp_path / name)

    together = look("together")
    monkeypatch.setattr(first_pass, "Ahead", one_after_the_other)
    assert together == look("one after the other")


@pytest.fixture
def film(tmp_path):
    """A head that turns, and what looks at it: a detector that is lost, wrong and slow at times, and a network that can tell."""
    asset = load_head(None)
    images = [frame_with(head_in_colours(asset, 0.9 - 0.1 * n), 120 + 4 * n, 50) for n in range(FRAMES)]
    return asset, VideoSource(write_clip(tmp_path / "film.mov", images, codec="png", pixel_format="rgb24"))


class Wayward:
    """A detector whose answers depend on how often it was asked; the threads that ask it are noted."""

    def __init__(self, model: object = None) -> None:
        self.calls, self.closed = 0, False
        Wayward.last, Wayward.askers = self, set()

    def __enter__(self) -> Wayward:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def forget(self) -> None:
        pass

    def detect(self, image: np.ndarray, timestamp: float) -> Detection | None:
        assert not self.closed
        Wayward.askers.add(threading.current_thread().name)
        time.sleep(0.003 * (self.calls % 3))
        self.calls += 1
        if self.calls in (3, 4):
            return None
        points = np.random.default_rng(self.calls).uniform(150, 250, (478, 2)).astype(np.float32)
        return Detection(points, points[:, 0], np.zeros(52, np.float32), 0.5)


@pytest.mark.parametrize("batch", [1, 3])
def test_wrong_and_missing_landmarks_are_handled_as_one_after_the_other(film, batch, tmp_path, monkeypatch):
    asset, source = film
    monkeypatch.setattr(first_pass, "FaceLandmarker", Wayward)

    def look(name: str) -> dict[str, bytes]:
        embedder, _ = colour_embedder(monkeypatch, asset, spread_sites(asset, 400), batch=batch)
        observe(source, ObserveSettings(), embedder=embedder, folder=tmp_path / name).close()
        return files(tmp_path / name)

    together, askers = look("together"), Wayward.askers
    monkeypatch.setattr(first_pass, "Ahead", one_after_the_other)
    assert together == look("one after the other")
    assert askers == {"landmarks"} and Wayward.askers == {threading.main_thread().name}


@pytest.mark.parametrize("stage", ["detector", "network"])
def test_an_error_of_either_stage_ends_the_pass_and_its_threads(film, stage, tmp_path, monkeypatch):
    asset, source = film
    monkeypatch.setattr(first_pass, "FaceLandmarker", Wayward)
    embedder, reader = colour_embedder(monkeypatch, asset, spread_sites(asset, 400))
    detect, call = Wayward.detect, type(reader).__call__

    def fails(self: object, *given: object) -> object:
        if stage == "network":
            raise KeyboardInterrupt  # as Ctrl-C is raised there
        if self.calls == 5:
            raise UserError("cannot be looked at")
        return detect(self, *given)

    if stage == "detector":
        monkeypatch.setattr(Wayward, "detect", fails)
    else:
        monkeypatch.setattr(type(reader), "__call__", fails)
    with pytest.raises(UserError if stage == "detector" else KeyboardInterrupt):
        observe(source, ObserveSettings(), embedder=embedder, folder=tmp_path / "seen")
    assert Wayward.last.closed and not alive("landmarks") and not alive("video-decode")
    if stage == "network":
        return
    # what was seen before the error is kept, and gone on with
    monkeypatch.setattr(Wayward, "detect", detect)
    monkeypatch.setattr(type(reader), "__call__", call)
    with observe(source, ObserveSettings(), embedder=embedder, folder=tmp_path / "seen", go_on=True) as seen:
        assert len(seen) == FRAMES
