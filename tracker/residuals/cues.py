"""The cues that stages name: every module of this folder that has a function ``terms``.

A cue is one file. It has

* ``terms(state, settings) -> list[Term]``: what the cue has to say, empty when it has nothing;
* a class below :class:`flame_assets.settings_files.Settings`, the type of ``settings``: its section in the presets;
* ``READS``, where it looks at more than landmarks: what it needs of :data:`tracker.observe.reading.EVERYTHING`.

Its name is the file's. To add one, write the file and name it in a preset's stages.
"""

from __future__ import annotations

import pkgutil
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from flame_assets.settings_files import Settings
from tracker.residuals.state import FitState
from tracker.solver import Term


@dataclass(frozen=True)
class Cue:
    """A cue, as its module describes it.

    Attributes:
        name: in stages and settings.
        terms: what it has to say of a state.
        settings: class of its settings.
        reads: what of a frame it looks at, besides landmarks.
    """

    name: str
    terms: Callable[[FitState, Settings], list[Term]]
    settings: type[Settings]
    reads: frozenset[str]


@lru_cache(maxsize=1)
def cues() -> dict[str, Cue]:
    """All cues by name, in alphabetical order."""
    found = {}
    for module_info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module_info.name == Path(__file__).stem:
            continue
        module = import_module(f"{__package__}.{module_info.name}")
        terms = getattr(module, "terms", None)
        if terms is not None:
            settings = typing.get_type_hints(terms)["settings"]
            found[module_info.name] = Cue(module_info.name, terms, settings, getattr(module, "READS", frozenset()))
    return found
