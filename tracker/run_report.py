"""What a run tells its user: the closing summary, and the same numbers as ``summary.json``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

PAGE = "report.html"
"""Name of the page that shows a result."""


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
        frames, valid_frames: how many frames the video gave, and how many have a tracked head.
        error_percent: ``(valid_frames,)`` each frame's median landmark error, percent of its inter-ocular distance.
        focal_px, focal_log_sigma: focal length, and its posterior relative standard deviation (0 when it was given).
        seconds: wall clock by stage; total_seconds: of the whole run, start-up included.
        peak_memory_mb: largest resident memory.
        notes: what the user should know, one sentence each.
        video: what tells the video from others of the same name.
        asked: digest of what was asked for, the video aside.
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
    video: Mapping[str, Any] = field(default_factory=dict)
    asked: str = ""

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
        }

    def text(self) -> str:
        """The closing summary for a terminal."""
        numbers = self.json()
        error = numbers["landmark_error_percent_of_inter_ocular"]
        sigma = f" ± {100 * self.focal_log_sigma:.0f} %" if self.focal_log_sigma else " (given)"
        lines = [
            f"{self.valid_frames} of {self.frames} frames tracked · head {self.head} · preset {self.preset}",
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
