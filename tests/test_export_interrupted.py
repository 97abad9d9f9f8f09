"""Exports that are stopped leave what was there before, and nothing half written; long ones tell how far they are and hold no frame that they
have written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from densemarks_model.errors import ModelError
from flame_assets import atomic_files
from flame_assets.asset import save_npz
from tests.heads import flame_sized_head, tiny_head
from tests.tracks import filmed_track, talking_track
from tracker import track_vertices
from tracker.export import EXPORTERS, export

ROOT = Path(__file__).resolve().parents[1]

AT_ONCE = {"npz", "glb", "texture", "vhap"}
"""Formats that hold parameters alone, no frame's vertices or pictures: written in one go, in less than a second for an hour of video."""

TEXTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def formats(but: set[str] = frozenset()):
    return [
        pytest.param(name, marks=pytest.mark.skipif(bool(e.missing), reason=f"format {name} NOT CHECKED: no {e.missing} installed"))
        for name, e in EXPORTERS.items()
        if name not in but
    ]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Masks are silhouettes here."""

    def missing(name: str) -> None:
        raise ModelError("not here")

    monkeypatch.setattr("tracker.export.head_masks.fast_network", missing)


def head_for(name: str):
    return flame_sized_head() if EXPORTERS[name].refuses.endswith("flame_layout:refuses") else tiny_head()


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("name", formats(but=AT_ONCE))
def test_interrupted(name, existing, tmp_path):
    head, folder = head_for(name), tmp_path / "out"
    folder.mkdir()
    track, source = filmed_track(head, tmp_path / "frames", 5, seed=1, valid=np.ones(5, bool))
    if existing:
        export(track.select(np.arange(2)), head, name, folder, source=source)
    before, files = contents(folder), open_files()

    def stop(_, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        export(track, head, name, folder, source=source, progress=stop)
    assert contents(folder) == before and {p.name for p in folder.iterdir()} == {p.relative_to(folder).parts[0] for p in before}
    # though the exception, and with it the exporter's variables, still live
    assert stopped.value is not None and open_files() == files


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("name", sorted(AT_ONCE))
def test_interrupted_at_the_last_moment(name, existing, tmp_path, monkeypatch):
    head = head_for(name)
    if existing:
        export(talking_track(head, 2), head, name, tmp_path, texture=TEXTURE)
    before = contents(tmp_path)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_files.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        export(talking_track(head, 5, seed=1), head, name, tmp_path, texture=TEXTURE[::-1])
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", formats(but=AT_ONCE))
def test_every_long_format_tells_how_far_it_is(name, tmp_path):
    head, told = head_for(name), []
    track, source = filmed_track(head, tmp_path / "frames", 4, valid=np.ones(4, bool))
    export(track, head, name, tmp_path / "out", source=source, progress=lambda *step: told.append(step))
    assert told == [(name, done, 4) for done in range(1, 5)]


@pytest.mark.parametrize("name", formats(but={"texture"}))
def test_memory_does_not_grow_by_what_is_written(name, tmp_path, monkeypatch):
    """Per frame, less than a third of its vertices, or of its picture where the format holds those; parameters alone are smaller."""
    chunks = track_vertices._chunks
    # in memory of numpy's, which can be measured
    monkeypatch.setattr(track_vertices, "_chunks", lambda *given: (torch.from_numpy(chunk.numpy().copy()) for chunk in chunks(*given)))
    head, peaks = head_for(name), []
    filmed = EXPORTERS[name].needs_video
    counts = (12, 24) if filmed else (64, 192)
    for frames in counts:
        if filmed:
            track, source = filmed_track(head, tmp_path / f"frames {frames}", frames, valid=np.ones(frames, bool))
        else:
            track, source = talking_track(head, frames), None
        export(track, head, name, tmp_path / "warm", source=source)
        tracemalloc.start()
        export(track, head, name, tmp_path / f"out {frames}", source=source)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one = 3 * 360 * 640 if filmed else 12 * head.n_vertices
    assert (peaks[1] - peaks[0]) / (counts[1] - counts[0]) < one / 3


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_ends_cleanly_however_it_is_ended(number, code, tmp_path):
    head = tiny_head()
    export(talking_track(head, 4000), head, "npz", tmp_path / "clip")
    save_npz(head, tmp_path / "head.npz")
    command = [sys.executable, str(ROOT / "tools" / "export.py"), str(tmp_path / "clip"), "--to", "obj", "--head", str(tmp_path / "head.npz")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        unfinished = tmp_path / "clip" / ".meshes.part"
        while not (unfinished.is_dir() and any(unfinished.iterdir())):
            assert process.poll() is None
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code and said.endswith("interrupted; no unfinished file was left behind\n")
    assert [p.name for p in (tmp_path / "clip").iterdir()] == ["flame_params.npz"]
