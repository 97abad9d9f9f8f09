"""Monocular head tracking: video in, head-model parameters per frame out.

    from tracker import track

    result = track("in.mp4", preset="balanced")
    result.track.rotation, result.vertices([0, 10]), result.export("glb", "head.glb")

The three seams that this is made of are here too: :func:`tracker.observe.observe`, :func:`tracker.stages.fit.fit`,
:func:`tracker.export.export`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracker.head_track import HeadTrack
    from tracker.library import track, track_people
    from tracker.observe.observations import Observations
    from tracker.result import TrackResult

__version__ = "0.1.0"
__all__ = ["HeadTrack", "Observations", "TrackResult", "__version__", "track", "track_people"]

_HOMES = {
    "HeadTrack": "tracker.head_track",
    "Observations": "tracker.observe.observations",
    "TrackResult": "tracker.result",
    "track": "tracker.library",
    "track_people": "tracker.library",
}


def __getattr__(name: str) -> Any:
    # on first use: what these need takes seconds to import, and the command line answers without them
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
