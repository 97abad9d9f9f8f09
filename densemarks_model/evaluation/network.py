"""One interface to every network, in the runtime and precision that the tracker uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from densemarks_model.prediction import Prediction

CROP_SIZE = 224
"""Side of the crops that networks are measured on, pixels."""


@dataclass(frozen=True)
class Maps:
    """Predictions as arrays, at whatever resolution the network has.

    Attributes:
        coordinates: cube coordinates. confidence: [0, 1].
    """

    coordinates: Float[np.ndarray, "batch h w 3"]
    confidence: Float[np.ndarray, "batch h w"]


@dataclass(frozen=True)
class Network:
    """A network to measure.

    Attributes:
        name: what the user called it. runtime: what runs it and in which precision.
        run: ``(B, S, S, 3)`` uint8 RGB crops to a :class:`~densemarks_model.Prediction`.
    """

    name: str
    runtime: str
    run: Callable[[UInt8[np.ndarray, "batch size size 3"]], Prediction]

    def predict(self, images: UInt8[np.ndarray, "n size size 3"], batch: int = 8) -> Maps:
        """Maps of any number of crops, ``batch`` at a time."""
        coordinates, confidence = [], []
        for start in range(0, len(images), batch):
            given = self.run(np.ascontiguousarray(images[start : start + batch]))
            coordinates.append(np.moveaxis(_array(given.coordinates), 1, -1))
            confidence.append(_array(given.confidence)[:, 0])
        return Maps(np.concatenate(coordinates), np.concatenate(confidence))


def open_network(name: str) -> Network:
    """The network as the tracker would run it; plain torch where the fast runtime is not part of this installation.

    Args:
        name: of a shipped network, or path of a checkpoint.

    Raises:
        ModelError: no such network, or it cannot be used.
    """
    try:
        from densemarks_model.inference import fast_network
    except ImportError:
        from densemarks_model import load_network

        return torch_network(load_network(name), name)
    fast = fast_network(name)
    return Network(name, _described(fast), fast)


def torch_network(module: Any, name: str) -> Network:
    """Wrap a module that has ``predict`` for RGB in [0, 1]."""
    module = module.eval()

    def run(images: np.ndarray) -> Prediction:
        with torch.inference_mode():
            return module.predict(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)

    return Network(name, "torch float32", run)


def _described(fast: Any) -> str:
    for attribute in ("description", "runtime"):
        text = getattr(fast, attribute, None)
        if isinstance(text, str):
            precision = getattr(fast, "precision", None)
            return f"{text} {precision}" if isinstance(precision, str) and precision not in text else text
    return "fast runtime"


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu().float() if torch.is_tensor(values) else values, np.float32)
