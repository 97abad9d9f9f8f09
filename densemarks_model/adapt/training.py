"""The trainer of ``densemarks_model.train`` at small rates: pairs of frames of the clips, and synthetic pictures.

On the clips: the paper's contrastive term on flow tracks, and landmarks anchored to their places on the head model (Pozdeev et al.,
*DenseMarks*, ICLR 2026). The masks that GrabCut guesses are not learned from: those of the synthetic pictures are exact. The rates
go to zero at the last step, so how many steps there are is decided before the first: seconds a step are measured.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from densemarks_model.adapt.rendered import Stretch, kept_aside
from densemarks_model.evaluation.landmarks import model_places
from densemarks_model.lite import LiteConfig
from densemarks_model.openvino_import import import_openvino
from densemarks_model.train.checkpoint import CHECKPOINT, PREVIOUS
from densemarks_model.train.config import TrainConfig, parse_config
from densemarks_model.train.distributed import Processes
from densemarks_model.train.loop import Trainer
from densemarks_model.train.prepared_clips import PairSource
from densemarks_model.train.shards import ShardSource

LEAST_STEPS = 10
"""Fewer are not worth beginning."""

UNFROZEN_BLOCKS = 4
"""Of the backbone, the last ones; the decoder learns whole."""

_RATES = {"decoder_rate": 1e-4, "backbone_rate": 2e-5, "cube_rate": 1e-3, "synthetic_batch": 4, "video_batch": 2}
# the contrastive loss here is a mean over all pairs of points, so it says little at the paper's weight; docs/training.md has both
_LOSSES = {"contrastive": 20.0, "landmark": 20.0}
_CHANNELS = 32  # of the cube's features: with the paper's 64 smoothing them takes a quarter of a step on a CPU
_MEASURED = 4


@dataclass(frozen=True)
class Material:
    """What an adaptation learns from and begins with.

    Attributes:
        network: name or file of the network. lite: its sizes. cube: version of the canonical cube that it speaks. passes: pictures it has seen.
        clips: folder of prepared parts. synthetic: folder of shards. pictures: how many of those are used, the kept ones included.
        seed: of everything random.
    """

    network: str
    lite: LiteConfig
    cube: int
    passes: int
    clips: Path
    synthetic: Path
    pictures: int
    seed: int

    def trainer(self, steps: int, out: Path) -> Trainer:
        """A trainer before its first step.

        Raises:
            ModelError: pictures or clips that cannot be learned from.
        """
        cuda = torch.cuda.is_available()
        processes = Processes(0, 1, torch.device("cuda" if cuda else "cpu"))
        trainer = Trainer(self._config(steps, out, cuda), processes, say=lambda _line: None, cube=self.cube)
        # all are in the version of the cube that the network speaks, and what is measured on is left out
        trainer.sources["synthetic"] = Stretch(ShardSource(self.synthetic), 0, self.pictures - kept_aside(self.pictures), self.cube)
        trainer.sources["videos"] = Pairs(self.clips, trainer.config.data.flow_points, self.cube)
        return trainer

    def _config(self, steps: int, out: Path, cuda: bool) -> TrainConfig:
        blocks = min(UNFROZEN_BLOCKS, self.lite.layers)
        values = {
            "data": {"synthetic": str(self.synthetic), "videos": str(self.clips)},
            "network": {"lite": self.lite.to_dict(), "backbone": "", "start": self.network, "cube_channels": _CHANNELS},
            "stages": [{"steps": steps, "image_size": self.lite.image_size, "unfrozen_blocks": blocks, **_RATES}],
            "losses": dict(_LOSSES),
            "run": {
                "out": str(out), "seed": self.seed, "precision": "bf16" if cuda or computes_bf16() else "fp32", "average": 0.98,
                "passes_before": self.passes, "log_every": 1, "validate_every": 10**9, "checkpoint_every": 10**9, "checkpoint_minutes": 3.0,
                "tensorboard": False,
            },
        }  # fmt: skip
        return parse_config(values, "adapt")


class Pairs:
    """Pairs of frames with anchors in version ``cube`` of the canonical cube, and without guessed masks."""

    def __init__(self, folder: Path, points: int, cube: int) -> None:
        self._pairs = PairSource(folder, points)
        self._anchors = np.nan_to_num(model_places(cube), nan=0.5).astype(np.float32)

    def __len__(self) -> int:
        return len(self._pairs)

    def sample(self, index: int, image_size: int, map_size: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """See :class:`densemarks_model.train.prepared_clips.PairSource`."""
        sample = self._pairs.sample(index, image_size, map_size, rng)
        return {k: sample[k] for k in ("image", "tracks", "landmarks", "visible")} | {"anchors": self._anchors}


def seconds_a_step(material: Material, work: Path) -> float:
    """Seconds that a step takes on this machine now: the median of a few, which are thrown away."""
    with tempfile.TemporaryDirectory(dir=work, prefix=".measuring-") as scratch:
        trainer = material.trainer(_MEASURED, Path(scratch))
        times: list[float] = []
        trainer.say = lambda _line: times.append(time.monotonic())  # a line follows every step
        trainer.run()
        if trainer.step < trainer.end:  # the trainer takes Ctrl-C for itself, and only stops
            raise KeyboardInterrupt
    return statistics.median(np.diff(times[:_MEASURED]).tolist())


def fitting_steps(seconds: float, step: float) -> int:
    """How many steps fit into ``seconds``; the last twentieth is left for writing."""
    return max(int(0.95 * seconds / step), 0)


def train(material: Material, steps: int, run: Path, quiet: bool = False) -> Trainer:
    """Train to the end, from where the run in the folder ``run`` stopped.

    Returns:
        the trainer; its step is less than its end when it was told to stop.
    """
    trainer = material.trainer(steps, run)
    if any((run / name).is_file() for name in (CHECKPOINT, PREVIOUS)):
        trainer.resume(run)
    with tqdm(total=steps, initial=trainer.step, unit="step", disable=quiet) as bar:

        def say(line: str) -> None:
            if line.startswith("step "):
                bar.set_postfix_str(_losses(line))
                bar.update(trainer.step - bar.n)

        trainer.say = say
        if trainer.step < trainer.end:
            trainer.run()
    return trainer


def _losses(line: str) -> str:
    """The three that tell most, out of the trainer's line."""
    found = dict(part.split(" ", 1) for part in line.split("; ", 1)[-1].split(", ") if " " in part)
    return ", ".join(f"{k} {found[k]}" for k in ("coordinate", "landmark", "contrastive") if k in found)


def computes_bf16() -> bool:
    """Whether this processor computes in bfloat16; pretending takes longer than float32."""
    try:
        ov = import_openvino()
    except ImportError:
        return False
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
