"""Files appear under their name whole or not at all."""

from __future__ import annotations

import pytest

from flame_assets.atomic_files import atomic_file


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "result.png"
    path.write_text("before")
    with atomic_file(path) as staged:
        staged.write_text("after")
        assert staged.suffix == ".png" and path.read_text() == "before"
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_nothing_and_spares_what_was_there(tmp_path):
    path = tmp_path / "result.png"
    path.write_text("before")
    with pytest.raises(RuntimeError), atomic_file(path) as staged:
        staged.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_two_that_write_the_same_file_do_not_meet(tmp_path):
    path = tmp_path / "result.png"
    with atomic_file(path) as first:
        first.write_text("one")
        with atomic_file(path) as second:
            second.write_text("two")
        assert path.read_text() == "two"
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
