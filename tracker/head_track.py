"""The result of a run: one head's parameters over a whole video, as plain numpy arrays.

Fitting makes a :class:`HeadTrack`, the exporters write it, and
:func:`tracker.export.flame_params.load_track` reads it back. T is the number of frames, S and E those of the head's
identity and expression coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from tracker.camera import Camera, PhotoCameras

POSE_SIZES = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
"""Numbers per frame of each pose parameter, by VHAP's names."""

_MAY_LACK = ("shot", "person", "interpolated")  # arrays of one number per frame that tracks need not have


@dataclass(frozen=True)
class HeadTrack:
    """Parameters of one head in every frame of one video.

    Every value is finite: frames without a tracked head (``valid`` false) hold values of a frame nearby.

    Attributes:
        rotation: of the head about its root joint; this and all poses are axis-angle vectors, radians.
        neck_pose, jaw_pose: of those joints, relative to their parents.
        eyes_pose: left eye (3), right eye (3).
        translation: metres, added after skinning; world axes (x right, y up, camera at (0, 0, 1) looking down −z).
        shape: identity coefficients, shared by all frames but those of other people, see ``shapes``.
        expr: expression coefficients.
        focal_px: focal length in full-frame pixels, shared by all frames.
        principal_point: (x, y), pixels from the top-left corner of the picture.
        image_size: (height, width), pixels.
        timestamps: presentation times, seconds, strictly increasing.
        valid: whether the frame has a head: one that was tracked there, or one ``interpolated`` between frames nearby.
        confidence: 0 (do not use) to 1.
        timestep_id: name of each frame.
        expression_names: meaning of the expression coefficients.
        head_name, head_sha256: which head model the coefficients belong to.
        frame_rate: nominal frames per second; ``timestamps`` hold the true times.
        photos: when the frames are photos: the camera of each, in its own pixels. ``focal_px``, ``principal_point`` and
            ``image_size`` are then the canvas's, on which all photos lie (:mod:`tracker.video.photos`).
        shot: number of the shot that each frame belongs to, from 0, where the video is cut; None where it is not.
        shapes, person: where shots show different people, each one's identity coefficients, the first of them ``shape``, and which
            one each frame shows; None for one person.
        interpolated: frames whose values lie between those of frames nearby, since nothing was tracked in them; None for none.

    Raises:
        ValueError: arrays whose shapes disagree, that are not finite, or times that do not increase.
    """

    rotation: Float[np.ndarray, "frames 3"]
    neck_pose: Float[np.ndarray, "frames 3"]
    jaw_pose: Float[np.ndarray, "frames 3"]
    eyes_pose: Float[np.ndarray, "frames 6"]
    translation: Float[np.ndarray, "frames 3"]
    shape: Float[np.ndarray, "identity"]
    expr: Float[np.ndarray, "frames expression"]
    focal_px: float
    principal_point: Float[np.ndarray, "2"]
    image_size: Shaped[np.ndarray, "2"]
    timestamps: Float[np.ndarray, "frames"]
    valid: Bool[np.ndarray, "frames"]
    confidence: Float[np.ndarray, "frames"]
    timestep_id: Shaped[np.ndarray, "frames"]
    expression_names: tuple[str, ...]
    head_name: str
    head_sha256: str
    frame_rate: float
    photos: PhotoCameras | None = None
    shot: Int[np.ndarray, "frames"] | None = None
    shapes: Float[np.ndarray, "people identity"] | None = None
    person: Int[np.ndarray, "frames"] | None = None
    interpolated: Bool[np.ndarray, "frames"] | None = None

    def __post_init__(self) -> None:
        t = len(self.timestamps)
        expected = {name: (t, size) for name, size in POSE_SIZES.items()} | {
            "shape": (len(self.shape),),
            "expr": (t, len(self.expression_names)),
            "principal_point": (2,),
            "image_size": (2,),
            "timestamps": (t,),
            "valid": (t,),
            "confidence": (t,),
            "timestep_id": (t,),
        }
        expected |= {name: (t,) for name in _MAY_LACK if getattr(self, name) is not None}
        for name, wanted in expected.items():
            array = getattr(self, name)
            if array.shape != wanted:
                raise ValueError(f"track: {name} should have shape {wanted} and has {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"track: {name} contains values that are not finite")
        if self.photos is not None and len(self.photos) != t:
            raise ValueError(f"track: {len(self.photos)} photos' cameras for {t} frames")
        if (self.shapes is None) != (self.person is None):
            raise ValueError("track: shapes and person go together")
        if self.shapes is not None and self.person is not None:
            if self.shapes.shape[1:] != self.shape.shape or not np.array_equal(self.shapes[0], self.shape):
                raise ValueError("track: the first of its shapes must be shape")
            if not ((self.person >= 0) & (self.person < len(self.shapes))).all():
                raise ValueError("track: person names one that has no shape")
        if t == 0:
            raise ValueError("track: it has no frames")
        if not (np.diff(self.timestamps) > 0).all():
            raise ValueError("track: timestamps must increase from frame to frame")
        if not (np.isfinite(self.focal_px) and self.focal_px > 0):
            raise ValueError(f"track: focal_px must be a positive number of pixels, not {self.focal_px}")

    @property
    def n_frames(self) -> int:
        return len(self.timestamps)

    @property
    def n_people(self) -> int:
        """How many different people the frames show."""
        return 1 if self.shapes is None else len(self.shapes)

    @property
    def tracked(self) -> Bool[np.ndarray, "frames"]:
        """Frames in which a head was tracked: the valid ones that are not interpolated."""
        return self.valid if self.interpolated is None else self.valid & ~self.interpolated

    @property
    def n_shots(self) -> int:
        """How many shots the frames belong to."""
        return 1 if self.shot is None else len(np.unique(self.shot))

    def shapes_of(self, frames: slice) -> Float[np.ndarray, "picked identity"] | Float[np.ndarray, "identity"]:
        """Identity coefficients of some frames: one set where all have the same."""
        return self.shape if self.shapes is None or self.person is None else self.shapes[self.person[frames]]

    def of_main_person(self) -> HeadTrack:
        """The same for formats that hold one identity: frames of other people than the first have no tracked head."""
        if self.person is None:
            return self
        others = self.person != 0
        return replace(
            self, valid=self.valid & ~others, confidence=np.where(others, 0.0, self.confidence), shapes=None, person=None,
            interpolated=None if self.interpolated is None else self.interpolated & ~others,
        )  # fmt: skip

    @property
    def camera(self) -> Camera:
        """The shared pinhole camera."""
        height, width = (int(n) for n in self.image_size)
        cx, cy = (float(c) for c in self.principal_point)
        return Camera(float(self.focal_px), cx, cy, width, height)

    def select(self, frames: Int[np.ndarray, "picked"]) -> HeadTrack:
        """The same head in some of the frames, given by number, increasing.

        Raises:
            ValueError: no frames, or in another order.
        """
        per_frame: tuple[str, ...] = (*POSE_SIZES, "expr", "timestamps", "valid", "confidence", "timestep_id")
        per_frame += tuple(name for name in _MAY_LACK if getattr(self, name) is not None)
        photos = None if self.photos is None else self.photos.select(frames)
        return replace(self, photos=photos, **{name: getattr(self, name)[frames] for name in per_frame})

    def in_photo(self, number: int) -> HeadTrack:
        """One photo of a track of photos, as a track of one frame whose camera is the photo's own.

        Raises:
            ValueError: these are no photos.
        """
        if self.photos is None:
            raise ValueError("track: its frames are a video's, not photos")
        own = self.photos.camera(number)
        return replace(
            self.select(np.array([number])), photos=None, focal_px=own.focal_px, principal_point=np.array([own.cx, own.cy]),
            image_size=np.array([own.height, own.width]),
        )  # fmt: skip
