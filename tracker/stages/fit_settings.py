"""Settings of the fit: a preset's stages, and what each cue is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, create_model, field_validator

from flame_assets.settings_files import ListOf, Settings, laid_over, validated
from tracker.errors import UserError
from tracker.observe.reading import DENSE, MOTION
from tracker.residuals.cues import cues
from tracker.stages.ties import TieSettings

Group = Literal["pose", "face", "neck", "identity", "focal"]
"""What a stage can free: the head's rotation and place; expression, gaze and jaw; the neck joint; the shape; the focal length."""


class Stage(Settings):
    """One solve, as data.

    Attributes:
        free: groups of variables that may change.
        cues: what counts, by name (:func:`tracker.residuals.cues.cues`).
        iterations: of the solver, at most.
        rounds: how often it is repeated; each time the cues take their weights anew, where the last solve ended.
        needs: a cue without which there is no point in the stage: where that has nothing to say, the stage is left out.
    """

    free: ListOf[Group]
    cues: ListOf[str]
    iterations: int = Field(ge=1, le=1000)
    rounds: int = Field(1, ge=1, le=100)
    needs: str | None = None

    @field_validator("cues")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in cues():
                raise ValueError(f"names no cue '{name}'; there are {', '.join(cues())}")
        return names

    @field_validator("needs")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in cues():
            raise ValueError(f"names no cue '{name}'; there are {', '.join(cues())}")
        return name


class StageLists(Settings):
    """Stages by name, in the order in which they are named; a stage that is null is left out.

    Attributes:
        keyframes: of the joint fit of identity and focal length.
        windows: of every window of frames, identity and focal length given.
        tied: of every window again, after the frames' poses were tied to each other by what moves in the picture; without any, they
            are not.
    """

    keyframes: dict[str, Stage | None] = {}
    windows: dict[str, Stage | None] = {}
    tied: dict[str, Stage | None] = {}


class KeyframeSettings(Settings):
    """The joint fit of identity and focal length: how many keyframes at most."""

    count: int = Field(16, ge=1, le=256)


class WindowSettings(Settings):
    """The fit of every frame.

    Attributes:
        frames: solved together (and smoothed jointly).
        lookahead: frames at a window's end that are solved again in the next one, so that no frame lacks a future.
        gap_seconds: frames further apart than this are not smoothed together.
        max_error_percent: a frame whose median landmark error exceeds this, in percent of the inter-ocular distance, is
            marked invalid. Frames below 2 % (below a tenth of a limit under 20) have the detector's own confidence.
    """

    frames: int = Field(32, ge=1, le=1024)
    lookahead: int = Field(6, ge=0, le=512)
    gap_seconds: float = Field(0.4, gt=0, le=10_000)
    max_error_percent: float = Field(20.0, gt=0, le=1000)


class LimitSettings(Settings):
    """Box limits: how far each eye, and the neck, may be turned about each axis, radians."""

    eyes_rad: float = Field(0.7, ge=1e-3, le=3)
    neck_rad: float = Field(0.6, ge=1e-3, le=3)


class FitBase(Settings):
    """Settings of the fit but for the cues' own sections, which :func:`fit_settings` adds."""

    keyframes: KeyframeSettings = KeyframeSettings()
    windows: WindowSettings = WindowSettings()
    limits: LimitSettings = LimitSettings()
    ties: TieSettings = TieSettings()
    stages: StageLists = StageLists()

    def cue(self, name: str) -> Any:
        """A cue's own settings."""
        return getattr(self, name)

    @property
    def keyframe_stages(self) -> dict[str, Stage]:
        """Stages of the keyframes, in order."""
        return {name: s for name, s in self.stages.keyframes.items() if s is not None}

    @property
    def window_stages(self) -> dict[str, Stage]:
        """Stages of the windows, in order."""
        return {name: s for name, s in self.stages.windows.items() if s is not None}

    @property
    def tied_stages(self) -> dict[str, Stage]:
        """Stages of the windows once their poses are tied, in order."""
        return {name: s for name, s in self.stages.tied.items() if s is not None}

    @property
    def _all_stages(self) -> tuple[Stage, ...]:
        return (*self.keyframe_stages.values(), *self.window_stages.values(), *self.tied_stages.values())

    @property
    def groups(self) -> frozenset[str]:
        """Groups of variables that some stage frees."""
        return frozenset(g for s in self._all_stages for g in s.free)

    @property
    def reads(self) -> frozenset[str]:
        """What of the video its cues and ties look at besides landmarks; see :data:`tracker.observe.reading.EVERYTHING`."""
        return reads_of(self._all_stages) | (frozenset({DENSE, MOTION}) if self.tied_stages else frozenset())

    def changed(self, changes: Mapping[str, Any]) -> Any:
        """The same with some values replaced, section by section, named as in a settings file.

        Raises:
            UserError: an unknown key or a value that is out of bounds.
        """
        return validated(type(self), laid_over(self.model_dump(), changes), "settings", UserError)

    def without(self, *names: str) -> Any:
        """The same with some cues left out, and with the stages that need them."""

        def kept(stages: Mapping[str, Stage]) -> dict[str, Any]:
            left = {}
            for name, stage in stages.items():
                dumped = stage.model_dump() | {"cues": tuple(c for c in stage.cues if c not in names)}
                left[name] = None if stage.needs in names else dumped
            return left

        lists = {"keyframes": self.keyframe_stages, "windows": self.window_stages, "tied": self.tied_stages}
        return self.changed({"stages": {name: kept(stages) for name, stages in lists.items()}})

    def untied(self) -> Any:
        """The same without ties between frames."""
        return self.changed({"stages": {"tied": dict.fromkeys(self.tied_stages)}})

    def holding(self, *groups: str) -> Any:
        """The same with some groups of variables free in no stage."""

        def held(stages: Mapping[str, Stage]) -> dict[str, Any]:
            return {n: s.model_dump() | {"free": tuple(g for g in s.free if g not in groups)} for n, s in stages.items()}

        lists = {"keyframes": self.keyframe_stages, "windows": self.window_stages, "tied": self.tied_stages}
        return self.changed({"stages": {name: held(stages) for name, stages in lists.items()}})


def reads_of(stages: Iterable[Stage]) -> frozenset[str]:
    """What the cues of some stages look at besides landmarks."""
    return frozenset[str]().union(*(cues()[name].reads for stage in stages for name in stage.cues))


@lru_cache(maxsize=1)
def cue_sections() -> dict[str, Any]:
    """Fields of a settings record: one section for each cue, named like it."""
    return {name: (cue.settings, cue.settings()) for name, cue in cues().items()}


def fit_settings(base: type[FitBase] = FitBase) -> type[FitBase]:
    """``base`` with a section for each cue."""
    return create_model(base.__name__.removesuffix("Base") + "Settings", __base__=base, __doc__=base.__doc__, **cue_sections())
