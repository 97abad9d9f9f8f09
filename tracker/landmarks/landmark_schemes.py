"""Which of MediaPipe's 478 landmarks is what. Left and right are the subject's, not the viewer's.

Numbers: MediaPipe's canonical face model (468 points on the skin) followed by ten iris points.
"""

from __future__ import annotations

from collections.abc import Mapping

N_LANDMARKS = 478

LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
RIGHT_LIDS = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_LIDS = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_BROW = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55)
LEFT_BROW = (300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
NOSE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 45, 275, 48, 278, 64, 294, 115, 344, 220, 440, 129, 358)
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
RIGHT_IRIS = (468, 469, 470, 471, 472)
LEFT_IRIS = (473, 474, 475, 476, 477)
"""Centre first, then four points of the ring."""

INTER_OCULAR = (33, 263)
"""Outer corners of the right and the left eye; their distance in the picture is the unit of landmark errors."""

BLENDSHAPE_NAMES = tuple(
    """
    _neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft
    cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight
    eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight
    jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight
    mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight
    mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight mouthStretchLeft
    mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight
    """.split()
)
"""MediaPipe's 52 blendshape scores in its order: "_neutral", then ARKit's shapes without tongueOut."""


def landmark_groups() -> Mapping[str, tuple[int, ...]]:
    """The groups that settings weigh apart; landmarks in none of them are ``default``."""
    return {
        "oval": FACE_OVAL,
        "nose": NOSE,
        "brows": RIGHT_BROW + LEFT_BROW,
        "lips": LIPS_OUTER + LIPS_INNER,
        "lids": RIGHT_LIDS + LEFT_LIDS,
        "irises": RIGHT_IRIS + LEFT_IRIS,
    }
