"""How good a network is on what was kept aside: the end of each clip, and synthetic pictures. Measured before and after."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from densemarks_model.evaluation.clips import FaceSample
from densemarks_model.evaluation.flow import FlowPair
from densemarks_model.evaluation.landmarks import model_places, predicted_places
from densemarks_model.evaluation.matchers import CubeMatcher
from densemarks_model.evaluation.metrics import landmark_spread
from densemarks_model.evaluation.network import CROP_SIZE, Network
from densemarks_model.evaluation.synthetic import Shard, evaluate_synthetic
from densemarks_model.evaluation.tracks import evaluate_tracks

STILLS, PAIRS = 8, 6
"""Frames, and pairs of frames, of each part that is measured on."""

NOTICEABLE = 0.02
"""Share by which a row must change to count as better or worse."""

_LEAST_POINTS, _MOST_POINTS = 20, 300


@dataclass(frozen=True)
class Rows:
    """Measures of one network, all but the last the smaller the better.

    Attributes:
        spread: of landmarks' places over frames and clips, RMS, cube units. offset: of their mean places from the head model's.
        flow: end-point error of matching along flow tracks, pixels of a 224 crop.
        error: mean error on head pixels of synthetic pictures, cube units. overlap: IoU of the head's mask there.
    """

    spread: float
    offset: float
    flow: float
    error: float
    overlap: float

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


_LABELS = {
    "spread": ("clips: landmark spread, RMS", "{:.4f}"),
    "offset": ("clips: landmark offset from the head model", "{:.4f}"),
    "flow": ("clips: end-point error on flow tracks, px", "{:.2f}"),
    "error": ("synthetic: mean error on head pixels", "{:.4f}"),
    "overlap": ("synthetic: head mask, IoU", "{:.4f}"),
}
_CLIP_ROWS = ("spread", "offset", "flow")


def measure(network: Network, held_out: Path, shards: list[Shard]) -> Rows:
    """Rows of a network in the runtime and precision that the tracker uses.

    Args:
        held_out: folder of prepared parts that were not learned from. shards: synthetic pictures that were not.
    """
    samples, pairs = held_out_faces(held_out)
    matcher = CubeMatcher(network)
    maps = matcher.describe(np.stack([s.image for s in samples]))
    names = sorted({s.person for s in samples})
    people = np.array([names.index(s.person) for s in samples])
    visible = np.stack([s.visible for s in samples])
    # one clip has a spread too: over its frames
    spread = landmark_spread(predicted_places(samples, maps), visible, people, model_places(network.cube), min_people=1)
    flow = evaluate_tracks(pairs, [matcher], rounds=0)[matcher.name]["epe_mean"].value if pairs else math.nan
    synthetic = evaluate_synthetic(network, shards, rounds=0)
    return Rows(spread.rms, spread.offset, flow, synthetic["mean_error"].value, synthetic["mask_iou"].value)


def held_out_faces(folder: Path) -> tuple[list[FaceSample], list[FlowPair]]:
    """Frames with landmarks and pairs of frames with flow tracks, evenly spread over each prepared part."""
    samples: list[FaceSample] = []
    pairs: list[FlowPair] = []
    for path in sorted(folder.glob("*.npz")):
        clip = path.stem.split("-")[0]
        with np.load(path, allow_pickle=False) as archive:
            part = {k: archive[k] for k in archive.files}
        frames = len(part["crops"])
        crops = [cv2.resize(c, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA) for c in part["crops"]]
        for k in np.unique(np.linspace(0, frames - 1, STILLS).round().astype(int)):
            landmarks = part["landmarks"][k].astype(np.float64) * CROP_SIZE
            samples.append(FaceSample(clip, path.stem, int(k), crops[k], landmarks, part["visible"][k], 0.0))
        for k in range(PAIRS):
            gap = (3, 6, 11)[k % 3]  # frames as prepared; the shortest part has 12
            first = round(k * (frames - 1 - gap) / (PAIRS - 1))
            both = np.flatnonzero(part["tracked"][first] & part["tracked"][first + gap])
            if len(both) < _LEAST_POINTS:
                continue
            both = both[np.linspace(0, len(both) - 1, min(len(both), _MOST_POINTS)).round().astype(int)]
            ends = [part["tracks"][j][both].astype(np.float64) * CROP_SIZE for j in (first, first + gap)]
            pairs.append(FlowPair(clip, path.stem, gap, crops[first], crops[first + gap], *ends))
    return samples, pairs


def table(before: Rows, after: Rows) -> str:
    """Both side by side."""
    width = max(len(label) for label, _ in _LABELS.values())
    lines = [f"{'held out':<{width}}  {'before':>8}  {'after':>8}  change"]
    for name, (label, pattern) in _LABELS.items():
        one, other = getattr(before, name), getattr(after, name)
        change = f"{100 * (other / one - 1):+.1f} %" if one and math.isfinite(one) and math.isfinite(other) else "–"
        lines.append(f"{label:<{width}}  {pattern.format(one):>8}  {pattern.format(other):>8}  {change}")
    return "\n".join(lines)


def verdict(before: Rows, after: Rows) -> str:
    """One line: whether it helped on the clips, and whether something was forgotten."""
    ratios = [getattr(after, n) / getattr(before, n) for n in _CLIP_ROWS if getattr(before, n) > 0 and math.isfinite(getattr(after, n))]
    mean = math.exp(sum(math.log(max(r, 1e-9)) for r in ratios) / len(ratios)) if ratios else 1.0
    worse = [_LABELS[n][0].removeprefix("clips: ") for n in _CLIP_ROWS if getattr(after, n) > (1 + NOTICEABLE) * getattr(before, n)]
    change = f"the rows on your clips are {abs(mean - 1):.0%} {'better' if mean < 1 else 'worse'} on average"
    if mean < 1 - NOTICEABLE:
        line = f"it helped: {change}" + (f", though not {' and '.join(worse)}" if worse else "")
    else:
        line = f"it did not help: {change}; the file is written all the same, the network before it may be the better one"
    if after.error > (1 + NOTICEABLE) * before.error or after.overlap < before.overlap - NOTICEABLE / 2:
        return line + "; the synthetic rows are worse, which means forgetting: heads unlike yours are found less well"
    return line + f"; the synthetic rows stayed within {NOTICEABLE:.0%} or got better, so nothing was forgotten"
