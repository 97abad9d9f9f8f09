"""What a cue may look at when it says what it knows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from tracker.camera import FocalPrior
from tracker.observe.frame_batch import FrameBatch
from tracker.rendering.backends import get_renderer
from tracker.rendering.renderer import Renderer
from tracker.residuals.appearance import Appearance
from tracker.residuals.fit_head import FitHead
from tracker.solver import Values


@dataclass(frozen=True)
class FitState:
    """Some frames, what was seen of them, and where their fit stands.

    A cue takes its weights at ``values``: which points are visible, which lie on the outline, how the light falls.

    Attributes:
        head: the head, restricted to what the cues look at.
        batch: what was seen.
        values: parameters as they are now; those that are not free are constants.
        free: names of the values that the coming solve may change.
        pixels_per_metre: scale of the picture at each frame's head, by the closed-form poses.
        camera: what is known of it.
        time_steps: seconds since the frame before, infinite where nothing ties the two together; None for frames that are no
            sequence.
        appearance: albedo and light of the skin, where they are known.
    """

    head: FitHead
    batch: FrameBatch
    values: Values
    free: frozenset[str]
    pixels_per_metre: Float[Tensor, "frames"]
    camera: FocalPrior
    time_steps: Float[Tensor, "frames"] | None = None
    appearance: Appearance | None = None

    def at(self, values: Values) -> FitState:
        """The same with other values."""
        return replace(self, values=values)

    def freeing(self, names: frozenset[str]) -> FitState:
        """The same with other values free."""
        return replace(self, free=names)

    @property
    def principal_point(self) -> tuple[float, float]:
        """Pixels."""
        return self.camera.principal_point

    @property
    def renderer(self) -> Renderer:
        """What draws on the head's device."""
        return get_renderer("auto", self.head.model.device)
