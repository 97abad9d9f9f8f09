"""How often things occur in synthetic pictures.

:data:`PLAIN` is what the first generator made and stays so bit for bit, because the benchmark's synthetic suite is rendered
with it: whatever this table adds draws its random numbers from streams of its own. :data:`FULL` is what networks are taught with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Repertoire:
    """Shares of the pictures, 0 to 1; 0 everywhere is the plain generator.

    Attributes:
        panorama_share: lit by a panorama of the world, with its crop behind the head.
        style_share: hair of the wider set: loose in front, curtains, afros, locks across the face, other hairlines.
        beard_share: beards and moustaches of strands.
        fine_hair_share: brows and lashes of strands.
        mouth_share: screams, yawns, speech, tongue, clenched teeth, pressed lips, and extremes of any ARKit shape.
        steep_share: seen from far above or below, in profile or beyond.
        turned_share: lying heads and heads upside down.
        companion_share: a second person in the crop, without labels.
        worn_share: of each kind of the wider set of clothes and worn things (collars and scarves, ear wear, bands) at once.
        mask_share: face masks.
        border_share: the frame's border in the crop, continued by replicated or mirrored pixels.
        far_share: heads small in the crop, or so large that they fill it.
        blur_share: blurred by the head's own motion.
        look_share: people with make-up, moles, scars, children's or old people's shapes and skin.
    """

    panorama_share: float = 0.0
    style_share: float = 0.0
    beard_share: float = 0.0
    fine_hair_share: float = 0.0
    mouth_share: float = 0.0
    steep_share: float = 0.0
    turned_share: float = 0.0
    companion_share: float = 0.0
    worn_share: float = 0.0
    mask_share: float = 0.0
    border_share: float = 0.0
    far_share: float = 0.0
    blur_share: float = 0.0
    look_share: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            share = getattr(self, field.name)
            if not 0 <= share <= 1:
                raise ValueError(f"{field.name} is a share from 0 to 1, not {share}")


PLAIN = Repertoire()
"""The first generator's pictures, bit for bit."""

FULL = Repertoire(
    panorama_share=0.75, style_share=0.45, beard_share=0.16, fine_hair_share=0.35, mouth_share=0.4, steep_share=0.12, turned_share=0.06,
    companion_share=0.12, worn_share=0.3, mask_share=0.03, border_share=0.1, far_share=0.12, blur_share=0.14, look_share=0.5,
)  # fmt: skip
"""Pictures to learn from."""
