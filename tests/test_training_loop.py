"""Training: it learns, resumes exactly, is the same in two processes as in one, and refuses wrong settings by name."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from densemarks_model import ModelError, load_network
from densemarks_model.loading import speaks_default_cube
from densemarks_model.train.__main__ import main
from densemarks_model.train.augment import MARGIN, vary
from densemarks_model.train.config import parse_config, read_config
from densemarks_model.train.distributed import Processes
from densemarks_model.train.loop import Trainer
from densemarks_model.train.schedule import rate_share, set_stage, stage_at
from densemarks_model.train.shards import ShardSource
from flame_assets.canonical import CUBE_VERSION

ROOT = Path(__file__).resolve().parent.parent
TINY = {"image_size": 56, "hidden_size": 32, "layers": 2, "heads": 2, "position_grid": 5, "taps": [1, 2], "widths": [32, 32, 16], "stem_width": 16}
ALONE = Processes(0, 1, torch.device("cpu"))


def _write_shard(folder: Path, count: int = 12, size: int = 64, cells: int = 16) -> None:
    """Discs on noise whose coordinates can be told from their colours."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    images, coordinates, masks = [], [], []
    for _ in range(count):
        cx, cy, r = rng.uniform(0.35, 0.65, 3) * [1, 1, 0.6]
        inside = (x - cx) ** 2 + (y - cy) ** 2 < r**2
        place = np.stack([0.5 + (x - cx), 0.5 - (y - cy), np.full_like(x, 0.6)], -1)
        images.append(np.where(inside[..., None], 255 * place, rng.uniform(0, 60, (size, size, 1))).astype(np.uint8))
        step = size // cells
        coordinates.append(place[step // 2 :: step, step // 2 :: step].clip(0, 1))
        cover = inside.reshape(cells, step, cells, step).mean((1, 3))
        masks.append(np.stack([cover, cover], -1) * 255)
    np.asarray(images, np.uint8).tofile(folder / "images.u8")
    np.asarray(coordinates, np.float16).tofile(folder / "coordinates.f16")
    np.asarray(masks).astype(np.uint8).tofile(folder / "masks.u8")
    (folder / "meta.json").write_text(json.dumps({"count": count, "image_size": size, "map_size": cells, "yaw_deg": [0.0] * count, "cube": CUBE_VERSION}))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    _write_shard(folder / "shard_0000")
    return folder


def _values(shards: Path, out: Path, steps: int = 12, **run) -> dict:
    return {
        "data": {"synthetic": str(shards), "held_out": str(shards)},
        "network": {"lite": TINY, "backbone": ""},
        "stages": [
            {"steps": steps // 2, "image_size": 28, "unfrozen_blocks": 0, "decoder_rate": 3e-3, "synthetic_batch": 4},
            {"steps": steps - steps // 2, "image_size": 56, "unfrozen_blocks": 2, "decoder_rate": 2e-3, "synthetic_batch": 4},
        ],
        "run": {"out": str(out), "precision": "fp32", "tensorboard": False, "log_every": 1000, "validate_every": 1000, "checkpoint_every": 1000, **run},
    }


def _trainer(shards: Path, out: Path, steps: int = 12, **run) -> Trainer:
    return Trainer(parse_config(_values(shards, out, steps, **run), "test"), ALONE, say=lambda _line: None)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_learns(shards, tmp_path):
    trainer = _trainer(shards, tmp_path, steps=120, average=0.9)
    before, _ = trainer.validate()
    curve = trainer.run()
    error, overlap = trainer.validate()
    assert np.mean(curve[-10:]) < 0.5 * np.mean(curve[:10])
    assert error < 0.5 * before and overlap > 0.7


def test_a_stopped_run_goes_on_to_the_very_same_curve(shards, tmp_path):
    whole = _trainer(shards, tmp_path / "whole").run()
    first = _trainer(shards, tmp_path / "parts")
    curve = first.run(until=8)  # in the middle of the second stage
    second = _trainer(shards, tmp_path / "parts")
    second.resume(tmp_path / "parts" / "checkpoint.pt")
    curve += second.run()
    assert curve == whole
    ended = _trainer(shards, tmp_path / "whole")
    ended.resume(tmp_path / "whole" / "checkpoint.pt")
    for name, value in ended.average.items():
        assert torch.equal(value, second.average[name]), name


def test_a_terminated_process_leaves_a_checkpoint_and_the_command_goes_on(shards, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(_values(shards, tmp_path / "run", steps=4000, log_every=1, threads=1)))
    command = [sys.executable, "-m", "densemarks_model.train", "--config", str(config)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("step 3:"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == 0 and "the same command goes on" in rest
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert 3 <= state["step"] < 4000


def test_weights_are_exported_and_load(shards, tmp_path):
    values = _values(shards, tmp_path / "run", steps=4)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    assert main(["--config", str(config), "--set", "run.seed=3", "--export", str(tmp_path / "net.safetensors")]) == 0
    assert load_network(tmp_path / "net.safetensors")(torch.rand(1, 3, 56, 56)).coordinates.shape == (1, 3, 56, 56)
    assert load_network(tmp_path / "run" / "checkpoint.pt").network.config.image_size == 56
    # pictures of the default head were learned from
    assert speaks_default_cube(tmp_path / "net.safetensors") and speaks_default_cube(tmp_path / "run" / "checkpoint.pt")


def test_two_processes_do_what_one_does(shards, tmp_path):
    """Two processes with batches of two give the weights that one with a batch of four gives."""
    values = _values(shards, tmp_path / "one", steps=4)
    # losses that are means over samples of equal weight; coordinate losses weigh by visible pixels, which differ by process
    values["losses"] = {"coordinate": 0.0, "scale": 0.0}
    Trainer(parse_config(values, "test"), ALONE, say=lambda _line: None).run()
    for stage in values["stages"]:
        stage["synthetic_batch"] = 2
    values["run"]["out"] = str(tmp_path / "two")
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}",
        "-m", "densemarks_model.train", "--config", str(config), "--set", "run.threads=1",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["model"] for n in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-4, rtol=1e-3, msg=name)


def test_frozen_blocks_do_not_move(shards, tmp_path):
    trainer = _trainer(shards, tmp_path)
    before = {k: v.clone() for k, v in trainer.net.backbone.state_dict().items()}
    trainer.run(until=4)  # the first stage trains the decoder alone
    assert all(torch.equal(before[k], v) for k, v in trainer.net.backbone.state_dict().items())
    stage = trainer.config.stages[0].model_copy(update={"unfrozen_blocks": 1})
    set_stage(trainer.net, stage)
    learning = {n for n, p in trainer.net.backbone.named_parameters() if p.requires_grad}
    assert learning and all("layer.1." in n for n in learning)


def test_the_schedule():
    config = parse_config({"data": {"synthetic": "x"}, "stages": [{"steps": 3}, {"steps": 5}]}, "test")
    assert [stage_at(config, k)[1:] for k in (0, 2, 3, 7)] == [(0, 3), (0, 3), (3, 8), (3, 8)]
    assert rate_share(0.05) == pytest.approx(0.5) and rate_share(0.1) == pytest.approx(1) and rate_share(1.0) == pytest.approx(0)


def test_without_changes_the_margin_is_cut_off(shards):
    """The middle of a picture stays in the middle; a point at the edge of the kept part goes to the edge."""
    size = 112
    image = np.zeros((size, size, 3), np.uint8)
    image[:, : size // 2] = 255
    masks = np.zeros((28, 28, 2), np.uint8)
    masks[:14] = 255
    got = vary(image, np.zeros((28, 28, 3)), masks, 56, 14, None)
    assert (got["image"][:, :, :27] == 1).all() and (got["image"][:, :, 29:] == 0).all()
    assert (got["head"][0, :6] == 1).all() and (got["head"][0, 8:] == 0).all()
    assert MARGIN > 1 and len(ShardSource(shards)) == 12


def test_mirrored_samples_mirror_the_cube():
    image = np.zeros((64, 64, 3), np.uint8)
    coordinates = np.broadcast_to(np.array([0.3, 0.6, 0.7]), (16, 16, 3))
    seen = {round(float(vary(image, coordinates, np.zeros((16, 16, 2), np.uint8), 56, 16, np.random.default_rng(k))["coordinates"][0, 8, 8]), 3) for k in range(12)}
    assert seen == {0.3, 0.7}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"optimizer": {}}, "unknown key 'optimizer'; known here: data, network"),
        ({"run": {"seeds": 1}}, r"test\.yaml: unknown key 'run\.seeds'; known here: out, seed"),
        ({"run": {"seed": "one"}}, r"'run\.seed' must be a whole number, not 'one'"),
        ({"run": {"precision": "fp8"}}, "'run.precision' must be 'bf16' or 'fp32', not 'fp8'"),
        ({"stages": [{"steps": 0}], "data": {"synthetic": "x"}}, r"'stages\[0\]\.steps' must be at least 1, not 0"),
        ({"stages": [{"video_batch": 2}], "data": {"synthetic": "x"}}, "wants samples from a folder that 'data.videos' does not name"),
        ({"losses": {"head": "much"}}, "'losses.head' must be a number"),
        ({"losses": {"head": -1}}, "'losses.head' must be at least 0"),
        ({"stages": [{"synthetic_batch": 0}], "data": {"synthetic": "x"}}, r"'stages\[0\]' needs samples"),
        ({"run": {"average": 1.5}}, "'run.average' must be at most 1"),
        ({"run": 3}, "'run' must be a section"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(ModelError, match=message):
        parse_config(values, "test.yaml")


def test_shipped_configurations_are_valid():
    for path in sorted((ROOT / "densemarks_model" / "configs").glob("*.yaml")):
        assert read_config(path).total_steps > 0


def test_settings_of_the_command_line_are_laid_over_the_file(tmp_path):
    (tmp_path / "run.yaml").write_text("data: {synthetic: x}\nrun: {clip: 5e-1, seed: 1}\n")
    config = read_config(tmp_path / "run.yaml", ["run.seed=3", "losses.mirror=1e-1", "network.start_blocks=[1, 3]", "data.held_out="])
    assert (config.run.clip, config.run.seed, config.losses.mirror) == (0.5, 3, 0.1)
    assert config.network.start_blocks == [1, 3] and config.data.held_out == ""
    for wrong, said in (
        ("run.seed=x", r"config .*run\.yaml: 'run\.seed' must be a whole number, not 'x'"),
        ("run.sed=3", r"unknown key 'run\.sed'"),
        ("run.seed", "write section.key=value"),
        ("run.seed=[", "not valid YAML"),
    ):
        with pytest.raises(ModelError, match=said) as error:
            read_config(tmp_path / "run.yaml", [wrong])
        assert "\n" not in str(error.value)


def test_wrong_files_are_named(shards, tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(ModelError, match="holds no shards"):
        ShardSource(tmp_path)
    _write_shard(tmp_path / "shard_0000", count=2)
    (tmp_path / "shard_0000" / "images.u8").write_bytes(b"short")
    with pytest.raises(ModelError, match="not as long"):
        ShardSource(tmp_path)
    trainer = _trainer(shards, tmp_path / "run")
    (tmp_path / "damaged.pt").write_bytes(b"PK damaged")
    with pytest.raises(ModelError, match="cut short"):
        trainer.resume(tmp_path / "damaged.pt")
    trainer.run(until=1)
    other = _values(shards, tmp_path / "run", steps=20)
    with pytest.raises(ModelError, match="other stages"):
        Trainer(parse_config(other, "test"), ALONE).resume(tmp_path / "run" / "checkpoint.pt")
