"""Long exports that are stopped leave what was there before, and nothing half written."""

from __future__ import annotations

import os

import pytest

from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.export import EXPORTERS, export


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("name", ["usd", "usdc", "abc", "mdd", "pc2", "bvh"])
def test_interrupted(name, existing, tmp_path):
    if EXPORTERS[name].missing:
        pytest.skip(f"format {name} NOT CHECKED: no {EXPORTERS[name].missing} installed")
    head = tiny_head()
    if existing:
        export(talking_track(head, 2), head, name, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def stop(_, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        export(talking_track(head, 5, seed=1), head, name, tmp_path, progress=stop)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    if open_files:  # though the exception, and with it the exporter's variables, still live
        assert stopped.value is not None and len(os.listdir("/proc/self/fd")) == open_files
