"""A small head before the camera and a fit with every kind of term, to be run on one device and another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from flame_assets.asset import HeadAsset
from tests.heads import tiny_head
from tests.observed import FACTS
from tests.pretend_device import fetch
from tests.views import lit_picture, perfect_record
from tracker.camera import FocalPrior, project
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.landmarks.detection import Detection
from tracker.observe.frame_batch import FrameBatch
from tracker.observe.observations import Observations
from tracker.observe.reading import EVERYTHING, ObservationReader
from tracker.residuals.fit_head import FitHead
from tracker.settings import TrackerSettings, load_settings
from tracker.stages.fit import head_for
from tracker.stages.keyframes import fit_shared
from tracker.stages.windows import fit_frames

CENTRE, FOCAL, FRAMES, BLIND = (256.0, 256.0), 720.0, 5, 3

_KEYFRAMES = ["pose", "face", "neck", "identity", "focal"]
_CHANGES = {
    # every kind of term is solved with, but not for long
    "observe": {"sites": 60, "error_floor": 0.003, "picture_size": 96},
    "photometric": {"points": 50},
    "windows": {"frames": 4, "lookahead": 1},
    "stages": {
        "keyframes": {
            "identity": {"iterations": 3},
            "whole head": {"iterations": 2},
            "compare": {"free": _KEYFRAMES, "cues": ["landmarks", "compare", "priors"], "iterations": 2},
        },
        "windows": {
            "frames": {"iterations": 2},
            "outline": {"iterations": 2},
            "colours": {"iterations": 2},
            "compare": {"free": _KEYFRAMES[:3], "cues": ["compare", "priors", "smoothness"], "iterations": 2},
        },
    },
}


@dataclass(frozen=True)
class SmallScene:
    """Landmarks of every frame but one, what a network would say, and pictures, as a pass over a video leaves them."""

    asset: HeadAsset
    settings: TrackerSettings
    values: dict[str, Tensor]
    observations: Observations

    def head(self, device: torch.device | str) -> FitHead:
        """The head at everything that the cues look at."""
        return head_for(self.asset, self.settings, self.observations, device)

    def read(self, head: FitHead) -> ObservationReader:
        """What a run would read, on the head's device."""
        assert head.dense is not None
        return ObservationReader.of(self.observations, head.model, head.dense.sites)

    def batch(self, head: FitHead) -> FrameBatch:
        """All of it."""
        return self.read(head)(torch.arange(FRAMES), EVERYTHING)

    def fit(self, device: torch.device | str) -> dict[str, Tensor]:
        """Keyframes with identity, focal length and light; windows with all terms. Results on the CPU."""
        head = self.head(device)
        read, offered = self.read(head), torch.arange(FRAMES)
        shared = fit_shared(head, offered, read, FocalPrior(FOCAL, 0.2, CENTRE), self.settings)
        assert shared.appearance is not None
        windows = list(fit_frames(head, offered, read, shared, CENTRE, self.settings))
        values = {name: torch.cat([w.values[name] for w in windows]) for name in windows[0].values}
        return fetch({**values, "identity": shared.identity, "error": torch.cat([w.error_percent for w in windows])})


@contextmanager
def small_scene(folder: Path) -> Iterator[SmallScene]:
    """Make the scene; its observations live in ``folder`` meanwhile."""
    asset, settings = tiny_head(), load_settings("best", changes=_CHANGES)
    head = HeadModel.from_asset(asset, "cpu", torch.float32)
    time = torch.linspace(0, 1, FRAMES)
    values = {
        "rotation": torch.stack([0.1 * time, 0.5 * time - 0.2, 0 * time], 1),
        "translation": torch.stack([0.02 * time, 0.01 * time, 0.4 + 0 * time], 1),
        "expr": 0.2 * torch.rand(FRAMES, head.n_expression, generator=torch.Generator().manual_seed(0)),
        "shape": 0.5 * torch.ones(head.n_identity),
        "log_focal": torch.tensor([math.log(FOCAL)]),
    }
    light = torch.zeros(9, 3)
    light[0] = 1
    albedo = np.full((asset.n_vertices, 3), 0.5) + 0.2 * np.sin(90 * asset.v_template)
    with Observations(folder, settings.observe, FACTS) as observations:
        for frame, detection in enumerate(_detections(asset, head, values)):
            crop, picture = lit_picture(asset, head, values, frame, CENTRE, albedo, light, 512)
            shifted = crop.matrix(512)
            shifted[:, 2] += shifted[:, :2] @ [0.5, 0.5] - 0.5
            whole = cv2.warpAffine(picture, shifted, (512, 512), borderValue=(0.5, 0.5, 0.5))
            record = perfect_record(asset, head, values, frame, CENTRE)
            observations.add(frame / 25, detection, record, (255 * whole.clip(0, 1)).astype(np.uint8))
        observations.finish()
        yield SmallScene(asset, settings, values, observations)


def _detections(asset: HeadAsset, head: HeadModel, values: dict[str, Tensor]) -> list[Detection | None]:
    """Where the head's landmarks are, but for one frame."""
    embedding = asset.landmarks["mediapipe"]
    positions = HeadPoints.evaluate(head.at_points(embedding), values).positions
    points, depth = np.zeros((FRAMES, 478, 2), np.float32), np.zeros((FRAMES, 478), np.float32)
    points[:, embedding.indices] = project(positions, FOCAL, CENTRE)[0]
    depth[:, embedding.indices] = -1200 * (positions[..., 2] - positions[..., 2].mean(1, keepdim=True))
    scores = np.zeros(52, np.float32)
    return [None if f == BLIND else Detection(points[f], depth[f], scores, 0.9) for f in range(FRAMES)]
