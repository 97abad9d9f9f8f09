"""Running the program on one bad or unusual input: a result, or one clear line, and nothing left behind."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tracker.cli import main

NOBODY = 65534
SECONDS = 120
"""After which a case counts as hanging. Most take a fraction of a second; the limit is for slow machines."""


@dataclass(frozen=True)
class Case:
    """An input that may break something.

    Attributes:
        name: in the test's id.
        make: writes files into a folder and returns the program's arguments, without ``--out``.
        said: what the error's line says; "" for any line, or a result.
        works: whether there must be a result (True), or an error (False); None for either.
        reason: why it is left out unless ``--all-inputs`` is given; "" when it always runs.
        unprivileged: run without the superuser's rights.
    """

    name: str
    make: Callable[[Path], list[str]]
    said: str = ""
    works: bool | None = None
    reason: str = ""
    unprivileged: bool = False
    preset: str = "fast"
    out: str = "out"
    shared: dict = field(default_factory=dict)


def parameters(cases: list[Case]) -> list:
    """Cases as pytest's parameters; names are unique."""
    assert len({c.name for c in cases}) == len(cases), "two cases of one name"
    return [pytest.param(c, id=c.name, marks=[pytest.mark.all_inputs(reason=c.reason)] if c.reason else []) for c in cases]


class Hangs(BaseException):
    """No ``Exception``, so that the program does not catch it."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise :class:`Hangs` in the main thread after so long, where the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Hangs(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def unprivileged(wanted: bool) -> Iterator[None]:
    """Without the superuser's rights meanwhile; nothing changes for others, who never had them."""
    if not wanted or not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    for codec in ("cp437", "utf-8-sig", "idna"):  # Python's own files may not be for everybody to read
        "".encode(codec)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def listing(folder: Path) -> set[str]:
    """Everything below a folder, by name."""
    found = set()
    for place, folders, files in os.walk(folder):
        found |= {os.path.relpath(os.path.join(place, n), folder) for n in (*folders, *files)}
    return found


def check(case: Case, folder: Path, capture: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a case and check what it leaves; returns the error's line, "" where there was a result."""
    places = {n: folder / n for n in ("input", "elsewhere", "tmp")}
    for place in places.values():
        place.mkdir()
        place.chmod(0o777)
    folder.chmod(0o755)
    for parent in folder.parents[:3]:
        parent.chmod(0o755) if parent != Path(tempfile.gettempdir()) else None
    arguments = case.make(places["input"])
    before = listing(places["input"])
    monkeypatch.chdir(places["elsewhere"])
    monkeypatch.setattr(tempfile, "tempdir", str(places["tmp"]))
    out = folder / case.out
    out.parent.mkdir(exist_ok=True)
    (folder / "out").mkdir(exist_ok=True) if case.unprivileged else None
    (folder / "out").chmod(0o777) if case.unprivileged else None
    capture.readouterr()
    with time_limit(SECONDS), unprivileged(case.unprivileged):
        try:
            code = main([*arguments, "--preset", case.preset, "--out", str(out), "--quiet"])
        except SystemExit as stop:  # of the options' parser, which prints its own line
            code = int(stop.code or 0)
    printed, said = capture.readouterr()
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if ": error: " in line]
    assert code in (0, 2), (code, said)
    assert "Traceback" not in said and "unexpected" not in said, said
    notes = [line for line in lines if not line.startswith("note:")]
    if code == 0:
        assert not notes, said
        assert case.works is not False, f"there is a result: {listing(out)}"
        assert (next(out.iterdir()) / "summary.json").is_file() and len(list(out.iterdir())) == 1
        assert not any(".part" in n for n in listing(out)), listing(out)
    else:
        assert case.works is not True, said
        assert len(errors) == 1 and notes == errors and len(errors[0]) < 700, said
        assert case.said in errors[0], errors[0]
        assert not out.is_dir() or not listing(out), listing(out)
    assert not printed, printed
    assert listing(places["input"]) == before
    assert listing(places["elsewhere"]) | listing(places["tmp"]) == set()
    return errors[0] if errors else ""
