"""Results appear complete or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tracker.errors import UserError
from tracker.folder_lock import FolderLock
from tracker.interrupts import Interrupted, interruptible
from tracker.workspace import differences, listed_outputs, result_folder


def test_results_appear_and_scratch_vanishes(tmp_path):
    with result_folder(tmp_path / "out", "clip") as (staging, scratch):
        (staging / "a.txt").write_text("new")
        (staging / "meshes").mkdir()
        (staging / "meshes" / "0.ply").write_text("ply")
        (scratch / "big.bin").write_text("scratch")
        assert not (tmp_path / "out" / "clip").exists()
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == ["0.ply", "a.txt", "clip", "meshes"]


def test_failure_leaves_the_earlier_result_untouched(tmp_path):
    earlier = tmp_path / "out" / "clip"
    earlier.mkdir(parents=True)
    (earlier / "a.txt").write_text("earlier")
    with pytest.raises(RuntimeError), result_folder(tmp_path / "out", "clip") as (staging, _):
        (staging / "a.txt").write_text("half")
        raise RuntimeError
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["clip"]
    assert (earlier / "a.txt").read_text() == "earlier"


def test_a_second_run_replaces_files_and_folders(tmp_path):
    for round_ in ("first", "second"):
        with result_folder(tmp_path, "clip") as (staging, _):
            (staging / "a.txt").write_text(round_)
            (staging / "meshes").mkdir()
            (staging / "meshes" / f"{round_}.ply").write_text("")
    assert (tmp_path / "clip" / "a.txt").read_text() == "second"
    assert [p.name for p in (tmp_path / "clip" / "meshes").iterdir()] == ["second.ply"]


def test_unwritable_places_are_user_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"), result_folder(tmp_path / "file", "clip"):
        pass
    (tmp_path / "clip").write_text("")
    with pytest.raises(UserError, match="is a file"), result_folder(tmp_path, "clip"):
        pass


def work_in(out, wanted, said, *, ends=True, content="work", **options) -> list[str]:
    """A run that leaves something in scratch; returns what it found there."""
    try:
        with result_folder(out, "clip", wanted, say=said.append, **options) as (staging, scratch):
            found = sorted(p.read_text() for p in scratch.iterdir())
            (scratch / "seen").write_text(content)
            (staging / "a.txt").write_text("result")
            if not ends:
                raise Interrupted
    except Interrupted as error:
        assert error.kept == out / ".clip.part" and error.exit_code == 130
    return found


def test_work_of_the_same_run_is_found_again_and_goes_when_it_is_done(tmp_path):
    said = []
    assert work_in(tmp_path, {"a": 1, "b": (1, 2)}, said, ends=False) == []
    assert [p.name for p in tmp_path.iterdir()] == [".clip.part"]
    (tmp_path / ".clip.part" / "results" / "half.npz").write_text("half")
    assert work_in(tmp_path, {"a": 1, "b": (1, 2)}, said) == ["work"]
    assert said == []
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "clip"]
    assert work_in(tmp_path, {"a": 1, "b": (1, 2)}, said) == []


@pytest.mark.parametrize(
    ("wanted", "options", "words"),
    [
        ({"video": {"name": "b.mp4"}, "preset": "fast"}, {}, ["video.name: a.mp4 → b.mp4", "does not fit"]),
        ({"video": {"name": "a.mp4"}, "preset": "best", "new": 1}, {}, ["preset: fast → best, new: null → 1"]),
        ({"video": {"name": "a.mp4"}, "preset": "fast"}, {"restart": True}, ["begins anew"]),
        (None, {}, ["begins anew"]),
    ],
)
def test_work_of_another_run_is_told_and_removed(tmp_path, wanted, options, words):
    said = []
    work_in(tmp_path, {"video": {"name": "a.mp4"}, "preset": "fast"}, said, ends=False)
    assert work_in(tmp_path, wanted, said, **options) == []
    assert len(said) == 1 and "\n" not in said[0] and str(tmp_path / ".clip.part") in said[0]
    assert all(word in said[0] for word in words), said


@pytest.mark.parametrize("note", [None, "", "[]", '{"belongs_to": 3}', "{" * 5000])
def test_work_without_readable_notes_is_told_and_removed(tmp_path, note):
    said = []
    work_in(tmp_path, {"a": 1}, said, ends=False)
    about = tmp_path / ".clip.part" / "work.json"
    about.unlink() if note is None else about.write_text(note)
    assert work_in(tmp_path, {"a": 1}, said) == []
    assert len(said) == 1 and "cannot be read" in said[0]


def test_two_runs_into_one_folder_do_not_share_their_work(tmp_path):
    """Both end well; the one that came second is told that it is not alone."""
    said = []
    with result_folder(tmp_path, "clip", {"a": 1}) as (staging, scratch):
        (scratch / "seen").write_text("first")
        (staging / "a.txt").write_text("first")
        with result_folder(tmp_path, "clip", {"a": 1}, say=said.append) as (other, scratch):
            assert not list(scratch.iterdir())
            (other / "a.txt").write_text("second")
            third = []
            work_in(tmp_path, {"a": 1}, third)  # takes neither's folder away
            assert len(third) == 1 and other.is_dir() and staging.is_dir()
        assert (tmp_path / "clip" / "a.txt").read_text() == "second"
    assert len(said) == 1 and "another run" in said[0]
    assert (tmp_path / "clip" / "a.txt").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_a_run_beside_another_one_keeps_nothing_when_it_is_interrupted(tmp_path):
    with result_folder(tmp_path, "clip", {"a": 1}):
        with pytest.raises(Interrupted) as error, result_folder(tmp_path, "clip", {"a": 1}) as (_, scratch):
            (scratch / "seen").write_text("")
            raise Interrupted
        assert error.value.kept is None
        assert [p.name for p in tmp_path.iterdir()] == [".clip.part"]


def test_folders_that_dead_runs_left_are_removed_and_told(tmp_path):
    """Those of the version before this one, and of runs beside others; not those of results with longer names."""
    for name in (".clip-ab_cd123.part/scratch", ".clip-0123abcd.part/results", ".clip-x.part/scratch", ".clip-somebody.part/else"):
        (tmp_path / name).mkdir(parents=True)
    longer = tmp_path / ".clip-longname.part"
    longer.mkdir()
    (longer / "work.json").write_text(json.dumps({"name": "clip-longname"}))
    said = []
    work_in(tmp_path, {"a": 1}, said)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".clip-longname.part", ".clip-somebody.part", ".clip-x.part", "clip"]
    assert len(said) == 2 and all("left behind" in line for line in said)


def test_what_an_earlier_run_listed_goes_and_what_others_put_there_stays(tmp_path):
    with result_folder(tmp_path, "clip") as (staging, _):
        for name in ("a.txt", "old.mp4", "summary.json"):
            (staging / name).write_text("")
        (staging / "meshes").mkdir()
        (tmp_path / "mine.txt").write_text("")
        (staging / "summary.json").write_text(json.dumps({"files": ["a.txt", "old.mp4", "meshes/", "../mine.txt", "..", "", 3, "gone.png"]}))
    (tmp_path / "clip" / "notes.txt").write_text("")
    assert listed_outputs(tmp_path / "clip") == ["a.txt", "old.mp4", "meshes", "gone.png"]
    with result_folder(tmp_path, "clip") as (staging, _):
        (staging / "a.txt").write_text("new")
        (staging / "summary.json").write_text(json.dumps({"files": ["a.txt", "summary.json"]}))
    assert sorted(p.name for p in (tmp_path / "clip").iterdir()) == ["a.txt", "notes.txt", "summary.json"]
    assert (tmp_path / "mine.txt").exists()


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tracker.folder_lock import FolderLock\n"
        "lock = FolderLock.take(Path(sys.argv[1]))\nprint(lock is not None, flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "True\n"
    assert FolderLock.take(tmp_path) is None
    other.kill()
    other.wait()
    lock = FolderLock.take(tmp_path)
    assert lock is not None and FolderLock.take(tmp_path) is None
    lock.release()
    assert FolderLock.take(tmp_path) is not None


@pytest.mark.skipif(os.name != "posix", reason="other systems have other signals")
def test_signals_raise_and_ignored_ones_do_not():
    code = (
        "import os, signal\nfrom tracker.interrupts import Interrupted, interruptible\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as nohup does
        "before = signal.getsignal(signal.SIGTERM)\n"
        "try:\n with interruptible():\n  os.kill(os.getpid(), signal.SIGHUP)\n  os.kill(os.getpid(), signal.SIGTERM)\n  signal.pause()\n"
        "except Interrupted as error: print(error.exit_code, signal.getsignal(signal.SIGTERM) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "143 True\n", done.stderr
    with interruptible(), interruptible():
        pass


def test_differences_are_told_by_dotted_names():
    assert differences({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "e": "x"}) == ["a.c: 2 → 3", "d: [1] → null", "e: null → x"]
    assert differences({"a": 1}, {"a": 1}) == []
    assert len(differences({"a": "y" * 500}, {"a": 1})[0]) < 100


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere; run as an ordinary user")
def test_read_only_folder_is_a_user_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="--out"), result_folder(tmp_path / "out", "clip"):
        pass
