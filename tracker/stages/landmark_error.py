"""How far a fit is from the landmarks that were seen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import project
from tracker.head_points import HeadPoints
from tracker.observe.frame_batch import FrameBatch
from tracker.residuals.fit_head import FitHead


def landmark_error_percent(
    head: FitHead, batch: FrameBatch, values: Mapping[str, Tensor], principal_point: tuple[float, float]
) -> Float[Tensor, "frames"]:
    """Each frame's median landmark error in percent of its inter-ocular distance; the sites' where no landmarks were found."""
    posed = HeadPoints.evaluate(head.landmarks, values)
    focal = values["log_focal"].exp().expand(len(batch))
    pixels, _ = project(posed.positions, focal, principal_point)
    distance = (pixels - batch.points[:, head.numbers]).norm(dim=-1)
    error = 100 * distance.median(dim=1).values / batch.inter_ocular_px().clamp_min(1e-6)
    if head.dense is None or batch.dense is None or bool(batch.has_landmarks.all()):
        return error
    seen = batch.dense
    sites = HeadPoints.evaluate(head.dense.points, values, seen.offsets)
    pixels, per_metre = project(sites.positions, focal, principal_point)
    unit_px = head.inter_ocular_m() * per_metre[:, :, 0, 0].mean(1)
    distance = torch.where(seen.precision > 0, (pixels - seen.pixels).norm(dim=-1), torch.nan)
    by_sites = (100 * distance.nanmedian(dim=1).values / unit_px).nan_to_num(torch.inf)
    return torch.where(batch.has_landmarks, error, by_sites)
