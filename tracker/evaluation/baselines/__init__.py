"""Trackers that can be compared, behind one interface, by their names in reports."""

from __future__ import annotations

from tracker.evaluation.baselines.interface import Tracked, Tracker
from tracker.evaluation.baselines.landmarks68 import Landmarks68Adam
from tracker.evaluation.baselines.mediapipe_own import MediapipeOwn
from tracker.evaluation.baselines.ours import Preset, without_landmarks

__all__ = ["ABLATIONS", "TRACKERS", "MediapipeOwn", "Preset", "Tracked", "Tracker"]

TRACKERS: dict[str, Tracker] = {
    "landmarks68_adam": Landmarks68Adam(),
    "landmarks478": Preset("fast", {}),
    "mediapipe": MediapipeOwn(),
    "dense": without_landmarks(),
    "dense_landmarks": Preset("balanced", {}),
    "dense_landmarks_photometric": Preset("best", {}),
}
"""Name -> tracker. Names are part of the benchmark's output and do not change."""

ABLATIONS: dict[str, Tracker] = {
    "look_up": Preset("best", {"dense": {"outline_inflation": 0.0}, "photometric": {"enabled": False}}),
    "compare": Preset(
        "best",
        {"dense": {"outline_inflation": 0.0, "look_up": False, "compare": True}, "photometric": {"enabled": False}},
    ),
    "look_up_then_compare": Preset(
        "best", {"dense": {"outline_inflation": 0.0, "compare": True}, "photometric": {"enabled": False}}
    ),
    "look_up_outline": Preset("best", {"photometric": {"enabled": False}}),
    "look_up_outline_photometric": Preset("best", {}),
}
"""Parts of the dense and photometric terms: what differs from preset ``best``."""
