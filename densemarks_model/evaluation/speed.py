"""How long one crop takes."""

from __future__ import annotations

import time

import numpy as np
import torch

from densemarks_model.evaluation.metrics import Measure
from densemarks_model.evaluation.network import CROP_SIZE, THREADS, Network


def evaluate_speed(network: Network, runs: int = 30, seconds: float = 20.0) -> Measure:
    """Median milliseconds for one crop, with its 5th and 95th percentile in place of an interval.

    PyTorch runs on two threads meanwhile; other runtimes were opened with as many.

    Args:
        runs: how many are timed, after two that are not. seconds: no further run starts after so long.
    """
    image = np.random.default_rng(0).integers(0, 255, (1, CROP_SIZE, CROP_SIZE, 3)).astype(np.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        network.predict(image)
        network.predict(image)
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < runs and (not times or time.perf_counter() - began < seconds):
            start = time.perf_counter()
            network.predict(image)
            times.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(before)
    low, high = np.percentile(times, [5, 95])
    return Measure(float(np.median(times)), float(low), float(high), len(times))
