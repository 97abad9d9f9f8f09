"""The arrays that define a head, in FLAME's layout, and the one ``.npz`` format that holds them.

Shapes are written with V vertices, F triangles, S identity directions, E expression directions, J = 5 joints and
L landmarks. Lengths are metres. Axes are FLAME's: x to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
"""FLAME's joints, in FLAME's order."""

JOINT_PARENTS = (-1, 0, 1, 1, 1)
"""Parent of each joint; the jaw and both eyes hang from the neck joint."""


class AssetError(ValueError):
    """A head file that cannot be used; the message is one line that says what is wrong and what to do."""


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Landmarks as points on triangles.

    Attributes:
        indices: ``(L,)`` int32, the landmark's number in its own scheme (0-477 for MediaPipe, 0-67 for the 68 points).
        faces: ``(L,)`` int32, row of ``HeadAsset.faces`` that the landmark lies on.
        barycentrics: ``(L, 3)`` float32, non-negative, each row sums to one.
    """

    indices: np.ndarray
    faces: np.ndarray
    barycentrics: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.indices)
        if self.faces.shape != (count,) or self.barycentrics.shape != (count, 3):
            raise AssetError(
                f"landmark embedding: {count} indices need faces ({count},) and barycentrics ({count}, 3); "
                f"found {self.faces.shape} and {self.barycentrics.shape}"
            )

    def positions(self, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Landmark positions ``(L, 3)`` on a mesh with ``vertices`` ``(V, 3)`` and triangles ``faces`` ``(F, 3)``."""
        return np.einsum("lk,lkc->lc", self.barycentrics, vertices[faces[self.faces]])


@dataclass(frozen=True)
class HeadAsset:
    """One head model as arrays, exactly what ``tracker.head_model.HeadModel`` needs.

    Attributes:
        name: short id, e.g. ``"anny-head-1"`` or ``"flame2023"``.
        v_template: ``(V, 3)`` float32, neutral mean head.
        shapedirs: ``(V, 3, S + E)`` float32, identity directions first (per unit-variance coefficient), then expression.
        n_identity: S.
        posedirs: ``(V, 3, 36)`` float32, pose correctives; column ``9 * (j - 1) + 3 * r + c`` multiplies
            ``(R_j - I)[r, c]`` of joint ``j`` in 1..4.
        joint_regressor: ``(5, V)`` float32, joints as a linear function of the shaped vertices.
        weights: ``(V, 5)`` float32, skinning weights, rows sum to one.
        faces: ``(F, 3)`` int32, counter-clockwise seen from outside.
        uv, uv_faces: ``(T, 2)`` float32 in [0, 1] with v up, and ``(F, 3)`` int32; None when the head has no uv.
        expression_names: E names; the 52 ARKit names for the default head, ``expr000`` … for FLAME.
        expression_range: box of the expression coefficients, (0, 1) for ARKit shapes, (-inf, inf) for FLAME.
        regions: region name -> ``(V,)`` bool mask.
        landmarks: scheme (``"mediapipe"``, ``"ibug68"``) -> embedding.
        canonical: ``(V, 3)`` float32 in [0, 1], location of each vertex in the canonical cube; None when unknown.
        cube: version of the cube that ``canonical`` is in, see :mod:`flame_assets.canonical`.
        provenance: where the numbers come from and under which licence (JSON-serialisable).
    """

    name: str
    v_template: np.ndarray
    shapedirs: np.ndarray
    n_identity: int
    posedirs: np.ndarray
    joint_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    expression_names: tuple[str, ...]
    expression_range: tuple[float, float] = (-np.inf, np.inf)
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    landmarks: dict[str, LandmarkEmbedding] = field(default_factory=dict)
    canonical: np.ndarray | None = None
    cube: int = 1
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n_vertices(self) -> int:
        return len(self.v_template)

    @property
    def n_expression(self) -> int:
        return self.shapedirs.shape[2] - self.n_identity

    def __post_init__(self) -> None:
        v, e = self.n_vertices, len(self.expression_names)
        expected = {
            "v_template": (v, 3),
            "shapedirs": (v, 3, self.n_identity + e),
            "posedirs": (v, 3, 36),
            "joint_regressor": (5, v),
            "weights": (v, 5),
        }
        for key, shape in expected.items():
            array = getattr(self, key)
            if array.shape != shape:
                raise AssetError(f"head {self.name!r}: {key} should have shape {shape} and has {array.shape}")
            if array.dtype.kind != "f" or not np.isfinite(array).all():
                raise AssetError(f"head {self.name!r}: {key} contains values that are not finite")
        shaped = self.faces.ndim == 2 and self.faces.shape[1] == 3 and len(self.faces) > 0 and self.faces.dtype.kind in "iu"
        if not shaped or self.faces.min() < 0 or self.faces.max() >= v:
            raise AssetError(f"head {self.name!r}: faces must be (F, 3) indices into the {v} vertices")

    def with_cube(self, version: int) -> HeadAsset:
        """This head with ``canonical`` in another version of the cube: the one that a network speaks.

        Raises:
            AssetError: there is no such version.
        """
        if version not in (1, 2):
            raise AssetError(f"head {self.name!r}: there is no version {version} of the canonical cube, only 1 and 2; update this package")
        if version == self.cube:
            return self
        before = self.__dict__.get("_before")
        if before is not None and before.cube == version:  # back to where it came from, to the last bit
            return before
        canonical = self.canonical
        if canonical is not None:
            from flame_assets.parted_mouth import cube_parting

            moved = cube_parting(self) * (version - self.cube)
            # a place that does not move keeps its bits
            canonical = np.where(moved == 0, canonical, np.clip(canonical + moved, 0, 1)).astype(np.float32)
        made = replace(self, canonical=canonical, cube=version)
        object.__setattr__(made, "_before", self)  # no field: what replace() makes of the head later does not inherit it
        return made

    def sha256(self) -> str:
        """Hash of the geometry (template, bases, skinning, faces); tells two heads apart whatever file held them."""
        digest = hashlib.sha256()
        for key in ("v_template", "shapedirs", "posedirs", "joint_regressor", "weights", "faces"):
            digest.update(np.ascontiguousarray(getattr(self, key)).tobytes())
        return digest.hexdigest()


def save_npz(asset: HeadAsset, path: Path) -> None:
    """Write ``asset`` as one ``.npz`` whose bytes depend on the arrays alone (fixed order and time stamps)."""
    from flame_assets.stable_npz import write_stable_npz

    arrays: dict[str, np.ndarray] = {}
    for item in fields(asset):
        value = getattr(asset, item.name)
        if isinstance(value, np.ndarray):
            arrays[item.name] = value
    arrays["name"] = np.array(asset.name)
    arrays["n_identity"] = np.array(asset.n_identity, np.int32)
    if asset.cube != 1:  # files that name no cube are of version 1
        arrays["cube"] = np.array(asset.cube, np.int32)
    arrays["expression_names"] = np.array(asset.expression_names)
    arrays["expression_range"] = np.array(asset.expression_range, np.float32)
    arrays["provenance"] = np.array(json.dumps(asset.provenance, sort_keys=True))
    for region, mask in asset.regions.items():
        arrays[f"region/{region}"] = np.flatnonzero(mask).astype(np.int32)
    for scheme, embedding in asset.landmarks.items():
        for part in fields(embedding):
            arrays[f"landmarks/{scheme}/{part.name}"] = getattr(embedding, part.name)
    write_stable_npz(path, arrays)


def load_npz(path: Path) -> HeadAsset:
    """Read what :func:`save_npz` wrote. Half-precision arrays are widened to float32.

    Raises:
        AssetError: the file is not such an ``.npz``, its arrays do not fit together, or are no head
            (:mod:`flame_assets.checks`).
    """
    from flame_assets.checks import check_head
    from flame_assets.safe_npz import LARGEST_BYTES, TooLargeError, read_npz

    try:
        data = read_npz(path)
    except TooLargeError as error:
        raise AssetError(f"{path}: {error}, and no head needs more than {LARGEST_BYTES / 1e9:g}") from error
    except ValueError as error:
        raise AssetError(f"{path}: not a readable .npz head file ({error})") from error
    missing = [k for k in _NEEDED if k not in data]
    if missing:
        raise AssetError(f"{path}: not a head file of this project; it lacks {', '.join(missing)}")
    try:
        asset = _assembled(data)
    except AssetError as error:
        raise AssetError(f"{path}: {error}") from error
    except (TypeError, ValueError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise AssetError(f"{path}: not a head file of this project ({' '.join(str(error).split())})") from error
    check_head(asset, path)
    return asset


_NEEDED = (
    "name", "v_template", "shapedirs", "n_identity", "posedirs", "joint_regressor", "weights", "faces", "expression_names",
    "expression_range",
)  # fmt: skip


def _assembled(data: dict[str, np.ndarray]) -> HeadAsset:
    regions, landmarks = _nested(data)
    widened = {k: a.astype(np.float32) if a.dtype == np.float16 else a for k, a in data.items() if "/" not in k}
    vertex_count = len(widened["v_template"])
    low, high = (float(x) for x in widened.pop("expression_range"))
    return HeadAsset(
        name=str(widened.pop("name")),
        n_identity=int(widened.pop("n_identity")),
        cube=int(widened.pop("cube", 1)),
        expression_names=tuple(str(n) for n in widened.pop("expression_names")),
        expression_range=(low, high),
        provenance=json.loads(str(widened.pop("provenance", "{}"))),
        regions={name: _mask(index, vertex_count) for name, index in regions.items()},
        landmarks={scheme: LandmarkEmbedding(**parts) for scheme, parts in landmarks.items()},
        **widened,
    )


def _nested(data: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    regions, landmarks = {}, {}
    for key, value in data.items():
        head, *rest = key.split("/")
        if head == "region":
            regions[rest[0]] = value
        elif head == "landmarks":
            landmarks.setdefault(rest[0], {})[rest[1]] = value
    return regions, landmarks


def _mask(index: np.ndarray, count: int) -> np.ndarray:
    mask = np.zeros(count, bool)
    mask[index] = True
    return mask
