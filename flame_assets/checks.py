"""Is this file a head? Looked at after its arrays are read, so that what is none ends in one clear line.

Without these checks a damaged or hostile file fails deep inside the fit, fits something that is no head, or fills the memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flame_assets.asset import AssetError, HeadAsset

SMALLEST_M, LARGEST_M = 0.1, 1.0
"""The longest side of a head with its neck; files in centimetres or millimetres lie far outside."""

_FEWEST_VERTICES = 100
_LARGEST_MOVE_M = 1.0
_WEIGHT_ERROR = 0.02  # half-precision files round the sum of five weights by less


def check_head(asset: HeadAsset, path: Path) -> None:
    """Refuse arrays that fit together but are no head.

    Raises:
        AssetError: what is wrong, in one line.
    """
    if asset.n_vertices < _FEWEST_VERTICES or len(asset.faces) < _FEWEST_VERTICES:
        raise AssetError(f"{path}: {asset.n_vertices} vertices and {len(asset.faces)} triangles are no head")
    size = float(np.ptp(asset.v_template, axis=0).max())
    if not SMALLEST_M <= size <= LARGEST_M:
        raise AssetError(
            f"{path}: the head is {size:.3g} m across; it should be {SMALLEST_M:g} to {LARGEST_M:g} (is the file in centimetres or millimetres?)"
        )
    off = float(np.abs(asset.weights.sum(1) - 1).max())
    if off > _WEIGHT_ERROR or asset.weights.min() < -_WEIGHT_ERROR:
        raise AssetError(f"{path}: skinning weights must not be negative and sum to one at each vertex; they are {off:.2g} off")
    if asset.n_identity < 0 or asset.n_expression < 0:
        raise AssetError(f"{path}: {asset.n_identity} identity and {asset.n_expression} expression directions make no head")
    low, high = asset.expression_range
    if not low < high:
        raise AssetError(f"{path}: expression_range ({low:g}, {high:g}) must be a lower and a higher number")
    for key in ("shapedirs", "posedirs"):
        if (largest := float(np.abs(getattr(asset, key)).max(initial=0))) > _LARGEST_MOVE_M:
            raise AssetError(f"{path}: {key} move the surface by up to {largest:.3g} m; no head's are longer than {_LARGEST_MOVE_M:g}")
    joints = asset.joint_regressor.astype(np.float64) @ asset.v_template
    centre = asset.v_template.mean(axis=0)
    if not float(np.abs(joints - centre).max()) <= 2 * size:
        raise AssetError(f"{path}: joint_regressor puts joints outside the head")
    _check_uv(asset, path)
    if asset.canonical is not None and (asset.canonical.shape != asset.v_template.shape or not _within(asset.canonical, 0, 1)):
        raise AssetError(f"{path}: canonical must be ({asset.n_vertices}, 3) places in the unit cube")
    for scheme, marks in asset.landmarks.items():
        good = _within(marks.faces, 0, len(asset.faces) - 1) and _within(marks.barycentrics, -0.01, 1.01)
        if not good or not _within(marks.indices, 0, 10_000):
            raise AssetError(f"{path}: its {scheme} landmarks do not lie on the head's {len(asset.faces)} triangles")


def _check_uv(asset: HeadAsset, path: Path) -> None:
    if asset.uv is None and asset.uv_faces is None:
        return
    if (
        asset.uv is None
        or asset.uv_faces is None
        or asset.uv.ndim != 2
        or asset.uv.shape[1] != 2
        or asset.uv_faces.shape != asset.faces.shape
        or not np.isfinite(asset.uv).all()
        or not _within(asset.uv_faces, 0, len(asset.uv) - 1)
    ):
        raise AssetError(f"{path}: uv must be (T, 2) finite numbers, and uv_faces {asset.faces.shape} indices into them")


def _within(array: np.ndarray, low: float, high: float) -> bool:
    return array.dtype.kind in "iuf" and array.size > 0 and bool((array >= low).all() and (array <= high).all())
