"""The library: a track in three lines, nothing printed, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tracker
from flame_assets.load import load_head
from tracker import TrackResult, track
from tracker.camera import focal_prior
from tracker.errors import UserError
from tracker.export.flame_params import load_track
from tracker.observe import Observations, observe
from tracker.settings import load_settings
from tracker.stages.fit import fit
from tracker.track_vertices import track_vertices
from tracker.video.packaged_clips import EXCERPT
from tracker.video.reader import VideoPart, VideoSource

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 8


@pytest.fixture(scope="module")
def result() -> TrackResult:
    return track(EXCERPT, "fast", part=VideoPart(max_frames=FRAMES))


def test_a_track_is_had_in_memory(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    told = []
    found = tracker.track(str(EXCERPT), preset="fast", part=VideoPart(FRAMES), progress=lambda *step: told.append(step))
    assert found.track.n_frames == FRAMES and found.track.valid.all()
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    assert told[-1] == ("fit", FRAMES, FRAMES)
    assert [name for name, *_ in told] == ["look"] * FRAMES + ["fit"]


def test_vertices_of_some_frames_are_those_of_all(result):
    every = np.stack(list(track_vertices(result.track, result.head)))
    assert np.array_equal(result.vertices(), every)
    for chosen in ([5, 0, 5], slice(2, None, 3), [-1]):
        assert np.allclose(result.vertices(chosen), every[chosen], rtol=0, atol=1e-6)  # batches of another size round otherwise
    assert result.vertices([]).shape == (0, *every.shape[1:])
    with pytest.raises(IndexError):
        result.vertices([FRAMES])


def test_export_writes_a_file_or_a_folder(result, tmp_path):
    assert result.export("glb", tmp_path / "mine.glb") == [tmp_path / "mine.glb"]
    assert (tmp_path / "mine.glb").read_bytes()[:4] == b"glTF"
    assert result.export("npz,obj", tmp_path / "all") == [tmp_path / "all" / "flame_params.npz", tmp_path / "all" / "meshes/"]
    assert np.allclose(load_track(tmp_path / "all" / "flame_params.npz").rotation, result.track.rotation)
    for formats in ("obj", "npz,glb"):
        with pytest.raises(UserError, match="name of a folder"):
            result.export(formats, tmp_path / "one.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all", "mine.glb"]


def test_observations_kept_on_disk_can_be_fitted_again(result, tmp_path):
    settings = load_settings("fast")
    observe(VideoSource(EXCERPT, VideoPart(FRAMES)), settings.observe, folder=tmp_path / "seen").close()
    with Observations.open(tmp_path / "seen") as observations:
        again = fit(observations, load_head(), settings, focal_prior(observations.facts.width, observations.facts.height))
    for name in ("rotation", "translation", "expr", "shape", "confidence"):
        assert np.allclose(getattr(again.track, name), getattr(result.track, name), atol=1e-5), name


def test_mistakes_are_user_errors(tmp_path):
    for wrong in ({"preset": "turbo"}, {"focal_px": 1.0}, {"head": tmp_path / "none.npz"}, {"device": "tpu"}):
        with pytest.raises(UserError):
            track(EXCERPT, **{"preset": "fast", **wrong})
    with pytest.raises(UserError, match="no such file"):
        track(tmp_path / "none.mp4")


def test_the_package_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "tracker", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and tracker.__version__ in done.stdout


def test_help_and_version_need_no_heavy_library():
    """Or they would take seconds."""
    code = (
        "import sys\nfrom tracker.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'cv2', 'scipy', 'mediapipe', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().endswith("[]"), done.stdout[-200:] + done.stderr
    assert "Exit code: 0" in " ".join(done.stdout.split()) and "--export" in done.stdout
