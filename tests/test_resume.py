"""Runs killed anywhere: the same command goes on, and what it writes equals what an uninterrupted run writes, bit for bit.

The long version (every stage many times, all presets, kills at random times) runs with ``pytest -m slow``.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from tracker.video.packaged_clips import EXCERPT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")

ROOT = Path(__file__).resolve().parents[1]
FRAMES, MANY_FRAMES = 12, 30
KEYFRAMES = ("keyframes", 0)  # the point between looking and fitting
TIMED = {"seconds", "total_seconds", "frames_per_second", "peak_memory_mb"}


class Runs:
    """Runs of the command line, on request killed."""

    def __init__(self, folder: Path) -> None:
        self.errors = folder / "errors.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killed_runs", str(folder / "events.txt")],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors.open("w"), text=True,
        )  # fmt: skip

    def __call__(self, out: Path, *more: str, video: Path | None = EXCERPT, frames: int = FRAMES, **how: object) -> dict:
        """One run; ``how`` says where it dies, see ``killed_runs``. The answer has what it said as ``said``. Without a video: of photos."""
        before = self.errors.stat().st_size
        input = [] if video is None else ["--video", str(video), "--max-frames", str(frames)]
        order = {"arguments": [*input, "--out", str(out), *more], **how}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        said = self.errors.read_bytes()[before:].decode(errors="replace").replace("\r", "\n").splitlines()
        if how.get("full"):
            return answer
        return {**answer, "said": [line for line in said if line and "frame/s" not in line and "?frame" not in line]}

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[Runs]:
    started = Runs(tmp_path_factory.mktemp("runs"))
    yield started
    started.close()


def content(folder: Path) -> dict[str, bytes | dict | list]:
    """All files of a result; of a video its pictures, of the summary what is no time and no memory."""
    found: dict[str, bytes | dict | list] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".mp4":
            with av.open(str(path)) as video:
                found[name] = [hash(f.to_ndarray(format="rgb24").tobytes()) for f in video.decode(video=0)]
        elif name == "report.html":  # it names the folder, and seconds
            found[name] = re.findall(r'id="numbers">.*?</script>|data:image[^"]*|id="head-file">.*?</script>', path.read_text(encoding="utf-8"))
            assert len(found[name]) > 3
        elif name == "summary.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k not in TIMED}
        else:
            found[name] = path.read_bytes()
    return found


def points(events: Sequence[str], count: int, seed: int) -> list[tuple[str, int]]:
    """Random events, each by its stage and its number therein: one of each stage, then more of those that have more."""
    rng = random.Random(seed)
    stages = list(dict.fromkeys(events))
    numbers = {stage: rng.sample(range(n), n) for stage in stages if (n := events.count(stage))}
    chosen = [(stage, numbers[stage].pop()) for stage in stages]
    rest = rng.sample(left := [(stage, n) for stage in stages for n in numbers[stage]], min(max(count - len(chosen), 0), len(left)))
    return sorted([*chosen, *rest], key=lambda point: (stages.index(point[0]), point[1]))


def killed_and_gone_on(runs: Runs, out: Path, deaths: Sequence[dict], wanted: dict, *options: str, frames: int = FRAMES) -> None:
    """A run that dies so often, in one folder, and is then left alone, gives what is wanted and leaves nothing else."""
    for death in deaths:
        assert runs(out, *options, frames=frames, **death)["status"] == -signal.SIGKILL or "after" in death, death
    assert runs(out, *options, frames=frames)["status"] == 0
    assert [p.name for p in out.iterdir()] == [EXCERPT.stem]
    got = content(out / EXCERPT.stem)
    assert got.keys() == wanted.keys()
    for name in wanted:
        assert got[name] == wanted[name], name


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory) -> tuple[list[str], dict]:
    """Events and files of an uninterrupted run, preset fast."""
    out = tmp_path_factory.mktemp("whole")
    answer = runs(out, "--preset", "fast")
    assert answer["status"] == 0
    return answer["events"], content(out / EXCERPT.stem)


def test_a_run_killed_in_every_stage_goes_on_to_the_same_files(runs, whole, tmp_path):
    events, wanted = whole
    stages = set(events)
    assert stages >= {"start", "landmarks", "keyframes", "frames", "npz", "glb", "overlay"}
    chosen = points(events, len(stages), seed=1)
    assert len(chosen) >= 6
    # one after the other in one folder: each goes on where the one before died
    killed_and_gone_on(runs, tmp_path / "out", [{"die_at": n} for n in chosen], wanted, "--preset", "fast")


def test_observations_are_not_looked_at_twice(runs, whole, tmp_path):
    """The frame number is told, and so is a complete pass."""
    events, wanted = whole
    look = events.count("landmarks")
    assert runs(tmp_path, "--preset", "fast", die_at=("landmarks", look // 2))["status"] == -signal.SIGKILL
    answer = runs(tmp_path, "--preset", "fast", die_at=KEYFRAMES)
    told = [int(w) for line in answer["said"] if "going on with an earlier run: the first" in line for w in line.split() if w.isdigit()]
    assert len(told) == 1 and 3 <= told[0] <= 9, answer["said"]
    looking = [sum(stage in ("landmarks", "network") for stage in told_by) for told_by in (events, answer["events"])]
    assert looking[1] < 0.8 * looking[0]  # known frames are not written again
    answer = runs(tmp_path, "--preset", "fast")
    assert any(f"all {FRAMES} frames have been looked at" in line for line in answer["said"]), answer["said"]
    assert content(tmp_path / EXCERPT.stem) == wanted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_end_a_run_in_one_line_that_says_how_to_go_on(runs, whole, tmp_path, number, code):
    _, wanted = whole
    answer = runs(tmp_path, "--preset", "fast", die_at=KEYFRAMES, signal=int(number))
    assert answer["status"] == code
    assert answer["said"] == [f"interrupted; the same command goes on from here (the work so far is in {tmp_path / f'.{EXCERPT.stem}.part'})"]
    assert [p.name for p in tmp_path.iterdir()] == [f".{EXCERPT.stem}.part"]
    if number == signal.SIGTERM:
        assert runs(tmp_path, "--preset", "fast")["status"] == 0
        assert content(tmp_path / EXCERPT.stem) == wanted and [p.name for p in tmp_path.iterdir()] == [EXCERPT.stem]


def test_another_request_is_noticed_and_explained(runs, whole, tmp_path):
    _, wanted = whole
    video = tmp_path / f"{EXCERPT.stem}.mp4"
    shutil.copy(EXCERPT, video)
    out = tmp_path / "out"
    fast = ("--preset", "fast")
    cases = [
        (fast, "the unfinished work", "preset: balanced → fast"),
        ((*fast, "--focal-px", "900"), "does not fit", "camera.focal_px: null → 900.0"),
        ((*fast, "--restart", "--focal-px", "900"), "is removed", "begins anew"),
        (fast, "does not fit", "camera.focal_px: 900.0 → null"),
    ]
    runs(out, "--preset", "balanced", video=video, die_at=("network", 20))
    for options, *words in cases:
        answer = runs(out, *options, video=video, die_at=KEYFRAMES)
        assert answer["status"] == -signal.SIGKILL and len(answer["said"]) == 1
        assert all(word in answer["said"][0] for word in words), answer["said"]
    os.utime(video, (1, 1))  # another video, for all that one can know
    answer = runs(out, *fast, video=video)
    assert len([line for line in answer["said"] if "video.changed at" in line]) == 1, answer["said"]
    assert content(out / EXCERPT.stem)["flame_params.npz"] == wanted["flame_params.npz"]


def test_damaged_work_is_begun_anew(runs, whole, tmp_path):
    _, wanted = whole
    runs(tmp_path, "--preset", "fast", die_at=KEYFRAMES)
    seen = tmp_path / f".{EXCERPT.stem}.part" / "scratch" / "observations"
    (seen / "landmarks.journal").write_bytes((seen / "landmarks.journal").read_bytes()[:20_000])
    assert runs(tmp_path, "--preset", "fast")["status"] == 0
    assert content(tmp_path / EXCERPT.stem) == wanted


def test_what_an_earlier_run_wrote_and_this_one_does_not_goes(runs, whole, tmp_path):
    assert runs(tmp_path, "--preset", "fast", "--mesh", "ply", frames=3)["status"] == 0
    result = tmp_path / EXCERPT.stem
    (result / "notes.txt").write_text("mine")
    assert (result / "meshes").is_dir() and (result / "overlay.mp4").is_file()
    assert runs(tmp_path, "--preset", "fast", "--no-overlay", frames=2)["status"] == 0
    assert sorted(p.name for p in result.iterdir()) == ["flame_params.npz", "head.glb", "notes.txt", "report.html", "summary.json"]


def test_another_video_does_not_replace_a_result_unasked(runs, whole, tmp_path):
    video = tmp_path / EXCERPT.name
    video.write_bytes(EXCERPT.read_bytes() + b"\0")
    out = tmp_path / "out"
    assert runs(out, "--preset", "fast", frames=2)["status"] == 0
    before = content(out / EXCERPT.stem)
    answer = runs(out, "--preset", "fast", video=video, frames=2)
    assert answer["status"] == 2 and len(answer["said"]) == 1
    assert "another video" in answer["said"][0] and "--restart" in answer["said"][0] and str(out / EXCERPT.stem) in answer["said"][0]
    assert content(out / EXCERPT.stem) == before and [p.name for p in out.iterdir()] == [EXCERPT.stem]
    assert runs(out, "--preset", "fast", "--restart", video=video, frames=2)["status"] == 0
    assert content(out / EXCERPT.stem)["summary.json"]["video"] != before["summary.json"]["video"]


def test_the_network_goes_on_as_if_it_had_not_been_stopped(runs, tmp_path):
    """Preset balanced: where the head is looked for, and when, comes from the frames before."""
    (tmp_path / "quick.yaml").write_text("keyframes: {count: 2}\nstages: {keyframes: {identity: {iterations: 1, rounds: 1}}}\n")
    frames, options = 6, ("--preset", "balanced", "--no-overlay", "--config", str(tmp_path / "quick.yaml"))
    answer = runs(tmp_path / "whole", *options, frames=frames)
    assert answer["status"] == 0
    wanted, events = content(tmp_path / "whole" / EXCERPT.stem), answer["events"]
    halfway = {"die_at": ("network", events.count("network") // 2)}
    killed_and_gone_on(runs, tmp_path / "out", [halfway], wanted, *options, frames=frames)


def full_disk(runs: Runs, out: Path, at: tuple[str, int], *options: str, frames: int) -> str:
    """A run whose disk is full from an event on: one line that says so and nothing left, or, where it needed no more room, the result."""
    answer = runs(out, "--quiet", *options, frames=frames, die_at=at, full=True)
    said = answer["said"]
    assert not any("Traceback" in line or "unexpected" in line for line in said), (at, said)
    if answer["status"] == 0:
        assert (out / EXCERPT.stem / "summary.json").is_file() and [p.name for p in out.iterdir()] == [EXCERPT.stem], at
        return "result"
    assert answer["status"] == 2 and len(said) == 1 and re.search("disk full|make room|free some space", said[0]), (at, answer["status"], said)
    assert list(out.iterdir()) == [], at
    return "refused"


def test_a_disk_that_is_full_in_any_stage_is_one_line_and_leaves_nothing(runs, tmp_path):
    options = ("--preset", "fast", "--export", "obj,mdd,bvh,usd" if find_spec("pxr") else "obj,mdd,bvh")
    answer = runs(tmp_path / "whole", "--quiet", *options, frames=4)
    assert answer["status"] == 0
    events = answer["events"]
    stages = list(dict.fromkeys(events))
    assert set(stages) >= {"start", "landmarks", "keyframes", "frames", "npz", "glb", "obj", "mdd", "bvh", "overlay"}
    ends = {stage: full_disk(runs, tmp_path / stage, (stage, 0), *options, frames=4) for stage in stages}
    # the last stage's beginning leaves the summary to be written, so that every stage's is too early
    assert set(ends.values()) == {"refused"}, ends


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "count", "frames"), [("fast", 40, 8), ("balanced", 12, 8), ("best", 12, 6)])
def test_a_disk_that_is_full_at_many_events(runs, tmp_path, preset, count, frames):
    options = ("--preset", preset)
    events = runs(tmp_path / "whole", "--quiet", *options, frames=frames)["events"]
    ends = [full_disk(runs, tmp_path / str(at), at, *options, frames=frames) for at in points(events, count, seed=4)]
    assert ends.count("refused") >= len(set(events)) - 1


def test_photos_go_on_to_the_same_files(runs, tmp_path):
    with av.open(str(EXCERPT)) as clip:
        pictures = [frame.to_image() for frame in itertools.islice(clip.decode(video=0), 0, 40, 10)]
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures):
        picture.crop((0, 0, picture.width - 20 * number, picture.height)).save(tmp_path / "photos" / f"{number}.jpg", quality=90)
    options = ("--photos", str(tmp_path / "photos"), "--preset", "fast")
    answer = runs(tmp_path / "whole", *options, video=None)
    assert answer["status"] == 0, answer["said"]
    wanted, events = content(tmp_path / "whole" / "photos"), answer["events"]
    assert "overlay" in events and any(name.startswith("overlay/") for name in wanted)
    for at in points(events, len(set(events)), seed=5):
        assert runs(tmp_path / "out", *options, video=None, die_at=at)["status"] == -signal.SIGKILL, at
    assert runs(tmp_path / "out", *options, video=None)["status"] == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photos"]
    assert content(tmp_path / "out" / "photos") == wanted


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "count", "frames"), [("fast", 24, MANY_FRAMES), ("balanced", 12, 16), ("best", 10, 8)])
def test_each_of_many_points_alone(runs, tmp_path, preset, count, frames):
    options = ("--preset", preset)
    answer = runs(tmp_path / "whole", *options, frames=frames)
    wanted, events = content(tmp_path / "whole" / EXCERPT.stem), answer["events"]
    for number in points(events, count, seed=2):
        killed_and_gone_on(runs, tmp_path / str(number), [{"die_at": number}], wanted, *options, frames=frames)


@pytest.mark.slow
def test_kills_at_random_times(runs, whole, tmp_path):
    """And not only between two steps of the work."""
    rng = np.random.default_rng(3)
    for number in range(10):
        deaths = [{"after": float(seconds)} for seconds in rng.uniform(0.05, 4.0, 2)]
        killed_and_gone_on(runs, tmp_path / str(number), deaths, whole[1], "--preset", "fast")
