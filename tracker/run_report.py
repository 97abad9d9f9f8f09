"""What a run tells its user: the closing summary, and the same numbers as ``summary.json``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tracker.head_track import HeadTrack

PAGE = "report.html"
"""Name of the page that shows a result."""

_CUTS_TOLD = 8  # in the closing summary


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB (10⁶ bytes)."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e6
    status = Path("/proc/self/status")
    if status.is_file():
        # the kernel's other figure, ru_maxrss, starts at what the process that began this one had
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


@dataclass(frozen=True)
class RunReport:
    """Numbers of one run.

    Attributes:
        folder: where the outputs are.
        files: output names in it.
        head, preset: what was used.
        where: what worked where: the fit, the drawing, the network; and the ``reason``.
        frames, valid_frames: how many frames the video gave, and in how many a head was tracked.
        error_percent: ``(valid_frames,)`` each frame's median landmark error, percent of its inter-ocular distance.
        focal_px, focal_log_sigma: focal length, and its posterior relative standard deviation (0 when it was given).
        seconds: wall clock by stage; total_seconds: of the whole run, start-up included.
        peak_memory_mb: largest resident memory.
        notes: what the user should know, one sentence each.
        shots: see :func:`shots_of`; crossfades: first and last frame of each, about; people: how many different ones they show.
        interpolated_frames: how many frames have a head that lies between those of frames nearby.
        video: what tells the video from others of the same name.
        asked: digest of what was asked for, the video aside.
        persons: where each was tracked, the report of each; the other numbers are then those of the first.
    """

    folder: Path
    files: tuple[str, ...]
    head: str
    preset: str
    where: dict[str, str]
    frames: int
    valid_frames: int
    error_percent: np.ndarray
    focal_px: float
    focal_log_sigma: float
    seconds: dict[str, float]
    total_seconds: float
    peak_memory_mb: float
    notes: tuple[str, ...] = field(default=())
    shots: tuple[Mapping[str, Any], ...] = field(default=())
    crossfades: tuple[tuple[int, int], ...] = ()
    people: int = 1
    interpolated_frames: int = 0
    video: Mapping[str, Any] = field(default_factory=dict)
    asked: str = ""
    persons: tuple[RunReport, ...] = ()

    def json(self) -> dict[str, Any]:
        """Plain numbers and strings, for ``summary.json``."""
        return {
            "video": dict(self.video),
            "asked": self.asked,
            "head": self.head,
            "preset": self.preset,
            "device": self.where,
            "frames": self.frames,
            "valid_frames": self.valid_frames,
            "interpolated_frames": self.interpolated_frames,
            "people": self.people,
            "cuts": [shot["first_frame"] for shot in self.shots[1:]],
            "crossfades": [list(frames) for frames in self.crossfades],
            "shots": [dict(shot) for shot in self.shots],
            "landmark_error_percent_of_inter_ocular": {
                "median": float(np.median(self.error_percent)),
                "p95": float(np.percentile(self.error_percent, 95)),
            },
            "focal_px": self.focal_px,
            "focal_relative_sigma": self.focal_log_sigma,
            "seconds": {name: round(s, 3) for name, s in self.seconds.items()},
            "total_seconds": round(self.total_seconds, 3),
            "frames_per_second": {
                **{name: round(self.frames / s, 1) for name, s in self.seconds.items() if s > 0},
                "end_to_end": round(self.frames / self.total_seconds, 1),
            },
            "peak_memory_mb": round(self.peak_memory_mb),
            "files": list(self.files),
            "notes": list(self.notes),
            **({"persons": [report._as_one_of_many() for report in self.persons]} if self.persons else {}),
        }

    def _as_one_of_many(self) -> dict[str, Any]:
        kept = ("frames", "valid_frames", "landmark_error_percent_of_inter_ocular", "focal_px", "focal_relative_sigma")
        numbers = self.json()
        return {"folder": self.folder.name, **{name: numbers[name] for name in kept}}

    def text(self) -> str:
        """The closing summary for a terminal."""
        if self.persons:
            return "\n".join(
                [f"— {report.folder.name} —\n{report.text()}" for report in self.persons]
                + [f"note: {note}" for note in self.notes]
                + [f"{len(self.persons)} people, {self.total_seconds:.2f} s in all; written to {self.folder}: {', '.join(self.files)}"]
            )
        numbers = self.json()
        error = numbers["landmark_error_percent_of_inter_ocular"]
        sigma = f" ± {100 * self.focal_log_sigma:.0f} %" if self.focal_log_sigma else " (given)"
        between = f", {self.interpolated_frames} interpolated" if self.interpolated_frames else ""
        lines = [
            f"{self.valid_frames} of {self.frames} frames tracked{between} · head {self.head} · preset {self.preset}",
            *self._words_on_shots(),
            "worked on       " + ", ".join(f"{what} {device}" for what, device in self.where.items() if what != "reason")
            + f" ({self.where['reason']})",
            f"landmark error  median {error['median']:.2f} %, 95th percentile {error['p95']:.2f} % of the inter-ocular distance",
            f"focal length    {self.focal_px:.0f} px{sigma}",
            "stage              seconds  frames/s",
        ]
        for name, seconds in self.seconds.items():
            lines.append(f"  {name:<15}{seconds:9.2f}{self.frames / max(seconds, 1e-9):10.1f}")
        lines.append(f"  {'end to end':<15}{self.total_seconds:9.2f}{self.frames / self.total_seconds:10.1f}")
        lines.append(f"peak memory     {self.peak_memory_mb:.0f} MB")
        lines.extend(f"note: {note}" for note in self.notes)
        lines.append(f"written to {self.folder}: {', '.join(self.files)}")
        if PAGE in self.files:
            lines.append(f"to look at it, open {self.folder / PAGE} in a browser")
        return "\n".join(lines)

    def _words_on_shots(self) -> list[str]:
        if len(self.shots) < 2:
            return []
        who = "one person" if self.people == 1 else f"{self.people} people"
        cuts = [f"{shot['first_frame']} ({shot['begins_s']:.2f} s)" for shot in self.shots[1:]]
        more = f" and {len(cuts) - _CUTS_TOLD} more, see summary.json" if len(cuts) > _CUTS_TOLD else ""
        return [f"shots           {len(self.shots)}, of {who}; cut at frames {', '.join(cuts[:_CUTS_TOLD])}{more}"]


def shots_of(track: HeadTrack) -> tuple[dict[str, Any], ...]:
    """What is to be told of each shot: its first and last frame, when it begins (seconds), in how many frames a head was tracked, and
    the person's number; None in shots without a head."""
    numbers = np.zeros(track.n_frames, int) if track.shot is None else track.shot
    person = np.zeros(track.n_frames, int) if track.person is None else track.person
    found = []
    for number in np.unique(numbers).tolist():
        frames = np.flatnonzero(numbers == number)
        seen = frames[track.tracked[frames]]
        found.append({
            "first_frame": int(frames[0]), "last_frame": int(frames[-1]), "begins_s": round(float(track.timestamps[frames[0]]), 4),
            "valid_frames": len(seen), "person": int(person[seen[0]]) if len(seen) else None,
        })  # fmt: skip
    return tuple(found)
