"""``tools/track_many.py`` on real excerpts: workers that are killed, results that are there, videos that are none, Ctrl-C."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tools.track_many import ROOT, main
from tracker.cli import main as track_py
from tracker.video.packaged_clips import EXCERPT

FRAMES = 20
OPTIONS = ("--preset", "fast", "--max-frames", str(FRAMES), "--no-overlay")
POOLS = ["process", pytest.param("ray", marks=pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"))]
SECONDS = 240.0


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """What track.py writes of the excerpt."""
    out = tmp_path_factory.mktemp("alone")
    assert track_py(["--video", str(EXCERPT), "--out", str(out), "--quiet", *OPTIONS]) == 0
    return out / EXCERPT.stem


def folder_of_videos(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXCERPT, root / name)
    return root


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def same(folder: Path, other: Path) -> bool:
    return (folder / "flame_params.npz").read_bytes() == (other / "flame_params.npz").read_bytes()


def kill_when_it_looks(log: Path) -> threading.Thread:
    """Kill the process that tracks a video, once, as soon as it has begun to look at frames."""

    def watch() -> None:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            text = log.read_text() if log.exists() else ""
            if " look\n" in text:
                number = int(re.search(r"process (\d+) on", text)[1])
                assert number != os.getpid()
                os.kill(number, signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_killed_half_way_loses_nothing(pool, tmp_path, alone, capfd):
    videos, out = folder_of_videos(tmp_path / "in", "clip.mp4", "a/clip.mp4", "a/b/clip.mp4"), tmp_path / "out"
    (videos / "a" / "broken.mp4").write_bytes(b"no video at all" * 100)
    killer = kill_when_it_looks(out / "clip" / "log.txt")
    command = [str(videos), "--out", str(out), "--pool", pool, "--workers", "2", *OPTIONS]
    assert main(command) == 1
    killer.join()
    rows = table(out)
    assert list(rows) == ["a/b/clip", "a/broken", "a/clip", "clip"]
    assert {name: (row["state"], row["tries"]) for name, row in rows.items()} == {
        "a/b/clip": ("done", "1"), "a/broken": ("failed", "1"), "a/clip": ("done", "1"), "clip": ("done", "2"),
    }  # fmt: skip
    assert "broken.mp4" in rows["a/broken"]["error"] and "\n" not in rows["a/broken"]["error"]
    for name in ("a/b/clip", "a/clip", "clip"):
        assert rows[name]["frames"] == rows[name]["valid_frames"] == str(FRAMES)
        assert float(rows[name]["median_error_percent"]) < 2 and float(rows[name]["frames_per_second"]) > 0
        assert same(out / name, alone)
        assert (out / name / "log.txt").read_text().count("frames tracked") == 1
    assert (out / "clip" / "log.txt").read_text().count(", try ") == 2
    assert not list(out.rglob("*.part"))
    errors = capfd.readouterr().err
    assert "clip: the worker " in errors and "it is tried again" in errors
    assert errors.count("[4/4]") == 1 and "Traceback" not in errors

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.name != "results.csv"}
    assert main(command) == 1
    assert {name: row["state"] for name, row in table(out).items() if name != "a/broken"} == dict.fromkeys(("a/b/clip", "a/clip", "clip"), "done earlier")
    assert {path: path.stat().st_mtime_ns for path in before if path.parent.name != "broken"} == {p: t for p, t in before.items() if p.parent.name != "broken"}


def test_finished_means_of_the_same_options(tmp_path, alone):
    videos, out = folder_of_videos(tmp_path / "in", "one.mp4", "two.mp4"), tmp_path / "out"
    shutil.copytree(alone, out / "one")
    command = [str(videos), "--out", str(out), "--pool", "process", "--workers", "1", "--quiet", *OPTIONS]
    assert main(command) == 0  # what track.py wrote is a result, too
    assert {name: row["state"] for name, row in table(out).items()} == {"one": "done earlier", "two": "done"}
    assert same(out / "two", alone)
    assert main([*command, "--max-frames", "5"]) == 0
    assert {name: (row["state"], row["frames"]) for name, row in table(out).items()} == {"one": ("done", "5"), "two": ("done", "5")}
    (videos / "one.mp4").write_bytes((videos / "one.mp4").read_bytes()[:-1000] + bytes(1000))
    assert main([*command, "--max-frames", "5"]) == 1
    rows = table(out)
    assert rows["two"]["state"] == "done earlier"
    assert rows["one"]["state"] == "failed" and "another video" in rows["one"]["error"]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_interrupted_it_leaves_no_process_and_goes_on(tmp_path, alone):
    videos, out = folder_of_videos(tmp_path / "in", "one.mp4", "two.mp4"), tmp_path / "out"
    command = [sys.executable, str(ROOT / "tools" / "track_many.py"), str(videos), "--out", str(out), "--pool", "process", *OPTIONS]
    with subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.PIPE, text=True) as run:
        wait_for(lambda: (out / "one" / "summary.json").exists() and " look\n" in read(out / "two" / "log.txt"))
        children = psutil.Process(run.pid).children(recursive=True)
        assert children
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert "Traceback" not in errors
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert list(table(out)) == ["one"]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert {name: row["state"] for name, row in table(out).items()} == {"one": "done earlier", "two": "done"}
    assert same(out / "two", alone) and not list(out.rglob("*.part"))


def wait_for(condition) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "no such folder or list"),
        (["."], "no video in this folder"),
        ([".", "--workers", "0"], "--workers 0: give 1 or more"),
        ([".", "--retries", "-1"], "--retries -1: give 0 or more"),
        ([".", "--address", "auto", "--pool", "process"], "leave one of them out"),
        ([".", "--max-frames", "0"], "--max-frames 0"),
        (["list.txt", "--head", "missing.pkl"], "missing.pkl"),
        (["list.txt", "--network", "missing.safetensors"], "missing.safetensors"),
        (["list.txt", "--export", "vhap"], "format vhap"),
        (["list.txt", "--out", "list.txt/out"], "--out"),
    ],
)
def test_what_is_wrong_for_all_is_said_once(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("clip.mp4\n")
    assert main([*arguments, *(() if "--pool" in arguments else ("--pool", "process"))]) == 2
    said = capsys.readouterr().err
    assert said.startswith("track_many.py: error: ") and said.count("\n") == 1 and words in said
    assert sorted(p.name for p in tmp_path.rglob("*")) in (["list.txt"], ["list.txt", "out"])


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_ray_is_missed_only_where_it_is_asked_for(tmp_path, capsys):
    videos = folder_of_videos(tmp_path / "in", "clip.mp4")
    for asked in (("--pool", "ray"), ("--address", "ray://somewhere:10001")):
        assert main([str(videos), "--out", str(tmp_path / "out"), *asked, *OPTIONS]) == 2
        assert "Ray is not installed: pip install" in capsys.readouterr().err
