"""Presets and the user's own settings file."""

from __future__ import annotations

import pytest

from configs import PRESETS
from tracker.errors import UserError
from tracker.settings import TrackerSettings, load_settings


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_loads(preset):
    assert isinstance(load_settings(preset), TrackerSettings)


def test_presets_differ_in_effort():
    effort = [
        (len(c.reads), -c.observe.stride, sum(stage.iterations for stage in c.window_stages.values()))
        for c in map(load_settings, PRESETS)
    ]
    assert PRESETS == ("fast", "balanced", "best")
    assert [len(c.reads) for c in map(load_settings, PRESETS)] == [0, 3, 4]
    assert effort == sorted(effort) and len(set(effort)) == len(effort)


def test_users_file_changes_what_it_names_and_nothing_else(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("windows: {frames: 7}\nlandmarks: {error_percent: {lips: 1.5}}\nstages: {windows: {frames: {rounds: 2}}}\n")
    mine, preset = load_settings("fast", file), load_settings("fast")
    assert mine.windows.frames == 7 and mine.windows.lookahead == preset.windows.lookahead
    assert mine.cue("landmarks").error_percent.lips == 1.5
    assert mine.cue("landmarks").error_percent.lids == preset.cue("landmarks").error_percent.lids
    assert mine.window_stages["frames"].rounds == 2
    assert mine.window_stages["frames"].cues == preset.window_stages["frames"].cues
    assert mine.cue("priors") == preset.cue("priors")


def test_stages_can_be_added_and_left_out_by_name(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "stages: {windows: {colours: null, polish: {free: [face], cues: [landmarks, priors], iterations: 2, needs: look_up}}, tied: {faces: null}}\n"
    )
    mine = load_settings("best", tmp_path / "mine.yaml")
    assert list(mine.window_stages) == ["frames", "outline", "polish"]
    assert mine.reads == {"dense", "outlines"}  # no cue looks at pictures any more
    assert load_settings("best").without("look_up").window_stages.keys() == {"outline", "colours"} | {"frames"}
    assert "neck" not in load_settings("best").holding("neck").groups


@pytest.mark.parametrize("text", ["1e-1", "1E-1", "+.1e0", "1.e-1", "10e-2", "0.1"])
def test_numbers_may_have_exponents(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(f"smoothness: {{eyes_rad: {text}, jaw_rad: 1.0e300}}\n")
    smoothness = load_settings("fast", tmp_path / "mine.yaml").cue("smoothness")
    assert smoothness.eyes_rad == pytest.approx(0.1, rel=1e-12) and smoothness.jaw_rad == 1e300


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_settings("best", tmp_path / "empty.yaml") == load_settings("best")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("windows: {frame: 7}", "windows.frame"),
        ("window: {frames: 7}", "window"),
        ("windows: {frames: wide}", "windows.frames"),
        ("windows: {frames: 7.5}", "windows.frames"),
        ("windows: {frames: 0}", "windows.frames"),
        ("overlay: {opacity: 1.5}", "overlay.opacity"),
        ("stages: {windows: {frames: {cues: [landmark]}}}", "stages.windows.frames.cues"),
        ("stages: {windows: {frames: {free: [head]}}}", "stages.windows.frames.free"),
        ("stages: {windows: {more: {free: [pose], cues: [priors]}}}", "stages.windows.more.iterations"),
        ("priors: {identity: .nan}", "priors.identity"),
        ("priors: {identity: -1}", "priors.identity"),
        ("priors: 3", "priors"),
        ("priors: {identity: 1e}", "priors.identity"),
        ("priors: {identity: '1e-1'}", "priors.identity"),
        ("windows: {frames: 1e1}", "windows.frames"),
        ("landmarks: {error_percent: {lipz: 1}}", "lipz"),
        ("[1, 2]", "expected sections"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, named):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml") as error:
        load_settings("fast", tmp_path / "bad.yaml")
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_preset_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        load_settings("fast", tmp_path / "none.yaml")
    with pytest.raises(UserError, match="choose from"):
        load_settings("turbo")
