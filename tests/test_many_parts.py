"""Parts of the tool for many videos: names, the loop over a pretended pool, the tables, what runs of one process share."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tracker.errors import UserError
from tracker.many.live_table import LiveTable
from tracker.many.outcome import DONE, EARLIER, FAULT, REFUSED, Outcome, Row, write_table
from tracker.many.pools import Died, Ended, Event, Told
from tracker.many.run_many import run_many
from tracker.many.video_list import NamedVideo, find_videos
from tracker.many.video_worker import Task


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(where: Path, out: Path | None = None) -> list[str]:
    return [video.name for video in find_videos(where, out or where / "nowhere")]


def test_results_mirror_the_folder(tmp_path):
    touch(tmp_path, "clip2.mp4", "clip10.MOV", "a/clip2.mkv", "a/b/clip2.webm", "notes.txt", "a/.hidden.mp4", ".cache/x.mp4")
    assert names(tmp_path) == ["a/b/clip2", "a/clip2", "clip2", "clip10"]


def test_results_in_the_folder_are_no_videos(tmp_path):
    touch(tmp_path, "clip.mp4", "out/clip/overlay.mp4", "elsewhere/out/x.mp4")
    assert names(tmp_path, tmp_path / "out") == ["clip", "elsewhere/out/x"]


def test_no_two_results_share_a_folder(tmp_path):
    touch(tmp_path, "clip.mp4", "CLIP.mov", "other.mp4", "take.mp4", "take/meshes.mp4")
    assert sorted(names(tmp_path)) == ["CLIP.mov", "clip.mp4", "other", "take.mp4", "take/meshes"]


def test_names_of_a_list_do_not_depend_on_its_other_lines(tmp_path):
    touch(tmp_path, "data/x/clip.mp4")
    (tmp_path / "lists").mkdir()
    listing = tmp_path / "lists" / "some.txt"
    listing.write_text("# mine\n\nx/clip.mp4\n../data/x/clip.mp4\nx/clip.mp4\nframes/take.1\n", encoding="utf-8-sig")
    found = find_videos(listing, tmp_path / "out")
    outside = (tmp_path / "data" / "x" / "clip").as_posix().lstrip("/")
    assert [video.name for video in found] == ["x/clip", outside, "frames/take.1"]
    assert found[1].path == tmp_path / "data" / "x" / "clip.mp4"
    listing.write_text("../data/x/clip.mp4\n")
    assert names(listing) == [outside]


@pytest.mark.parametrize(("content", "words"), [(b"# nothing\n", "names no video"), (b"\xff\xfe\0", "cannot be read as a list"), (b"a\0b", "not a list")])
def test_what_is_no_list(content, words, tmp_path):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        find_videos(tmp_path / "list.txt", tmp_path)


class Script:
    """A pool whose workers do what is written: for each video, the outcomes of its tries, or a string to die with."""

    name = "script"

    def __init__(self, tries: dict[str, list[Outcome | str]], workers: int = 2) -> None:
        self.workers, self._tries = workers, {name: list(ends) for name, ends in tries.items()}
        self._at_work: dict[int, Task] = {}
        self.given: list[tuple[int, str, int]] = []
        self.replaced: list[int] = []

    def give(self, worker: int, task: Task) -> None:
        assert worker not in self._at_work
        self._at_work[worker] = task
        self.given.append((worker, task.video.name, task.attempt))

    def replace(self, worker: int) -> None:
        assert worker not in self._at_work
        self.replaced.append(worker)

    def wait(self, seconds: float) -> list[Event]:
        worker = min(self._at_work)
        end = self._tries[self._at_work.pop(worker).video.name].pop(0)
        return [Told(worker, "look", 1, 2), Died(worker, end) if isinstance(end, str) else Ended(worker, end)]

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        pass


GOOD = Outcome(DONE, {"frames": 2, "valid_frames": 2, "total_seconds": 1.0, "notes": ["a, b", 'c "d"']})


def run(tries: dict[str, list[Outcome | str]], out: Path, retries: int = 2) -> tuple[Script, list[Row], str]:
    pool, stream = Script(tries), io.StringIO()
    rows = run_many([Task(NamedVideo(Path(f"{name}.mp4"), name)) for name in tries], pool, out, retries, LiveTable(stream, len(tries)))
    return pool, rows, stream.getvalue()


def test_only_what_may_work_the_next_time_is_tried_again(tmp_path):
    tries = {
        "well": [GOOD], "killed once": ["the worker was killed", GOOD], "killed always": ["killed"] * 3,
        "no video": [Outcome(REFUSED, error="no video")], "fault": [Outcome(FAULT, error="unexpected"), GOOD], "earlier": [Outcome(EARLIER)],
    }  # fmt: skip
    pool, rows, said = run(tries, tmp_path)
    assert [(row.name, row.tries, row.cells()["state"]) for row in rows] == [
        ("well", 1, "done"), ("killed once", 2, "done"), ("killed always", 3, "failed"), ("no video", 1, "failed"), ("fault", 2, "done"),
        ("earlier", 1, "done earlier"),
    ]  # fmt: skip
    assert rows[2].outcome.error == "killed; given up after 3 tries"
    assert len(pool.replaced) == 1  # after the fault alone: who died is gone
    assert len(pool.given) == 10 and len(set(pool.given)) == 10
    assert said.count("it is tried again") == 4 and said.count("[6/6]") == 1
    assert "\x1b" not in said


def test_without_retries_one_try_is_all(tmp_path):
    _, rows, _ = run({"a": ["killed"], "b": [GOOD]}, tmp_path, retries=0)
    assert [row.outcome.good for row in rows] == [False, True]


def test_the_table_is_whole_after_an_interruption(tmp_path):
    class Ctrl(Script):
        def wait(self, seconds: float) -> list[Event]:
            if len(self.given) > 2:
                raise KeyboardInterrupt
            return super().wait(seconds)

    tasks = [Task(NamedVideo(Path(name), name)) for name in "abc"]
    with pytest.raises(KeyboardInterrupt):
        run_many(tasks, Ctrl({name: [GOOD] for name in "abc"}, 1), tmp_path, 2, LiveTable(io.StringIO(), 3))
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["a", "b"]


def test_cells_of_the_table(tmp_path):
    write_table(tmp_path / "t.csv", [Row("a/b", Path("x, y.mp4"), 1, GOOD), Row("c", Path("c.mp4"), 3, Outcome(FAULT, error="killed"))])
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        good, bad = csv.DictReader(file)
    assert good["video"] == "x, y.mp4" and good["notes"] == 'a, b | c "d"' and good["seconds"] == "1.0" and good["error"] == ""
    assert bad["state"] == "failed" and bad["frames"] == "" and bad["error"] == "killed"


def test_on_a_terminal_the_table_redraws_itself():
    stream = io.StringIO()
    table = LiveTable(stream, 2, terminal=True)
    task = Task(NamedVideo(Path("a.mp4"), "a"))
    table.given(0, task)
    table.told(Told(0, "look", 7, 60))
    table.tick()
    first = stream.getvalue()
    assert first.splitlines()[0].startswith("0 of 2 videos (none ready)") and first.splitlines()[1] == "    0  a  look 7/60"
    table.ended(0, Row("a", Path("a.mp4"), 1, GOOD))
    later = stream.getvalue()[len(first) :]
    assert later.startswith("\x1b[2A\x1b[J[1/2] a: done: 2 of 2 frames")
    table.close()
    assert stream.getvalue().endswith("\x1b[1A\x1b[J")
