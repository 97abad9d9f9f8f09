"""What one person wears: hair, beard, glasses, hat, clothes; decided before any of it is built."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from densemarks_model.data.synthetic import hair, hair_styles, short_hair
from densemarks_model.data.synthetic.repertoire import FULL, Repertoire

NECKWEAR = ("turtleneck", "shirt", "coat", "scarf", "hood")
"""What may be worn around the neck."""


@dataclass(frozen=True)
class Wardrobe:
    """Choices for one person; the same wardrobe on the same person is always the same picture.

    Attributes:
        style: of the hair; None for a bald head. beard: length of its hairs, metres; None for bare skin (what the person's
            skin has of stubble is painted anyway).
        glasses, hat, headphones: seeds of their shapes and colours; None where they are not worn.
        clothes: seed of shoulders and clothes. seed: of everything else (roots of hairs, gloss, how the film is developed).
        scalp_shade: how much of the hair's colour the scalp under it has, 0 to 1. hat_line: height above which a hat hides hair, metres.
        blur: of the background, standard deviation in shares of the picture's side.
        beard_kind: of ``short_hair.BEARDS``; None for where the person's skin is dark with stubble.
        neckwear: of :data:`NECKWEAR`, made anew around the neck of every pose; None for none.
    """

    style: hair.HairStyle | hair_styles.WideStyle | None = None
    beard: float | None = None
    glasses: int | None = None
    hat: int | None = None
    headphones: int | None = None
    clothes: int = 0
    seed: int = 0
    scalp_shade: float = 0.85
    hat_line: float = 0.05
    blur: float = 0.02
    beard_kind: str | None = None
    neckwear: str | None = None


def random_wardrobe(rng: np.random.Generator, repertoire: Repertoire = FULL, adult: bool = True) -> Wardrobe:
    """As often as the fast generator dresses people so (``dressing.dress``).

    Args:
        adult: only they have beards.
    """
    number = int(rng.integers(2**31))
    covered = rng.random() < 0.12
    headphones = not covered and rng.random() < 0.06
    glasses = rng.random() < 0.28
    style = hair.random_style(rng)
    if rng.random() < repertoire.style_share:
        style = hair_styles.wide_style(rng)
    shade = 0.85 if style is not None else rng.uniform(0.1, 0.6) if rng.random() < 0.3 else 0.0
    beard, kind = rng.uniform(0.0008, 0.003), None  # stubble, where the skin says so
    if adult and rng.random() < 1.5 * repertoire.beard_share:
        shares = np.array(list(short_hair.BEARDS.values()))
        kind = str(rng.choice(list(short_hair.BEARDS), p=shares / shares.sum()))
        beard = rng.uniform(0.025, 0.08) if kind == "long" else np.exp(rng.uniform(np.log(0.004), np.log(0.025)))
    neck = str(rng.choice(NECKWEAR, p=[0.17, 0.3, 0.18, 0.2, 0.15])) if rng.random() < repertoire.worn_share else None
    return Wardrobe(
        style, float(beard) if adult else None, number if glasses else None, number if covered else None, number if headphones else None,
        number, number, float(shade), float(rng.uniform(0.03, 0.07)), float(rng.choice([0.008, rng.uniform(0.01, 0.06)])), kind, neck,
    )  # fmt: skip
