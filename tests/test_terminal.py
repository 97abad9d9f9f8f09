"""The program at odd terminals: characters they lack, readers that leave, streams that are closed, Ctrl-C at once."""

from __future__ import annotations

import builtins
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tracker.cli import main
from tracker.terminal import lasting_output
from tracker.video.packaged_clips import EXCERPT

ROOT = Path(__file__).resolve().parent.parent
# prints as the program does, without the seconds that a run takes
PRINTS = (
    "import sys; from tracker.terminal import lasting_output\n"
    "with lasting_output():\n"
    "    for i in range(20000): print('median error 1.2 % × …'); print('note', file=sys.stderr)\n"
    "    open('done.txt', 'w').write('to the end')\n"
)


def program(*arguments: str, **options) -> subprocess.CompletedProcess:
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, timeout=120, **options)


@pytest.mark.parametrize("encoding", ["ascii", "cp1251", "cp437", "cp850", "cp932"])
def test_terminals_that_lack_a_character(encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    for arguments in (("--help",), ("--video", "no such füm.mp4")):
        done = program("track.py", *arguments, env=environment)
        assert done.returncode in (0, 2) and b"Traceback" not in done.stderr
    assert b"OpenCV camera matrix" in program("track.py", "--help", env=environment).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="shell redirections of POSIX")
@pytest.mark.parametrize("redirection", ["| head -1", ">/dev/full", ">&-", "2>&-", ">&- 2>&-", "2>/dev/full >/dev/null", "2>&1 | head -1"])
def test_output_that_nobody_takes_does_not_stop_the_work(tmp_path, redirection):
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    command = f"{sys.executable} prints.py {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done.txt").read_text() == "to the end"
    assert b"BrokenPipe" not in done.stderr and b"Traceback" not in done.stderr and b"Exception" not in done.stderr


def test_streams_are_given_back():
    before = sys.stdout, sys.stderr
    with lasting_output():
        print("printed")
    assert (sys.stdout, sys.stderr) == before


def test_help_and_mistakes_need_no_heavy_library():
    """They take a tenth of a second; torch alone takes two."""
    code = (
        "import sys\nfrom tracker.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "for more in ([], ['--max-frames', '0']): assert main(['--video', 'x.mp4', *more]) == 2\n"
        "sys.exit(' '.join({'torch', 'numba', 'cv2', 'av', 'numpy', 'mediapipe'} & set(sys.modules)) or 0)"
    )
    done = program("-c", code)
    assert done.returncode == 0, done.stderr.decode()


def test_a_network_that_nothing_would_use_is_named(capsys, tmp_path):
    (tmp_path / "marks.yaml").write_text(
        "stages: {keyframes: {whole head: null, pose: {cues: [landmarks]}, face: {cues: [landmarks]}}, windows: {frames: {cues: [landmarks]}}, tied: {faces: null}}\n"
    )
    for more in (("--preset", "fast"), ("--config", str(tmp_path / "marks.yaml"))):
        assert main(["--video", str(EXCERPT), "--network", "mine.safetensors", *more]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "uses no network" in error and "mine.safetensors" in error


def test_ctrl_c_while_libraries_load_is_quiet(monkeypatch, capsys, tmp_path):
    (tmp_path / "any.mp4").write_bytes(b"no video, but not empty either")
    original = builtins.__import__

    def interrupted(name, *arguments, **options):
        if name.startswith("tracker.pipeline"):
            raise KeyboardInterrupt
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert main(["--video", str(tmp_path / "any.mp4")]) == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "interrupted" in error


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="terminals are made up here")
def test_a_terminal_shows_at_once_that_something_happens(tmp_path):
    """Before the libraries are loaded, which takes seconds: what is shown first does not need them."""
    import fcntl
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # rows and columns, or a bar has no room
    run = "import sys; from tracker.cli import main; sys.meta_path.insert(0, type('No', (), {'find_spec': staticmethod(find)})()); main()"
    refuse = "def find(name, path=None, target=None):\n    if name == 'torch': raise SystemExit(7)\n"
    command = [sys.executable, "-c", refuse + run, "--video", str(EXCERPT), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, stderr=theirs, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    shown = os.read(ours, 100)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 7 and shown.strip().startswith(b"start:")
