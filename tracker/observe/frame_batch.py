"""What the fit sees of the video: landmarks, dense correspondences and pictures of a batch of frames, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tracker.landmarks.landmark_schemes import INTER_OCULAR, LEFT_IRIS, RIGHT_IRIS

# Outer and inner corners, upper and lower lid mid-points, in MediaPipe's numbering; left and right are the subject's.
_EYES = {"right_eye": (33, 133, 159, 145), "left_eye": (263, 362, 386, 374)}
_IRISES = {"right_eye": RIGHT_IRIS, "left_eye": LEFT_IRIS}
# A lid opening over eye width below the first is a closed eye, where a detector invents the iris; above the second, open.
_CLOSED_RATIO, _OPEN_RATIO = 0.08, 0.18


@dataclass(frozen=True)
class DenseBatch:
    """What the network said about F frames, at the n sites and as maps.

    Attributes:
        pixels: where each site was seen, full-frame pixels.
        offsets: from the site to the surface point that was seen there, rest frame, metres.
        precision: 1 / expected error, in 1 / cube units; 0 where the site was not seen.
        maps: predicted locations, channels first.
        trust: of the maps' pixels; 0 where it is too low to count.
        scale: expected error of the maps' pixels, cube units, the floor included.
        outline: signed distance of the maps' pixels to the bald head's outline, map pixels, negative inside; zeros where no
            outline is known.
        outline_error: expected error of the outline near each pixel, map pixels.
        to_map: affine maps from full-frame pixels to the maps' pixels.
    """

    pixels: Float[Tensor, "frames n 2"]
    offsets: Float[Tensor, "frames n 3"]
    precision: Float[Tensor, "frames n"]
    maps: Float[Tensor, "frames 3 h w"]
    trust: Float[Tensor, "frames h w"]
    scale: Float[Tensor, "frames h w"]
    outline: Float[Tensor, "frames h w"]
    outline_error: Float[Tensor, "frames h w"]
    to_map: Float[Tensor, "frames 2 3"]

    def select(self, frames: Tensor) -> DenseBatch:
        """The same for some of the frames."""
        return DenseBatch(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    @property
    def seen(self) -> Tensor:
        """``(F,)`` bool: frames that have a map."""
        return (self.precision > 0).any(dim=1)


@dataclass(frozen=True)
class PictureBatch:
    """Pictures of the head in F frames.

    Attributes:
        pictures: RGB, [0, 1], channels first, a little blurred.
        trust: [0, 1], pixels that show the head and nothing in front of it.
        to_map: affine maps from full-frame pixels to the pictures' pixels.
        present: frames that have a picture.
    """

    pictures: Float[Tensor, "frames 3 h w"]
    trust: Float[Tensor, "frames h w"]
    to_map: Float[Tensor, "frames 2 3"]
    present: Tensor

    def select(self, frames: Tensor) -> PictureBatch:
        """The same for some of the frames."""
        return PictureBatch(self.pictures[frames], self.trust[frames], self.to_map[frames], self.present[frames])


@dataclass(frozen=True)
class FrameBatch:
    """MediaPipe's 478 landmarks in F frames, and what the embedding network said.

    Attributes:
        points: full-frame pixels.
        depth: towards the camera is negative, same scale as the pixels; the origin is arbitrary.
        timestamps: seconds, in double precision (a long video needs it).
        expression_guess: first values for the head's expression coefficients, or None.
        found: frames whose landmarks were found; None for all of them. Where not, the landmarks' numbers mean nothing.
        dense: dense correspondences, or None.
        pictures: of the head, or None.
    """

    points: Float[Tensor, "frames 478 2"]
    depth: Float[Tensor, "frames 478"]
    timestamps: Float[Tensor, "frames"]
    expression_guess: Float[Tensor, "frames expression"] | None = None
    found: Bool[Tensor, "frames"] | None = None
    dense: DenseBatch | None = None
    pictures: PictureBatch | None = None

    def __len__(self) -> int:
        return len(self.points)

    def select(self, frames: Tensor) -> FrameBatch:
        """The same for some of the frames."""
        return FrameBatch(
            self.points[frames],
            self.depth[frames],
            self.timestamps[frames],
            None if self.expression_guess is None else self.expression_guess[frames],
            None if self.found is None else self.found[frames],
            None if self.dense is None else self.dense.select(frames),
            None if self.pictures is None else self.pictures.select(frames),
        )

    def inter_ocular_px(self) -> Float[Tensor, "frames"]:
        """Distance of the outer eye corners in the picture, pixels."""
        left, right = INTER_OCULAR
        return (self.points[:, left] - self.points[:, right]).norm(dim=-1)

    @property
    def has_landmarks(self) -> Bool[Tensor, "frames"]:
        """Frames whose landmarks were found."""
        return torch.ones_like(self.timestamps, dtype=torch.bool) if self.found is None else self.found

    def iris_trust(self) -> Float[Tensor, "frames 478"]:
        """1 everywhere but at irises, where it falls to 0 as the eye closes."""
        trust = self.points.new_ones(self.points.shape[:2])
        for eye, (outer, inner, upper, lower) in _EYES.items():
            width = (self.points[:, outer] - self.points[:, inner]).norm(dim=-1).clamp_min(1e-6)
            opening = (self.points[:, upper] - self.points[:, lower]).norm(dim=-1) / width
            openness = ((opening - _CLOSED_RATIO) / (_OPEN_RATIO - _CLOSED_RATIO)).clamp(0, 1)
            trust[:, list(_IRISES[eye])] = openness[:, None]
        return trust
