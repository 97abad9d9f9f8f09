"""Pictures as PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from flame_assets.atomic_files import atomic_file


def encode_png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An RGB picture, row 0 on top, as the bytes of a PNG file."""
    ok, code = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"a picture of shape {picture.shape} cannot be encoded")
    return code.tobytes()


def write_picture(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Save as PNG, complete or not at all."""
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(encode_png(picture))
