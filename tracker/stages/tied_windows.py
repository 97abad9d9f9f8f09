"""Every frame of a shot: solved in windows, tied to each other by the picture, and what moves in the face solved again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from flame_assets.asset import HeadAsset
from tracker.observe.reading import ObservationReader
from tracker.observe.sites import rigid_triangles
from tracker.residuals.fit_head import FitHead
from tracker.stages.fit_settings import FitBase
from tracker.stages.keyframes import SharedFit
from tracker.stages.start import Start
from tracker.stages.ties import tie_frames
from tracker.stages.windows import FrameFits, fit_frames


def fit_shot(
    asset: HeadAsset,
    head: FitHead,
    frames: Int[Tensor, "frames"],
    read: ObservationReader,
    shared: SharedFit,
    principal_point: tuple[float, float],
    settings: FitBase,
    begin: Start | None = None,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> list[FrameFits]:
    """Solve a shot's frames; gives the windows of them, as they were solved last.

    Args:
        asset: what ``head`` was made from.
        head, frames, read, shared, principal_point, settings, begin: see :func:`tracker.stages.windows.fit_frames`.
        progress: told what is done ("fit", "tie") and in how many of the frames.
    """
    common = (head, frames, read, shared, principal_point, settings)
    fits = _told(fit_frames(*common, begin), "fit", progress)
    if not settings.tied_stages:
        return fits
    values = {name: torch.cat([f.values[name] for f in fits]) for name in fits[0].values}
    focal = {"log_focal": shared.identity.new_tensor([shared.focal_px]).log()}
    numbers = frames.cpu().numpy()
    times, rigid = read.observations.timestamps[numbers], rigid_triangles(asset)
    shaped = head.with_identity(shared.identity)
    values |= tie_frames(shaped, rigid, numbers, times, values | focal, read, principal_point, settings.ties)
    return _told(fit_frames(*common, tied=values), "tie", progress)


def _told(windows: Iterator[FrameFits], name: str, progress: Callable[[str, int], None]) -> list[FrameFits]:
    fits, done = [], 0
    for window in windows:
        fits.append(window)
        done += len(window.frames)
        progress(name, done)
    return fits
