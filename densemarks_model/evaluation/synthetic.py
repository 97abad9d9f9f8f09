"""Errors on held-out synthetic heads, whose truth is exact."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from densemarks_model.checkpoint_files import cube_of
from densemarks_model.errors import ModelError
from densemarks_model.evaluation.bootstrap import bootstrap_interval
from densemarks_model.evaluation.cubes import in_cube
from densemarks_model.evaluation.metrics import YAW_EDGES, Measure, cube_errors, mask_iou
from densemarks_model.evaluation.network import CROP_SIZE, Network

_BATCH = 50


@dataclass(frozen=True)
class Shard:
    """One folder of pictures, read as needed.

    Attributes:
        images: RGB. coordinates: cube, of version ``cube``. masks: head and surface, 0 to 255. yaw: degrees, None where the folder does not say.
    """

    images: UInt8[np.ndarray, "n size size 3"]
    coordinates: Float[np.ndarray, "n cells cells 3"]
    masks: UInt8[np.ndarray, "n cells cells 2"]
    yaw: Float[np.ndarray, "n"] | None
    cube: int = 1


def open_shards(folder: Path) -> list[Shard]:
    """The shard ``folder``, or every shard in it.

    Raises:
        ModelError: no shard there, or one whose files do not fit its ``meta.json``.
    """
    folders = [folder] if (folder / "meta.json").is_file() else sorted(p.parent for p in folder.glob("*/meta.json"))
    if not folders:
        raise ModelError(f"{folder}: no synthetic pictures there (meta.json is missing); make some with python -m densemarks_model.data.synthetic")
    return [_open_shard(f) for f in folders]


def _open_shard(folder: Path) -> Shard:
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        count, size, cells = (int(meta[k]) for k in ("count", "image_size", "map_size"))
        yaw = np.array(meta["yaw_deg"], float) if "yaw_deg" in meta else None
        if yaw is not None and len(yaw) != count:
            raise ValueError(f"{len(yaw)} yaw angles for {count} pictures")
        return Shard(
            np.memmap(folder / "images.u8", np.uint8, "r", shape=(count, size, size, 3)),
            np.memmap(folder / "coordinates.f16", np.float16, "r", shape=(count, cells, cells, 3)),
            np.memmap(folder / "masks.u8", np.uint8, "r", shape=(count, cells, cells, 2)),
            yaw,
            cube_of(folder, meta.get("cube")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: not a folder of synthetic pictures ({error})") from error


def evaluate_synthetic(network: Network, shards: list[Shard], limit: int | None = None, rounds: int = 500) -> dict[str, Measure]:
    """Errors over all head pixels (head mask above one half), every pixel counting the same; intervals over pictures.

    Pictures in version 2 of the cube are compared with a network of version 1 in version 1.

    Args:
        limit: pictures to use, evenly spread; all when None. rounds: of the bootstrap.

    Returns:
        ``mean_error``, ``median_error`` (cube units); ``mean_error_surface`` (where the bald head lies behind the pixel: beside it, at
        hair that stands off, the truth is a continuation); ``yaw_A_B`` (mean error by |yaw|); ``mask_iou``.

    Raises:
        ModelError: pictures in version 1 of the cube, whose lips lie on each other, and a network of version 2.
    """
    total = sum(len(s.images) for s in shards)
    chosen = np.linspace(0, total - 1, min(limit or total, total)).round().astype(int)
    per_picture, errors, yaws = [], [], []
    for images, truth, masks, yaw in _batches(shards, chosen, network.cube):
        maps = network.predict(images)
        cells = truth.shape[1]
        for k in range(len(images)):
            coordinates = _cells(maps.coordinates[k], cells)
            confidence = _cells(maps.confidence[k], cells)
            head, surface = masks[k, ..., 0] > 127, masks[k, ..., 1] > 127
            found = cube_errors(coordinates, truth[k], head)
            behind = cube_errors(coordinates, truth[k], head & surface)
            errors.append(found)
            per_picture.append([found.sum(), len(found), behind.sum(), len(behind), mask_iou(confidence > 0.5, head)])
        yaws.append(yaw)
    return _measures(np.array(per_picture), errors, np.concatenate(yaws), rounds)


def _measures(table: np.ndarray, errors: list[np.ndarray], yaw: np.ndarray, rounds: int) -> dict[str, Measure]:
    def ratio(over: int, under: int, rows: np.ndarray) -> Measure:
        part = table[rows]

        def statistic(counts: np.ndarray) -> float:
            below = counts @ part[:, under]
            return float(counts @ part[:, over] / below) if below else float("nan")

        return Measure(statistic(np.ones(len(part))), *bootstrap_interval(statistic, len(part), rounds), len(part))

    everything = np.ones(len(table), bool)
    pixels = np.concatenate(errors)
    measures = {
        "mean_error": ratio(0, 1, everything),
        "median_error": Measure(float(np.median(pixels)) if len(pixels) else float("nan"), count=len(table)),
        "mean_error_surface": ratio(2, 3, everything),
    }
    for low, high in itertools.pairwise(YAW_EDGES):
        rows = (np.abs(yaw) >= low) & (np.abs(yaw) < high)
        if rows.any():
            measures[f"yaw_{low}_{high}"] = ratio(0, 1, rows)
    iou = table[:, 4]
    interval = bootstrap_interval(lambda counts: float(counts @ iou / counts.sum()), len(iou), rounds)
    measures["mask_iou"] = Measure(float(iou.mean()), *interval, len(iou))
    return measures


def _batches(shards: list[Shard], chosen: np.ndarray, cube: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    first = 0
    for shard in shards:
        own = chosen[(chosen >= first) & (chosen < first + len(shard.images))] - first
        first += len(shard.images)
        for start in range(0, len(own), _BATCH):
            rows = own[start : start + _BATCH]
            images = np.stack([cv2.resize(shard.images[r], (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA) for r in rows])
            yaw = np.full(len(rows), np.nan) if shard.yaw is None else shard.yaw[rows]
            yield images, in_cube(shard.coordinates[rows].astype(np.float32), shard.cube, cube), shard.masks[rows], yaw


def _cells(values: np.ndarray, cells: int) -> np.ndarray:
    """To the truth's resolution: averaged when it is coarser, for its cells are averages."""
    if values.shape[0] == cells:
        return values
    way = cv2.INTER_AREA if values.shape[0] > cells else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(values, np.float32), (cells, cells), interpolation=way)
