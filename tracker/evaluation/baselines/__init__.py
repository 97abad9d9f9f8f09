"""Trackers that can be compared, behind one interface, by their names in reports."""

from __future__ import annotations

from tracker.evaluation.baselines.interface import Tracked, Tracker
from tracker.evaluation.baselines.landmarks68 import Landmarks68Adam
from tracker.evaluation.baselines.mediapipe_own import MediapipeOwn
from tracker.evaluation.baselines.ours import Preset, without_landmarks

__all__ = ["ABLATIONS", "TRACKERS", "MediapipeOwn", "Preset", "Tracked", "Tracker"]

TRACKERS: dict[str, Tracker] = {
    "landmarks68_adam": Landmarks68Adam(),
    "landmarks478": Preset("fast"),
    "mediapipe": MediapipeOwn(),
    "dense": without_landmarks(),
    "dense_landmarks": Preset("balanced"),
    "dense_landmarks_photometric": Preset("best"),
}
"""Name -> tracker. Names are part of the benchmark's output and do not change."""

_KEYFRAME = ["pose", "face", "neck", "identity", "focal"]
_COMPARE = {
    "stages": {
        "keyframes": {
            "compare": {"free": _KEYFRAME, "cues": ["landmarks", "compare", "priors"], "iterations": 5, "needs": "compare"},
        },
        "windows": {
            "compare": {
                "free": ["pose", "face", "neck"], "cues": ["landmarks", "compare", "priors", "smoothness"], "iterations": 3,
                "needs": "compare",
            },
        },
    }
}  # fmt: skip
"""Render-and-compare after a preset's own stages."""

ABLATIONS: dict[str, Tracker] = {
    "look_up": Preset("best", without=("outline", "photometric")),
    "compare": Preset("best", _COMPARE, without=("look_up", "outline", "photometric")),
    "look_up_then_compare": Preset("best", _COMPARE, without=("outline", "photometric")),
    "look_up_outline": Preset("best", without=("photometric",)),
    "look_up_outline_photometric": Preset("best"),
    "neck_at_rest": Preset("best", holding=("neck",)),
    "balanced": Preset("balanced"),
    "balanced_neck_at_rest": Preset("balanced", holding=("neck",)),
}
"""Parts of the dense and photometric cues, and the neck: what differs from presets ``best`` and ``balanced``."""
