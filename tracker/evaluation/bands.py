"""Bands that a quick run's figures must stay in: a guard against changes that make the tracker worse unnoticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracker.evaluation.summary import look_up

BANDS_FILE = Path(__file__).with_name("quick_bands.json")


def outside(scores: Mapping[str, Any], file: Path = BANDS_FILE) -> list[str]:
    """A sentence for every figure that is missing or outside its band.

    ``file`` maps paths in the scores to ``[low, high]``, either of which may be null.
    """
    problems = []
    for path, (low, high) in json.loads(file.read_text(encoding="utf-8")).items():
        value = look_up(scores, path)
        if value is None:
            problems.append(f"{path}: no figure")
        elif (low is not None and value < low) or (high is not None and value > high):
            problems.append(f"{path}: {value:.4g} lies outside of [{'−∞' if low is None else low}, {'∞' if high is None else high}]")
    return problems
