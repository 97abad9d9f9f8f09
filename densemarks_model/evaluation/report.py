"""The table of an evaluation as text, Markdown and JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from densemarks_model.evaluation.matchers import RAW_FEATURES, STAY_PUT
from densemarks_model.evaluation.metrics import Measure

_SYNTHETIC = {
    "mean_error": "mean error on head pixels",
    "median_error": "median error on head pixels",
    "mean_error_surface": "mean error where the bald head lies behind",
    "mask_iou": "head mask, IoU",
}
_LANDMARKS = {
    "spread_rms": "spread, RMS",
    "spread_median": "spread, median",
    "offset": "offset from the head model",
}


@dataclass
class Evaluation:
    """Everything that was measured; what was not is empty or None, and ``notes`` say why.

    Attributes:
        network, runtime: what was measured, and in which runtime and precision.
        synthetic, landmarks: measures by name. transfer, tracks: measures by matcher and name. speed: milliseconds.
        people, frames: how many the clips gave. notes, details: lines for the user; details only when asked for.
    """

    network: str
    runtime: str
    synthetic: dict[str, Measure] = field(default_factory=dict)
    landmarks: dict[str, Measure] = field(default_factory=dict)
    transfer: dict[str, dict[str, Measure]] = field(default_factory=dict)
    tracks: dict[str, dict[str, Measure]] = field(default_factory=dict)
    speed: Measure | None = None
    people: int = 0
    frames: int = 0
    notes: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """Stable names: part, then (matcher, then) measure. The network under test is the matcher ``network``."""
        keys = {self.network: "network", RAW_FEATURES: "raw_features", STAY_PUT: "stay_put"}

        def nested(part: dict[str, dict[str, Measure]]) -> dict[str, Any]:
            return {keys.get(n, n): {k: m.json() for k, m in measures.items()} for n, measures in part.items()}

        return {
            "network": self.network,
            "runtime": self.runtime,
            "people": self.people,
            "frames": self.frames,
            "synthetic": {k: m.json() for k, m in self.synthetic.items()},
            "landmarks": {k: m.json() for k, m in self.landmarks.items()},
            "transfer": nested(self.transfer),
            "tracks": nested(self.tracks),
            "milliseconds_per_crop": self.speed.json() if self.speed else None,
            "notes": self.notes,
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """What, value, 95 % interval, number of things it was measured on."""
        rows = []
        for name, measure in self.synthetic.items():
            label = _SYNTHETIC[name] if name in _SYNTHETIC else _yaw(name, "mean error")
            rows.append(_row(f"synthetic: {label}", measure, "{:.4f}", "pictures"))
        for name, measure in self.landmarks.items():
            base, inner = name.removesuffix("_inner"), name.endswith("_inner")
            label = f"landmarks{' without irises, lips, lids' if inner else ''}: {_LANDMARKS[base]}"
            rows.append(_row(label, measure, "{:.4f}", "landmarks"))
        for matcher, part in self.transfer.items():
            for name, measure in part.items():
                label = "PCK@0.05 between people" + ("" if name == "pck" else f", {_yaw(name, 'yaw apart by')}")
                rows.append(_row(f"{label}: {matcher}", measure, "{:.1%}", "pairs"))
        for matcher, part in self.tracks.items():
            for name, measure in part.items():
                label = {"epe_mean": "mean", "epe_median": "median"}.get(name, f"gap of {name.rsplit('_', 1)[-1]} frames")
                rows.append(_row(f"end-point error on flow tracks, px, {label}: {matcher}", measure, "{:.2f}", "pairs"))
        if self.speed is not None:
            rows.append(_row("time for one crop, ms (5th to 95th percentile)", self.speed, "{:.1f}", "runs"))
        return rows

    def text(self) -> str:
        """For the terminal."""
        rows = [("", "value", "95 % interval", "from"), *self.rows()]
        widths = [max(len(r[k]) for r in rows) for k in range(4)]
        lines = [f"{self.network} ({self.runtime}); {self.people} people, {self.frames} frames"]
        lines += ["  ".join([r[0].ljust(widths[0]), r[1].rjust(widths[1]), r[2].rjust(widths[2]), r[3]]) for r in rows]
        return "\n".join(lines + [f"note: {n}" for n in self.notes] + self.details)

    def markdown(self) -> str:
        """The same as a Markdown table."""
        lines = [f"`{self.network}`, {self.runtime}; {self.people} people, {self.frames} frames.", ""]
        lines += ["| | value | 95 % interval | from |", "|---|---:|---:|---:|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in self.rows()]
        return "\n".join([*lines, "", *(f"- {n}" for n in self.notes)]).rstrip() + "\n"


def _row(label: str, measure: Measure, pattern: str, things: str) -> tuple[str, str, str, str]:
    def show(number: float) -> str:
        return pattern.format(number) if math.isfinite(number) else "–"

    known = math.isfinite(measure.low) and math.isfinite(measure.high)
    interval = f"{show(measure.low)} to {show(measure.high)}" if known else "–"
    return label, show(measure.value), interval, f"{measure.count} {things}"


def _yaw(name: str, what: str) -> str:
    low, high = name.split("_")[-2:]
    return f"{what}, |yaw| {low}° to {high}°" if what == "mean error" else f"{what} {low}° to {high}°"
