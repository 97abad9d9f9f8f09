"""Pairs of frames of one clip, with what ties them together."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from densemarks_model.errors import ModelError
from flame_assets.load import load_head


@lru_cache(maxsize=64)
def _clip(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile and zlib raise their own types
        raise ModelError(f"{path}: not a prepared clip ({type(error).__name__}); remove it and prepare the clip again") from error


class PairSource:
    """Prepared clips as pairs: sample k is a pair of clip k modulo the number of clips, drawn anew each time.

    Label maps for the segmentation loss are taken from ``labels/<clip>.npy`` (F, M, M) uint8 beside the prepared clips, if there.

    Args:
        folder: what ``python -m densemarks_model.data.videos`` wrote. points: matched points of a pair.

    Raises:
        ModelError: no prepared clips.
    """

    def __init__(self, folder: Path, points: int) -> None:
        self._paths = sorted(Path(folder).glob("*.npz"))
        if not self._paths:
            raise ModelError(f"{folder}: holds no prepared clips; make some with python -m densemarks_model.data.videos CLIPS --out {folder}")
        self._points = points
        head = load_head()
        embedding = head.landmarks["mediapipe"]
        self._anchors = np.full((478, 3), 0.5, np.float32)
        self._anchored = np.zeros(478, bool)
        self._anchors[embedding.indices] = embedding.positions(head.canonical, head.faces)
        self._anchored[embedding.indices] = True

    def __len__(self) -> int:
        return len(self._paths)

    def sample(self, index: int, image_size: int, map_size: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """A pair.

        Returns:
            ``image`` (2, 3, S, S) in [0, 1]; ``tracks`` (2, n, 2) and ``landmarks`` (2, 478, 2) in sides of the picture; ``visible``
            (2, 478) float, 0 for landmarks that are hidden or have no anchor; ``anchors`` (478, 3); ``head`` (2, 1, M, M);
            ``labels`` (2, M, M) where there are any.
        """
        rng = rng or np.random.default_rng(index)
        path = self._paths[index]
        clip = _clip(path)
        frames = len(clip["crops"])
        first, second = sorted(rng.choice(frames, 2, replace=False))
        both = np.flatnonzero(clip["tracked"][first] & clip["tracked"][second])
        if len(both) < 8:  # hardly anything lasts so long: the next frame
            second = min(first + 1, frames - 1)
            both = np.flatnonzero(clip["tracked"][first] & clip["tracked"][second])
        chosen = rng.choice(both, self._points, replace=len(both) < self._points) if len(both) else np.zeros(self._points, int)
        pair = [first, second]
        images = np.stack([cv2.resize(clip["crops"][k], (image_size, image_size), interpolation=cv2.INTER_AREA) for k in pair])
        gain = rng.uniform(0.8, 1.2, (2, 1, 1, 1))  # cameras change their exposure
        sample = {
            "image": np.clip(images.transpose(0, 3, 1, 2) / 255 * gain, 0, 1).astype(np.float32),
            "tracks": clip["tracks"][pair][:, chosen],
            "landmarks": clip["landmarks"][pair],
            "visible": (clip["visible"][pair] & self._anchored).astype(np.float32),
            "anchors": self._anchors,
            "head": np.stack([cv2.resize(clip["masks"][k], (map_size, map_size), interpolation=cv2.INTER_AREA) for k in pair])[:, None].astype(np.float32) / 255,
        }
        labels = path.parent / "labels" / f"{path.stem}.npy"
        if labels.is_file():
            maps = np.load(labels, allow_pickle=False)[pair]
            sample["labels"] = np.stack([cv2.resize(m, (map_size, map_size), interpolation=cv2.INTER_NEAREST) for m in maps]).astype(np.int64)
        return sample
