"""The presets, as a package so that an installed copy finds them: every ``.yaml`` file of this folder is one."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

PRESETS = tuple(sorted((p.stem for p in _FOLDER.glob("*.yaml")), key=lambda name: (("fast", "balanced", "best") + (name,)).index(name)))
"""Their names, from the fastest to the most thorough; further ones after them."""


def preset_file(name: str) -> Path:
    """Where a preset lies."""
    return _FOLDER / f"{name}.yaml"
