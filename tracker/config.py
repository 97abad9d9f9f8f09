"""Settings of a run: frozen records with defaults, filled from the YAML files in ``configs/``.

A preset is such a file. A user's own file given with ``--config`` is laid over the preset, key by key. Unknown keys and
wrong types are errors that name the key, so that a typing mistake never passes silently.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tracker.errors import UserError

if TYPE_CHECKING:
    from tracker.fitting.solver import SolverConfig

PRESETS = ("fast", "balanced", "best")
CONFIG_FOLDER = Path(__file__).resolve().parent.parent / "configs"


@dataclass(frozen=True)
class LandmarkSettings:
    """How far detected landmarks are trusted.

    Attributes:
        error_percent: expected error per landmark group, in percent of the inter-ocular distance; groups not named use
            ``default``. Landmarks of one face err together, so these are larger than the scatter of single points.
        kernel_scale: residuals beyond this many expected errors count less and less (Geman–McClure); 0 for plain squares.
        hidden_cosine, visible_cosine: a landmark whose surface normal makes an angle with the line of sight of lower
            cosine than the first is ignored, of higher than the second counts fully.
    """

    error_percent: dict[str, float] = field(
        default_factory=lambda: {
            "default": 6.0, "lips": 3.0, "lids": 2.5, "irises": 2.5, "brows": 4.0, "nose": 4.0, "oval": 9.0
        }
    )  # fmt: skip
    kernel_scale: float = 3.0
    hidden_cosine: float = -0.1
    visible_cosine: float = 0.25


@dataclass(frozen=True)
class PriorSettings:
    """Standard deviations of the priors.

    Attributes:
        identity: of the identity coefficients. Below one (their own population's), because the landmarks of one face err
            together: at one, the scalp, which they do not see, is stretched to explain a millimetre at the brow.
        expression: of the expression coefficients, as a share of the range of shapes that have one (ARKit's). Directions that
            have none (FLAME's, of unit variance) are held in proportion: the default stands for one, half of it for a half.
        gaze_rad: of each eye's rotation.
        vergence_rad: of the difference between the eyes' rotations.
        jaw_rad, neck_rad: of the jaw and neck joints, where they are free.
        eye_limit_rad: box limit on each eye's rotation about each axis.
    """

    identity: float = 0.35
    expression: float = 0.35
    gaze_rad: float = 0.3
    vergence_rad: float = 0.06
    jaw_rad: float = 0.15
    neck_rad: float = 0.35
    eye_limit_rad: float = 0.7


@dataclass(frozen=True)
class SmoothnessSettings:
    """Expected change over one second (random walk), per variable; larger is looser, ``.inf`` switches it off.

    They are far smaller than what heads do, because 478 landmarks err together where the objective counts them as
    independent: the values halve the jitter of a real talking head and keep 99 % of its blinks' and jaw's range.
    """

    rotation_rad: float = 0.07
    translation_m: float = 0.05
    expression: float = 4.0
    eyes_rad: float = 6.0
    jaw_rad: float = 1.0
    neck_rad: float = 0.03


@dataclass(frozen=True)
class KeyframeSettings:
    """The joint fit of identity and focal length.

    Attributes:
        count: keyframes at most.
        iterations: solver iterations at most.
    """

    count: int = 16
    iterations: int = 20


@dataclass(frozen=True)
class TrackingSettings:
    """The per-frame fit.

    Attributes:
        iterations: solver iterations at most, for each window of frames.
        window: frames solved together (and smoothed jointly).
        lookahead: frames at a window's end that are solved again in the next one, so that no frame lacks a future.
        gap_seconds: frames further apart than this are not smoothed together.
        max_error_percent: a frame whose median landmark error exceeds this, in percent of the inter-ocular distance, is
            marked invalid. Frames below 2 % (below a tenth of a limit under 20) have the detector's own confidence.
        free_neck: solve for the neck joint. Landmarks alone cannot tell it from the head's rotation.
    """

    iterations: int = 4
    window: int = 32
    lookahead: int = 6
    gap_seconds: float = 0.4
    max_error_percent: float = 20.0
    free_neck: bool = False


@dataclass(frozen=True)
class DenseSettings:
    """The dense correspondence term.

    Attributes:
        enabled: run the embedding network and use what it says.
        sites: places on the head's surface at which it counts.
        stride: the network looks at every so-many-th frame that has landmarks, and at each that has none.
        look_up, compare: use the look-up residual; then refine with render-and-compare.
        error_floor: expected error that no prediction falls below, cube units (one is about 30 cm).
        error_inflation: factor on the expected errors, because the places of one face err together.
        kernel_scale: residuals beyond this many expected errors count less and less (Geman–McClure).
        outline_inflation: the same factor for the outline; 0 leaves the outline out.
        min_trust: pixels that show the head with less certainty are left out.
        landmark_factor: factor on the expected errors of the landmarks that the dense term covers (not lips, lids, irises).
        landmark_doubt: landmarks are rejected where the network sees most of them farther than this from their places on the
            head, cube units (on real faces the median is 0.01 to 0.035).
        keyframe_iterations: solver iterations of the joint fit with the dense term, in each of its two rounds.
        refine_iterations: solver iterations with the outline in each window; 0 keeps the outline to the keyframes.
        compare_iterations: solver iterations of render-and-compare in each window.
    """

    enabled: bool = False
    sites: int = 400
    stride: int = 1
    look_up: bool = True
    compare: bool = False
    error_floor: float = 0.01
    error_inflation: float = 1.5
    outline_inflation: float = 1.0
    kernel_scale: float = 3.0
    min_trust: float = 0.3
    landmark_factor: float = 1.5
    landmark_doubt: float = 0.06
    keyframe_iterations: int = 5
    refine_iterations: int = 3
    compare_iterations: int = 3


@dataclass(frozen=True)
class PhotometricSettings:
    """The photometric term: colours of the skin against an albedo under estimated light.

    Attributes:
        enabled: use it, and write texture.png.
        points: places on the skin at which colours are compared.
        picture_size: side of the crops that colours are read from, pixels.
        error: expected difference of a colour that fits, 0 to 1.
        kernel_scale: residuals beyond this many expected errors count less and less (Geman–McClure).
        iterations: solver iterations in each window.
        texture_size: side of the texture, pixels.
    """

    enabled: bool = False
    points: int = 1200
    picture_size: int = 224
    error: float = 0.05
    kernel_scale: float = 2.0
    iterations: int = 4
    texture_size: int = 1024


@dataclass(frozen=True)
class OverlaySettings:
    """The overlay video: opacity of the mesh in [0, 1], and the longer side of each half at most, pixels."""

    opacity: float = 0.75
    max_side: int = 960


@dataclass(frozen=True)
class TrackerConfig:
    """Everything a preset decides."""

    landmarks: LandmarkSettings = LandmarkSettings()
    priors: PriorSettings = PriorSettings()
    smoothness: SmoothnessSettings = SmoothnessSettings()
    keyframes: KeyframeSettings = KeyframeSettings()
    tracking: TrackingSettings = TrackingSettings()
    dense: DenseSettings = DenseSettings()
    photometric: PhotometricSettings = PhotometricSettings()
    overlay: OverlaySettings = OverlaySettings()

    def solver(self, iterations: int) -> SolverConfig:
        """Trust-region settings for a solve of at most ``iterations``."""
        from tracker.fitting.solver import SolverConfig  # brings torch, which options and --help do without

        return SolverConfig(max_iterations=iterations)


def load_config(preset: str = "balanced", overlay_file: Path | None = None) -> TrackerConfig:
    """Read a preset and lay the user's file over it.

    Raises:
        UserError: no such file, not YAML, an unknown key, or a value of the wrong type or out of range.
    """
    if preset not in PRESETS:
        raise UserError(f"--preset {preset}: there is no such preset; choose from {', '.join(PRESETS)}")
    config = TrackerConfig()
    for path in (CONFIG_FOLDER / f"{preset}.yaml", overlay_file):
        if path is not None:
            config = _merge(config, _read(Path(path)), str(path), ())
    return config


class _Loader(yaml.SafeLoader):
    """The safe loader, with YAML 1.2's numbers: 1e-1 and 1.0e300 are words in YAML 1.1, which wants a point and a sign."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"config {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"config {path}: not valid YAML ({reason})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"config {path}: expected sections such as 'tracking:', found {type(content).__name__}")
    return content


def _merge(record: Any, changes: dict[str, Any], path: str, trail: tuple[str, ...]) -> Any:
    hints = typing.get_type_hints(type(record))
    updates = {}
    for key, value in changes.items():
        here = ".".join((*trail, str(key)))
        if key not in hints:
            known = ", ".join(f.name for f in dataclasses.fields(record))
            raise UserError(f"config {path}: unknown key '{here}'; known here: {known}")
        current = getattr(record, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise UserError(f"config {path}: '{here}' is a section and needs keys of its own")
            updates[key] = _merge(current, value, path, (*trail, key))
        elif isinstance(current, dict):
            if not isinstance(value, dict):
                raise UserError(f"config {path}: '{here}' must be a mapping of names to numbers")
            unknown = set(value) - set(current)
            if unknown:
                raise UserError(f"config {path}: unknown name {sorted(map(str, unknown))[0]!r} in '{here}'")
            updates[key] = current | {k: _number(v, float, path, f"{here}.{k}") for k, v in value.items()}
        else:
            updates[key] = _number(value, hints[key], path, here)
    return dataclasses.replace(record, **updates)


def _number(value: Any, kind: type, path: str, key: str) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise UserError(f"config {path}: '{key}' must be true or false, not {value!r}")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole or (kind is float and isinstance(value, float))):
        raise UserError(f"config {path}: '{key}' must be {'a whole number' if kind is int else 'a number'}, not {value!r}")
    if math.isnan(value):
        raise UserError(f"config {path}: '{key}' is not a number")
    signed = key.endswith("_cosine")
    may_be_zero = signed or key in ("landmarks.kernel_scale", "tracking.lookahead", "overlay.opacity", "dense.outline_inflation", "dense.refine_iterations")
    if not signed and (value < 0 or (value == 0 and not may_be_zero)):
        raise UserError(f"config {path}: '{key}' must be {'at least 0' if may_be_zero else 'positive'}, not {value!r}")
    return kind(value)
