"""Tracks re-expressed on other heads: exactly where the head is the same, and to what is said where it is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flame_assets.asset import save_npz
from flame_assets.load import load_head
from tests.heads import flame_like_head, flame_sized_head, tiny_head
from tests.tracks import talking_track
from tools.export import main
from tracker.evaluation.baselines.files import read_result
from tracker.evaluation.baselines.interface import Tracked
from tracker.export import export
from tracker.export.flame_params import load_track
from tracker.track_vertices import track_vertices
from tracker.transfer.correspondence import head_correspondence
from tracker.transfer.fit import transfer

FRAMES = 6


@pytest.fixture(scope="module")
def other():
    """A head that can show all that the default head shows, five per cent larger and another person on average."""
    return flame_like_head(scale=1.05)


@pytest.fixture(scope="module")
def talking():
    """A track of the default head, as runs leave them: the jaw joint rests."""
    head, rng = load_head(), np.random.default_rng(3)
    values = np.where(rng.random((FRAMES, head.n_expression)) < 0.15, rng.random((FRAMES, head.n_expression)), 0)
    return talking_track(head, FRAMES, expr=values, shape=rng.normal(0, 0.5, head.n_identity), jaw_pose=np.zeros((FRAMES, 3)))


@pytest.fixture(scope="module")
def there(talking, other):
    return transfer(talking, load_head(), other)


def vertices(track, head):
    return np.stack(list(track_vertices(track, head)))


def true_distances(found, talking, other, region):
    """Millimetres between a region's vertices of the default head and the very same ones of the other."""
    source = np.array(other.provenance["source_vertex"])
    rows = np.flatnonzero((source >= 0) & load_head().regions[region][source])
    before, after = vertices(talking, load_head()), vertices(found.track, other)
    return 1000 * np.linalg.norm(after[:, rows] - before[:, source[rows]], axis=-1)


def test_to_the_same_head_is_the_same_track():
    head = flame_sized_head()
    track = talking_track(head, 9)
    found = transfer(track, head, head)
    assert 1000 * np.abs(vertices(found.track, head) - vertices(track, head)).max() < 0.1
    assert found.head.p95 < 0.1 and found.track.head_sha256 == track.head_sha256


def test_points_correspond(other):
    """The true ones are known: the same vertex."""
    head = load_head()
    rows, hits = head_correspondence(head, other)
    source = np.array(other.provenance["source_vertex"])
    place = np.full(head.n_vertices, -1)
    place[source[source >= 0]] = np.flatnonzero(source >= 0)
    found = np.einsum("nk,nkc->nc", hits.barycentrics, other.v_template[other.faces[hits.faces]])
    off = 1000 * np.linalg.norm(found - other.v_template[place[rows]], axis=1)
    face = head.regions["face"][rows]
    assert face.sum() > 1900 and (~face).sum() > 1000
    assert off[face].mean() < 0.6 and off[~face].mean() < 8  # scalp, neck and ears have no landmarks: the surface is found, its points slide


def test_the_default_heads_face_on_another_head(there, talking, other):
    """Against the truth that the transfer does not know: the other head's own vertices."""
    face = true_distances(there, talking, other, "face")
    assert face.mean() < 1.0 and np.percentile(face, 95) < 2.5
    assert there.face.mean < 0.8 and there.face.surface_mean < 0.4 and there.head.surface_mean < 1.5
    assert there.face.surface_mean < there.face.mean < there.face.p95


def test_what_is_printed_is_true(there, talking, other):
    """On the face, where correspondence is known to half a millimetre, the figure is the true distance to about that."""
    assert there.face.mean == pytest.approx(true_distances(there, talking, other, "face").mean(), abs=0.6)


@pytest.mark.parametrize("masked", [True, False])
def test_and_back(masked, there, talking, other):
    """A FLAME file without its masks names no face; its landmarks tell."""
    named = other if masked else dataclasses.replace(other, regions={})
    back = transfer(there.track, named, load_head())
    face = load_head().regions["face"]
    off = np.linalg.norm(vertices(back.track, load_head())[:, face] - vertices(talking, load_head())[:, face], axis=-1)
    assert 1000 * off.mean() < 1.5
    low, high = load_head().expression_range
    assert back.track.expr.min() >= low and back.track.expr.max() <= high and not back.track.jaw_pose.any()


def test_camera_times_and_gaze_stay(there, talking):
    for name in ("timestamps", "valid", "confidence", "principal_point", "eyes_pose", "neck_pose"):
        np.testing.assert_array_equal(getattr(there.track, name), getattr(talking, name))
    assert there.track.focal_px == talking.focal_px


@pytest.fixture
def result(tmp_path):
    """A finished run's folder with a track of the small head, and files of that head and of one with FLAME's layout."""
    export(talking_track(tiny_head(), 3), tiny_head(), "npz", tmp_path / "clip")
    save_npz(tiny_head(), tmp_path / "tiny.npz")
    save_npz(flame_sized_head(), tmp_path / "flame.npz")
    return tmp_path / "clip"


def run(result, *options):
    return main([str(result), "--head", str(result.parent / "tiny.npz"), *(word.replace("HERE", str(result.parent)) for word in options)])


def test_the_command_goes_on_to_formats_for_flame(result, capsys):
    assert run(result, "--to-head", "HERE/flame.npz", "--to", "vhap") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny-0 → flame-sized-0: ") and lines[1].startswith("  face") and lines[2].startswith("  whole head")
    folder, head = result.parent / "clip-flame-sized-0", flame_sized_head()
    assert sorted(p.name for p in folder.iterdir()) == ["flame_params.npz", "tracked_flame_params_30.npz"]
    own = Tracked(load_track(folder / "flame_params.npz"), head)
    theirs = read_result(folder / "tracked_flame_params_30.npz", head, 25.0)
    assert np.abs(own.pixels(own.vertices) - theirs.pixels(theirs.vertices)).max() < 0.1
    assert [p.name for p in result.iterdir()] == ["flame_params.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to do; name formats with --to"),
        (["--to-head", "none.pkl"], "--to-head: none.pkl: no such head file"),
        (["--to-head", "HERE/flame.npz", "--folder", "HERE/clip"], "the new one would replace it"),
        (["--to-head", "HERE/tiny.npz", "--to", "vhap"], "format vhap: it cannot hold the head"),
    ],
)
def test_mistakes_are_one_line(options, message, result, capsys):
    assert run(result, *options) == 2
    err = capsys.readouterr().err
    assert err.startswith("export.py: error: ") and message in err and err.count("\n") == 1
    assert sorted(p.name for p in result.parent.iterdir()) == ["clip", "flame.npz", "tiny.npz"]
