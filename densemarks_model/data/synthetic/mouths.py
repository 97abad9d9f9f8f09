"""Faces with strong mouths, and faces at the ends of what a face can do."""

from __future__ import annotations

import numpy as np

from densemarks_model.data.synthetic.people import head_kit

_ACTS: dict[str, dict[str, tuple[float, float]]] = {
    "scream": {
        "jawOpen": (0.7, 1.0), "mouthStretch": (0.2, 0.9), "mouthUpperUp": (0.2, 0.9), "mouthLowerDown": (0.2, 0.9), "eyeSquint": (0, 0.8),
        "browDown": (0, 0.8), "noseSneer": (0, 0.8), "cheekSquint": (0, 0.7), "eyeWide": (0, 0.3),
    },
    "yawn": {
        "jawOpen": (0.75, 1.0), "mouthFunnel": (0, 0.5), "eyeBlink": (0.2, 1.0), "browDown": (0, 0.5), "eyeSquint": (0, 0.6),
        "mouthLowerDown": (0, 0.4), "browInnerUp": (0, 0.6),
    },
    "laugh": {
        "jawOpen": (0.25, 0.75), "mouthSmile": (0.5, 1.0), "cheekSquint": (0.2, 1.0), "mouthUpperUp": (0.1, 0.6), "eyeSquint": (0, 0.8),
        "mouthDimple": (0, 0.5), "eyeBlink": (0, 0.5),
    },
    "speech": {
        "jawOpen": (0.05, 0.5), "mouthFunnel": (0, 0.8), "mouthPucker": (0, 0.7), "mouthLowerDown": (0, 0.6), "mouthUpperUp": (0, 0.4),
        "mouthStretch": (0, 0.4), "mouthShrugUpper": (0, 0.3), "mouthClose": (0, 0.2),
    },
    "tongue": {"tongueOut": (0.6, 1.0), "jawOpen": (0.15, 0.7), "mouthLowerDown": (0, 0.5), "mouthFunnel": (0, 0.3), "mouthSmile": (0, 0.4)},
    "clenched": {
        "mouthUpperUp": (0.4, 1.0), "mouthLowerDown": (0.4, 1.0), "mouthStretch": (0.2, 0.9), "jawOpen": (0, 0.06), "browDown": (0, 0.8),
        "mouthSmile": (0, 0.6), "noseSneer": (0, 0.7),
    },
    "pressed": {"mouthPress": (0.4, 1.0), "mouthRollLower": (0.2, 1.0), "mouthRollUpper": (0.2, 1.0), "mouthFrown": (0, 0.7), "mouthDimple": (0, 0.6)},
    "kiss": {"mouthPucker": (0.6, 1.0), "mouthFunnel": (0, 0.4), "jawForward": (0, 0.3), "eyeBlink": (0, 1.0)},
    "puffed": {"cheekPuff": (0.5, 1.0), "mouthPucker": (0, 0.5), "mouthPress": (0, 0.5)},
    "chewing": {"jawOpen": (0, 0.3), "jawLeft": (0, 0.8), "mouthLeft": (0, 0.7), "mouthClose": (0, 0.3), "cheekPuff": (0, 0.4), "mouthPress": (0, 0.4)},
}  # fmt: skip
_SHARES = {"scream": 2, "yawn": 2, "laugh": 2, "speech": 4, "tongue": 1.2, "clenched": 1.2, "pressed": 1.2, "kiss": 0.8, "puffed": 0.5, "chewing": 0.7}

_RIVALS = [
    ("jawLeft", "jawRight"), ("mouthLeft", "mouthRight"), ("eyeBlinkLeft", "eyeWideLeft"), ("eyeBlinkRight", "eyeWideRight"),
    ("mouthSmileLeft", "mouthFrownLeft"), ("mouthSmileRight", "mouthFrownRight"), ("mouthPucker", "mouthStretchLeft"),
    ("mouthPucker", "mouthStretchRight"), ("cheekPuff", "jawOpen"), ("mouthPressLeft", "mouthLowerDownLeft"),
    ("mouthPressRight", "mouthLowerDownRight"), ("browDownLeft", "browOuterUpLeft"), ("browDownRight", "browOuterUpRight"),
]  # fmt: skip
"""Shapes that muscles do not make at once: the weaker one gives way."""


def strong_expression(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """ARKit coefficients in [0, 1]: a mouth at work over the upper face of ``base``; one in six draws from all shapes up to 1."""
    names = head_kit().asset.expression_names
    values = {name: 0.0 if name.startswith(("mouth", "jaw", "tongue", "cheek")) else float(v) for name, v in zip(names, base, strict=True)}
    if rng.random() < 1 / 6:
        for name in rng.choice(names, rng.integers(3, 9), replace=False):
            values[str(name)] = float(rng.uniform(0.3, 1.0))
    else:
        acts = list(_ACTS)
        shares = np.array([_SHARES[act] for act in acts])
        act = acts[rng.choice(len(acts), p=shares / shares.sum())]
        strength = rng.uniform(0.6, 1.0)
        for stem, (low, high) in _ACTS[act].items():
            amount = rng.uniform(low, high) * (strength if low < 0.4 else 1.0)
            sides = [stem] if stem in values else [stem + "Left", stem + "Right"]
            uneven = rng.uniform(0.75, 1.0, len(sides)) if rng.random() < 0.8 else rng.uniform(0.2, 1.0, len(sides))
            for name, share in zip(sides, uneven, strict=True):
                values[name] = max(values[name], float(amount * share))
        if act == "chewing" and rng.random() < 0.5:  # to the other side
            for stem in ("jaw", "mouth"):
                values[stem + "Right"], values[stem + "Left"] = values[stem + "Left"], values[stem + "Right"]
    return as_coefficients(values)


def as_coefficients(values: dict[str, float]) -> np.ndarray:
    """Coefficients ``(n,)`` in the default head's order, with rivals settled and no mouth closed further than the jaw opens."""
    for first, second in _RIVALS:
        weaker, stronger = sorted((first, second), key=lambda name: values[name])
        values[weaker] = min(values[weaker], max(0.0, 1 - values[stronger]) * 0.5)
    values["mouthClose"] = min(values["mouthClose"], values["jawOpen"])
    if values["tongueOut"] > 0.1:  # the tongue needs a way out
        values["jawOpen"] = max(values["jawOpen"], 0.3 * values["tongueOut"])
        values["mouthClose"] = 0.0
        for name in ("mouthPressLeft", "mouthPressRight", "mouthRollLower", "mouthRollUpper"):
            values[name] *= 0.2
    return np.array([values[name] for name in head_kit().asset.expression_names], np.float32).clip(0, 1)
