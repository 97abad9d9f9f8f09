"""Cuts found at their frames, and nothing carried over them while looking."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest

from densemarks_model.crops import HeadCrop
from flame_assets.load import load_head
from tests.colour_network import colour_embedder
from tests.make_clips import write_clip
from tests.observed import FACTS
from tests.test_finder import WIDTH, frame_with, head_in_colours
from tracker.observe import first_pass
from tracker.observe.crossfades import crossfades, tiny_picture
from tracker.observe.first_pass import observe
from tracker.observe.held_frames import HeldFrames, Look
from tracker.observe.look_store import LookState
from tracker.observe.observations import Observations
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.reading import _ends
from tracker.observe.shots import CutFinder, SmallPicture
from tracker.observe.sites import spread_sites
from tracker.stages.fit import without_crossfades
from tracker.video.frame import Frame
from tracker.video.reader import VideoSource

SIZE = (320, 180)


def scene(seed: int, width: int = 900) -> np.ndarray:
    """A wide still picture: a room of soft shapes."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(20, 235, (12, width // 40, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, SIZE[1]), interpolation=cv2.INTER_CUBIC), 0, 255)


def shot(seed: int, frames: int, speed: float = 0.0, head_speed: float = 0.7) -> list[np.ndarray]:
    """Frames of a camera that pans over a room, with a head (an ellipse with eyes) that moves before it, and noise."""
    room, rng, out = scene(seed), np.random.default_rng([seed, 1]), []
    skin = rng.uniform(90, 220, 3)
    for n in range(frames):
        left = round(speed * n) % (room.shape[1] - SIZE[0])
        image = room[:, left : left + SIZE[0]].copy()
        x, y = round(150 + 30 * np.sin(head_speed * n / 10)), 95
        cv2.ellipse(image, (x, y), (35, 48), 5 * np.sin(n / 3), 0, 360, skin.tolist(), -1)
        for side in (-13, 13):
            cv2.circle(image, (x + side, y - 8), 5, (30, 30, 30), -1)
        out.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    return out


def cuts(images: list[np.ndarray], rate: float = 25.0) -> list[int]:
    """Where the frames are said to be cut; that all are passed on in order is checked on the way."""
    given = [Frame(n, n / rate, image) for n, image in enumerate(images)]
    finder = CutFinder(rate)
    told = list(finder(given))
    assert [frame for frame, _ in told] == given
    assert not finder.small  # nobody would take them out: memory must not grow with the video
    return [frame.index for frame, cut in told if cut]


@pytest.mark.parametrize("rate", [12.5, 25.0, 60.0])
def test_cuts_are_found_at_their_frames(rate):
    film = [*shot(1, 20), *shot(2, 8, speed=3), *shot(3, 15), *shot(1, 12)]
    assert cuts(film, rate) == [20, 28, 43]


def test_black_between_two_shots_is_cut_off_on_both_sides():
    black = [np.zeros((SIZE[1], SIZE[0], 3), np.uint8)] * 8
    assert cuts([*shot(1, 15), *black, *shot(2, 15)]) == [15, 23]


def lit(images: list[np.ndarray], gains: np.ndarray, offset: float = 0.0) -> list[np.ndarray]:
    return [np.clip(gain * image.astype(np.float32) + offset * (gain != 1), 0, 255).astype(np.uint8) for image, gain in zip(images, gains, strict=True)]


def flashed(frames: int) -> list[np.ndarray]:
    """A photographer's flash, and frames that are white but for a trace of the picture."""
    film = shot(1, 40)
    film[15 : 15 + frames] = lit(film[15 : 15 + frames], np.full(frames, 2.5), 80)
    film[30 : 30 + frames] = [255 - image // 20 for image in film[30 : 30 + frames]]
    return film


def shaken() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [np.roll(image, rng.integers(-12, 12, 2), (0, 1)) for image in shot(1, 40)]


@pytest.mark.parametrize(
    "film",
    [
        pytest.param(partial(shot, 1, 60), id="still"),
        pytest.param(partial(shot, 1, 60, head_speed=8), id="quick head"),
        pytest.param(partial(shot, 1, 40, speed=14), id="pan"),
        pytest.param(lambda: [*shot(1, 20), *shot(1, 40, speed=25)[:20]], id="pan that starts at once"),
        pytest.param(partial(flashed, 1), id="flash"),
        pytest.param(partial(flashed, 3), id="longer flash"),
        pytest.param(lambda: lit(shot(1, 40), np.where(np.arange(40) < 20, 1.0, 0.45)), id="light goes down"),
        pytest.param(lambda: lit(shot(1, 60), np.linspace(1, 0.1, 60)), id="fade to black"),
        pytest.param(shaken, id="shaken"),
        pytest.param(lambda: [image for image in shot(1, 15) for _ in range(3)], id="frames repeated"),
        pytest.param(lambda: [np.full((40, 60, 3), 90, np.uint8)] * 10, id="one colour"),
        pytest.param(lambda: shot(1, 1), id="one frame"),
    ],
)
def test_what_is_no_cut_is_not_taken_for_one(film):
    assert cuts(film()) == []


# --- crossfades ---------------------------------------------------------------------------------------------------------


def faded(frames: int) -> list[np.ndarray]:
    """Two shots, the one mixed into the other from frame 20 on."""
    one, other = shot(1, 20 + frames), shot(2, frames + 20)
    shares = (np.arange(frames) + 1) / (frames + 1)
    mixed = [np.round((1 - s) * a + s * b).astype(np.uint8) for s, a, b in zip(shares, one[20:], other, strict=False)]
    return [*one[:20], *mixed, *other[frames:]]


def crossfades_of(images: list[np.ndarray], rate: float = 25.0) -> list[tuple[int, int]]:
    return crossfades(np.stack([tiny_picture(SmallPicture.of(image)) for image in images]), rate, cuts(images, rate))


@pytest.mark.parametrize("frames", [6, 12, 25, 40])
def test_crossfades_are_marked_and_are_no_cuts(frames):
    film = faded(frames)
    assert cuts(film) == []
    ((first, last),) = crossfades_of(film)
    middle = 20 + frames / 2
    assert abs((first + last) / 2 - middle) < 2 + frames / 6
    assert max(abs(first - 20), abs(last - 19 - frames)) < 3 + frames / 3


def test_fades_to_and_from_black_are_marked():
    one, other, black = shot(1, 35), shot(2, 35), [np.zeros((SIZE[1], SIZE[0], 3), np.uint8)] * 8
    down, up = np.linspace(1, 0, 15), np.linspace(0, 1, 15)
    film = [*one[:20], *lit(one[20:], down), *black, *lit(other[:15], up), *other[15:]]
    found = crossfades_of(film)
    assert len(found) == 2 and found[0][1] <= 45 and found[1][0] >= 32


@pytest.mark.parametrize(
    "film",
    [
        partial(shot, 1, 60), partial(shot, 1, 60, head_speed=8), partial(shot, 1, 60, speed=14), partial(shot, 1, 40, speed=2), partial(flashed, 3), shaken,
        lambda: lit(shot(1, 60), np.linspace(1, 0.6, 60)), lambda: [*shot(1, 20), *shot(2, 20)], lambda: [*shot(1, 20), *shot(2, 8), *shot(1, 20)],
    ],
)  # fmt: skip
def test_what_moves_is_no_crossfade(film):
    assert crossfades_of(film()) == []


def test_a_crossfade_parts_two_shots_and_gives_no_keyframes(tmp_path):
    film = faded(12)
    with Observations(tmp_path, ObserveSettings(), FACTS) as seen:
        for frame, image in enumerate(film):
            seen.add(frame / 25, None, tiny=tiny_picture(SmallPicture.of(image)))
        ((first, last),) = seen.crossfades
        shots = seen.shots
    assert shots.max() == 1 and 22 <= np.flatnonzero(shots)[0] <= 30
    every = np.arange(len(film))
    kept = without_crossfades(every, shots, [(first, last)])
    assert kept.tolist() == [n for n in every if not first <= n <= last]
    assert without_crossfades(every[first : last + 1], shots, [(first, last)]).tolist() == list(range(first, last + 1))
    assert without_crossfades(every, shots, []) is every


# --- nothing of one shot is used in the next ---------------------------------------------------------------------------


def test_frames_before_a_cut_are_not_looked_at_for_a_head_found_after_it():
    sure, unsure = LookState(crop=first_crop()), LookState()
    asked = []
    held = HeldFrames(lambda crop, images: asked.append(len(list(images))) or [])
    image = np.zeros((40, 60, 3), np.uint8)
    given = [[d.timestamp for d in held.add(float(n), image, Look(None, None, unsure), cut=n == 3)] for n in range(5)]
    assert given == [[], [], [], [0, 1, 2], []]
    done = list(held.add(5.0, image, Look(object(), None, sure)))
    assert asked == [2]  # frames 3 and 4
    assert [(d.timestamp, d.cut) for d in done] == [(3, True), (4, False), (5, False)]


def first_crop() -> HeadCrop:
    return HeadCrop(np.array([50.0, 40.0]), 30.0)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A head on the left, then, after a cut to another room, one on the right."""
    asset = load_head(None)
    part = head_in_colours(asset, 0.3)

    def shown(left: int, floor: int, stripes: int) -> np.ndarray:
        image = frame_with(part, left, 40)
        empty = (image == 0).all(-1)
        image[empty & (np.arange(image.shape[0]) >= floor)[:, None]] = (8, 8, 8)
        return np.where((empty & (np.arange(WIDTH) // stripes % 2 == 0))[..., None], np.uint8(25), image)

    path = tmp_path_factory.mktemp("film") / "film.mov"
    return asset, write_clip(path, [shown(20, 200, 37)] * 12 + [shown(230, 150, 90)] * 12, codec="png", pixel_format="rgb24")


@pytest.mark.parametrize("batch", [1, 4])
def test_the_network_looks_for_the_head_anew_after_a_cut(film, batch, monkeypatch, tmp_path):
    asset, clip = film
    embedder = colour_embedder(monkeypatch, asset, spread_sites(asset, 400))[0]
    monkeypatch.setattr(type(embedder), "batch", property(lambda _: batch))
    monkeypatch.setattr(first_pass, "FaceLandmarker", Blind)
    Blind.forgotten = 0
    with observe(VideoSource(clip), ObserveSettings(), embedder=embedder, folder=tmp_path) as seen:
        assert seen.shots.tolist() == [0] * 12 + [1] * 12
        centres = [seen.embeddings.read(frame).crop.center[0] for frame in range(24)]
    assert Blind.forgotten == 1
    assert max(centres[:12]) < WIDTH / 2 < min(centres[12:])  # at once, not after frames of waiting where the first head was
    with Observations.open(tmp_path) as again:
        assert again.shots.tolist() == [0] * 12 + [1] * 12


@pytest.mark.parametrize("batch", [1, 4])
def test_a_pass_that_is_stopped_around_a_cut_goes_on_to_the_same_bits(film, batch, monkeypatch, tmp_path):
    asset, clip = film
    embedder = colour_embedder(monkeypatch, asset, spread_sites(asset, 400))[0]
    monkeypatch.setattr(type(embedder), "batch", property(lambda _: batch))
    monkeypatch.setattr(first_pass, "FaceLandmarker", Blind)

    def look(folder, stop: int | None = None) -> dict[str, bytes]:
        def told(_: str, done: int, __: int | None) -> None:
            if stop is not None and done >= stop:
                raise Stopped

        embedder.forget()
        observe(VideoSource(clip), ObserveSettings(), embedder=embedder, folder=folder, go_on=True, progress=told).close()
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    wanted = look(tmp_path / "whole")
    for stop in (5, 11, 12, 13, 20):
        with pytest.raises(Stopped):
            look(tmp_path / str(stop), stop)
        assert look(tmp_path / str(stop)) == wanted, stop


class Stopped(Exception):
    pass


class Blind:
    """A detector that finds nothing."""

    forgotten = 0

    def __init__(self, model: object = None) -> None:
        pass

    def __enter__(self) -> Blind:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def detect(self, image: np.ndarray, timestamp: float) -> None:
        return None

    def forget(self) -> None:
        Blind.forgotten += 1


def test_cuts_are_kept_and_forgotten_with_their_frames(tmp_path):
    with Observations(tmp_path, ObserveSettings(), FACTS) as seen:
        for frame in range(6):
            seen.add(frame / 25, None, cut=frame in (2, 4), skin=np.array([frame, 2, 3]))
        assert seen.shots.tolist() == [0, 0, 1, 1, 2, 2]
        assert seen.look.skin[:, 0].tolist() == list(range(6))
        seen.keep(4)
        assert seen.shots.tolist() == [0, 0, 1, 1]
        seen.add(4 / 25, None)
    with Observations(tmp_path, ObserveSettings()) as seen:
        assert seen.shots.tolist() == [0, 0, 1, 1, 1]


def test_a_frame_that_the_network_did_not_look_at_takes_nothing_from_another_shot(tmp_path):
    with Observations(tmp_path, ObserveSettings(), FACTS) as seen:
        for frame in range(6):
            seen.add(frame / 25, None, cut=frame == 3)
        assert _ends(1, [0, 2, 4], seen.look) == [0, 2]
        assert _ends(2, [1, 3], seen.look) == [1]
        assert _ends(3, [2, 4], seen.look) == [4]
        assert _ends(3, [2], seen.look) == []
