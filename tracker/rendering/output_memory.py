"""Memory for large results on the CPU, used again when the last tensor that shows it is gone.

The C library hands blocks beyond some 32 MB back to the system at once, and the page faults of getting them anew cost as
much as drawing into them: eight pictures of 512² took 35 ms with fresh memory and 20 ms with this.
"""

from __future__ import annotations

import math
import weakref

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 4 << 20  # floats; smaller blocks are reused well enough without help
_MOST_IDLE = 4

_idle: list[np.ndarray] = []


def empty(*shape: int) -> Tensor:
    """As ``torch.empty(*shape)``, float32."""
    count = math.prod(shape)
    if count < _SMALLEST:
        return torch.empty(shape)
    block = _take(count)
    # torch keeps the array that it is given alive as long as any tensor shows its memory
    loan = block.view()
    weakref.finalize(loan, _give_back, block).atexit = False
    return torch.from_numpy(loan).view(shape)


def _take(count: int) -> np.ndarray:
    for _ in range(len(_idle)):
        try:
            block = _idle.pop(0)
        except IndexError:  # another thread was quicker
            break
        if block.size == count:
            return block
        _idle.append(block)
    return np.empty(count, np.float32)


def _give_back(block: np.ndarray) -> None:
    _idle.append(block)
    if len(_idle) > _MOST_IDLE:
        _idle.pop(0)
