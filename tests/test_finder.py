"""Heads found on a whole frame of which nothing is known, and tracked backwards from the first sure frame."""

from __future__ import annotations

import math
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from densemarks_model.crops import HeadCrop
from densemarks_model.data.synthetic.sequences import Script, render_sequence
from flame_assets.asset import HeadAsset
from flame_assets.load import load_head
from tests.colour_network import colour_embedder
from tests.make_clips import write_clip
from tests.views import drawn
from tracker.head_model import HeadModel
from tracker.landmarks.detection import Detection
from tracker.observe import first_pass
from tracker.observe.embedder import HeadEmbedder
from tracker.observe.finder import LEVELS, squares
from tracker.observe.first_pass import _Looker, observe
from tracker.observe.held_frames import HeldFrames, Look
from tracker.observe.look_store import LookState
from tracker.observe.observations import Observations
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.sites import DenseSites, spread_sites
from tracker.video.reader import VideoSource

WIDTH, HEIGHT, HEAD = 400, 260, 150
FOCAL, CENTRE = 420.0, (120.0, 120.0)
SURE, UNSURE = LookState(HeadCrop(np.array([50.0, 40.0]), 30.0)), LookState()


@pytest.fixture(scope="module")
def asset() -> HeadAsset:
    return load_head(None)


@pytest.fixture(scope="module")
def sites(asset) -> DenseSites:
    return spread_sites(asset, 400)


@pytest.fixture
def make(asset, sites, monkeypatch):
    """An embedder whose network reads locations from a picture's colours, and that network."""

    return partial(colour_embedder, monkeypatch, asset, sites)


def head_in_colours(asset: HeadAsset, yaw: float) -> np.ndarray:
    """A square picture of the head, each point in the colour of its location, on black."""
    head = HeadModel.from_asset(asset, "cpu", torch.float32)
    values = {
        "rotation": torch.tensor([[0.0, yaw, 0.0]]), "translation": torch.tensor([[0.0, 0.0, 0.2]]), "neck_pose": torch.zeros(1, 3),
        "expr": torch.zeros(1, head.n_expression), "shape": torch.zeros(head.n_identity), "log_focal": torch.tensor([math.log(FOCAL)]),
    }  # fmt: skip
    _, colours, shown = drawn(asset, head, values, 0, CENTRE, asset.canonical, HEAD)
    return np.where(shown[..., None], np.round(255 * colours), 0).astype(np.uint8)


def frame_with(part: np.ndarray, left: int, top: int) -> np.ndarray:
    """A black frame with a picture in it."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[top : top + part.shape[0], left : left + part.shape[1]] = part
    return image


# --- searching one frame -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("yaw", "left", "top"), [(0.0, 10, 20), (1.5, 230, 90), (-1.5, 120, 0), (2.9, 0, 100)])
@pytest.mark.parametrize("roll", [0, 180])
def test_a_head_is_found_wherever_it_is_and_however_it_stands(asset, make, yaw, left, top, roll):
    picture = head_in_colours(asset, yaw)
    picture = np.rot90(picture, roll // 90)
    embedder, _ = make()
    record = embedder.find(frame_with(picture, left, top))
    assert record is not None
    crop = embedder.place[0]
    assert np.linalg.norm(crop.center - (left + HEAD / 2, top + HEAD / 2)) < 0.35 * HEAD and 0.6 * HEAD < crop.side < 1.8 * HEAD
    assert abs(math.remainder(crop.roll - math.radians(roll), 2 * math.pi)) < 0.2


def test_what_is_no_rigid_head_is_not_found(asset, make):
    rng = np.random.default_rng(0)
    embedder, reader = make()
    head = head_in_colours(asset, 0.3)
    stretched = cv2.resize(head, (HEAD, HEAD // 3), interpolation=cv2.INTER_NEAREST)
    scattered = head.reshape(-1, 3)[rng.permutation(HEAD * HEAD)].reshape(head.shape)
    wall = np.full((HEAD, HEAD, 3), (120, 140, 90), np.uint8)
    noise = rng.integers(0, 256, (HEAD, HEAD, 3), dtype=np.uint8)
    for part in (stretched, scattered, wall, noise):
        before = len(reader.calls)
        assert embedder.find(frame_with(part, 100, 60)) is None and embedder.place[0] is None
        assert len(reader.calls) > before
    # one that is hardly in the frame
    assert embedder.find(frame_with(head[:50], 100, HEIGHT - 50)) is None


def test_a_search_is_bounded(asset, make):
    embedder, reader = make()
    everywhere = [crop for level in LEVELS for crop in squares(WIDTH, HEIGHT, level)]
    assert embedder.find(np.zeros((HEIGHT, WIDTH, 3), np.uint8)) is None
    assert sum(len(crops) for crops in reader.calls) == 2 * len(everywhere) < 50
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for crop in squares(WIDTH, HEIGHT, LEVELS[-1]):
        (x, y), half = crop.center, crop.side / 2
        inside[round(y - half) : round(y + half), round(x - half) : round(x + half)] = True
    assert inside.all()


def test_nothing_is_looked_for_in_a_cube_that_is_not_known(asset, make):
    embedder, reader = make(doubt=math.inf)
    assert embedder.find(frame_with(head_in_colours(asset, 0.0), 100, 50)) is None and not reader.calls


def test_the_shipped_network_finds_heads_in_profile_and_upside_down_and_none_elsewhere(asset, sites):
    embedder = HeadEmbedder("lite", "cpu", asset, sites, 0.06)
    (profile, _), *_ = render_sequence(Script(503, frames=1, yaw_deg=88, size=256, start=math.pi / 2))
    (front, _), *_ = render_sequence(Script(506, frames=1, yaw_deg=5, size=256))
    assert embedder.find(profile) is not None
    embedder.forget()
    assert embedder.find(front[::-1, ::-1].copy()) is not None
    assert abs(abs(embedder.place[0].roll) - math.pi) < 0.5
    rng = np.random.default_rng(1)
    smooth = cv2.GaussianBlur(rng.normal(size=(200, 260, 3)).astype(np.float32), (0, 0), 12)
    smooth = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    skin = np.full((200, 260, 3), 110, np.uint8)
    cv2.ellipse(skin, (130, 100), (45, 60), 0, 0, 360, (220, 170, 140), -1)
    for picture in (smooth, skin, rng.integers(0, 256, (200, 260, 3), dtype=np.uint8)):
        embedder.forget()
        assert embedder.find(picture) is None and embedder.place[0] is None


# --- when a pass searches ------------------------------------------------------------------------------------------------


def test_searches_become_rare_and_stop_once_a_head_is_known(asset, make, monkeypatch):
    embedder, reader = make()
    searched: list[int] = []
    now = 0
    looker = _Looker(embedder, 2)
    find = embedder.find

    def noted(image: np.ndarray):
        searched.append(now)
        return find(image)

    monkeypatch.setattr(embedder, "find", noted)
    nothing, head = np.zeros((HEIGHT, WIDTH, 3), np.uint8), frame_with(head_in_colours(asset, 1.0), 120, 60)
    for now in range(200):  # noqa: B007
        looker([nothing], [None])
    assert searched[:6] == [0, 2, 6, 14, 30, 62] and len(searched) <= 9
    calls = len(reader.calls)
    for now in range(200, 300):  # noqa: B007
        looker([head], [None])
    assert len([f for f in searched if f >= 200]) == 1  # then it is followed
    assert len(reader.calls) - calls < 100 + 20


# --- frames held back ------------------------------------------------------------------------------------------------------


def numbered(number: int) -> np.ndarray:
    return np.full((8, 8, 3), number, np.uint8)


def test_frames_without_a_head_wait_and_come_in_order():
    asked: list[tuple[HeadCrop, list[int]]] = []

    def look_back(crop, images):
        asked.append((crop, [int(image[0, 0, 0]) for image in images]))
        return ["record 3", None, "record 1"]

    held = HeldFrames(look_back)
    given = [[done for done in held.add(float(n), numbered(10 * n), Look(None, None, UNSURE))] for n in range(4)]
    assert given == [[]] * 4
    sure = Look("record 4", None, SURE)
    done = list(held.add(4.0, numbered(40), sure))
    assert asked == [(SURE.crop, [30, 20, 10, 0])]
    assert [d.timestamp for d in done] == [0, 1, 2, 3, 4]
    assert [d.look.record for d in done] == [None, "record 1", None, "record 3", "record 4"]
    assert [None if d.image is None else int(d.image[0, 0, 0]) for d in done] == [None, 10, None, 30, 40]
    assert not list(held.rest())
    # while heads are known nothing waits, and nothing is asked
    assert [d.timestamp for d in held.add(5.0, numbered(50), sure)] == [5] and len(asked) == 1


def test_no_more_is_held_than_allowed():
    held = HeldFrames(lambda *_: [], most_frames=3)
    given = [done.timestamp for n in range(6) for done in held.add(float(n), numbered(n), Look(None, None, UNSURE))]
    assert given == [0, 1, 2] and [done.timestamp for done in held.rest()] == [3, 4, 5]
    held = HeldFrames(lambda *_: [], most_bytes=1)
    assert [done.timestamp for done in held.add(0.0, numbered(0), Look(None, None, UNSURE))] == [0]


# --- a whole pass ------------------------------------------------------------------------------------------------------------

FRAMES, FIRST = 10, 5


class Blind:
    """A detector that sees no face."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Blind:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def detect(self, image: np.ndarray, timestamp: float) -> Detection | None:
        return None


@pytest.fixture
def clip(asset, tmp_path) -> VideoSource:
    """A head that turns and moves to the right. The last pixel, too dark to show anything, counts the frames."""
    images = [frame_with(head_in_colours(asset, 1.2 - 0.08 * n), 120 + 3 * n, 60) for n in range(FRAMES)]
    for number, image in enumerate(images):
        image[-1, -1] = number
    return VideoSource(write_clip(tmp_path / "late.mov", images, codec="png", pixel_format="rgb24"))


@pytest.fixture
def look(clip, make, monkeypatch):
    """Looks at the clip by a network that finds no head on a whole frame before frame ``FIRST``, and by nothing else."""
    find = HeadEmbedder.find
    monkeypatch.setattr(first_pass, "FaceLandmarker", Blind)
    monkeypatch.setattr(HeadEmbedder, "find", lambda self, image: find(self, image) if image[-1, -1, 0] >= FIRST else None)
    settings = ObserveSettings(picture_size=32)
    return lambda folder, **options: observe(clip, settings, embedder=make()[0], pictures=True, folder=folder, **options)


def test_frames_before_the_first_sure_one_are_tracked_backwards(look, tmp_path):
    with look(tmp_path / "seen") as seen:
        assert len(seen) == FRAMES and seen.seen.tolist() == list(range(FRAMES)) and not seen.found.any()
        centres = [seen.embeddings.read(f).crop.center[0] for f in range(FRAMES)]
        assert np.all(np.diff(centres) > -1) and centres[-1] - centres[0] > 15
        assert all(seen.pictures.read(f) is not None for f in range(FRAMES))
        np.testing.assert_allclose(np.diff(seen.timestamps), 0.04, atol=1e-6)


def test_a_pass_that_was_stopped_while_frames_waited_goes_on_to_the_same(look, tmp_path, monkeypatch):
    def content(seen: Observations) -> list[bytes]:
        records = [seen.embeddings.read(f) for f in range(FRAMES)]
        return [r.coordinates.tobytes() + repr((r.crop.center.tolist(), r.crop.side, r.crop.roll)).encode() for r in records]

    with look(tmp_path / "whole") as seen:
        whole = content(seen)
    add = Observations.add
    for stop in (0, 1, 4, FIRST, FRAMES - 1):

        def stopped(self: Observations, *frame, stop: int = stop, **named) -> None:
            if len(self) == stop:
                raise KeyboardInterrupt
            add(self, *frame, **named)

        monkeypatch.setattr(Observations, "add", stopped)
        with pytest.raises(KeyboardInterrupt):
            look(tmp_path / f"{stop}")
        monkeypatch.setattr(Observations, "add", add)
        with look(tmp_path / f"{stop}", go_on=True) as seen:
            assert content(seen) == whole
