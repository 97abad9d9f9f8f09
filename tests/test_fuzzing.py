"""What the program reads of other origin, damaged at random: a result or one clear line, never long, never large.

``pytest tests/test_fuzzing.py --fuzz-seconds 600`` spends so long on them all together, each time on other files; without it a few of each kind are
tried, the same ones each time.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="extra test")
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from densemarks_model.errors import ModelError
from densemarks_model.loading import load_network, network_cube, speaks_default_cube
from flame_assets.asset import AssetError, HeadAsset, load_npz
from flame_assets.checks import check_head
from flame_assets.flame_files import find_flame_files, read_flame
from flame_assets.restricted_pickle import load_npy
from tests import fuzzed_files as files
from tests.heads import tiny_head
from tests.hostile_cases import Hangs, time_limit
from tracker.camera import focal_prior
from tracker.errors import UserError
from tracker.export.flame_params import load_track
from tracker.importing.registry import import_track
from tracker.settings import load_settings

SECONDS, BYTES = 5.0, 2_000_000_000
FEW, ROUND = 60, 400
CLEAR = (AssetError, ModelError, UserError)


head = cache(tiny_head)


class Content(bytes):
    """Of a file. Failing ones are told of by their beginning: some have a megabyte."""

    def __repr__(self) -> str:
        return f"{len(self)} bytes, {bytes(self[:200])!r} …"


def read_flame_file(path: Path) -> HeadAsset:
    head = read_flame(find_flame_files(path))
    check_head(head, path)
    return head


def read_network(path: Path) -> None:
    load_network(path)
    network_cube(path), speaks_default_cube(path)


READERS: dict[str, tuple[str, Callable[[], st.SearchStrategy[bytes]], Callable[[Path], object]]] = {
    "flame": ("flame.pkl", files.pickles, read_flame_file),
    "landmark-npy": ("a.npy", lambda: st.one_of(files.npy_claiming(), files.strange_arrays().map(files.npy), files.pickles().map(b"\x93NUMPY\x01\0v\0".__add__)),
                     lambda path: load_npy(path.read_bytes(), str(path))),
    "head": ("head.npz", lambda: files.archives(files.head_file()), load_npz),
    "network": ("net.safetensors", files.networks, read_network),
    "config": ("mine.yaml", files.settings_files, lambda path: load_settings("balanced", path)),
    "track": ("track.npz", lambda: files.archives(files.track_file()), load_track),
    "vhap": ("track.npz", lambda: files.archives(files.vhap_file()), lambda path: import_track(path, head(), "vhap")),
    "camera-text": ("k.txt", files.camera_texts, lambda path: focal_prior(640, 360, None, None, path)),
    "camera-npy": ("k.npy", files.camera_arrays, lambda path: focal_prior(640, 360, None, None, path)),
}  # fmt: skip
"""By name: how the file is called, what is in it, what reads it."""


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """No more than ``size`` bytes beyond what this process has."""
    if not sys.platform.startswith("linux"):
        yield
        return
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = now + size if before[0] == resource.RLIM_INFINITY else min(now + size, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def ran_out(error: BaseException | None) -> bool:
    """Whether memory was wanted that was not there, however the reader put it."""
    while error is not None:
        if isinstance(error, MemoryError) or "nable to allocate" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def try_one(path: Path, content: bytes, read: Callable[[Path], object]) -> str:
    """Read a file; returns ``read``, or ``refused``."""
    path.write_bytes(content)
    start, outcome = time.process_time(), "read"
    try:
        with memory_limit(BYTES), time_limit(60):
            read(path)
    except CLEAR as error:
        assert not ran_out(error), f"more than {BYTES:,} bytes: {error}"
        text, outcome = str(error), "refused"
        assert text and "\n" not in text and len(text) < 2000, text
    except Hangs as error:
        raise AssertionError("hangs") from error
    assert time.process_time() - start < SECONDS, "too long"
    return outcome


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path, request, record_property):
    file, strategy, read = READERS[name]
    (tmp_path / file).write_bytes(b"")
    seconds = request.config.getoption("--fuzz-seconds")
    counts = {"read": 0, "refused": 0}
    contents = strategy().map(Content)

    def fuzz(number: int, examples: int) -> None:
        @seeded(number)
        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False)
        @given(contents)
        def body(content: Content) -> None:
            counts[try_one(tmp_path / file, content, read)] += 1

        body()

    if not seconds:
        fuzz(0, FEW)
    until = time.monotonic() + seconds / len(READERS)
    while seconds and time.monotonic() < until:
        fuzz(random.SystemRandom().randrange(2**32), ROUND)
    print(f"\n{name}: {counts['read']} read, {counts['refused']} refused")
    assert counts["refused"] and (seconds or sum(counts.values()) >= 20)
