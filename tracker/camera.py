"""The camera: pinhole, square pixels, no distortion, in full-frame pixels.

World axes are OpenGL's (x right, y up). The camera stands at (0, 0, 1) m, looks down −z and is not turned, so that
world-to-camera is ``[I | (0, 0, −1)]``, as in VHAP. Pixel coordinates are continuous, with the origin at the top-left
corner of the picture and pixel centres at (i + 0.5, j + 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from flame_assets.safe_npz import read_header
from tracker.errors import UserError

CAMERA_POSITION = (0.0, 0.0, 1.0)
"""Where the camera stands in the world, metres."""

NEAR_PLANE_M = 0.01
"""Points closer to the camera than this project as if they stood at this depth."""

FOCAL_PRIOR_RATIO = 1.2
"""Prior median of focal length over the longer side of the picture (a field of view of 45° across it)."""

FOCAL_PRIOR_LOG_SIGMA = 0.2
"""Prior standard deviation of the logarithm of that ratio; covers 0.8 to 1.8 (64° to 31°) at two sigmas."""

FOCAL_INFLATION_FRAME, FOCAL_ERROR_SHARED = 2.9, 0.09
"""How many times larger than supposed the error of a focal length from one frame is, and which share of its variance the frames of
one person have in common; measured, see docs/fitting.md."""

STATED_FOCAL_HELD = 5.0
"""How many times as firmly the fit holds to a focal length that a file states: as firmly as the data are too sure of theirs."""

_INTRINSICS_BYTES, _LARGEST_PX = 100_000, 1e9

_MIN_FOV_DEG, _MAX_FOV_DEG = 1.0, 150.0


@dataclass(frozen=True)
class Camera:
    """Intrinsics in full-frame pixels.

    Attributes:
        focal_px: focal length, pixels.
        cx, cy: principal point, pixels.
        width, height: picture size, pixels.
    """

    focal_px: float
    cx: float
    cy: float
    width: int
    height: int

    @property
    def intrinsics(self) -> Float[np.ndarray, "3 3"]:
        """OpenCV's K, but for the half pixel: the centre of the first pixel is at 0.5 here, at 0 in OpenCV."""
        return np.array([[self.focal_px, 0, self.cx], [0, self.focal_px, self.cy], [0, 0, 1]], np.float64)


def project(
    points: Float[Tensor, "*batch n 3"],
    focal_px: Float[Tensor, "*batch"] | float,
    principal_point: tuple[float, float],
) -> tuple[Float[Tensor, "*batch n 2"], Float[Tensor, "*batch n 2 3"]]:
    """Project world points and differentiate.

    Returns:
        Full-frame pixels, and their derivative with respect to the world points (pixels per metre). Depth is clamped at
        :data:`NEAR_PLANE_M`, so that a wild step of a solver stays finite.
    """
    x, y, z = (along - c for along, c in zip(points.unbind(-1), CAMERA_POSITION, strict=True))
    scale = focal_px[..., None] if isinstance(focal_px, Tensor) else float(focal_px)
    inverse_depth = 1 / (-z).clamp_min(NEAR_PLANE_M)
    per_metre = scale * inverse_depth
    dx, dy = x * per_metre, -y * per_metre
    pixels = torch.stack([dx + principal_point[0], dy + principal_point[1]], dim=-1)
    zero = torch.zeros_like(x)
    jacobian = torch.stack([per_metre, zero, dx * inverse_depth, zero, -per_metre, dy * inverse_depth], dim=-1)
    return pixels, jacobian.unflatten(-1, (2, 3))


def from_principal_point(
    pixels: Float[Tensor, "*batch 2"], principal_point: tuple[float, float]
) -> Float[Tensor, "*batch 2"]:
    """Pixels relative to the principal point; nothing is sent to the pixels' device, which would make it wait."""
    return torch.stack([along - c for along, c in zip(pixels.unbind(-1), principal_point, strict=True)], dim=-1)


@dataclass(frozen=True)
class PhotoCameras:
    """Cameras of photos that share one canvas, each in its photo's own pixels.

    Attributes:
        names: of the files.
        image_size: (height, width) of each.
        K: intrinsics of each, as :attr:`Camera.intrinsics` has them.
        focal_log_sigma: standard deviation of the logarithm of each one's focal length.
    """

    names: Shaped[np.ndarray, "photos"]
    image_size: Int[np.ndarray, "photos 2"]
    K: Float[np.ndarray, "photos 3 3"]
    focal_log_sigma: Float[np.ndarray, "photos"]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, photos: Int[np.ndarray, "picked"]) -> PhotoCameras:
        """Some of them, by number."""
        return PhotoCameras(self.names[photos], self.image_size[photos], self.K[photos], self.focal_log_sigma[photos])

    def camera(self, photo: int) -> Camera:
        """Of one photo."""
        height, width = (int(n) for n in self.image_size[photo])
        k = self.K[photo]
        return Camera(float(k[0, 0]), float(k[0, 2]), float(k[1, 2]), width, height)


@dataclass(frozen=True)
class FocalPrior:
    """What is known of the focal length before the video is seen.

    Attributes:
        focal_px: known value, or the prior's median.
        log_sigma: standard deviation of ``log(focal)``; 0 when the focal length is known and stays fixed.
        principal_point: pixels.
        held: how many times as firmly the fit holds to it. Residuals that err together make the fit too sure of itself; a prior
            that is better than a guess must stand up to them.
    """

    focal_px: float
    log_sigma: float
    principal_point: tuple[float, float]
    held: float = 1.0

    @property
    def fit_log_sigma(self) -> float:
        """Standard deviation that the fit works with."""
        return self.log_sigma / self.held


def focal_prior(
    width: int,
    height: int,
    focal_px: float | None = None,
    fov_deg: float | None = None,
    intrinsics_file: Path | None = None,
) -> FocalPrior:
    """Camera knowledge from what the user gave; at most one of the three sources.

    Args:
        width, height: picture size, pixels.
        focal_px: focal length in full-frame pixels.
        fov_deg: horizontal field of view, degrees.
        intrinsics_file: text or ``.npy`` file with OpenCV's 3×3 K for the full frame: its pixel centres are at integers, so
            its principal point is half a pixel less than this program's.

    Raises:
        UserError: more than one source, or a value that no camera has.
    """
    given = [name for name, v in (("--focal-px", focal_px), ("--fov", fov_deg), ("--intrinsics", intrinsics_file)) if v]
    if focal_px is not None and (not math.isfinite(focal_px) or focal_px <= 0):
        raise UserError(f"--focal-px {focal_px}: the focal length must be a positive number of pixels")
    if fov_deg is not None and not _MIN_FOV_DEG <= fov_deg <= _MAX_FOV_DEG:
        raise UserError(f"--fov {fov_deg}: the horizontal field of view must lie between 1 and 150 degrees")
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} both set the focal length; give one of them")
    centre = (width / 2, height / 2)
    if intrinsics_file is not None:
        focal_px, centre = _read_intrinsics(Path(intrinsics_file))
        if not (-0.5 * width <= centre[0] <= 1.5 * width and -0.5 * height <= centre[1] <= 1.5 * height):
            raise UserError(
                f"--intrinsics {intrinsics_file}: the principal point ({centre[0]:g}, {centre[1]:g}) is far outside the {width}×{height} "
                "picture; give the matrix for pictures of this size"
            )
    elif fov_deg is not None:
        focal_px = width / 2 / math.tan(math.radians(fov_deg) / 2)
    longer = max(width, height)
    if focal_px is None:
        return FocalPrior(FOCAL_PRIOR_RATIO * longer, FOCAL_PRIOR_LOG_SIGMA, centre)
    fov = 2 * math.degrees(math.atan(longer / 2 / focal_px))
    if not _MIN_FOV_DEG <= fov <= _MAX_FOV_DEG:
        raise UserError(
            f"a focal length of {focal_px:g} px on a {width}×{height} picture is a field of view of {fov:.2f}°, "
            "which no head video has; give it in pixels of the full frame"
        )
    return FocalPrior(focal_px, 0.0, centre)


def stated_focal(width: int, height: int, focal_px: float, log_sigma: float) -> FocalPrior:
    """The prior of a picture of ``width`` × ``height`` whose file states a focal length (pixels), with its standard deviation."""
    return FocalPrior(focal_px, log_sigma, (width / 2, height / 2), STATED_FOCAL_HELD)


def focal_inflation(frames: int) -> float:
    """How many times larger than supposed the error is that ``frames`` frames together leave in a focal length.

    Landmarks and sites of one frame err together, and so do frames of one person, whom a detector and a network see wrongly in
    the same way again and again: of n frames that share a part r of their errors' variance, the mean has (1 + (n − 1) r) times the
    variance that independent ones would leave.
    """
    return FOCAL_INFLATION_FRAME * math.sqrt(1 + (frames - 1) * FOCAL_ERROR_SHARED)


def focal_posterior_log_sigma(fit_log_sigma: float, prior: FocalPrior, inflation: float) -> float:
    """Honest standard deviation of an estimated ``log(focal)``.

    The fit counts its residuals as independent, with the errors that they were told. In truth they err together, and n of
    them tell no more than n / inflation² do. The estimate stays what it is, a mean of prior and data by their
    supposed weights P and D; its variance with the true errors is (P² σ² + D inflation²) / (P + D)², the usual sandwich.

    Args:
        fit_log_sigma: as the fit's normal equations have it, prior included: (P + D)^-½.
        prior: what was known before.
        inflation: of the data's errors, see :func:`focal_inflation`.
    """
    if prior.log_sigma == 0:
        return 0.0
    total, held = fit_log_sigma**-2, prior.fit_log_sigma**-2
    data = max(total - held, 0.0)
    return math.sqrt(held**2 * prior.log_sigma**2 + data * inflation**2) / (held + data)


def _read_intrinsics(path: Path) -> tuple[float, tuple[float, float]]:
    """Focal length and principal point, pixels with centres at halves, from a K whose pixel centres are at integers."""
    if not path.is_file():
        raise UserError(f"--intrinsics {path}: no such file")
    try:
        if path.stat().st_size > _INTRINSICS_BYTES:
            raise ValueError("it is far too large for one")
        k = _npy_matrix(path) if path.suffix == ".npy" else _text_matrix(path)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"--intrinsics {path}: not a 3×3 matrix in text or .npy form ({reason})") from error
    if k.shape != (3, 3) or not np.isfinite(k).all() or np.abs(k).max() > _LARGEST_PX:
        raise UserError(f"--intrinsics {path}: expected a 3×3 matrix of finite numbers of pixels, found shape {k.shape}")
    fx, fy = float(k[0, 0]), float(k[1, 1])
    lower_is_affine = np.allclose(k[2], (0, 0, 1)) and abs(k[1, 0]) < 1e-6
    if fx <= 0 or fy <= 0 or not lower_is_affine:
        raise UserError(f"--intrinsics {path}: not a camera matrix [[fx,0,cx],[0,fy,cy],[0,0,1]]")
    if abs(fx - fy) > 0.02 * fx:
        raise UserError(
            f"--intrinsics {path}: fx {fx:g} and fy {fy:g} differ; pixels must be square, so resize the video first"
        )
    return (fx + fy) / 2, (float(k[0, 2]) + 0.5, float(k[1, 2]) + 0.5)


def _text_matrix(path: Path) -> Float[np.ndarray, "rows columns"]:
    rows = [line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines()]
    return np.array([[float(word) for word in row] for row in rows if row], np.float64)


def _npy_matrix(path: Path) -> Float[np.ndarray, "rows columns"]:
    with path.open("rb") as file:
        shape, dtype = read_header(file)
    if shape != (3, 3) or dtype.kind not in "iuf":
        raise ValueError(f"it holds {dtype} of shape {shape}")
    return np.load(path, allow_pickle=False).astype(np.float64)
