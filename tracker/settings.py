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

from configs import PRESETS, preset_file
from flame_assets.settings_files import laid_over, read_yaml, validated
from tracker.errors import UserError
from tracker.observe.observe_settings import ObserveSettings
from tracker.overlay import OverlaySettings
from tracker.stages.fit_settings import FitBase, fit_settings
from tracker.stages.texture import TextureSettings


class TrackerBase(FitBase):
    """Everything that a preset decides."""

    observe: ObserveSettings = ObserveSettings()
    texture: TextureSettings = TextureSettings()
    overlay: OverlaySettings = OverlaySettings()


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
    return settings if not changes else settings.changed(changes)
