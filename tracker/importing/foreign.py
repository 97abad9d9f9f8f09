"""What every reader of another tracker's files gives, and how it becomes a track of a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from tracker.camera import CAMERA_POSITION, Camera
from tracker.errors import UserError
from tracker.head_track import HeadTrack

_LARGEST_SIDE, _LONGEST_PX, _MOST_FRAMES = 100_000, 1e7, 10**9

_SAME_ASPECT = 0.01  # pictures made smaller are rounded to whole pixels


@dataclass(frozen=True)
class ForeignTrack:
    """One tracker's result in this project's conventions (:class:`HeadTrack`), but for the video it belongs to.

    Attributes:
        poses: by VHAP's names, a row a frame.
        shape, expr: coefficients as the file has them.
        camera: of the pictures that the tracker saw, which may be crops.
        numbers: of the frames in the video, increasing.
        notes: what the file holds and a track does not, one sentence each.

    Raises:
        ValueError: a camera, or numbers of frames, that no video has; no frames.
    """

    poses: Mapping[str, Float[np.ndarray, "frames n"]]
    shape: Float[np.ndarray, "identity"]
    expr: Float[np.ndarray, "frames expression"]
    camera: Camera
    numbers: Int[np.ndarray, "frames"]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        camera = self.camera
        if not (0 < camera.width <= _LARGEST_SIDE and 0 < camera.height <= _LARGEST_SIDE):
            raise ValueError(f"pictures of {camera.width}×{camera.height}")
        if not (0 < camera.focal_px < _LONGEST_PX and max(abs(camera.cx), abs(camera.cy)) < _LONGEST_PX):
            raise ValueError(f"a camera with focal length {camera.focal_px:g} px and principal point ({camera.cx:g}, {camera.cy:g})")
        if np.ndim(self.shape) != 1:
            raise ValueError(f"a shape of shape {np.shape(self.shape)}")
        if np.ndim(self.expr) != 2 or not len(self.expr) or len(self.numbers) != len(self.expr):
            raise ValueError(f"expressions of shape {np.shape(self.expr)}")
        if not 0 <= self.numbers[0] <= self.numbers[-1] < _MOST_FRAMES:
            raise ValueError(f"frames {self.numbers[0]} to {self.numbers[-1]}")

    def select(self, rows: Bool[np.ndarray, "frames"]) -> ForeignTrack:
        """Some of the frames."""
        poses = {name: value[rows] for name, value in self.poses.items()}
        return replace(self, poses=poses, expr=self.expr[rows], numbers=self.numbers[rows])

    def to_track(self, head: HeadAsset, timestamps: Float[np.ndarray, "frames"], frame_rate: float) -> HeadTrack:
        """As a track of ``head`` at these times, seconds.

        Raises:
            UserError: the coefficients are not this head's, or values that no track has.
        """
        frames, camera = len(self.expr), self.camera
        try:
            return HeadTrack(
                **{name: np.asarray(value, np.float64) for name, value in self.poses.items()},
                shape=sized(self.shape, head.n_identity), expr=sized(self.expr, head.n_expression), focal_px=camera.focal_px,
                principal_point=np.array([camera.cx, camera.cy]), image_size=np.array([camera.height, camera.width]), timestamps=timestamps,
                valid=np.ones(frames, bool), confidence=np.ones(frames), timestep_id=np.array([f"{n:05d}" for n in self.numbers]),
                expression_names=head.expression_names, head_name=head.name, head_sha256=head.sha256(), frame_rate=frame_rate,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(str(error)) from error


@dataclass(frozen=True)
class Crop:
    """A part of a video's picture, full-frame pixels: the left and upper edge, and the width. It may reach beyond the picture."""

    left: float
    top: float
    width: float


def around(width: int, height: int) -> Crop:
    """The smallest square around a whole picture, with the picture in its middle."""
    side = max(width, height)
    return Crop((width - side) / 2, (height - side) / 2, side)


def on_full_frame(found: ForeignTrack, width: int, height: int, crop: Crop | None) -> ForeignTrack:
    """The same in the pixels of a video of ``width`` × ``height``.

    Args:
        found: in the pixels of the pictures that the tracker saw.
        crop: the part of the video's picture that those are; the whole one when None.

    Raises:
        UserError: no crop is given, and the pictures have another shape than the video's.
    """
    seen = found.camera
    if crop is None:
        if abs(seen.width / seen.height / (width / height) - 1) > _SAME_ASPECT:
            raise UserError(
                f"the tracker saw pictures of {seen.width}×{seen.height} and the video has {width}×{height}: crops, then; say of which part "
                "with tools/import_track.py --crop LEFT,TOP,WIDTH (--crop square: of the square around the whole picture)"
            )
        crop = Crop(0.0, 0.0, width)
    scale = crop.width / seen.width
    camera = Camera(seen.focal_px * scale, crop.left + seen.cx * scale, crop.top + seen.cy * scale, width, height)
    return replace(found, camera=camera)


def sized(values: np.ndarray, size: int) -> np.ndarray:
    """Coefficients of another edition: what is missing is zero, what the head does not have must be.

    Raises:
        UserError: it is not.
    """
    if np.abs(values[..., size:]).max(initial=0) > 0:
        raise UserError(f"the file has {values.shape[-1]} coefficients where this head has {size}; give the head it was made with")
    short = max(size - values.shape[-1], 0)
    return np.pad(values[..., :size].astype(np.float64), [(0, 0)] * (values.ndim - 1) + [(0, short)])


def placed(
    head: HeadAsset,
    shape: Float[np.ndarray, "identity"],
    expr: Float[np.ndarray, "frames expression"],
    turn: Float[np.ndarray, "frames 3 3"],
    shift: Float[np.ndarray, "frames 3"],
) -> tuple[Float[np.ndarray, "frames 3"], Float[np.ndarray, "frames 3"]]:
    """This project's rotation (axis-angle, about the root joint) and translation for a head whose vertices go to camera
    space (OpenGL axes) by ``turn v + shift``, about the origin. Joints follow the expression a little, as in FLAME."""
    moved = np.einsum("v,vck->ck", head.joint_regressor[0], head.shapedirs)
    still = head.joint_regressor[0] @ head.v_template + moved[:, : head.n_identity] @ sized(shape, head.n_identity)
    root = still + sized(expr, head.n_expression) @ moved[:, head.n_identity :].T
    translation = np.einsum("fab,fb->fa", turn, root) - root + shift + np.asarray(CAMERA_POSITION)
    return Rotation.from_matrix(turn).as_rotvec(), translation
