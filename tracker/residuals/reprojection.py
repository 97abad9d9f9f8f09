"""Points of the head against the pixels where they were seen, as a residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tracker.camera import from_principal_point, project
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.solver import Linearization


@dataclass(frozen=True)
class ReprojectionResidual:
    """Projected head points minus the pixels where they were seen, in units of the expected error.

    Attributes:
        points: the head restricted to n points.
        targets: where they were seen, full-frame pixels.
        precision: 1 / (expected error in pixels); 0 leaves a point out (not found, hidden by the head itself).
        principal_point: pixels.
        offsets: from each point to the one that was seen, rest frame, metres; None for the points themselves.
    """

    points: HeadModel
    targets: Float[Tensor, "frames n 2"]
    precision: Float[Tensor, "frames n"]
    principal_point: tuple[float, float]
    offsets: Float[Tensor, "frames n 3"] | None = None

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        head = HeadPoints.evaluate(self.points, values, self.offsets)
        focal = values["log_focal"].exp()
        pixels, per_metre = project(head.positions, focal.expand(len(head.positions)), self.principal_point)
        weight = self.precision[..., None]
        residual = (pixels - self.targets) * weight
        if not wanted:
            return Linearization(residual)
        jacobians = head.jacobians(per_metre * weight[..., None], wanted)
        if "log_focal" in wanted:
            offset = from_principal_point(pixels, self.principal_point)
            jacobians["log_focal"] = (offset * weight)[..., None]
        return Linearization(residual, jacobians, used=self.precision != 0)
