"""Still pictures for the query tools: read, find the head, embed it, write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from densemarks_model.crops import HeadCrop, center_crop, crop_around_landmarks
from densemarks_model.errors import ModelError
from densemarks_model.evaluation.network import Network
from densemarks_model.matching import resize_map
from flame_assets.atomic_files import atomic_file

CROPS = ("face", "center")
"""Ways to find the head: around MediaPipe's face, or the largest square in the middle."""

OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class HeadMaps:
    """Embedding of the head in a picture.

    Attributes:
        crop: square of the picture. coordinates: cube coordinates over the crop. confidence: [0, 1].
    """

    crop: HeadCrop
    coordinates: Float[np.ndarray, "size size 3"]
    confidence: Float[np.ndarray, "size size"]

    @property
    def size(self) -> int:
        """Side of the maps, pixels."""
        return len(self.coordinates)


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """RGB, upright.

    Raises:
        ModelError: no such file, or not a picture.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        raise ModelError(f"{path}: not a picture that OpenCV reads (PNG, JPEG, WebP and the like)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_output(path: Path, suffixes: tuple[str, ...] = OUTPUT_SUFFIXES) -> None:
    """Say early what would fail late.

    Raises:
        ModelError: a folder that does not exist, or a format that cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        raise ModelError(f"{path}: the output's ending must be one of {', '.join(suffixes)}")
    if not path.resolve().parent.is_dir():
        raise ModelError(f"{path}: the folder {path.parent} does not exist")


def write_picture(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write RGB; the file appears when it is complete.

    Raises:
        ModelError: it cannot be written.
    """
    check_output(path)
    _, content = cv2.imencode(path.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(content.tobytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from error


def find_head(image: UInt8[np.ndarray, "h w 3"], way: str, name: str) -> HeadCrop:
    """The crop that shows the head.

    Args:
        way: one of :data:`CROPS`. name: of the picture, for the message.

    Raises:
        ModelError: no face was found.
    """
    if way == "center":
        return center_crop(image.shape[1], image.shape[0])
    from densemarks_model.evaluation.clips import detect_still

    found = detect_still(image)
    if found is None:
        raise ModelError(f"{name}: no face was found; crop the picture to the head and give --crop center")
    return crop_around_landmarks(found.points)


def embed_head(network: Network, image: UInt8[np.ndarray, "h w 3"], crop: HeadCrop, size: int) -> HeadMaps:
    """Run the network on a crop at the network's own resolution, and bring its maps to ``size`` × ``size``."""
    maps = network.predict(crop.extract(image, network.image_size)[None])
    return HeadMaps(crop, resize_map(maps.coordinates[0], size), resize_map(maps.confidence[0], size))


def paste(
    image: UInt8[np.ndarray, "h w 3"], crop: HeadCrop, colour: Float[np.ndarray, "size size 3"], opacity: Float[np.ndarray, "size size"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Blend a picture of the crop into the whole picture.

    Args:
        colour: 0 to 255. opacity: [0, 1].
    """
    size = len(colour)
    matrix = crop.matrix(size)
    # OpenCV's pixel centres are at whole numbers, ours at halves
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    # colours are weighed by opacity before they are resampled, so that invisible ones do not bleed in
    layers = np.dstack([colour * opacity[..., None], opacity]).astype(np.float32)
    layers = cv2.warpAffine(layers, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR)
    return np.clip(np.round(image * (1 - layers[..., 3:]) + layers[..., :3]), 0, 255).astype(np.uint8)
