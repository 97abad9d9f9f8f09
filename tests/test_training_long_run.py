"""The long run: no decided end, a decay on demand, sources mixed by shares, data that grow, damaged checkpoints, the log."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_training_loop import ALONE, TINY, _write_shard

from densemarks_model import ModelError, load_network
from densemarks_model.checkpoint_files import save_network
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.loading import speaks_default_cube
from densemarks_model.train.__main__ import main
from densemarks_model.train.checkpoint import CHECKPOINT, PREVIOUS
from densemarks_model.train.config import Stage, parse_config
from densemarks_model.train.loop import Trainer
from densemarks_model.train.plot import main as plot
from densemarks_model.train.records import Records, read_log
from densemarks_model.train.schedule import Decay, open_share, share_at
from densemarks_model.train.sources import Mixture, Part, batches, size_at

OPEN = {"schedule": "open", "warm_up": 4, "image_size": 28, "unfrozen_blocks": 2, "decoder_rate": 3e-3, "backbone_rate": 1e-3, "synthetic_batch": 4}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    _write_shard(folder / "shard_0000")
    return folder


def _values(shards: Path, out: Path, **run) -> dict:
    never = {"log_every": 10**6, "validate_every": 10**6, "checkpoint_every": 10**6}
    return {
        "data": {"synthetic": str(shards), "held_out": str(shards)},
        "network": {"lite": {**TINY, "image_size": 28}, "backbone": ""},
        "stages": [dict(OPEN)],
        "run": {"out": str(out), "precision": "fp32", "tensorboard": False, "average": 0.9, **never, **run},
    }


def _trainer(values: dict, said: list[str] | None = None) -> Trainer:
    return Trainer(parse_config(copy.deepcopy(values), "test"), ALONE, say=(said if said is not None else []).append)


def _config(values: dict, path: Path) -> list[str]:
    path.write_text(yaml.safe_dump(values))
    return ["--config", str(path)]


# the schedule


def test_rates_of_an_open_stage_rise_stay_and_fall():
    assert open_share(5, 10, 0) == pytest.approx(0.5) and open_share(10, 10, 0) == 1 and open_share(1e6, 10, 0) == 1
    assert open_share(99, 10, 100) == 1 and open_share(400, 10, 100) == pytest.approx(0.5)
    config = parse_config({"data": {"synthetic": "x"}, "stages": [{"steps": 8}, dict(OPEN)]}, "test")
    assert share_at(config, 8) == pytest.approx(0.125)  # half a step into a warm-up of four
    assert share_at(config, 10**8) == 1
    decay = Decay(1000, 1100)
    assert share_at(config, 1000, decay) == pytest.approx(1 - np.sqrt(0.005))
    assert share_at(config, 1099, decay) < 0.003
    shares = [share_at(config, k, decay) for k in range(1000, 1100)]
    assert shares == sorted(shares, reverse=True)


def test_a_decay_in_a_warm_up_begins_at_the_rate_that_was_reached():
    config = parse_config({"data": {"synthetic": "x"}, "stages": [dict(OPEN)]}, "test")
    assert share_at(config, 2, Decay(2, 4)) == pytest.approx(share_at(config, 2) * 0.5)


# resuming, finishing


def test_an_open_run_resumes_exactly_with_its_average(shards, tmp_path):
    values = _values(shards, tmp_path / "whole")
    whole = _trainer(values)
    curve = whole.run(until=10)
    values["run"]["out"] = str(tmp_path / "parts")
    first = _trainer(values)
    got = first.run(until=6)
    second = _trainer(values)
    second.resume(tmp_path / "parts")
    kept = {k: v.clone() for k, v in second.average.items()}
    got += second.run(until=10)
    assert got == curve and second.passes == 40
    for name, value in whole.average.items():
        assert value.dtype == torch.float32
        assert torch.equal(second.average[name], value), name
    # the average is neither the weights themselves nor one begun anew from them
    moved = [n for n, v in second.net.state_dict().items() if not torch.equal(v, kept[n])]
    assert len(moved) > 20
    forgetful = _trainer(values)
    forgetful.out = tmp_path / "forgetful"
    forgetful.resume(tmp_path / "parts" / PREVIOUS)
    assert forgetful.step == 6
    forgetful.average = {k: v.clone() for k, v in forgetful.net.state_dict().items()}
    assert forgetful.run(until=10) == curve[6:]  # losses do not show it
    assert any(not torch.equal(forgetful.average[n], whole.average[n]) for n in moved)


def test_the_average_of_bf16_training_is_float32_and_young_ones_forget(shards, tmp_path):
    values = _values(shards, tmp_path / "run", precision="bf16", average=0.999)
    save_network(tmp_path / "start.safetensors", _trainer(_values(shards, tmp_path / "x")).net)
    values["network"] = {"lite": {**TINY, "image_size": 28}, "start": str(tmp_path / "start.safetensors")}
    trainer = _trainer(values)
    states = [{k: v.clone() for k, v in trainer.net.state_dict().items()}]
    for k in range(3):
        trainer.run(until=k + 1)
        states.append({k: v.clone() for k, v in trainer.net.state_dict().items()})
    name = "last.weight"
    expected = states[0][name]
    for k, state in enumerate(states[1:], 1):
        decay = (k + 1) / (k + 30)  # counted from this run's first step, whatever it started from
        expected = decay * expected + (1 - decay) * state[name]
    assert all(v.dtype == torch.float32 for v in trainer.average.values())
    torch.testing.assert_close(trainer.average[name], expected)


def test_finishing_branches_and_the_long_run_goes_on(shards, tmp_path):
    values = _values(shards, tmp_path / "run")
    command = _config(values, tmp_path / "config.yaml")
    assert main([*command, "--until", "20"]) == 0
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    assert main([*command, "--finish", "6", "--until", "23"]) == 0  # interrupted
    branch = tmp_path / "run" / "finish-20"
    assert not (branch / "weights.safetensors").is_file()
    assert main([*command, "--finish"]) == 0  # goes on
    assert load_network(branch / "weights.safetensors").network.config.image_size == 28 and speaks_default_cube(branch / "weights.safetensors")
    state = torch.load(branch / CHECKPOINT, weights_only=True)
    assert state["step"] == 26 and state["decay"] == [20, 26]
    assert state["optimizer"]["param_groups"][0]["lr"] < 0.1 * OPEN["decoder_rate"]
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert [line["step"] for line in read_log(branch / "log.jsonl") if line["kind"] == "held_out"] == [26]
    # an interrupted decay is the same as an uninterrupted one
    other = _trainer(values)
    other.resume(tmp_path / "run")
    other.branch(6, tmp_path / "other")
    other.run()
    for name, value in other.average.items():
        assert torch.equal(state["average"][name], value), name
    assert main([*command, "--until", "30"]) == 0
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["step"] == 30
    assert main([*command, "--finish"]) == 0
    assert torch.load(tmp_path / "run" / "finish-30" / CHECKPOINT, weights_only=True)["decay"] == [30, 33]  # a tenth


def test_what_cannot_be_finished_is_named(shards, tmp_path, capsys):
    command = _config(_values(shards, tmp_path / "run"), tmp_path / "config.yaml")
    assert main([*command, "--finish"]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
    assert main([*command, "--until", "3"]) == 0
    assert main([*command, "--finish", "1"]) == 0
    assert main([*command, "--finish", "1"]) == 2
    assert "was finished already" in capsys.readouterr().err


def test_a_run_that_has_an_end_can_be_finished_early(shards, tmp_path):
    values = _values(shards, tmp_path / "run")
    values["stages"] = [{**OPEN, "schedule": "cosine", "steps": 30}]
    command = _config(values, tmp_path / "config.yaml")
    assert main([*command, "--until", "10"]) == 0 and main([*command, "--finish", "4"]) == 0
    assert torch.load(tmp_path / "run" / "finish-10" / CHECKPOINT, weights_only=True)["step"] == 14


def test_a_damaged_checkpoint_falls_back_to_the_one_before(shards, tmp_path):
    values = _values(shards, tmp_path / "run", checkpoint_every=4)
    curve = _trainer(values).run(until=8)
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"PK cut short")
    assert torch.load(tmp_path / "run" / PREVIOUS, weights_only=True)["step"] == 8  # written at the step and at the end
    said: list[str] = []
    trainer = _trainer(values, said)
    trainer.resume(tmp_path / "run")
    assert any("cut short" in line and PREVIOUS in line for line in said)
    assert trainer.step == 8 and trainer.run(until=9) and len(curve) == 8
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"")
    (tmp_path / "run" / PREVIOUS).write_bytes(b"")
    with pytest.raises(ModelError, match="cut short"):
        trainer.resume(tmp_path / "run")


def test_a_checkpoint_is_written_by_the_clock_too(shards, tmp_path):
    trainer = _trainer(_values(shards, tmp_path / "run", checkpoint_minutes=0.0))
    steps = []
    trainer.checkpoint = lambda: steps.append(trainer.step)
    trainer.run(until=3)
    assert steps == [1, 2, 3, 3]


def test_a_loss_that_is_no_number_stops_before_the_checkpoint(shards, tmp_path):
    values = _values(shards, tmp_path / "run")
    trainer = _trainer(values)
    trainer.run(until=2)
    with torch.no_grad():
        trainer.net.last.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not a number"):
        trainer.run(until=4)
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["step"] == 2


# data


def test_shares_are_kept_at_any_time_and_every_part_is_gone_through_in_order():
    mixture = Mixture([Part("a", range(10), 0.5), Part("b", range(3), 0.3), Part("c", range(7), 0.2)])
    seen: dict[int, int] = {0: 0, 1: 0, 2: 0}
    for number in range(5000):
        which, before = mixture.pick(number)
        assert before == seen[which]  # no sample of a part is left out or taken twice
        seen[which] += 1
        for k, share in enumerate((0.5, 0.3, 0.2)):
            assert abs(seen[k] - share * (number + 1)) < 1.7
    assert seen == {0: 2500, 1: 1500, 2: 1000}


class _Named:
    """A source whose samples say where they come from and how large they are."""

    def __init__(self, name: int, count: int) -> None:
        self.name, self.count = name, count

    def __len__(self) -> int:
        return self.count

    def sample(self, index, image_size, map_size, rng):
        return {"who": np.array([self.name, index]), "sizes": np.array([image_size, map_size])}


def test_a_step_sees_the_shares_and_every_picture_once_a_round():
    stage = Stage(schedule="open", image_size=[168, 196, 224], synthetic_batch=10)
    sources = {"synthetic": Mixture([Part("fast", _Named(0, 70), 0.7), Part("cycles", _Named(1, 30), 0.3)])}
    got = list(batches(sources, stage, 14, 0, 20, 5, 0))
    for step, batch in enumerate(got):
        assert (batch["synthetic"]["who"][:, 0] == 1).sum() == 3
        size = size_at(stage, step, 5)
        assert (batch["synthetic"]["sizes"] == torch.tensor([size, 4 * size // 14])).all()
    assert {size_at(stage, k, 5) for k in range(20)} == {168, 196, 224}
    for part, count in ((0, 70), (1, 30)):
        rounds = torch.cat([b["synthetic"]["who"] for b in got])
        order = rounds[rounds[:, 0] == part][:, 1].tolist()
        assert sorted(order[:count]) == list(range(count)) == sorted(order[count:]) and order[:count] != order[count:]
    # from the middle, the same
    again = list(batches(sources, stage, 14, 7, 9, 5, 0))
    assert torch.equal(again[0]["synthetic"]["who"], got[7]["synthetic"]["who"])


def test_an_optional_source_joins_when_it_has_shards_and_a_grown_folder_is_gone_on_with(tmp_path):
    _write_shard(tmp_path / "fast" / "shard_0000")
    values = _values(tmp_path / "fast", tmp_path / "run")
    cycles = {"folder": str(tmp_path / "cycles"), "share": 0.5, "optional": True}
    values["data"]["synthetic"] = [{"folder": str(tmp_path / "fast")}, cycles]
    said: list[str] = []
    first = _trainer(values, said)
    assert any("cycles: no shards" in line and "left out" in line for line in said)
    assert first._pictures() == {"fast": 12}
    first.run(until=5)
    _write_shard(tmp_path / "cycles" / "shard_0000", count=4)
    _write_shard(tmp_path / "fast" / "shard_0001", count=6)
    grown = _trainer(values, said := [])
    assert any("fast: 18 pictures" in line for line in said)
    grown.resume(tmp_path / "run")
    assert [round(p.share, 6) for p in grown.sources["synthetic"].parts] == [0.5, 0.5]
    curve = grown.run(until=9)
    starts = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "start"]
    assert [(s["step"], s["pictures"]) for s in starts] == [(0, {"fast": 12}), (5, {"fast": 18, "cycles": 4})]
    # with the data that is there now, exact again
    again = _trainer(values)
    again.out = tmp_path / "again"
    again.resume(tmp_path / "run" / PREVIOUS)
    assert again.step == 5 and again.run(until=9) == curve
    del values["data"]["synthetic"][1]["optional"]
    (tmp_path / "cycles" / "shard_0000").rename(tmp_path / "gone")
    with pytest.raises(ModelError, match="holds no shards"):
        _trainer(values)


@pytest.mark.parametrize(
    "training, held_out, message",
    [(1, 2, None), (2, 3, "kept for held-out"), (9000, 2, "benchmark's suites"), (7999, 2, "benchmark's suites"), (8000, 2, None), (5, 5, "also that of")],
)
def test_what_networks_are_judged_by_is_not_learned_from(tmp_path, training, held_out, message):
    for name, seed in (("train", training), ("held_out", held_out)):
        folder = tmp_path / name / "shard_0000"
        _write_shard(folder, count=2)
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps({**meta, "seed": seed}))
    values = _values(tmp_path / "train", tmp_path / "run")
    values["data"]["held_out"] = str(tmp_path / "held_out")
    if message is None:
        _trainer(values)
        return
    with pytest.raises(ModelError, match=message) as raised:
        _trainer(values)
    assert "\n" not in str(raised.value)


def test_shards_of_another_cube_are_refused(tmp_path):
    _write_shard(tmp_path / "shard_0000", count=2)
    meta = json.loads((tmp_path / "shard_0000" / "meta.json").read_text())
    del meta["cube"]  # before there were versions
    (tmp_path / "shard_0000" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ModelError, match="version 1 of the canonical cube"):
        _trainer(_values(tmp_path, tmp_path / "run"))


# the start, the log


def test_a_network_starts_from_one_with_more_blocks(shards, tmp_path):
    torch.manual_seed(1)
    big = LiteNet(LiteConfig.from_dict({**TINY, "layers": 4, "taps": [2, 4]}))
    save_network(tmp_path / "big.safetensors", big)
    given = load_network(tmp_path / "big.safetensors").network.state_dict()
    for blocks, kept, left in (([], (0, 1), "not loaded: blocks 3, 4"), ([1, 4], (0, 3), "not loaded: blocks 2, 3")):
        values = _values(shards, tmp_path / "run")
        values["network"] = {"lite": TINY, "start": str(tmp_path / "big.safetensors"), "start_blocks": blocks}
        trainer = _trainer(values, said := [])
        own = trainer.net.state_dict()
        for new, old in enumerate(kept):
            name = "backbone.encoder.layer.{}.attention.q_proj.weight"
            assert torch.equal(own[name.format(new)], given[name.format(old)])
        assert torch.equal(own["tap_layers.1.weight"], given["tap_layers.1.weight"])
        assert any(left in line and "now read its blocks" in line for line in said)
    values["network"]["lite"] = {**TINY, "layers": 5, "taps": [1, 5]}
    values["network"]["start_blocks"] = []
    with pytest.raises(ModelError, match="has 4 blocks, and block 5"):
        _trainer(values)


def test_the_log_counts_passes_on_and_is_drawn(shards, tmp_path, capsys):
    values = _values(shards, tmp_path / "run", log_every=2, validate_every=3, passes_before=37_000)
    values["data"]["held_out"] = [{"name": "fast", "folder": str(shards)}, {"name": "cycles", "folder": str(shards)}]
    trainer = _trainer(values, said := [])
    trainer.run(until=6)
    assert any(line.startswith("step 6: 37,024 passes, ") and "pictures/s" in line and "coordinate" in line for line in said)
    assert any("held out: fast: cube error" in line and "cycles: cube error" in line and "mask IoU" in line for line in said)
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"kind": "losses", "st')  # a machine that lost its power
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert [(line["step"], line["passes"]) for line in lines if line["kind"] == "held_out"] == [(3, 37_012), (6, 37_024)]
    held_out = [line for line in lines if line["kind"] == "held_out"][-1]["scores"]
    assert set(held_out) == {"fast", "cycles"} and set(held_out["fast"]) == {"error", "surface_error", "mask_iou"}
    pytest.importorskip("matplotlib", reason="matplotlib draws the plot")
    assert plot([str(tmp_path / "run"), "--out", str(tmp_path / "plot.png")]) == 0 and (tmp_path / "plot.png").stat().st_size > 5000
    assert plot([str(tmp_path), "--out", str(tmp_path / "plot.png")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_paused_process_is_no_slow_one(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("densemarks_model.train.records.time.monotonic", lambda: clock[0])
    records = Records(None, False)
    for step in range(1, 11):
        clock[0] += 2 if step != 7 else 3600  # stopped for an hour while something else was timed
        records.add({"total": torch.tensor(1.0)}, 16)
    with records.uncounted():
        clock[0] += 50
    assert "160 passes, 8.0 pictures/s" in records.line(10, 160)


def test_pictures_are_whole_patches(shards, tmp_path):
    values = _values(shards, tmp_path / "run")
    values["stages"][0]["image_size"] = [28, 40]
    with pytest.raises(ModelError, match="40 is not a multiple"):
        _trainer(values)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"stages": [dict(OPEN), {"steps": 5}]}, "none can follow"),
        ({"stages": [{"schedule": "linear"}]}, "must be 'cosine' or 'open', not 'linear'"),
        ({"stages": [{"image_size": []}]}, r"'stages\[0\]\.image_size' must be a whole number or a list of 1 or more"),
        ({"data": {"synthetic": [{"folder": "a", "share": 0.7}, {"folder": "b", "share": 0.6}]}}, "'data.synthetic' has shares of more than 1"),
        ({"data": {"synthetic": [{"folder": "a/x"}, {"folder": "b/x"}]}}, "same name"),
        ({"data": {"synthetic": [{"share": 0.7}]}}, r"'data\.synthetic\[0\]\.folder' is missing"),
        ({"data": {"synthetic": "x", "augment": "much"}}, "must be 'plain' or 'strong'"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(ModelError, match=message):
        parse_config({"data": {"synthetic": "x"}, **values}, "test.yaml")
