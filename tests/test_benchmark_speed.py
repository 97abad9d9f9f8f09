"""The speed suite: whole runs as processes of their own, in units of a matrix product."""

from __future__ import annotations

import pytest

from flame_assets.load import load_head
from tests.make_clips import picture, write_clip
from tracker.errors import UserError
from tracker.evaluation.speed_suite import speed_lines, speed_scores, yardstick
from tracker.video.packaged_clips import EXCERPT


def test_a_run_is_timed_from_its_start_to_its_end(tmp_path):
    scores = speed_scores(EXCERPT, load_head(), ["fast"], tmp_path, repeats=1)
    run, alone = scores["runs"]["fast"], scores["mediapipe"]
    assert run["frames"] == alone["frames"] > 10
    assert run["seconds"] > sum(run["stages"].values()) and run["processor_seconds"] > 1
    for figures in (run, alone):
        assert figures["yardsticks_per_frame"] == pytest.approx(figures["seconds"] / figures["yardstick_seconds"] / figures["frames"])
    assert 0.1 < scores["solver_ms_per_frame"] < 1000
    text = "\n".join(speed_lines(scores))
    assert "| whole runs | fast | MediaPipe alone |" in text and "| overlay, seconds |" in text


def test_a_run_that_fails_is_no_measurement(tmp_path):
    clip = write_clip(tmp_path / "room.mp4", [picture(i) for i in range(3)])
    with pytest.raises(UserError, match="no face"):
        speed_scores(clip, load_head(), ["fast"], tmp_path, repeats=1)


def test_the_yardstick_is_a_time():
    assert 1e-4 < yardstick() < 60
