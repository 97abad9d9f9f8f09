"""Results appear complete or not at all."""

from __future__ import annotations

import os

import pytest

from tracker.errors import UserError
from tracker.workspace import result_folder


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


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere; run as an ordinary user")
def test_read_only_folder_is_a_user_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="--out"), result_folder(tmp_path / "out", "clip"):
        pass
