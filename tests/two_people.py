"""Clips of two people, made of the excerpt: itself, and somebody of other colours, its mirror image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np

from tracker.video.packaged_clips import EXCERPT
from tracker.video.reader import open_video

SIDE = 240
WIDTH, HEIGHT = 3 * SIDE, SIDE

Where = tuple[int, int] | None
"""Left edge and side of the square in which somebody is seen, pixels; None for nobody."""


@cache
def cast(frames: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Squares around the heads of the two: the excerpt's, and one with other skin and hair."""
    with open_video(EXCERPT) as video:
        shown = [frame.image for frame, _ in zip(video, range(frames), strict=False)]
    shown = (shown + shown[::-1] * (1 + frames // max(len(shown), 1)))[:frames]  # forth and back
    height, width = shown[0].shape[:2]
    left = round(0.68 * width - height / 2)
    left = max(min(left, width - height), 0)
    ours = [cv2.resize(image[:, left : left + height], (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in shown]
    return ours, [_otherwise(image) for image in ours]


def _otherwise(image: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(image[:, ::-1], cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] = 50 + 0.75 * lab[..., 0]
    lab[..., 1] += 6
    lab[..., 2] += 14
    return cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)


def film(frames: int, first: Callable[[int], Where], second: Callable[[int], Where]) -> list[np.ndarray]:
    """Frames in which each of the two is where a function of the frame's number says; the second one in front."""
    coarse = np.random.default_rng(3).uniform(20, 235, (6, 18, 3)).astype(np.float32)
    wall = np.clip(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    images: Sequence[tuple[np.ndarray, np.ndarray]] = list(zip(*cast(frames), strict=True))
    out = []
    for number, pair in enumerate(images):
        canvas = wall.copy()
        for picture, where in zip(pair, (first(number), second(number)), strict=True):
            if where is not None:
                left, side = where
                small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
                begin, end = max(left, 0), min(left + side, WIDTH)
                if end > begin:
                    canvas[HEIGHT - side :, begin:end] = small[:, begin - left : end - left]
        out.append(canvas)
    return out
