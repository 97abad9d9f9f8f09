"""Where the program leaves files: its results, its cache folder, and nowhere else; the cache has a limit."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from flame_assets import user_cache
from flame_assets.user_cache import note_use, trim_cache
from tests.hostile_cases import listing
from tracker.video.packaged_clips import EXCERPT

ROOT = Path(__file__).resolve().parent.parent


def fresh(place: Path) -> dict[str, str]:
    """An environment with an empty home and an empty temporary folder."""
    for name in ("home", "tmp"):
        (place / name).mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XDG_") and k not in ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")}
    return kept | {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(ROOT)}


@pytest.mark.skipif(sys.platform != "linux", reason="the places are Linux's")
@pytest.mark.parametrize("preset", ["fast", pytest.param("balanced", marks=pytest.mark.all_inputs(reason="converts the network"))])
def test_a_first_run_leaves_its_result_and_its_cache(tmp_path, preset):
    (tmp_path / "work").mkdir()
    command = [sys.executable, str(ROOT / "track.py"), "--video", str(EXCERPT), "--max-frames", "3", "--preset", preset, "--quiet", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path / "work", env=fresh(tmp_path), capture_output=True, timeout=600)
    assert done.returncode == 0 and done.stdout == done.stderr == b"", done.stderr
    assert {p.name for p in (tmp_path / "work").iterdir()} == {"out"}
    assert listing(tmp_path / "tmp") == set()
    outside = {f for f in listing(tmp_path / "home") if not f.startswith(".cache/densemarks-tracker")} - {".cache"}
    assert outside == set()


@pytest.mark.skipif(sys.platform != "linux", reason="the places are Linux's")
@pytest.mark.parametrize("pool", ["process", pytest.param("ray", marks=pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"))])
def test_workers_leave_nothing_either(tmp_path, pool):
    (tmp_path / "list.txt").write_text(f"{EXCERPT}\n")
    (tmp_path / "work").mkdir()
    command = [sys.executable, str(ROOT / "tools" / "track_many.py"), str(tmp_path / "list.txt"), "--max-frames", "3", "--preset", "fast"]
    command += ["--quiet", "--pool", pool, "--workers", "1", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path / "work", env=fresh(tmp_path), capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "work").iterdir()} == {"out"}
    assert listing(tmp_path / "tmp") == set()
    assert {f for f in listing(tmp_path / "home") if not f.startswith(".cache/densemarks-tracker")} - {".cache"} == set()


SLOW = pytest.mark.all_inputs(reason="a whole run, like its neighbours")


@pytest.mark.skipif(sys.platform != "linux", reason="shell redirections, and what cannot be written by anybody")
@pytest.mark.parametrize(
    ("changes", "redirection"),
    [
        ({"HOME": "/dev/null/nobody"}, ">/dev/full"),  # a home that nobody can write, not even the superuser
        ({"HOME": None}, "2>&1 | head -1"),
        pytest.param({"HOME": "/dev/null/nobody", "XDG_CACHE_HOME": "/dev/null/x", "PYTHONIOENCODING": "ascii"}, "2>&-", marks=SLOW),
        pytest.param({"HOME": "", "PYTHONIOENCODING": "cp1251"}, "", marks=SLOW),
        pytest.param({"HOME": "/proc", "PYTHONIOENCODING": "cp437"}, "2>/dev/full", marks=SLOW),
        pytest.param({"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}, ">&- 2>&-", marks=SLOW),
        pytest.param({"HOME": "/dev/null/nobody", "TERM": "dumb"}, "| head -1", marks=SLOW),
    ],
)
def test_whole_runs_in_odd_environments(tmp_path, changes, redirection):
    """Whatever the home, the terminal and its reader are like, the result is complete, and nothing else is left."""
    environment = fresh(tmp_path)
    for name, value in changes.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    if "HOME" in changes and not changes["HOME"]:  # the user's own is then looked up
        environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    (tmp_path / "work").mkdir()
    command = f"{sys.executable} {ROOT / 'track.py'} --video {EXCERPT} --max-frames 3 --preset fast --out out {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path / "work", env=environment, capture_output=True, timeout=600)
    assert done.returncode == 0, (done.stdout, done.stderr)
    for word in (b"Traceback", b"unexpected", b"telemetry", b"Exception", b"BrokenPipe"):
        assert word not in done.stderr + done.stdout, done.stderr + done.stdout
    assert {p.name for p in (tmp_path / "work").iterdir()} == {"out"} and os.listdir(tmp_path / "work" / "out") == [EXCERPT.stem]
    assert (tmp_path / "work" / "out" / EXCERPT.stem / "summary.json").is_file()
    assert listing(tmp_path / "tmp") == set()
    assert {f for f in listing(tmp_path / "home") if not f.startswith(".cache/densemarks-tracker")} - {".cache"} == set()


def test_a_library_user_gets_no_file_outside_the_temporary_folder(tmp_path):
    """Matplotlib's and torch's own folders are left to the process whose they are."""
    code = "from flame_assets.load import load_head; from tracker.settings import load_settings; load_head(); load_settings('best')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=fresh(tmp_path), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert listing(tmp_path / "home") == set()


@pytest.fixture()
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(user_cache, "user_cache_path", lambda *a, **k: tmp_path / "densemarks-tracker")
    return tmp_path / "densemarks-tracker"


def put(path: Path, size: int, used: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def test_what_was_used_least_recently_goes_first_and_parts_go_together(cache):
    old = [put(cache / "networks" / f"old{end}", 400, used) for end, used in ((".xml", 10), (".bin", 20))]
    head, clip = put(cache / "heads" / "a.npz", 300, 30), put(cache / "clip.mp4", 300, 15)
    note_use(clip)
    new = [put(cache / "networks" / f"new{end}", 500, 5) for end in (".bin", ".xml")]
    trim_cache(new[1], limit=2400)
    assert all(f.is_file() for f in (*old, head, clip, *new))
    trim_cache(new[1], limit=1700)
    assert not any(f.exists() for f in old) and all(f.is_file() for f in (head, clip, *new))
    trim_cache(new[1], limit=1300)
    assert not head.exists() and clip.is_file() and all(f.is_file() for f in new)
    trim_cache(new[1], limit=0)
    assert not clip.exists() and all(f.is_file() for f in new)


def test_files_elsewhere_are_nobodys_to_remove(cache, tmp_path):
    kept, elsewhere = put(cache / "heads" / "a.npz", 300, 1), put(tmp_path / "mine" / "b.npz", 300, 2)
    trim_cache(elsewhere, limit=0)
    assert kept.is_file() and elsewhere.is_file()
    link = cache / "heads" / "link.npz"
    link.symlink_to(elsewhere)
    trim_cache(put(cache / "heads" / "new.npz", 10, 3), limit=0)
    assert elsewhere.is_file() and not kept.exists()
