"""Places where results cannot go: one clear line before any work, and nothing of anybody's is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile_cases import listing, time_limit, unprivileged
from tracker.cli import main
from tracker.video.packaged_clips import EXCERPT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, devices and permissions of POSIX")

NAME = EXCERPT.stem


def run(out: Path, video: Path = EXCERPT, nobody: bool = False) -> int:
    with time_limit(120), unprivileged(nobody):
        return main(["--video", str(video), "--out", str(out), "--max-frames", "2", "--preset", "fast", "--no-overlay", "--quiet"])


def refused(out: Path, said: str, capfd: pytest.CaptureFixture, **more) -> None:
    """The run ends with this line, and what was in the folder's parent is still there and nothing else."""
    before = listing(out.parent) if os.path.isdir(out.parent) and out.parent != Path("/dev") else None
    capfd.readouterr()
    assert run(out, **more) == 2
    printed, error = capfd.readouterr()
    assert not printed and error.count("\n") == 1 and said in error and "unexpected" not in error and len(error) < 700, error
    assert before is None or listing(out.parent) == before


PLACES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a file": (lambda f: (f / "out").write_text("mine"), "out", "is a file, and no folder"),
    "under a file": (lambda f: (f / "file").write_text("mine"), "file/out", "cannot be written (Not a directory)"),
    "a link to itself": (lambda f: (f / "out").symlink_to(f / "out"), "out", "is a link to itself"),
    "a link to nothing": (lambda f: (f / "out").symlink_to(f / "none"), "out", "is a link to nothing"),
    "a pipe": (lambda f: os.mkfifo(f / "out"), "out", "is a device or a pipe"),
    "a long name": (lambda f: None, "o" * 300, "File name too long"),
    "a long path": (lambda f: None, "/".join(["p" * 200] * 30), "File name too long"),
    "the result's a file": (lambda f: ((f / "out").mkdir(), (f / "out" / NAME).write_text("mine")), "out", f"{NAME} is a file"),
    "the result's a link to itself": (lambda f: ((f / "out").mkdir(), (f / "out" / NAME).symlink_to(NAME)), "out", f"{NAME} is a link to itself"),
    "the result's a link to nothing": (lambda f: ((f / "out").mkdir(), (f / "out" / NAME).symlink_to("none")), "out", f"{NAME} is a link to nothing"),
    "the work's a file": (lambda f: ((f / "out").mkdir(), (f / "out" / f".{NAME}.part").write_text("mine")), "out", "is in the way"),
    "the work's a link to itself": (lambda f: ((f / "out").mkdir(), (f / "out" / f".{NAME}.part").symlink_to(f".{NAME}.part")), "out", "is in the way"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_what_is_in_the_way_is_named(tmp_path, capfd, place):
    make, out, said = PLACES[place]
    make(tmp_path)
    refused(tmp_path / out, said, capfd)


def test_devices_are_no_folders(capfd):
    refused(Path("/dev/null"), "is a device", capfd)
    refused(Path("/dev/null/out"), "cannot be written", capfd)


def test_a_link_in_the_place_of_the_work_takes_nobody_elses_files_away(tmp_path, capfd):
    """Work that does not fit is removed; what a link leads to must not be taken for it."""
    (tmp_path / "mine" / "scratch").mkdir(parents=True)
    (tmp_path / "mine" / "scratch" / "thesis.txt").write_text("all of it")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".{NAME}.part").symlink_to(tmp_path / "mine")
    refused(tmp_path / "out", "is in the way", capfd)
    assert (tmp_path / "mine" / "scratch" / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize("where", ["out", "out/deeper", "a result"])
def test_read_only_folders(tmp_path, capfd, where):
    out = tmp_path / "out"
    (out / NAME).mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    (out / NAME).chmod(0o555)
    out.chmod(0o777 if where == "a result" else 0o555)
    try:
        refused(out / "deeper" if where == "out/deeper" else out, "cannot be written", capfd, nobody=True)
    finally:
        out.chmod(0o777)


@pytest.mark.parametrize("name", ["n" * 240, "ü" * 115, "n" * 251])
def test_long_names_of_videos(tmp_path, capfd, name):
    """A folder's name may have 255 bytes; that of the unfinished work is six longer than the video's."""
    shutil.copy(EXCERPT, tmp_path / f"{name}.mp4")
    if len(name) > 250:
        (tmp_path / "out").mkdir()
        refused(tmp_path / "out", "the name of the video is too long", capfd, video=tmp_path / f"{name}.mp4")
    else:
        assert run(tmp_path / "out", tmp_path / f"{name}.mp4") == 0
        assert os.listdir(tmp_path / "out") == [name] and (tmp_path / "out" / name / "summary.json").is_file()
