"""Which tests need a GPU, and why they are skipped. ``pytest -m cuda`` runs them alone.

What can be known without one, :mod:`tests.pretend_device` tells: tensors on the wrong device, and numbers that are waited for.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

missing_for_cuda = [
    reason
    for reason, missing in (
        ("no CUDA device", not torch.cuda.is_available()),
        ("nvdiffrast is not installed", find_spec("nvdiffrast") is None),
    )
    if missing
]


def needs_cuda(test):
    """Mark a test as one of those of the GPU; it is skipped, and says so, where there is none."""
    reason = f"cpu/cuda parity NOT CHECKED: {' and '.join(missing_for_cuda)}"
    return pytest.mark.cuda(pytest.mark.skipif(bool(missing_for_cuda), reason=reason)(test))
