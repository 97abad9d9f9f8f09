"""Following points through a clip.

:class:`PointTracker` is all that preparing clips asks for. :class:`FlowTracker` comes with the package's requirements;
:class:`CoTracker3` (Karaev et al., *CoTracker3: Simpler and Better Point Tracking by Pseudo-Labelling Real Videos*, 2024) is for
those who have installed it, and follows points through occlusions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from densemarks_model.errors import ModelError


class PointTracker(Protocol):
    """Anything that follows points."""

    def track(
        self, frames: UInt8[np.ndarray, "t h w 3"], queries: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "t n 2"], Bool[np.ndarray, "t n"]]:
        """Follow ``queries``, rows (frame number, x, y), through RGB ``frames``; pixel centres at (i + 0.5, j + 0.5).

        Returns:
            Places of every point in every frame, pixels, and whether they are to be trusted there.
        """
        ...


class FlowTracker:
    """Dense inverse search flow (Kroeger et al., ECCV 2016; OpenCV's) from frame to frame, chained both ways from the query.

    A point is given up, in that direction of time, where flow there and back misses by more than ``tolerance`` pixels or
    the point leaves the picture.
    """

    def __init__(self, tolerance: float = 1.0) -> None:
        self.tolerance = tolerance
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def track(
        self, frames: UInt8[np.ndarray, "t h w 3"], queries: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "t n 2"], Bool[np.ndarray, "t n"]]:
        """See :class:`PointTracker`."""
        grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
        ahead = [self._flow.calc(a, b, None) for a, b in zip(grey, grey[1:])]  # noqa: B905
        back = [self._flow.calc(b, a, None) for a, b in zip(grey, grey[1:])]  # noqa: B905
        count, total = len(frames), len(queries)
        points = np.zeros((count, total, 2))
        seen = np.zeros((count, total), bool)
        start = queries[:, 0].astype(int)
        for number in np.unique(start):
            chosen = np.flatnonzero(start == number)
            points[number, chosen], seen[number, chosen] = queries[chosen, 1:], True
            for there, returning, order in ((ahead, back, range(number, count - 1)), (back, ahead, range(number - 1, -1, -1))):
                forward = there is ahead
                for k in order:
                    a, b = (k, k + 1) if forward else (k + 1, k)
                    points[b, chosen], seen[b, chosen] = self._step(points[a, chosen], seen[a, chosen], there[k], returning[k])
        return points, seen

    def _step(self, points: np.ndarray, seen: np.ndarray, there: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = points + _read(there, points)
        returned = moved + _read(back, moved)
        height, width = there.shape[:2]
        inside = (moved >= 0).all(1) & (moved[:, 0] <= width) & (moved[:, 1] <= height)
        kept = seen & inside & (np.linalg.norm(returned - points, axis=1) < self.tolerance)
        return np.where(kept[:, None], moved, points), kept


def _read(flow: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Flow between pixels, bilinear."""
    x, y = (points - 0.5).astype(np.float32).T
    return cv2.remap(flow, x[:, None], y[:, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


class CoTracker3:
    """CoTracker3 from the user's installation of the ``cotracker`` package, offline model.

    Args:
        checkpoint: its ``scaled_offline.pth``. device: where it runs.

    Raises:
        ModelError: the package or the file is not there.
    """

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        try:
            from cotracker.predictor import CoTrackerPredictor
        except ImportError as error:
            raise ModelError(
                "CoTracker3 is not installed: pip install git+https://github.com/facebookresearch/co-tracker, and note its licence "
                "(CC BY-NC 4.0); or use --tracker flow"
            ) from error
        if not Path(checkpoint).is_file():
            raise ModelError(f"{checkpoint}: no such file; CoTracker3's weights are scaled_offline.pth")
        self._device = device
        self._model = CoTrackerPredictor(checkpoint=str(checkpoint), offline=True).to(device)

    def track(
        self, frames: UInt8[np.ndarray, "t h w 3"], queries: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "t n 2"], Bool[np.ndarray, "t n"]]:
        """See :class:`PointTracker`."""
        import torch

        video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)[None].float().to(self._device)
        asked = torch.from_numpy(np.asarray(queries, np.float32))[None].to(self._device).clone()
        asked[..., 1:] -= 0.5  # its pixel centres are at whole numbers
        with torch.no_grad():
            points, visible = self._model(video, queries=asked, backward_tracking=True)
        return points[0].cpu().numpy().astype(np.float64) + 0.5, visible[0].cpu().numpy() > 0.5
