"""Stored pictures as tensors for the fit."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from tracker.dense.embedding_store import EmbeddingStore
from tracker.fitting.photometric import PictureBatch
from tracker.head_model import HeadModel
from tracker.photometric.picture_store import PictureStore

_BLUR = 1.0  # pixels: slopes of a picture reach as far as its blur


def read_pictures(
    pictures: PictureStore, embeddings: EmbeddingStore, frames: np.ndarray, head: HeadModel
) -> PictureBatch | None:
    """Pictures of some frames, with the network's word on which pixels show the head; None when there are none."""
    found = [pictures.read(f) for f in frames]
    known = next((f for f in found if f is not None), None)
    if known is None:
        return None
    size = known[1].shape[0]
    images, trusts, maps = [], [], []
    for frame, entry in zip(frames, found, strict=True):
        crop, image = entry if entry is not None else (known[0], np.zeros_like(known[1]))
        record = embeddings.read(frame)
        trust = np.zeros((size, size), np.float32)
        if entry is not None and record is not None:
            trust = cv2.resize(record.trust, (size, size), interpolation=cv2.INTER_LINEAR)
        images.append(cv2.GaussianBlur(image, (0, 0), _BLUR).astype(np.float32) / 255)
        trusts.append(trust)
        matrix = crop.matrix(size)
        linear = np.linalg.inv(matrix[:, :2])
        maps.append(np.concatenate([linear, -(linear @ matrix[:, 2])[:, None]], axis=1))
    like = {"dtype": head.dtype, "device": head.device}
    return PictureBatch(
        pictures=torch.as_tensor(np.stack(images), **like).permute(0, 3, 1, 2).contiguous(),
        trust=torch.as_tensor(np.stack(trusts), **like),
        to_map=torch.as_tensor(np.stack(maps), **like),
        present=torch.tensor([f is not None for f in found], device=head.device),
    )
