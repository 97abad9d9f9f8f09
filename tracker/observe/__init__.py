"""What is seen of a video, once, on disk: landmarks, embeddings, pictures. Knows networks and detectors; knows no solver."""

from tracker.observe.first_pass import observe
from tracker.observe.frame_batch import FrameBatch
from tracker.observe.observations import Observations, VideoFacts
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.reading import ObservationReader

__all__ = ["FrameBatch", "ObservationReader", "Observations", "ObserveSettings", "VideoFacts", "observe"]
