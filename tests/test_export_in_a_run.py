"""Formats asked for with a run: what cannot be written is said before the run, not after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_assets.asset import save_npz
from tests.heads import flame_sized_head
from tests.tracks import filmed_track
from tracker import run_to_folder
from tracker.errors import UserError
from tracker.pipeline import Request
from tracker.settings import load_settings


@pytest.mark.parametrize("name", ["vhap", "metrical-tracker", "pixel3dmm"])
def test_a_format_that_cannot_hold_the_head_does_not_cost_the_run(name, tmp_path, monkeypatch):
    monkeypatch.setattr(run_to_folder, "run", lambda *_, **__: pytest.fail("the run began"))
    request = Request(Path("clip.mp4"), load_settings("fast"), "fast")
    with pytest.raises(UserError, match=f"format {name}: it cannot hold the head 'anny-head-1'"):
        run_to_folder.track_to_folder(request, tmp_path / "out", formats=(name,))
    assert not (tmp_path / "out").exists()


def test_a_head_that_is_none_is_one_line(tmp_path):
    request = Request(Path("clip.mp4"), load_settings("fast"), "fast", head=tmp_path / "missing.pkl")
    with pytest.raises(UserError, match=r"missing\.pkl: no such head file"):
        run_to_folder.track_to_folder(request, tmp_path / "out", formats=("vhap",))


@pytest.mark.parametrize("centred", [True, False])
def test_a_format_that_cannot_hold_the_camera_does_not_cost_the_run(centred, tmp_path, monkeypatch):
    """VHAP's files have the principal point in the middle; OpenCV's matrix puts that half a pixel earlier."""
    head = flame_sized_head()
    save_npz(head, tmp_path / "head.npz")
    filmed_track(head, tmp_path / "frames", 2)
    (tmp_path / "K.txt").write_text(f"700 0 {319.5 if centred else 324.5}\n0 700 179.5\n0 0 1\n")

    def began(*_, **__):
        raise RuntimeError("the run began")

    monkeypatch.setattr(run_to_folder, "run", began)
    request = Request(tmp_path / "frames", load_settings("fast"), "fast", head=tmp_path / "head.npz", intrinsics=tmp_path / "K.txt")
    expected = pytest.raises(RuntimeError) if centred else pytest.raises(UserError, match=r"format vhap: .*\(320, 180\).*\(325, 180\)")
    with expected:
        run_to_folder.track_to_folder(request, tmp_path / "out", formats=("vhap",))
    assert centred or not (tmp_path / "out").exists()
