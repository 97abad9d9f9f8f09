"""Observations made up by tests, and readers of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tracker.landmarks.detection import Detection
from tracker.observe.embedding_store import EmbeddingRecord
from tracker.observe.observations import Observations, VideoFacts
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.reading import ObservationReader
from tracker.observe.sites import DenseSites

FACTS = VideoFacts(640, 360, 25.0)


def observed(
    folder: Path | None,
    detections: Sequence[Detection | None],
    records: Mapping[int, EmbeddingRecord],
    settings: ObserveSettings = ObserveSettings(),
) -> Observations:
    """Frames 25 times a second with these landmarks and, of some, what a network said."""
    observations = Observations(folder, settings, FACTS)
    for frame, detection in enumerate(detections):
        observations.add(frame / 25, detection, records.get(frame))
    observations.finish()
    return observations


def reader(
    observations: Observations, sites: DenseSites | None, settings: ObserveSettings | None = None, names: tuple[str, ...] = ()
) -> ObservationReader:
    """Reads them for a head with these sites and expressions."""
    return ObservationReader(observations, sites, names, settings or observations.settings, torch.float32, torch.device("cpu"))
