"""The training loop: stages, averaging, validation, checkpoints with exact resume, and the branch that ends a run well.

From code: ``Trainer(config, Processes(0, 1, device))``, perhaps :meth:`Trainer.resume`, then :meth:`Trainer.run` (to a step, or for
some minutes), :meth:`Trainer.validate` and :meth:`Trainer.export`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densemarks_model.checkpoint_files import DEFAULT_HEAD, HEAD, cube_of, fit_state, save_network
from densemarks_model.errors import ModelError
from densemarks_model.lite import LiteNet, LiteOutput
from densemarks_model.train.checkpoint import CHECKPOINT, load_checkpoint, newest_checkpoint, save_checkpoint
from densemarks_model.train.config import LossWeights, Stage, TrainConfig
from densemarks_model.train.cube import CanonicalCube
from densemarks_model.train.distributed import Processes
from densemarks_model.train.objective import Objective
from densemarks_model.train.records import Records
from densemarks_model.train.schedule import Decay, parameter_groups, set_rates, set_stage, share_at, stage_at
from densemarks_model.train.sources import Mixture, batches, open_sources
from densemarks_model.train.starting import build_network
from densemarks_model.train.validation import Scores, score
from flame_assets.canonical import CUBE_VERSION

WEIGHTS = "weights.safetensors"


class Trainer:
    """One run.

    Args:
        config: everything about it. processes: this process among those of the run.
        say: receives progress lines of the leading process.
        cube: version of the canonical cube that the sources speak and the network learns.

    Attributes:
        step: optimiser steps taken. passes: pictures that the network has seen, those before this run included.
        average: the running average of the weights, float32: what is validated and exported.
        sources, held_out: opened collections, see :func:`densemarks_model.train.sources.open_sources`.
        decay: how the run ends, once :meth:`branch` was called.
    """

    def __init__(
        self, config: TrainConfig, processes: Processes, say: Callable[[str], None] = print, cube: int = CUBE_VERSION
    ) -> None:
        self.config, self.processes, self.cube = config, processes, cube
        self.say = say if processes.leads else lambda _line: None
        self.out = Path(config.run.out)
        self.sources, self.held_out = open_sources(config.data, self.say)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        net = build_network(config, self.say).to(processes.device)
        if processes.device.type == "cpu":
            # torch's fused attention has a slow backward pass there: a step of 16 pictures at 168² takes 1.75 s with it, 1.54 s without
            net.backbone.set_attn_implementation("eager")
        patch = net.config.patch_size
        if odd := next((s for stage in config.stages for s in stage.image_sizes if s % patch), None):
            raise ModelError(f"stages: image_size {odd} is not a multiple of the network's patches of {patch} pixels")
        features = None
        if config.data.videos:
            settings = config.network
            features = CanonicalCube(settings.cube_size, settings.cube_channels, settings.cube_sigma, settings.classes).to(processes.device)
        self.objective = Objective(net, features, config.losses, config.data.label_ignored)
        self.optimizer = torch.optim.AdamW(parameter_groups(net, features), lr=0.0, weight_decay=config.run.weight_decay)
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.step, self.passes = 0, config.run.passes_before
        self.decay: Decay | None = None
        self._stop = False
        self._saved = time.monotonic()

    @property
    def net(self) -> LiteNet:
        """What is trained."""
        return self.objective.net

    @property
    def _lineage(self) -> dict[str, str]:
        """Whose cube is learned: rendered pictures show the default head; video pairs alone make up a cube of their own."""
        return {HEAD: DEFAULT_HEAD} if self.config.data.synthetic else {}

    @property
    def end(self) -> int:
        """Step at which the run ends; far away where none is decided."""
        return self.decay.last if self.decay is not None else self.config.total_steps

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same config. The data may have grown: the run goes on with what is there now.

        Args:
            path: a checkpoint, or a run's folder: its newest checkpoint, or the one before when that is damaged.

        Raises:
            ModelError: not a checkpoint, or of another network, schedule or version of the cube.
        """
        if path.is_dir():
            found = newest_checkpoint(path, self.say)
            if found is None:
                raise ModelError(f"{path}: holds no checkpoint")
            path, state = found
        else:
            state = load_checkpoint(path)
        self._check_same(state, path)
        fit_state(self.objective, state["model"], str(path))
        self.average = {k: v.to(self.processes.device) for k, v in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.passes = state.get("passes", self._passes_to(self.step))
        self.decay = Decay(*state["decay"]) if state.get("decay") else None
        self.say(f"resumed at step {self.step}" + ("" if self.config.is_open and self.decay is None else f" of {self.end}"))

    def _check_same(self, state: dict[str, Any], path: Path) -> None:
        own, theirs = self.config.to_dict(), state["config"]
        # entries that a checkpoint does not know had no effect when it was written
        old = {"losses": {**LossWeights().model_dump(), **theirs["losses"]}, "stages": [{**Stage().model_dump(), **s} for s in theirs["stages"]]}
        for name, value in old.items():
            if value != own[name]:
                raise ModelError(f"{path}: was made with other {name}; start a new run (--resume none) or restore the config")
        if (version := cube_of(path, state.get("cube"))) != self.cube:
            raise ModelError(f"{path}: learned version {version} of the canonical cube, not {self.cube}; begin a new run with network.start: {path}")

    def _passes_to(self, step: int) -> int:
        """Passes at ``step``, for checkpoints that do not say."""
        passes = self.config.run.passes_before
        for stage in self.config.stages:
            passes += min(step, stage.length) * stage.pictures * self.processes.world
            step = max(step - stage.length, 0)
        return passes

    def branch(self, steps: int, out: Path) -> None:
        """Leave the long run: from here on, rates go to zero within ``steps`` steps, and files go to ``out``."""
        if self.step >= self.config.total_steps:
            raise ModelError(f"the run ended at step {self.step}: its rates are zero already, and {self.out / WEIGHTS} is its result")
        self.decay, self.out = Decay(self.step, self.step + steps), out

    def run(self, until: int | None = None, minutes: float | None = None) -> list[float]:
        """Train to the end of the schedule, to step ``until`` or for ``minutes``; returns the total loss of every step of this call.

        Ends with a checkpoint, also on SIGTERM and SIGINT.
        """
        if minutes is not None and self.processes.world > 1:
            raise ModelError("minutes: processes that share the work would not stop at the same step; say how many steps instead")
        self._stop = False
        last = self.end if until is None else min(until, self.end)
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        records = Records(self.out if self.processes.leads else None, self.config.run.tensorboard and self.processes.leads)
        records.write("start", self.step, self.passes, pictures=self._pictures())
        curve: list[float] = []
        with self._catch_signals():
            try:
                while self.step < last and not self._stop:
                    curve += self._stage(last, deadline, records)
            finally:
                records.close()
        self.checkpoint()
        if self._stop:
            self.say(f"stopped at step {self.step}; the same command goes on from here")
        return curve

    def _pictures(self) -> dict[str, int]:
        found = {}
        for kind, source in self.sources.items():
            parts = {p.name: p.source for p in source.parts} if isinstance(source, Mixture) else {kind: source}
            found |= {name: len(s) for name, s in parts.items()}
        return found

    def _stage(self, last: int, deadline: float | None, records: Records) -> list[float]:
        """Steps to the end of the present stage or to ``last``; the total loss of each."""
        stage, _, end = stage_at(self.config, self.step if self.decay is None else self.decay.first)
        last = last if self.decay is not None else min(last, end)
        set_stage(self.net, stage)
        self.net.train()
        model: nn.Module = self.objective
        if self.processes.world > 1:
            model = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        stream = batches(
            self.sources, stage, self.net.config.patch_size, self.step, last, self.config.run.seed, self.config.data.workers,
            self.processes.rank, self.processes.world, pin=self.processes.device.type == "cuda",
        )  # fmt: skip
        curve: list[float] = []
        fresh: list[Tensor] = []  # not read yet, so that no step waits for the device
        for batch in stream:
            found = self._learn(model, batch, stage)
            fresh.append(found["total"])
            records.add(found, stage.pictures * self.processes.world)
            if due := self._due():
                curve += self._read(fresh)
                self._report(due, records)
            if deadline is not None and time.monotonic() > deadline:
                self._stop = True
            if self._stop:
                break
        return curve + self._read(fresh)

    def _learn(self, model: nn.Module, batch: dict[str, dict[str, Tensor]], stage: Stage) -> dict[str, Tensor]:
        device, settings = self.processes.device, self.config.run
        batch = {kind: {k: v.to(device, non_blocking=True) for k, v in samples.items()} for kind, samples in batch.items()}
        set_rates(self.optimizer, stage, share_at(self.config, self.step, self.decay))
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            found = model(batch)
        self.optimizer.zero_grad(set_to_none=True)
        found["total"].backward()
        nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None], settings.clip)
        self.optimizer.step()
        self.step += 1
        self.passes += stage.pictures * self.processes.world
        self._average()
        return {k: v.detach() for k, v in found.items()}

    def _average(self) -> None:
        # young averages forget faster, or the start would stay in them for long; counted from this run's first step
        decay = min(self.config.run.average, (self.step + 1) / (self.step + 30))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def _read(self, fresh: list[Tensor]) -> list[float]:
        """The losses as numbers. Raises ModelError when one is none, before a checkpoint could keep what led to it."""
        values = torch.stack(fresh).float().tolist() if fresh else []
        fresh.clear()
        if any(v != v or abs(v) == float("inf") for v in values):
            raise ModelError(f"step {self.step}: the loss is not a number; the last checkpoint in {self.out} is from before. Lower the rates")
        return values

    def _due(self) -> set[str]:
        """What this step is to be followed by."""
        settings = self.config.run
        due = {"line"} if self.step % settings.log_every == 0 else set()
        if self.step % settings.validate_every == 0 or self.step == self.end:
            due.add("scores")
        if self.step % settings.checkpoint_every == 0 or time.monotonic() - self._saved > 60 * settings.checkpoint_minutes:
            due.add("checkpoint")
        return due

    def _report(self, due: set[str], records: Records) -> None:
        if "line" in due:
            self.say(records.line(self.step, self.passes))
        with records.uncounted():
            if "checkpoint" in due:
                self.checkpoint()
            if "scores" in due and self.held_out and self.processes.leads:
                self.say(records.scores(self.scores(records), self.step, self.passes))

    def averaged(self) -> LiteNet:
        """A network with the averaged weights, ready for inference."""
        net = LiteNet(self.net.config).to(self.processes.device).eval()
        net.load_state_dict(self.average)
        return net

    def scores(self, records: Records | None = None, count: int = 128) -> dict[str, Scores]:
        """Scores of the averaged weights on ``count`` samples of each held-out folder, by its name."""

        def show(images: Tensor, out: LiteOutput) -> None:
            if records is not None:
                records.pictures(images[:4], out.coordinates[:4], out.head_logits[:4].sigmoid(), self.step)

        net, bf16 = self.averaged(), self.config.run.precision == "bf16"
        return {name: score(net, source, count, bf16=bf16, show=show) for name, source in self.held_out.items()}

    def validate(self, count: int = 128) -> tuple[float, float]:
        """Mean cube error on head pixels and IoU of the head mask, each the mean over the held-out folders."""
        found = list(self.scores(count=count).values())
        return sum(s.error for s in found) / len(found), sum(s.overlap for s in found) / len(found)

    def checkpoint(self) -> None:
        """Write the checkpoint, from the leading process; it holds the averaged weights too."""
        self._saved = time.monotonic()
        if not self.processes.leads:
            return
        state = {
            "model": self.objective.state_dict(), "average": self.average, "optimizer": self.optimizer.state_dict(), "step": self.step,
            "passes": self.passes, "decay": None if self.decay is None else [self.decay.first, self.decay.last],
            "network": self.net.config.to_dict(), "config": self.config.to_dict(), "cube": self.cube, **self._lineage,
        }  # fmt: skip
        save_checkpoint(self.out / CHECKPOINT, state)

    def export(self, path: Path) -> None:
        """Write the averaged weights as a network file."""
        net = LiteNet(self.net.config)
        net.load_state_dict({k: v.cpu() for k, v in self.average.items()})
        about = {"steps": str(self.step), "passes": str(self.passes), "seed": str(self.config.run.seed)}
        save_network(path, net, about | self._lineage, self.cube)

    @contextmanager
    def _catch_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the run after the step in progress, with a checkpoint."""

        def stop(_number: int, _frame: object) -> None:
            self._stop = True

        try:
            handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: whoever started it stops it
            handlers = {}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
