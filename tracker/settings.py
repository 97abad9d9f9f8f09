"""Settings of a run, filled from the YAML files in ``configs/``.

A preset is such a file. A user's own file given with ``--config`` is laid over the preset, key by key. Unknown keys, wrong
types and values out of bounds are errors that name the key, so that a typing mistake never passes silently.

Each floor keeps its own section: :class:`tracker.observe.ObserveSettings`, the fit's (:mod:`tracker.stages.fit_settings`), one for
each cue in the cue's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from configs import PRESETS, preset_file
from flame_assets.settings_files import laid_over, read_yaml, validated
from tracker.errors import UserError
from tracker.landmarks.landmark_schemes import N_LANDMARKS
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.reading import DENSE, PICTURES
from tracker.overlay import OverlaySettings
from tracker.stages.fit_settings import FitBase, fit_settings
from tracker.stages.texture import TextureSettings

_MOST_RESIDUALS = 5_000_000
"""Of one solve; their Jacobian takes 300 bytes each. The best preset has half a million."""


class TrackerBase(FitBase):
    """Everything that a preset decides."""

    observe: ObserveSettings = ObserveSettings()
    texture: TextureSettings = TextureSettings()
    overlay: OverlaySettings = OverlaySettings()

    @model_validator(mode="after")
    def _fits_memory(self) -> TrackerBase:
        frames = max(self.windows.frames, self.keyframes.count)
        residuals = 2 * N_LANDMARKS + (2 * self.observe.sites if DENSE in self.reads else 0)
        residuals += 3 * self.cue("photometric").points if PICTURES in self.reads else 0
        if frames * residuals > _MOST_RESIDUALS:
            raise ValueError(
                f"{frames} frames at once with {residuals} residuals each are too many for any memory; lower windows.frames, keyframes.count, "
                "observe.sites or photometric.points"
            )
        return self


if TYPE_CHECKING:
    TrackerSettings = TrackerBase
else:
    TrackerSettings = fit_settings(TrackerBase)


def load_settings(preset: str = "balanced", overlay_file: Path | None = None, changes: Mapping[str, Any] | None = None) -> TrackerSettings:
    """Read a preset and lay the user's file, then ``changes``, over it.

    Raises:
        UserError: no such preset or file, not YAML, an unknown key, or a value of the wrong type or out of bounds.
    """
    if preset not in PRESETS:
        raise UserError(f"--preset {preset}: there is no such preset; choose from {', '.join(PRESETS)}")
    values: dict[str, Any] = {}
    settings = TrackerSettings()
    for path in (preset_file(preset), overlay_file):
        if path is not None:
            values = laid_over(values, read_yaml(path, UserError))
            settings = validated(TrackerSettings, values, f"config {path}", UserError)
            if not settings.keyframe_stages:
                raise UserError(f"config {path}: 'stages.keyframes' has no stage left; identity and focal length need one")
    return settings if not changes else settings.changed(changes)
