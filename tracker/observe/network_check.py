"""Does a network see a head where there is one? Looked at once for files of other origin.

A file can be whole, of the right architecture, and hold nothing: weights all zero, a training that diverged, another task. All
frames would then be tracked by noise. One picture of a head tells: a frame of a clip that comes with the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from densemarks_model.crops import HeadCrop
from densemarks_model.errors import ModelError
from tracker.video.reader import VideoPart, VideoSource

if TYPE_CHECKING:
    from densemarks_model.inference import FastNetwork

CLIP = Path(__file__).resolve().parents[1] / "evaluation" / "data" / "cycles_suite" / "clip_4.mp4"
"""A path-traced head, bare face, seen from the front in its first frame."""

CROP = HeadCrop(np.array([168.0, 185.0]), 230.0)
"""Where the head is there, cropped about as the tracker crops."""

_LEAST_HEAD = 0.1
"""Share of the picture's middle that must be head; the shipped network says 0.94."""

_LEAST_SPREAD = 0.02
"""Standard deviation of the locations there along the two axes in which they vary most, cube units; the shipped network's are 0.13."""


def head_picture(size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The head of :data:`CLIP`, RGB."""
    with VideoSource(CLIP, VideoPart(max_frames=1)).open() as video:
        return CROP.extract(next(iter(video)).image, size)


def check_sees_heads(network: FastNetwork, name: str) -> None:
    """Show a network :func:`head_picture`; an installation without the clip goes unchecked.

    Raises:
        ModelError: the network sees no head in it, or all of it in one place.
    """
    if not CLIP.is_file():
        return
    said = network(head_picture(network.image_size)[None])
    height, width = said.confidence.shape[1:3]
    middle = np.s_[0, height // 4 : -(height // 4), width // 4 : -(width // 4)]
    head, places = said.confidence[middle], said.coordinates[middle].reshape(-1, 3)
    if not (np.isfinite(head).all() and np.isfinite(places).all()):
        raise ModelError(f"{name}: predicts what is no number on a picture of a head; the file is damaged, or its training diverged")
    spread = np.sort(places.std(axis=0))[1:]
    if float(head.mean()) < _LEAST_HEAD or float(spread[0]) < _LEAST_SPREAD:
        raise ModelError(
            f"{name}: does not see the head in a picture of one (head {float(head.mean()):.2f}, spread of locations {float(spread[0]):.3f}); "
            "its weights are empty, or trained for something else"
        )
