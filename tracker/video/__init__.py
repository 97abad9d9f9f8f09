"""Video in and out: streaming decode to RGB frames with true timestamps, and H.264 encode with the input's sound."""

from tracker.video.frame import Frame
from tracker.video.reader import VideoReader, at_times, open_video
from tracker.video.writer import VideoWriter

__all__ = ["Frame", "VideoReader", "VideoWriter", "at_times", "open_video"]
