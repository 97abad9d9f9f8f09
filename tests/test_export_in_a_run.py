"""Formats asked for with a run: what cannot be written is said before the run, not after it."""

from __future__ import annotations

from pathlib import Path

import pytest

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
