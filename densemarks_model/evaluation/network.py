"""One interface to every network, in the runtime and precision that the tracker uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from densemarks_model.prediction import Prediction

CROP_SIZE = 224
"""Side of the crops that networks are measured on, pixels."""

THREADS = 2
"""Cores that networks are measured on."""


@dataclass(frozen=True)
class Network:
    """A network to measure.

    Attributes:
        name: for the table. runtime: what runs it and in which precision.
        run: ``(B, S, S, 3)`` uint8 RGB crops of side ``image_size`` to something with ``coordinates`` ``(B, h, w, 3)`` and
            ``confidence`` ``(B, h, w)``.
        image_size: side of the pictures that ``run`` takes, pixels.
        cube: version of the canonical cube that it speaks.
    """

    name: str
    runtime: str
    run: Callable[[UInt8[np.ndarray, "batch size size 3"]], Any]
    image_size: int = CROP_SIZE
    cube: int = 1

    def predict(self, images: UInt8[np.ndarray, "n size size 3"], batch: int = 8) -> Prediction[np.ndarray]:
        """Coordinates and confidence of any number of square crops of any size, ``batch`` at a time; at the network's own resolution."""
        coordinates, confidence = [], []
        for start in range(0, len(images), batch):
            given = self.run(_resized(np.asarray(images[start : start + batch]), self.image_size))
            coordinates.append(np.asarray(given.coordinates, np.float32))
            confidence.append(np.asarray(given.confidence, np.float32))
        return Prediction(np.concatenate(coordinates), np.concatenate(confidence))


def open_network(name: str) -> Network:
    """The network as the tracker would run it on a CPU.

    Args:
        name: of a shipped network, or path of a checkpoint.

    Raises:
        ModelError: no such network, or it cannot be used.
    """
    from densemarks_model.inference import fast_network

    fast = fast_network(name, device="cpu", threads=THREADS)
    return Network(Path(name).name, fast.runtime, fast, fast.image_size, fast.cube)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    if images.shape[1:3] == (size, size):
        return np.ascontiguousarray(images)
    way = cv2.INTER_AREA if images.shape[1] > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, (size, size), interpolation=way) for image in images])
