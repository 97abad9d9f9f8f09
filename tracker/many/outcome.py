"""What became of a video, and the table of all of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flame_assets.atomic_files import atomic_file

DONE, EARLIER, REFUSED, FAULT = "done", "done earlier", "failed", "fault"
"""Tracked now; found finished; it, or the options, cannot be tracked; the program failed, and may not the next time."""

_COLUMNS = (
    "name", "video", "state", "frames", "valid_frames", "median_error_percent", "p95_error_percent", "focal_px", "focal_relative_sigma",
    "seconds", "frames_per_second", "peak_memory_mb", "tries", "notes", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a try at a video ended.

    Attributes:
        state: one of the four above.
        summary: of the result, as ``summary.json`` has it; empty where there is none.
        error: one line; empty where all is well.
    """

    state: str
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether there is a result."""
        return self.state in (DONE, EARLIER)


@dataclass(frozen=True)
class Row:
    """A line of the table: a video, how often it was tried, and the last outcome."""

    name: str
    video: Path
    tries: int
    outcome: Outcome

    def cells(self) -> dict[str, Any]:
        """The line's cells by column; what is not known is empty."""
        summary, seen = self.outcome.summary, {}
        error = _part(summary, "landmark_error_percent_of_inter_ocular")
        seen["median_error_percent"], seen["p95_error_percent"] = (_rounded(error.get(k), 3) for k in ("median", "p95"))
        seen["frames_per_second"] = _part(summary, "frames_per_second").get("end_to_end")
        for column, key, digits in (("seconds", "total_seconds", 2), ("focal_px", "focal_px", 1), ("focal_relative_sigma", "focal_relative_sigma", 4)):
            seen[column] = _rounded(summary.get(key), digits)
        for key in ("frames", "valid_frames", "peak_memory_mb"):
            seen[key] = summary.get(key)
        notes = summary.get("notes")
        seen["notes"] = " | ".join(map(str, notes)) if isinstance(notes, list) else None
        state = REFUSED if self.outcome.state == FAULT else self.outcome.state
        found = {"name": self.name, "video": str(self.video), "state": state, **seen, "tries": self.tries, "error": self.outcome.error}
        return {column: found[column] for column in _COLUMNS}


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """``results.csv``, whole or not at all."""
    with atomic_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(row.cells() for row in rows)


def _part(summary: dict[str, Any], key: str) -> dict[str, Any]:
    value = summary.get(key)
    return value if isinstance(value, dict) else {}


def _rounded(value: Any, digits: int) -> float | None:
    return round(value, digits) if isinstance(value, int | float) else None
