"""Settings files with every key at its worst, and YAML that tries to grow."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tests.hostile_cases import Case
from tracker.settings import TrackerSettings
from tracker.video.packaged_clips import EXCERPT

WORST = {
    "text": "'x'", "list": "[1]", "section": "{a: 1}", "nothing": "null", "nan": ".nan", "minus-one": "-1", "minus-infinity": "-.inf", "largest": "1.7e308",
    "whole-largest": "1" + "0" * 40, "true": "true", "date": "2020-01-01", "bytes": "!!binary aGk=", "python": "!!python/name:os.system",
}  # fmt: skip


def leaves(record: type[BaseModel] = TrackerSettings, key: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting that is no section, by its dotted name; stages are none of them."""
    for name, field in record.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{key}{name}.")
        elif get_origin(kind) is not dict and not any(isinstance(a, types.UnionType) for a in get_args(kind)):
            yield key + name, field


def bounds(field: FieldInfo) -> dict[str, float]:
    """Lowest and highest values that a setting may have, as far as they are said."""
    said = {}
    for mark in field.metadata:
        if isinstance(mark, (Ge, Gt)):
            said["lowest"] = mark.ge if isinstance(mark, Ge) else mark.gt
        elif isinstance(mark, (Le, Lt)):
            said["highest"] = mark.le if isinstance(mark, Le) else mark.lt
    return said


def nested(key: str, value: str) -> str:
    """``a.b`` and a value as YAML in one line."""
    *sections, last = key.split(".")
    return "".join(f"{{{s}: " for s in sections) + f"{{{last}: {value}}}" + "}" * len(sections) + "\n"


def config(text: str | bytes, clip: str = str(EXCERPT), frames: str = "3") -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        (folder / "mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["--video", clip, "--config", str(folder / "mine.yaml"), "--max-frames", frames, "--no-overlay"]

    return write


def laughs(levels: int = 12) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [" + ", ".join([f"*a{k - 1}"] * 10) + "]" for k in range(1, levels)]
    return "\n".join(lines) + "\n"


def merges(levels: int = 14) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{k}: &a{k} {{<<: [" + ", ".join([f"*a{k - 1}"] * 10) + "]}" for k in range(1, levels)]
    return "\n".join(lines) + "\n"


_DENSE = "stages: {windows: {frames: {cues: [landmarks, look_up, photometric, priors]}}}\n"

FILES: dict[str, tuple[str | bytes, str]] = {
    "laughs": (laughs(), "too many"),
    "merges": (merges(), ""),
    "anchor-in-itself": ("windows: &a {frames: *a}\n", ""),
    "list-in-itself": ("windows: &a [*a]\n", "nested too deeply"),
    "deep-lists": ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "deep-sections": ("{a: " * 3000 + "1" + "}" * 3000, "nested too deeply"),
    "key-twice": ("windows: {frames: 8}\nwindows: {frames: 9}\n", "twice"),
    "key-number": ("1: 2\n", "unknown key '1'"),
    "key-nothing": ("null: 2\n", "no word"),
    "key-list": ("? [a, b]\n: 1\n", ""),
    "key-section": ("? {a: b}\n: 1\n", ""),
    "key-long": ("k" * 900 + ": 1\n", "unknown key"),
    "value-long": ("windows: {frames: " + "v" * 90_000 + "}\n", "windows.frames"),
    "number-long": ("windows: {frames: " + "9" * 100_000 + "}\n", ""),
    "number-base-60": ("windows: {frames: 1:30:59}\n", ""),
    "number-hex": ("windows: {frames: 0x" + "f" * 3000 + "}\n", ""),
    "large-file": ("# " + "x" * 2_000_000, "too large"),
    "many-keys": ("".join(f"k{i}: 1\n" for i in range(9_000)), ""),
    "binary": (bytes(range(256)) * 4, "not valid YAML"),
    "utf-16": ("windows: {frames: 8}\n".encode("utf-16"), "not valid YAML"),
    "bom": (b"\xef\xbb\xbfwindows: {frames: 8}\n", ""),
    "nul": (b"windows: \0\n", "not valid YAML"),
    "two-documents": ("a: 1\n---\nb: 2\n", "not valid YAML"),
    "tag-python": ("!!python/object/apply:os.system ['touch hacked']\n", "not valid YAML"),
    "tag-own": ("windows: !mine {frames: 8}\n", "not valid YAML"),
    "tag-set": ("windows: !!set {frames}\n", "windows"),
    "tag-omap": ("windows: !!omap [frames: 8]\n", "windows"),
    "tag-pairs": ("windows: !!pairs [frames: 8]\n", "windows"),
    "tag-int-of-text": ("windows: {frames: !!int x}\n", "not valid YAML"),
    "tag-bool-of-text": ("windows: {frames: !!bool x}\n", "not valid YAML"),
    "tag-timestamp": ("windows: {frames: !!timestamp x}\n", "not valid YAML"),
    "top-list": ("[1, 2]\n", "expected sections"),
    "top-word": ("hello\n", "expected sections"),
    "tabs": ("windows:\n\tframes: 8\n", "not valid YAML"),
    "stage-without-anything": ("stages: {windows: {x: {}}}\n", "missing"),
    "stage-word": ("stages: {windows: {frames: x}}\n", "frames"),
    "stage-cues-word": ("stages: {windows: {frames: {cues: landmarks}}}\n", "cues"),
    "stage-no-cues": ("stages: {windows: {frames: {cues: []}}}\n", ""),
    "stage-nothing-free": ("stages: {windows: {frames: {free: []}}}\n", ""),
    "stage-cue-unknown": ("stages: {windows: {frames: {cues: [magic]}}}\n", "magic"),
    "stage-cue-twice": ("stages: {windows: {frames: {cues: [landmarks, landmarks, priors]}}}\n", ""),
    "stage-free-twice": ("stages: {windows: {frames: {free: [pose, pose]}}}\n", ""),
    "stage-identity-in-windows": ("stages: {windows: {frames: {free: [pose, identity, focal]}}}\n", ""),
    "stage-needs-unknown": ("stages: {windows: {frames: {needs: magic}}}\n", "magic"),
    "stage-needs-what-is-not-read": ("stages: {windows: {frames: {needs: photometric}}}\n", ""),
    "stage-iterations-endless": ("stages: {windows: {frames: {iterations: 1000000000}}}\n", "at most"),
    "stage-rounds-endless": ("stages: {windows: {frames: {rounds: 1000000000}}}\n", "at most"),
    "no-stages": ("stages: {keyframes: {pose: null, face: null, identity: null}, windows: {frames: null}}\n", ""),
    "no-window-stages": ("stages: {windows: {frames: null}}\n", ""),
    "no-keyframe-stages": ("stages: {keyframes: {pose: null, face: null, identity: null}}\n", ""),
    "stages-list": ("stages: [1]\n", "stages"),
    "stages-name-number": ("stages: {windows: {1: null}}\n", ""),
    "lookahead-beyond-window": ("windows: {frames: 4, lookahead: 400}\n", ""),
    "too-much-at-once": ("windows: {frames: 1024}\nobserve: {sites: 5000}\nphotometric: {points: 10000}\n" + _DENSE, "too many for any memory"),
    "error-limit-tiny": ("windows: {max_error_percent: 0.0001}\n", "max_error_percent"),
    "cosines-swapped": ("landmarks: {hidden_cosine: 1, visible_cosine: -1}\n", ""),
}


def settings() -> list[Case]:
    cases = []
    for key, field in leaves():
        said = bounds(field)
        wrong = {n: v for n, v in WORST.items() if not (n == "largest" and "highest" not in said) and not (n == "minus-one" and said.get("lowest", 0) < 0)}
        wrong |= {"below": repr(said["lowest"] - 1)} if "lowest" in said else {}
        wrong |= {"above": repr(said["highest"] * 2 + 1)} if "highest" in said else {}
        if "whole-largest" in wrong and "highest" not in said:
            del wrong["whole-largest"]
        for number, (name, value) in enumerate(wrong.items()):
            slow = "" if number == len(key) % 7 else "one of a kind for each key is enough"
            cases.append(Case(f"{key}-{name}", config(nested(key, value)), "" if name == "python" else key, works=False, reason=slow))
        for name, value in said.items():
            text = repr(value if field.annotation is int else float(value) or 1e-9)
            cases.append(Case(f"{key}-at-{name}", config(nested(key, text)), preset="best", reason="a run of the whole fit"))
    cases += [Case(f"yaml-{name}", config(text), said) for name, (text, said) in FILES.items()]

    def named(path: str) -> Callable[[Path], list[str]]:
        return lambda folder: ["--video", str(EXCERPT), "--config", path.replace("HERE", str(folder))]

    cases += [
        Case("config-missing", named("HERE/none.yaml"), "none.yaml"),
        Case("config-folder", named("HERE"), "not a file"),
        Case("config-device", named("/dev/zero"), "not a file"),
        Case("config-long-name", named("HERE/" + "a" * 300), "too long"),
    ]
    if hasattr(os, "mkfifo"):
        cases.append(Case("config-pipe", lambda folder: (os.mkfifo(folder / "p"), ["--video", str(EXCERPT), "--config", str(folder / "p")])[1], "not a file"))
    return cases


def example() -> dict[str, Any]:
    """A valid file, to change at random."""
    return yaml.safe_load(Path("configs/best.yaml").read_text(encoding="utf-8"))
