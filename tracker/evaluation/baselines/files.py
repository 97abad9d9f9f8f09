"""Other trackers' results, read from the files that they write, to be scored (:mod:`tracker.importing`).

Pixel3DMM and SMIRK see square crops, of 256 and 224 pixels: the clip to score on is then the clip of those crops.
"""

from __future__ import annotations

from pathlib import Path

from flame_assets.asset import HeadAsset
from tracker.evaluation.baselines.interface import Tracked
from tracker.importing import read_any


def read_result(path: Path, head: HeadAsset, frame_rate: float) -> Tracked:
    """A tracker's result from disk; arguments and errors as for :func:`tracker.importing.read_any`."""
    return Tracked(read_any(path, head, frame_rate), head)
