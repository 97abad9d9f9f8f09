"""Points of a head followed through a clip by optical flow, without any network: the truth for matching the same person.

Dense flow between consecutive frames (DIS, Kroeger et al., *Fast Optical Flow using Dense Inverse Search*, ECCV 2016) is
chained over the gap; a point is kept while every step agrees with the step back, and if the whole way back ends where it
began. Flow sees neither landmarks nor embeddings.

Where the head is must not come from a network under test either. An ellipse set by the landmarks' box (head, hair and
ears; longer to the back of a turned head) starts GrabCut (Rother et al., SIGGRAPH 2004) on the first picture, with the
landmarks' hull as sure head and everything outside the ellipse as sure background.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from densemarks_model.crops import HeadCrop, crop_around_landmarks
from densemarks_model.evaluation.network import CROP_SIZE
from densemarks_model.matching import sample_bilinear

_POINTS = 400
_WORK_SIZE = 320
_WORK_MARGIN = 1.25
_STEP_TOLERANCE = 0.5
_LOOP_TOLERANCE = 1.0
"""Pixels of the working picture, of which there are 256 to a crop's side."""


@dataclass(frozen=True)
class FlowPair:
    """Two crops of one person and points that flow carried from one to the other.

    Attributes:
        person, clip: names. gap: frames between the two.
        source, target: RGB crops, each around its own frame's face.
        source_points, target_points: pixels of either crop.
    """

    person: str
    clip: str
    gap: int
    source: UInt8[np.ndarray, "size size 3"]
    target: UInt8[np.ndarray, "size size 3"]
    source_points: Float[np.ndarray, "n 2"]
    target_points: Float[np.ndarray, "n 2"]


class FlowWindow:
    """A run of frames through which points of the first are followed.

    Args:
        person, clip: names. start: number of the first frame.
        image: the first frame. points: its landmarks, full-frame pixels. yaw: of its head, degrees. seed: of the choice of points.
    """

    def __init__(self, person: str, clip: str, start: int, image: np.ndarray, points: np.ndarray, yaw: float, seed: int) -> None:
        self.start = start
        self._person, self._clip = person, clip
        self._crop = crop_around_landmarks(points)
        self._source = self._crop.extract(image, CROP_SIZE)
        mask = head_region(self._source, self._crop.to_crop(points.astype(np.float64), CROP_SIZE), yaw)
        mask &= _inside_frame(self._crop, image)
        rows, columns = np.nonzero(mask)
        chosen = np.random.default_rng([seed, start]).permutation(len(rows))[:_POINTS]
        self._points = np.stack([columns, rows], 1)[chosen] + 0.5
        # flow needs one window for all frames, while crops follow the face
        self._work = HeadCrop(self._crop.center, self._crop.side * _WORK_MARGIN, self._crop.roll)
        self._frames = [self._grey(image)]
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._there: list[np.ndarray] = []
        self._back: list[np.ndarray] = []

    def add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """The next frame."""
        grey, before = self._grey(image), self._frames[-1]
        self._there.append(self._flow.calc(before, grey, None))
        self._back.append(self._flow.calc(grey, before, None))
        self._frames = [grey]

    def pair(self, gap: int, image: UInt8[np.ndarray, "h w 3"], crop: HeadCrop) -> FlowPair | None:
        """First and latest frame, which is ``gap`` after it and has its face in ``crop``; None when no point lasted."""
        start = self._work.to_crop(self._crop.to_frame(self._points, CROP_SIZE), _WORK_SIZE)
        end, kept = follow(start, self._there[:gap], self._back[:gap])
        frame = self._work.to_frame(end, _WORK_SIZE)
        target = crop.to_crop(frame, CROP_SIZE)
        kept &= ((target > 0) & (target < CROP_SIZE)).all(1) & ((frame > 0) & (frame < image.shape[1::-1])).all(1)
        if not kept.any():
            return None
        picture = crop.extract(image, CROP_SIZE)
        return FlowPair(self._person, self._clip, gap, self._source, picture, self._points[kept], target[kept])

    def _grey(self, image: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(self._work.extract(image, _WORK_SIZE), cv2.COLOR_RGB2GRAY)


def follow(
    points: Float[np.ndarray, "n 2"], there: list[Float[np.ndarray, "h w 2"]], back: list[Float[np.ndarray, "h w 2"]]
) -> tuple[Float[np.ndarray, "n 2"], Bool[np.ndarray, "n"]]:
    """Chain flow fields.

    Args:
        points: pixels of the first picture.
        there: flow from each picture to the next, pixels. back: from the next to it.

    Returns:
        Where the points are in the last picture, and which survived both checks.
    """
    now, kept = points, np.ones(len(points), bool)
    size = np.array(there[0].shape[1::-1]) if there else np.zeros(2)
    for forward, backward in zip(there, back, strict=True):
        step = sample_bilinear(forward, now)
        now = now + step
        kept &= np.linalg.norm(step + sample_bilinear(backward, now), axis=1) < _STEP_TOLERANCE
        kept &= ((now > 0) & (now < size)).all(1)
    home = now
    for backward in reversed(back):
        home = home + sample_bilinear(backward, home)
    kept &= np.linalg.norm(home - points, axis=1) < _LOOP_TOLERANCE
    return now, kept


def head_region(image: UInt8[np.ndarray, "size size 3"], points: Float[np.ndarray, "n 2"], yaw: float) -> Bool[np.ndarray, "size size"]:
    """Pixels of an upright crop that show the head, hair and ears included; see the module's description.

    Args:
        image: RGB. points: MediaPipe's landmarks, pixels of the crop. yaw: degrees, positive when the nose points to the picture's right.
    """
    low, high = points[:468].min(0), points[:468].max(0)
    height = float(high[1] - low[1])
    turn = np.sin(np.deg2rad(yaw))
    # a skull is about as deep as a face is high; its back comes out on the side the nose turns away from
    centre = ((low[0] + high[0]) / 2 - 0.35 * height * turn, (low[1] + high[1]) / 2 - 0.17 * height)
    axes = (height * (0.56 + 0.16 * abs(turn)), 0.72 * height)
    marks = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    cv2.ellipse(marks, tuple(int(v) for v in centre), tuple(int(v) for v in axes), 0, 0, 360, int(cv2.GC_PR_FGD), -1)
    allowed = marks != cv2.GC_BGD
    hull = cv2.convexHull(points[:468].astype(np.int32))
    cv2.fillConvexPoly(marks, hull, int(cv2.GC_FGD))
    empty = ~image.any(-1)  # black beyond the frame's border
    marks[empty] = cv2.GC_BGD
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.setRNGSeed(0)
    cv2.grabCut(bgr, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    mask = ((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)) & allowed
    # outlines are where flow mixes head and background
    return cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)


def _inside_frame(crop: HeadCrop, image: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[:CROP_SIZE, :CROP_SIZE] + 0.5
    frame = crop.to_frame(np.stack([columns, rows], -1), CROP_SIZE)
    return ((frame > 1) & (frame < np.array(image.shape[1::-1]) - 1)).all(-1)
