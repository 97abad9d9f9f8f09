"""The anchor that ties a window of frames to what was finished before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tracker.solver import Linearization

_PRECISION = 1e3


@dataclass(frozen=True)
class AnchorResidual:
    """Holds the first frame of a window at values found before."""

    values: Mapping[str, Tensor]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        rows, jacobians, start = [], {}, 0
        width = sum(v.shape[-1] for v in self.values.values())
        for name, anchor in self.values.items():
            difference = (values[name] - anchor) * _PRECISION
            difference[1:] = 0
            rows.append(difference)
            if name in wanted:
                size = anchor.shape[-1]
                jacobian = difference.new_zeros(len(difference), width, 1, size)
                jacobian[0, start : start + size, 0] = _PRECISION * torch.eye(size, dtype=difference.dtype, device=difference.device)
                jacobians[name] = jacobian
            start += anchor.shape[-1]
        return Linearization(torch.cat(rows, dim=-1)[..., None], jacobians)
