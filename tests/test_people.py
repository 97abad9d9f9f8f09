"""Several people: each is told from the others by place and colours, and nobody is taken for somebody else."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.make_clips import write_clip
from tests.two_people import SIDE, WIDTH, film
from tracker import cli
from tracker.errors import UserError
from tracker.landmarks.face_boxes import FaceBoxes
from tracker.library import track_people
from tracker.observe import guides, observe
from tracker.observe.guides import Sightings
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.people import People
from tracker.observe.survey import survey
from tracker.video.packaged_clips import EXCERPT
from tracker.video.reader import VideoPart, VideoSource

RATE = 10

# --- who is who, of faces that are made up ---------------------------------------------------------------------------

RED, BLUE = (200, 90, 80), (90, 110, 220)


def scene(*people: tuple[tuple[int, int], tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """A frame with somebody of a colour at each place (the later in front), and the faces' boxes."""
    image = np.full((240, 480, 3), 100, np.uint8)
    for (x, y), colour in people:
        cv2.rectangle(image, (x - 35, y + 35), (x + 35, 239), tuple(c // 2 for c in colour), -1)
        cv2.ellipse(image, (x, y), (25, 32), 0, 0, 360, colour, -1)
    return image, np.array([(x - 20, y - 20, x + 20, y + 20) for (x, y), _ in people], float).reshape(-1, 4)


def numbers(people: People, frames: list, cut: int | None = None) -> list[list[int]]:
    found = []
    for k, shown in enumerate(frames):
        image, boxes = scene(*shown)
        if k == cut:
            people.cut(k / 5)
        found.append([p.number for p in people.update(image, boxes, k / 5)])
    return found


def test_people_keep_their_numbers_when_they_cross():
    frames = [[((60 + 30 * k, 90), RED), ((420 - 30 * k, 95), BLUE)] for k in range(12)]
    hidden = [shown if k not in (5, 6, 7) else shown[1:] for k, shown in enumerate(frames)]
    assert numbers(People(), hidden) == [[0, 1] if k not in (5, 6, 7) else [1] for k in range(12)]


def test_who_comes_back_elsewhere_is_the_same_and_who_takes_a_place_is_not():
    at_left, at_right = ((80, 90), RED), ((380, 120), RED)
    assert numbers(People(), [[at_left]] * 4 + [[]] * 20 + [[at_right]] * 3) == [[0]] * 4 + [[]] * 20 + [[0]] * 3
    other = ((80, 90), BLUE)
    assert numbers(People(), [[at_left]] * 4 + [[]] * 3 + [[other]] * 3) == [[0]] * 4 + [[]] * 3 + [[1]] * 3


def test_over_a_cut_colours_tell_not_places():
    frames = [[((100, 90), RED), ((300, 90), BLUE)]] * 4 + [[((100, 90), BLUE), ((300, 90), RED)]] * 4
    assert numbers(People(), frames, cut=4) == [[0, 1]] * 4 + [[1, 0]] * 4


def test_a_person_is_there_between_sightings_that_are_near_in_time_alone():
    seen = Sightings(np.array([1.0, 2.0, 12.0]), np.array([[0, 0, 10, 10], [10, 0, 20, 10], [90, 0, 100, 10]], float))
    box, away = seen.at(1.25)
    assert box.tolist() == [2.5, 0, 12.5, 10] and away == 0.25
    assert [seen.at(t) is not None for t in (0.0, 3.0, 7.0, 11.0, 13.0, 20.0)] == [True, True, False, True, True, False]


# --- real faces ------------------------------------------------------------------------------------------------------

LEFT, RIGHT = (0, SIDE), (WIDTH - 190, 190)
AWAY = range(20, 50)  # more than the two seconds for which the detector itself remembers who stood beside


def leaving(frame: int):
    """At the left, out of the picture for a while, and back; a step at a time, since all at once is a cut."""
    if frame in AWAY:
        return None
    steps = max(frame - AWAY.start + 8, 0) if frame < AWAY.start else max(AWAY.stop + 7 - frame, 0)
    return LEFT[0] - 30 * steps, SIDE


@pytest.fixture(scope="module")
def stays(tmp_path_factory):
    """The larger one leaves and comes back, the other one stays."""
    images = film(66, leaving, lambda frame: RIGHT)
    return write_clip(tmp_path_factory.mktemp("film") / "stays.mp4", images, rate=RATE)


def places(source: VideoSource, **how) -> tuple[list[str], tuple[str, ...]]:
    """In which part of each frame a head is seen: l, m, r, or - for none; and the notes."""
    with observe(source, ObserveSettings(), **how) as seen:
        centres = seen.landmarks.read(np.arange(len(seen))).points[..., 0].mean(1)
        letters = ["lmr"[int(3 * x / WIDTH)] if found else "-" for x, found in zip(centres, seen.found, strict=True)]
        return letters, seen.facts.notes


def test_who_leaves_is_not_replaced_by_who_stays(stays):
    found, notes = places(VideoSource(stays))
    assert found[:12] == ["l"] * 12 and set(found[AWAY.start + 1 : AWAY.stop]) == {"-"}
    assert set(found[AWAY.stop + 5 :]) == {"l"}
    assert any("2 people" in note for note in notes) and any("somebody else's face" in note for note in notes)


def test_who_leaves_is_not_replaced_by_who_comes_then(tmp_path):
    def comes(frame: int):
        return (WIDTH - min(30 * (frame - 22), WIDTH // 2), SIDE) if frame > 22 else None

    images = film(48, leaving, comes)
    found, notes = places(VideoSource(write_clip(tmp_path / "comes.mp4", images, rate=RATE)))
    assert "l" in found[:8] and set(found[AWAY.start + 1 :]) == {"-"}
    assert len(notes) == 1 and "somebody else's face" in notes[0]


def test_one_person_alone_is_seen_as_before(monkeypatch, tmp_path):
    part = VideoPart(max_frames=40)
    with observe(VideoSource(EXCERPT, part), ObserveSettings(), folder=tmp_path / "now") as now:
        assert now.facts.notes == ()
    monkeypatch.setattr(guides, "Watch", lambda model: guides.Everything())
    observe(VideoSource(EXCERPT, part), ObserveSettings(), folder=tmp_path / "before").close()
    assert (tmp_path / "now/landmarks.journal").read_bytes() == (tmp_path / "before/landmarks.journal").read_bytes()


def test_each_of_two_is_followed_while_they_cross(tmp_path):
    """The one in front hides the other for some frames; each is seen on the side where they are."""
    steps = 50

    def across(frame: int) -> int:
        return round((WIDTH - SIDE) * frame / (steps - 1))

    images = film(steps, lambda frame: (across(frame), SIDE), lambda frame: (WIDTH - SIDE - across(frame), 200))
    source = VideoSource(write_clip(tmp_path / "cross.mp4", images, rate=RATE))
    people = survey(source, tmp_path / "people")
    assert len(people) == 2
    assert [p.times.tolist() for p in survey(source, tmp_path / "people").people] == [p.times.tolist() for p in people.people]
    sides = [places(source, person=people.person(number))[0] for number in (1, 2)]
    apart = [*range(14), *range(steps - 14, steps)]
    for letters in sides:
        assert sum(letter != "-" for letter in letters) > 0.7 * steps
        assert set(letters[:14]) < {"l", "m", "r", "-"} and "-" not in [letters[f] for f in apart]
    assert sides[0][0] == sides[1][-1] != sides[1][0] == sides[0][-1]


# --- results ---------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    return cli.main(["--preset", "fast", "--no-report", "--quiet", *arguments])


def test_a_folder_for_each_person(stays, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("--video", str(stays), "--out", str(out), "--person", "all") == 0
    assert sorted(p.name for p in (out / "stays").iterdir()) == ["person_1", "person_2", "summary.json"]
    summary = json.loads((out / "stays/summary.json").read_text())
    assert [person["folder"] for person in summary["persons"]] == ["person_1", "person_2"]
    valid = [np.load(out / f"stays/person_{n}/flame_params.npz", allow_pickle=False)["valid"] for n in (1, 2)]
    first, second = sorted(valid, key=lambda v: v.sum())
    assert second.all() and not first[AWAY.start + 16 : AWAY.stop - 16].any() and first[:9].all() and first[-6:].all()
    assert all((out / f"stays/person_{n}" / name).is_file() for n in (1, 2) for name in ("summary.json", "overlay.mp4", "head.glb"))
    assert [p.name for p in out.iterdir()] == ["stays"]

    assert run("--video", str(stays), "--out", str(out), "--person", "3") == 2
    assert capsys.readouterr().err.strip() == "track.py: error: --person 3: the video shows 2 people; give a number from 1 to 2"
    assert sorted(p.name for p in (out / "stays").iterdir()) == ["person_1", "person_2", "summary.json"]


def test_the_library_tracks_everybody(stays):
    results = track_people(stays, "fast", part=VideoPart(max_frames=12))
    assert len(results) == 2
    sides = [float(np.median(r.vertices([0])[0][:, 0])) for r in results]
    assert sides[0] * sides[1] < 0  # one in each half of the picture
    for result in results:
        assert result.track.valid.all()


def test_the_first_of_one_is_the_largest(tmp_path):
    shared = ("--video", str(EXCERPT), "--max-frames", "12", "--no-overlay")
    assert run(*shared, "--out", str(tmp_path / "a")) == 0 and run(*shared, "--out", str(tmp_path / "b"), "--person", "1") == 0
    files = [tmp_path / folder / EXCERPT.stem / "flame_params.npz" for folder in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("person", ["0", "-1", "everybody", "1.5", ""])
def test_no_such_person(person, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--video", str(EXCERPT), f"--person={person}"])
    assert left.value.code == 2 and "give largest, all, or the number of a person" in capsys.readouterr().err


def test_photos_show_one_person(tmp_path):
    from tracker.library import track

    with pytest.raises(UserError, match="--person does not go with --photos"):
        track(EXCERPT, "fast", photos=True, person=2)


def test_the_detector_of_boxes_keeps_quiet(capfd):
    with FaceBoxes() as boxes:
        for _ in range(2):
            boxes(np.zeros((90, 160, 3), np.uint8), tiles=True)
    assert capfd.readouterr().err == ""
