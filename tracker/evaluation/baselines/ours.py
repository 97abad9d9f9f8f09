"""This project's own tracker, with one of its presets or settings of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracker.evaluation.baselines.interface import Tracked
from tracker.pipeline import Request, run
from tracker.progress import StageClock
from tracker.run_report import peak_memory_mb
from tracker.settings import TrackerSettings, load_settings
from tracker.video.reader import VideoPart

_NOT_BELIEVED = 1e3  # percent of the inter-ocular distance: a landmark that may be anywhere


@dataclass(frozen=True)
class Preset:
    """A preset with some of its values changed, run without an overlay.

    Attributes:
        preset: file in ``configs/``.
        changes: section -> setting -> value, laid over it.
        without: cues that are left out, with the stages that need them.
        holding: groups of variables that stay at rest.
    """

    preset: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    holding: tuple[str, ...] = ()

    @property
    def settings(self) -> TrackerSettings:
        """The preset with its changes."""
        return load_settings(self.preset).without(*self.without).holding(*self.holding).changed(self.changes)

    def __call__(self, video: Path, max_frames: int | None = None) -> Tracked:
        clock = StageClock()
        result = run(Request(video, self.settings, self.preset, VideoPart(max_frames)), clock=clock)
        return Tracked(result.track, result.head, clock.total, dict(clock.seconds), peak_memory_mb(), result.fit.focal_log_sigma)


def without_landmarks() -> Preset:
    """The dense cues alone: landmarks say where to cut the crop, and nothing in the fit."""
    usual = load_settings("balanced").cue("landmarks").error_percent
    return Preset("balanced", {"landmarks": {"error_percent": dict.fromkeys(type(usual).model_fields, _NOT_BELIEVED)}})
