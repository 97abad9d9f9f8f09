"""Reading settings files: what is taken, and that every mistake is one line with the file and the key."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field, model_validator

from flame_assets.settings_files import ListOf, Settings, laid_over, parsed_yaml, read_yaml, validated


class Stage(Settings):
    steps: int = Field(10, ge=1)
    rates: ListOf[float] = (0.1,)


class Optimiser(Settings):
    rate: float = Field(0.1, gt=0)
    kind: Literal["adam", "sgd"] = "adam"
    clip: bool = True
    size: int | list[int] = 3
    factors: dict[str, float] = Field(default_factory=dict)


class Run(Settings):
    folder: str
    optimiser: Optimiser = Optimiser()
    stages: ListOf[Stage] = Field((Stage(),), min_length=1)

    @model_validator(mode="after")
    def _enough(self) -> Run:
        if sum(s.steps for s in self.stages) > 1000:
            raise ValueError("stages have more than 1000 steps together")
        return self


class Refused(Exception):
    pass


def _read(tmp_path, text: str) -> Run:
    (tmp_path / "mine.yaml").write_text(text)
    return validated(Run, {"folder": "here"} | read_yaml(tmp_path / "mine.yaml", Refused), "config mine.yaml", Refused)


@pytest.mark.parametrize("text", ["1e-1", "1E-1", "+.1e0", "1.e-1", "10e-2", "0.1"])
def test_numbers_may_have_exponents(tmp_path, text):
    assert _read(tmp_path, f"optimiser: {{rate: {text}}}").optimiser.rate == pytest.approx(0.1, rel=1e-12)


def test_whole_numbers_pass_as_numbers_and_lists_become_tuples(tmp_path):
    run = _read(tmp_path, "optimiser: {rate: 2, size: [1, 2]}\nstages: [{rates: [1, .inf]}, {steps: 3}]")
    assert run.optimiser.rate == 2.0 and isinstance(run.optimiser.rate, float)
    assert run.stages == (Stage(rates=(1.0, float("inf"))), Stage(steps=3))
    assert run.optimiser.size == [1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimiser: {rate: 0}", "'optimiser.rate' must be positive, not 0"),
        ("optimiser: {rate: '1'}", "'optimiser.rate' must be a number, not '1'"),
        ("optimiser: {rate: true}", "'optimiser.rate' must be a number, not True"),
        ("optimiser: {rate: .nan}", "'optimiser.rate' is not a number"),
        ("optimiser: {clip: 1}", "'optimiser.clip' must be true or false, not 1"),
        ("optimiser: {kind: lion}", "'optimiser.kind' must be 'adam' or 'sgd', not 'lion'"),
        ("optimiser: {size: wide}", "'optimiser.size' must be a whole number or a list, not 'wide'"),
        ("optimiser: {size: [1, x]}", "'optimiser.size[1]' must be a whole number, not 'x'"),
        ("optimiser: {factors: {lips: x}}", "'optimiser.factors.lips' must be a number, not 'x'"),
        ("optimiser: 3", "'optimiser' must be a section with keys of its own, not 3"),
        ("optimiser:", "'optimiser' must be a section with keys of its own, not None"),
        ("optimizer: {rate: 1}", "unknown key 'optimizer'; known here: folder, optimiser, stages"),
        ("stages: [{}, {step: 3}]", "unknown key 'stages[1].step'; known here: steps, rates"),
        ("stages: [{steps: 0}]", "'stages[0].steps' must be at least 1, not 0"),
        ("stages: [{steps: 1e1}]", "'stages[0].steps' must be a whole number, not 10.0"),
        ("stages: []", "'stages' must be a list of 1 or more, not []"),
        ("stages: [{steps: 999}, {}]", "config mine.yaml: stages have more than 1000 steps together"),
        ("folder: 3", "'folder' must be text, not 3"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, text, said):
    with pytest.raises(Refused) as error:
        _read(tmp_path, text)
    assert str(error.value).startswith("config mine.yaml: ") and str(error.value).endswith(said)


def test_keys_that_cannot_be_shown_are_told_in_one_line(tmp_path):
    (tmp_path / "a.yaml").write_text('folder: x\noptimiser: {"\\n\\e[31m": 1}\n"\\n": {"\\t": .nan}\n')
    with pytest.raises(ValueError) as error:
        validated(Run, read_yaml(tmp_path / "a.yaml", ValueError), "a.yaml", ValueError)
    assert str(error.value).isprintable() and "\\n" in str(error.value)
    with pytest.raises(ValueError) as error:
        validated(Run, {"folder": "x", "optimiser": {"\n\x1b[31m": 1}}, "a.yaml", ValueError)
    assert str(error.value).isprintable() and "optimiser.\\n\\x1b[31m" in str(error.value)


def test_what_must_be_given_is_named():
    with pytest.raises(Refused, match=r"^here: 'folder' is missing$"):
        validated(Run, {}, "here", Refused)


def test_records_cannot_be_changed_and_defaults_keep_to_their_bounds():
    with pytest.raises(ValueError, match="frozen"):
        Stage().steps = 5  # type: ignore[misc]

    class Wrong(Settings):
        steps: int = Field(0, ge=1)

    with pytest.raises(ValueError, match="greater than"):
        Wrong()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "expected sections"),
        ("a: [", "not valid YAML"),
        ("a: 2020-13-45", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_files_that_are_no_settings_are_named(tmp_path, text, said):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(Refused, match=r"bad\.yaml") as error:
        read_yaml(tmp_path / "bad.yaml", Refused)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_missing_undecodable_and_empty_files(tmp_path):
    with pytest.raises(Refused, match=r"none\.yaml: cannot be read"):
        read_yaml(tmp_path / "none.yaml", Refused)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(Refused, match=r"latin\.yaml: not valid YAML"):
        read_yaml(tmp_path / "latin.yaml", Refused)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml", Refused) == {}


def test_a_value_alone():
    assert parsed_yaml("1e-3") == 1e-3 and parsed_yaml("[a, 2]") == ["a", 2]
    with pytest.raises(ValueError, match=r"\["):
        parsed_yaml("a: [")


def test_laying_over_goes_section_by_section_and_changes_neither():
    below, above = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}, {"a": {"y": {"w": 4}}, "c": [5]}
    assert laid_over(below, above) == {"a": {"x": 1, "y": {"z": 2, "w": 4}}, "b": 3, "c": [5]}
    assert below == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
