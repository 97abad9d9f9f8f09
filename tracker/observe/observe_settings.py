"""Settings of what is looked at."""

from __future__ import annotations

from pydantic import Field

from flame_assets.settings_files import Settings


class ObserveSettings(Settings):
    """How the video is looked at, and how far what is seen there is trusted.

    Attributes:
        sites: places on the head's surface at which dense evidence is pooled.
        stride: the network looks at every so-many-th frame that has landmarks, and at each that has none.
        error_floor: expected error that no prediction falls below, cube units (one is about 30 cm).
        min_trust: pixels that show the head with less certainty are left out.
        landmark_doubt: landmarks are rejected where the network sees most of them farther than this from their places on the
            head, cube units (on real faces the median is 0.01 to 0.035).
        picture_size: side of the crops that colours are read from, pixels.
    """

    sites: int = Field(400, ge=1, le=5000)
    stride: int = Field(1, ge=1, le=1000)
    error_floor: float = Field(0.01, ge=1e-4, le=1)
    min_trust: float = Field(0.3, gt=0, le=1)
    landmark_doubt: float = Field(0.06, ge=1e-4, le=10)
    picture_size: int = Field(224, ge=16, le=1024)
