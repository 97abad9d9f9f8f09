"""This project's own tracker, with one of its presets or a configuration of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flame_assets.load import load_head
from tracker.config import TrackerConfig, load_config
from tracker.evaluation.baselines.interface import Tracked
from tracker.export.flame_params import load_track
from tracker.pipeline import Request, track_video

_NOT_TRUSTED = 1e4  # percent of the inter-ocular distance: a landmark that may be anywhere


@dataclass(frozen=True)
class Preset:
    """A preset with some of its values changed, run in a temporary folder, without an overlay.

    Attributes:
        preset: file in ``configs/``.
        changes: section -> setting -> value.
    """

    preset: str
    changes: Mapping[str, Mapping[str, Any]]

    @property
    def config(self) -> TrackerConfig:
        """The preset with its changes."""
        config = load_config(self.preset)
        for section, values in self.changes.items():
            config = replace(config, **{section: replace(getattr(config, section), **values)})
        return config

    def __call__(self, video: Path, max_frames: int | None = None) -> Tracked:
        with TemporaryDirectory() as folder:
            request = Request(
                video=video, out=Path(folder), config=self.config, preset=self.preset, max_frames=max_frames, overlay=False, quiet=True
            )  # fmt: skip
            report = track_video(request)
            track = load_track(report.folder / "flame_params.npz")
        return Tracked(track, load_head(), report.total_seconds, report.seconds, report.peak_memory_mb)


def without_landmarks() -> Preset:
    """The dense term alone: landmarks say where to cut the crop, and nothing in the fit."""
    usual = load_config("balanced").landmarks
    return Preset("balanced", {"landmarks": {"error_percent": dict.fromkeys(usual.error_percent, _NOT_TRUSTED)}})
