"""Presets and the user's own settings file."""

from __future__ import annotations

import pytest

from tracker.config import PRESETS, TrackerConfig, load_config
from tracker.errors import UserError


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_loads(preset):
    assert isinstance(load_config(preset), TrackerConfig)


def test_presets_differ_in_effort():
    effort = [
        (c.dense.enabled, c.photometric.enabled, -c.dense.stride, c.tracking.iterations)
        for c in map(load_config, PRESETS)
    ]
    assert effort == sorted(effort) and len(set(effort)) == len(effort)


def test_users_file_changes_what_it_names_and_nothing_else(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("tracking: {window: 7, free_neck: true}\nlandmarks: {error_percent: {lips: 1.5}}\n")
    mine, preset = load_config("fast", file), load_config("fast")
    assert (mine.tracking.window, mine.tracking.free_neck) == (7, True)
    assert mine.landmarks.error_percent["lips"] == 1.5
    assert mine.landmarks.error_percent["lids"] == preset.landmarks.error_percent["lids"]
    assert mine.tracking.iterations == preset.tracking.iterations
    assert mine.priors == preset.priors


@pytest.mark.parametrize("text", ["1e-1", "1E-1", "+.1e0", "1.e-1", "10e-2", "0.1"])
def test_numbers_may_have_exponents(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(f"priors: {{gaze_rad: {text}, jaw_rad: 1.0e300}}\n")
    priors = load_config("fast", tmp_path / "mine.yaml").priors
    assert priors.gaze_rad == pytest.approx(0.1, rel=1e-12) and priors.jaw_rad == 1e300


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config("best", tmp_path / "empty.yaml") == load_config("best")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tracking: {windows: 7}", "tracking.windows"),
        ("trackin: {window: 7}", "trackin"),
        ("tracking: {window: wide}", "tracking.window"),
        ("tracking: {window: 7.5}", "tracking.window"),
        ("tracking: {window: 0}", "tracking.window"),
        ("tracking: {free_neck: 1}", "tracking.free_neck"),
        ("priors: {identity: .nan}", "priors.identity"),
        ("priors: {identity: -1}", "priors.identity"),
        ("priors: 3", "priors"),
        ("priors: {identity: 1e}", "priors.identity"),
        ("priors: {identity: '1e-1'}", "priors.identity"),
        ("tracking: {window: 1e1}", "tracking.window"),
        ("landmarks: {error_percent: {lipz: 1}}", "lipz"),
        ("[1, 2]", "expected sections"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, named):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml") as error:
        load_config("fast", tmp_path / "bad.yaml")
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_preset_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        load_config("fast", tmp_path / "none.yaml")
    with pytest.raises(UserError, match="choose from"):
        load_config("turbo")
