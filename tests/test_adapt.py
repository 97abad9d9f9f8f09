"""Adapting a network to a user's clips: from clips to a file that loads, without learning from what is measured on."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from densemarks_model import ModelError, load_network
from densemarks_model.adapt import rendered as pictures_module
from densemarks_model.adapt import session
from densemarks_model.adapt.__main__ import build_parser, main
from densemarks_model.adapt.own_clips import GAP_SECONDS, HELD_OUT_SHARE, INGEST, find_clips, plan_parts, prepare_clips
from densemarks_model.adapt.rendered import Stretch, held_out_shards, kept_aside
from densemarks_model.adapt.rows import Rows, held_out_faces, table, verdict
from densemarks_model.adapt.session import Options, Stopped, adapt
from densemarks_model.adapt.training import Material, fitting_steps, seconds_a_step
from densemarks_model.checkpoint_files import DEFAULT_HEAD, HEAD, read_header, read_tensors, save_network
from densemarks_model.data.videos.ingest import Rejected
from densemarks_model.evaluation.cubes import in_cube
from densemarks_model.evaluation.landmarks import model_places
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.openvino_graph import RANGES_KEY
from densemarks_model.train.shards import ShardSource
from flame_assets.canonical import CUBE_VERSION

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "tests" / "data" / "demo_excerpt.mp4"
TINY = LiteConfig(image_size=56, hidden_size=32, layers=5, heads=2, position_grid=5, taps=(2, 5), widths=(32, 32, 16), stem_width=16)
QUICK, PARTS = replace(INGEST, frames=12, points=90), 3
ROWS = Rows(0.02, 0.03, 2.0, 0.04, 0.9)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Two shards of discs on grey, each picture of its own colour."""
    folder, count, size, cells = tmp_path_factory.mktemp("shards"), 12, 64, 16
    y, x = np.mgrid[:size, :size] / size
    inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09
    place = np.stack([0.2 + 0.6 * x, 0.8 - 0.6 * y, np.full_like(x, 0.8)], -1)[2::4, 2::4]
    cover = inside.reshape(cells, 4, cells, 4).mean((1, 3))
    for shard in range(2):
        target = folder / f"shard_{shard:04d}"
        target.mkdir()
        numbers = np.arange(count) + shard * count
        images = np.where(inside[..., None], (10 * numbers)[:, None, None, None], 90) + np.zeros((1, 1, 1, 3))
        images.astype(np.uint8).tofile(target / "images.u8")
        np.repeat(place[None], count, 0).astype(np.float16).tofile(target / "coordinates.f16")
        (255 * np.stack([cover, cover], -1)[None].repeat(count, 0)).astype(np.uint8).tofile(target / "masks.u8")
        meta = {"count": count, "image_size": size, "map_size": cells, "yaw_deg": [0.0] * count, "cube": CUBE_VERSION, "seed": 5}
        (target / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A tiny network that speaks version 1 of the cube, with everything that a file's metadata may hold."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "private-name.safetensors"
    about = {HEAD: DEFAULT_HEAD, "name": "tiny-1", "licence": "Apache-2.0", "steps": "70", "passes": "500", "data": "discs", RANGES_KEY: "{}", "model_card": "CARD.md"}
    save_network(path, LiteNet(TINY), about, cube=1)
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A work folder in which the excerpt is prepared already."""
    folder = tmp_path_factory.mktemp("work")
    prepare_clips([CLIP], folder, QUICK, PARTS, quiet=True)
    return folder


@pytest.fixture
def options(network, shards, work, tmp_path) -> Options:
    own = tmp_path / "work"
    shutil.copytree(work, own)
    return Options([CLIP], tmp_path / "adapted.safetensors", own, str(network), 5.0, 6, shards, seed=3, quiet=True, ingest=QUICK, parts=PARTS)


def test_from_a_clip_to_a_file_that_loads(options, network):
    lines: list[str] = []
    before, after = adapt(options, lines.append)
    assert all(np.isfinite(v) for rows in (before, after) for v in rows.to_dict().values())
    assert before != after
    assert [n for n in range(1, 6) if any(line.startswith(f"{n} of 5") for line in lines)] == [1, 2, 3, 4, 5]
    assert lines[-1] == verdict(before, after) and lines[-2] == table(before, after)

    adapted, start = load_network(options.out), load_network(network)
    assert adapted.cube == 1 and adapted.network.config == TINY
    new, old = adapted.network.state_dict(), start.network.state_dict()
    moved = {k for k in new if not torch.equal(new[k], old[k])}
    assert {"last.weight", "stem.0.weight", "backbone.encoder.layer.1.mlp.fc1.weight"} <= moved
    # of five blocks the last four learn, and nothing before them
    assert not any("embeddings" in k or "encoder.layer.0." in k for k in moved)

    metadata = read_header(options.out)[1]
    expected = {
        "licence": "Apache-2.0", "cube": "1", "adapted_from": "tiny-1", "adapted_steps": "6", "adapted_seed": "3", "adapted_clips": "1",
        "adapted_pictures": "24", "passes": str(500 + 6 * 8), "adapted_passes": str(6 * 8), "head": "default",
    }  # fmt: skip
    assert {k: metadata[k] for k in expected} == expected
    assert not {RANGES_KEY, "model_card", "name", "steps"} & set(metadata)
    assert not any(word in str(metadata) for word in ("demo_excerpt", "private-name", str(options.work)))


def test_a_stopped_run_goes_on_to_the_same_weights(options, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "measure", lambda *_given: ROWS)
    whole = replace(options, out=tmp_path / "whole.safetensors", work=tmp_path / "whole")
    shutil.copytree(options.work, whole.work)
    adapt(whole, lambda _line: None)

    learn, seen = Material.trainer, []

    def stopping(self, steps, out):
        trainer = learn(self, steps, out)
        step = trainer._learn

        def once(model, batch, stage):
            seen.append(trainer.step)
            if len(seen) == 3:
                trainer._stop = True
            return step(model, batch, stage)

        trainer._learn = once
        return trainer

    monkeypatch.setattr(Material, "trainer", stopping)
    with pytest.raises(Stopped, match="stopped at step 3 of 6"):
        adapt(options, lambda _line: None)
    assert not options.out.exists()
    adapt(options, lambda _line: None)
    assert seen == list(range(6))
    weights = [read_tensors(path) for path in (options.out, whole.out)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_end_of_a_clip_is_kept_aside_with_a_gap():
    for total, rate in ((200, 25.0), (112, 24.0), (5000, 30.0), (72, 10.0)):
        parts = plan_parts(total, rate, 24, INGEST)
        trained = {f for p in parts if not p.held_out for f in range(p.first, p.last)}
        kept = {f for p in parts if p.held_out for f in range(p.first, p.last)}
        assert trained and kept and max(kept) < total
        assert min(kept) - max(trained) > GAP_SECONDS * rate
        assert min(kept) >= total * (1 - HELD_OUT_SHARE)
        assert len(trained) == sum(p.last - p.first for p in parts if not p.held_out)  # none twice
    long = plan_parts(5000, 30.0, 24, INGEST)
    assert sum(not p.held_out for p in long) == 18 and sum(p.held_out for p in long) == 6
    with pytest.raises(Rejected, match=r"too short \(1\.6 s\)"):
        plan_parts(40, 25.0, 24, INGEST)


def test_held_out_frames_and_pictures_are_never_trained_on(options, work, shards):
    """What training reads, picture by picture, beside what is measured on."""
    (folder,) = work.glob("clips-*")
    material = Material(options.network, TINY, 1, 0, folder / "training", shards, 24, 0)
    trainer = material.trainer(4, options.work / "run")

    def crops(kind: str) -> set[bytes]:
        found = set()
        for path in (folder / kind).glob("*.npz"):
            with np.load(path, allow_pickle=False) as archive:
                found |= {c.tobytes() for c in archive["crops"]}
        return found

    trained, kept = crops("training"), crops("held_out")
    assert len(kept) >= 12 and len(trained) >= 12 and not trained & kept
    faces, pairs = held_out_faces(folder / "held_out")
    assert len(faces) >= 8 and pairs and {len(f.points) for f in faces} == {478}
    read: set[Path] = set()
    load, np_load = np.load, np.load
    try:
        np.load = lambda path, **kinds: (read.add(Path(path)), load(path, **kinds))[1]
        for k in range(len(trainer.sources["videos"])):
            trainer.sources["videos"].sample(k, 56, 16, np.random.default_rng(k))
    finally:
        np.load = np_load
    assert all(p.parent.name == "training" for p in read)

    source = trainer.sources["synthetic"]
    assert len(source) == 24 - kept_aside(24) == 20
    colours = {round(float(source.sample(k, 56, 16, None)["image"][0, 28, 28] * 255)) for k in range(len(source))}
    held = {int(image[32, 32, 0]) for shard in held_out_shards(shards, 24) for image in shard.images}
    assert colours == {10 * k for k in range(20)} and held == {200, 210, 220, 230}


def test_targets_are_in_the_networks_own_cube(work, shards, options):
    (folder,) = work.glob("clips-*")
    for cube in (1, CUBE_VERSION):
        pairs = Material(options.network, TINY, cube, 0, folder / "training", shards, 24, 0).trainer(2, options.work / "run").sources["videos"]
        sample = pairs.sample(0, 56, 16, np.random.default_rng(0))
        places = model_places(cube)
        known = np.isfinite(places).all(1)
        np.testing.assert_allclose(sample["anchors"][known], places[known], atol=1e-6)
        assert np.isfinite(sample["anchors"]).all() and not sample["visible"][:, ~known].any()
        assert "head" not in sample  # guessed masks are no truth
    mouth = model_places(CUBE_VERSION)[13].astype(np.float32)

    class Lips:
        def __len__(self) -> int:
            return 4

        def sample(self, index, image_size, map_size, rng):
            return {"coordinates": np.broadcast_to(mouth[:, None, None], (3, 2, 2)).copy(), "index": np.array(index)}

    moved = Stretch(Lips(), 1, 3, 1).sample(1, 56, 2, None)
    assert moved["index"] == 2
    np.testing.assert_allclose(moved["coordinates"][:, 0, 0], in_cube(mouth[None], CUBE_VERSION, 1)[0])
    assert np.abs(moved["coordinates"][:, 0, 0] - mouth).max() > 0.005
    np.testing.assert_array_equal(Stretch(Lips(), 1, 3, CUBE_VERSION).sample(1, 56, 2, None)["coordinates"][:, 0, 0], mouth)


def test_minutes_become_steps_once(options, monkeypatch):
    assert fitting_steps(100, 0.5) == 190 and fitting_steps(-3, 0.5) == 0
    monkeypatch.setattr(session, "measure", lambda *_given: ROWS)
    asked: list[float] = []
    monkeypatch.setattr(session, "seconds_a_step", lambda _material, _work: asked.append(0) or 0.004 * 60)
    lines: list[str] = []
    timed = replace(options, steps=None, minutes=0.05 + 1e-6)
    monkeypatch.setattr(session.time, "monotonic", lambda: 0.0)
    steps = int(0.95 * 3 / 0.24)
    adapt(timed, lines.append)
    assert any(f"{steps} steps (--steps {steps} gives the same" in line for line in lines)
    assert read_header(options.out)[1]["adapted_steps"] == str(steps)
    adapt(timed, lambda _line: None)
    assert len(asked) == 1
    with pytest.raises(ModelError, match=r"too few for 10 steps of 0\.2 s after preparing; give 1 or more"):
        adapt(replace(timed, minutes=0.01), lambda _line: None)


def test_a_step_is_timed_without_leaving_anything(options, work, shards):
    (folder,) = work.glob("clips-*")
    before = sorted(options.work.rglob("*"))
    found = seconds_a_step(Material(options.network, TINY, 1, 0, folder / "training", shards, 24, 0), options.work)
    assert 0 < found < 10 and sorted(options.work.rglob("*")) == before


def test_rendering_goes_on_and_ends_in_time(tmp_path, monkeypatch):
    made = []

    class Renderer:
        def __init__(self, size, cells, repertoire):
            self.size, self.cells, self.repertoire = size, cells, repertoire

        def sample(self, seed, index):
            from densemarks_model.data.synthetic.scene import Sample

            made.append(index)
            cells = np.zeros((self.cells, self.cells), np.float32)
            return Sample(np.full((self.size, self.size, 3), index % 256, np.uint8), np.zeros((*cells.shape, 3), np.float32), cells, cells, 0.0, 0.0)

    from densemarks_model.data.synthetic import scene

    monkeypatch.setattr(scene, "SceneRenderer", Renderer)
    monkeypatch.setattr(pictures_module, "_IMAGE_SIZE", 32)
    monkeypatch.setattr(pictures_module, "_MAP_SIZE", 8)
    assert pictures_module.render_pictures(tmp_path, 45, 0.0, quiet=True) == 60  # whole shards
    assert made == list(range(60))
    assert pictures_module.render_pictures(tmp_path, 70, 0.0, quiet=True) == 80
    assert made == list(range(80))
    assert pictures_module.render_pictures(tmp_path / "other", None, -1.0, quiet=True) == pictures_module.LEAST
    assert len(ShardSource(tmp_path)) == 80 and ShardSource(tmp_path).seeds == {pictures_module.SERIES}


def test_the_verdict_says_what_happened():
    assert verdict(ROWS, replace(ROWS, spread=0.016, flow=1.6)).startswith("it helped")
    assert "nothing was forgotten" in verdict(ROWS, replace(ROWS, spread=0.016))
    assert "though not landmark offset" in verdict(ROWS, replace(ROWS, spread=0.01, offset=0.032))
    assert "it did not help" in verdict(ROWS, replace(ROWS, flow=2.4)) and "written all the same" in verdict(ROWS, ROWS)
    for worse in (replace(ROWS, error=0.045), replace(ROWS, overlap=0.85)):
        assert "which means forgetting" in verdict(ROWS, worse)
    lines = table(ROWS, replace(ROWS, flow=1.5)).splitlines()
    assert len(lines) == 6 and lines[3].endswith("-25.0 %") and "2.00" in lines[3] and "1.50" in lines[3]


def _write_clip(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (160, 120))
    for k in range(frames):
        writer.write(np.full((120, 160, 3), 60 + k % 100, np.uint8))
    writer.release()


def test_wrong_input_is_one_line(tmp_path, network, capsys):
    _write_clip(tmp_path / "grey.mp4", 90)
    _write_clip(tmp_path / "short.mp4", 10)
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty").mkdir()
    common = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out.safetensors"), "--network", str(network), "--quiet"]
    for arguments, message in (
        ([str(tmp_path / "none.mp4")], "none.mp4: no such file or folder"),
        ([str(tmp_path / "empty")], "empty: holds no clips"),
        ([str(tmp_path / "grey.mp4")], "grey.mp4: no part to learn from (no face)"),
        ([str(tmp_path / "short.mp4")], "short.mp4: too short (0.4 s); about 3 s with a face are needed"),
        ([str(tmp_path / "text.mp4")], "text.mp4: cannot be read"),
        ([str(CLIP), "--out", str(network)], "is the network to begin with"),
        ([str(CLIP), "--out", str(tmp_path / "out.pt")], "must be a file that ends in .safetensors"),
        ([str(CLIP), "--network", "official"], "only lite networks"),
        ([str(CLIP), "--network", str(tmp_path / "no.safetensors")], "no such file"),
    ):
        assert main([*common, *arguments]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out.safetensors").exists()
    with pytest.raises(SystemExit):
        build_parser().parse_args(["a.mp4", "--minutes", "0"])
    assert "must be above 0" in capsys.readouterr().err


def test_clips_are_found_once_and_those_that_do_not_serve_are_named(tmp_path):
    shutil.copy(CLIP, tmp_path / "talking.mp4")
    _write_clip(tmp_path / "grey.mp4", 90)
    clips = find_clips([tmp_path, tmp_path / "talking.mp4"])
    assert [c.name for c in clips] == ["grey.mp4", "talking.mp4"]
    prepared = prepare_clips(clips, tmp_path / "work", QUICK, 2, quiet=True)
    assert prepared.clips == 1 and len(prepared.notes) == 1 and "grey.mp4: no part to learn from (no face)" in prepared.notes[0]
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.npz")}
    assert files and all("clip001" in p.name for p in files)
    assert prepare_clips(clips, tmp_path / "work", QUICK, 2, quiet=True) == prepared
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.npz")}


def test_an_interrupted_command_writes_nothing_half_and_says_how_to_go_on(options, monkeypatch, capsys):
    monkeypatch.setattr(session, "measure", lambda *_given: ROWS)
    monkeypatch.setattr(session, "Options", functools.partial(Options, ingest=QUICK, parts=PARTS))
    learn = Material.trainer

    def interrupted(self, steps, out):
        trainer = learn(self, steps, out)
        step = trainer._learn
        trainer._learn = lambda *given: (trainer.step == 2 and os.kill(os.getpid(), signal.SIGINT), step(*given))[1]
        return trainer

    monkeypatch.setattr(Material, "trainer", interrupted)
    arguments = [
        str(CLIP), "--network", options.network, "--synthetic", str(options.synthetic), "--steps", "5000", "--out", str(options.out),
        "--work", str(options.work), "--quiet",
    ]  # fmt: skip
    assert main(arguments) == 130
    error = capsys.readouterr().err
    assert "stopped at step 3 of 5000; the same command goes on from here" in error and "Traceback" not in error
    assert not options.out.exists() and not list(options.out.parent.glob("*.safetensors"))
    (checkpoint,) = options.work.glob("run-*/checkpoint.pt")
    assert load_network(checkpoint).cube == 1  # its start's, whatever version new networks learn
