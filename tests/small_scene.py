"""A small head before the camera and a fit with every kind of term, to be run on one device and another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from flame_assets.asset import HeadAsset
from tests.heads import tiny_head
from tests.pretend_device import fetch
from tests.views import lit_picture, perfect_record
from tracker.camera import FocalPrior, project
from tracker.config import TrackerConfig, load_config
from tracker.dense.embedding_store import EmbeddingStore
from tracker.dense.reading import read_dense
from tracker.dense.sites import skin_triangles, spread_points, spread_sites
from tracker.fitting import keyframes, sequence
from tracker.fitting.kinematics import HeadPoints
from tracker.fitting.objective import FaceLandmarks
from tracker.fitting.observations import FrameBatch
from tracker.photometric.picture_store import PictureStore
from tracker.photometric.reading import read_pictures

CENTRE, FOCAL, FRAMES, SITES, SKIN = (256.0, 256.0), 720.0, 5, 60, 50


@dataclass(frozen=True)
class SmallScene:
    """Landmarks of every frame but one, what a network would say, and pictures, as the stores give them."""

    asset: HeadAsset
    config: TrackerConfig
    values: dict[str, Tensor]
    embeddings: EmbeddingStore
    pictures: PictureStore

    def face(self, device: torch.device | str) -> FaceLandmarks:
        asset = self.asset
        skin = spread_points(asset, skin_triangles(asset), SKIN)
        return FaceLandmarks.build(asset, self.config.landmarks, device, spread_sites(asset, SITES), skin)

    def batch(self, face: FaceLandmarks) -> FrameBatch:
        """What a run would read, on the head's device."""
        like = {"dtype": face.head.dtype, "device": face.head.device}
        here = self.face("cpu")
        positions = HeadPoints.evaluate(here.points, self.values).positions
        points, depth = torch.zeros(FRAMES, 478, 2), torch.zeros(FRAMES, 478)
        points[:, here.numbers], _ = project(positions, FOCAL, CENTRE)
        depth[:, here.numbers] = -1200 * (positions[..., 2] - positions[..., 2].mean(1, keepdim=True))
        found = torch.ones(FRAMES, dtype=torch.bool)
        found[3] = False
        frames = np.arange(FRAMES)
        return FrameBatch(
            points=points.to(**like),
            depth=depth.to(**like),
            timestamps=torch.arange(FRAMES, dtype=torch.float64, device=face.head.device) / 25,
            found=found.to(face.head.device),
            dense=read_dense(self.embeddings, frames, points.numpy(), {}, spread_sites(self.asset, SITES), 0.003, like),
            pictures=read_pictures(self.pictures, self.embeddings, frames, face.head),
        )

    def fit(self, device: torch.device | str) -> dict[str, Tensor]:
        """Keyframes with identity, focal length and light; windows with all terms. Results on the CPU."""
        face = self.face(device)
        batch = self.batch(face)

        def read(frames: Tensor, dense: bool = True, places_only: bool = False) -> FrameBatch:
            chosen = batch.select(frames.to(face.head.device))
            return chosen if dense else replace(chosen, dense=None, pictures=None)

        offered = torch.arange(FRAMES)
        shared = keyframes.fit_shared(face, offered, read, FocalPrior(FOCAL, 0.2, CENTRE), self.config)
        assert shared.appearance is not None
        windows = list(sequence.fit_frames(face, offered, read, shared, CENTRE, self.config))
        values = {name: torch.cat([w.values[name] for w in windows]) for name in windows[0].values}
        return fetch({**values, "identity": shared.identity, "error": torch.cat([w.error_percent for w in windows])})


@contextmanager
def small_scene(folder: Path) -> Iterator[SmallScene]:
    """Make the scene; its stores live in ``folder`` meanwhile."""
    asset, config = tiny_head(), load_config("best")
    # every kind of term is solved with, but not for long
    config = replace(
        config,
        tracking=replace(config.tracking, window=4, lookahead=1, iterations=2),
        keyframes=replace(config.keyframes, iterations=3),
        dense=replace(config.dense, sites=SITES, keyframe_iterations=2, refine_iterations=2, compare_iterations=2),
        photometric=replace(config.photometric, iterations=2),
    )
    head = FaceLandmarks.build(asset, config.landmarks).head
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
    with EmbeddingStore(folder) as embeddings, PictureStore(folder, 96) as pictures:
        for frame in range(FRAMES):
            embeddings.put(frame, perfect_record(asset, head, values, frame, CENTRE))
            crop, picture = lit_picture(asset, head, values, frame, CENTRE, albedo, light, 512)
            shifted = crop.matrix(512)
            shifted[:, 2] += shifted[:, :2] @ [0.5, 0.5] - 0.5
            whole = cv2.warpAffine(picture, shifted, (512, 512), borderValue=(0.5, 0.5, 0.5))
            pictures.put(frame, crop, (255 * whole.clip(0, 1)).astype(np.uint8))
        yield SmallScene(asset, config, values, embeddings, pictures)
