"""What the fit sees of the video: detected landmarks of a batch of frames, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tracker.landmarks.landmark_schemes import INTER_OCULAR, LEFT_IRIS, RIGHT_IRIS

# Outer and inner corners, upper and lower lid mid-points, in MediaPipe's numbering; left and right are the subject's.
_EYES = {"right_eye": (33, 133, 159, 145), "left_eye": (263, 362, 386, 374)}
_IRISES = {"right_eye": RIGHT_IRIS, "left_eye": LEFT_IRIS}
# A lid opening over eye width below the first is a closed eye, where a detector invents the iris; above the second, open.
_CLOSED_RATIO, _OPEN_RATIO = 0.08, 0.18


@dataclass(frozen=True)
class LandmarkBatch:
    """MediaPipe's 478 landmarks in F frames that have a face.

    Attributes:
        points: full-frame pixels.
        depth: towards the camera is negative, same scale as the pixels; the origin is arbitrary.
        timestamps: seconds, in double precision (a long video needs it).
        expression_guess: first values for the head's expression coefficients, or None.
    """

    points: Float[Tensor, "frames 478 2"]
    depth: Float[Tensor, "frames 478"]
    timestamps: Float[Tensor, "frames"]
    expression_guess: Float[Tensor, "frames expression"] | None = None

    def __len__(self) -> int:
        return len(self.points)

    def select(self, frames: Tensor) -> LandmarkBatch:
        """The same for some of the frames."""
        guess = None if self.expression_guess is None else self.expression_guess[frames]
        return LandmarkBatch(self.points[frames], self.depth[frames], self.timestamps[frames], guess)

    def inter_ocular_px(self) -> Float[Tensor, "frames"]:
        """Distance of the outer eye corners in the picture, pixels."""
        left, right = INTER_OCULAR
        return (self.points[:, left] - self.points[:, right]).norm(dim=-1)

    def iris_trust(self) -> Float[Tensor, "frames 478"]:
        """1 everywhere but at irises, where it falls to 0 as the eye closes."""
        trust = self.points.new_ones(self.points.shape[:2])
        for eye, (outer, inner, upper, lower) in _EYES.items():
            width = (self.points[:, outer] - self.points[:, inner]).norm(dim=-1).clamp_min(1e-6)
            opening = (self.points[:, upper] - self.points[:, lower]).norm(dim=-1) / width
            openness = ((opening - _CLOSED_RATIO) / (_OPEN_RATIO - _CLOSED_RATIO)).clamp(0, 1)
            trust[:, list(_IRISES[eye])] = openness[:, None]
        return trust
