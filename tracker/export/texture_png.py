"""The texture, and pictures as PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from flame_assets.asset import HeadAsset
from flame_assets.atomic_files import atomic_file
from tracker.errors import UserError
from tracker.export.registry import ExportJob

TEXTURE_NAME = "texture.png"


def export(job: ExportJob) -> list[str]:
    """Write ``texture.png``."""
    write_picture(job.folder / TEXTURE_NAME, job.texture)
    return [TEXTURE_NAME]


def refuses(head: HeadAsset) -> str | None:
    """Why a head can have no texture."""
    return "it has no uv" if head.uv is None else None


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB picture, row 0 on top.

    Raises:
        UserError: the file is damaged or no picture.
    """
    picture = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise UserError(f"{path}: not a readable picture; move it away, or run the tracker again")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


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
