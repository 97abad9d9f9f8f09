"""The camera as makers of films describe one: a lens before a piece of film, in millimetres."""

from __future__ import annotations

from dataclasses import dataclass

from tracker.camera import Camera

LONGER_SIDE_MM = 36.0
"""Longer side of the film, that of a 35 mm camera. No video tells its sensor's size; only ratios matter to the picture."""


@dataclass(frozen=True)
class Film:
    """Attributes:
    focal_mm: focal length.
    width_mm, height_mm: of the film.
    right_mm, up_mm: from the lens's axis to the middle of the picture; zero when the principal point is in the middle.
    """

    focal_mm: float
    width_mm: float
    height_mm: float
    right_mm: float
    up_mm: float

    @classmethod
    def of(cls, camera: Camera) -> Film:
        """The film on which ``camera`` sees what it sees."""
        mm = LONGER_SIDE_MM / max(camera.width, camera.height)
        return cls(
            camera.focal_px * mm, camera.width * mm, camera.height * mm,
            (camera.width / 2 - camera.cx) * mm, (camera.cy - camera.height / 2) * mm,
        )  # fmt: skip
