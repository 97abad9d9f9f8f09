"""Official FLAME files to a :class:`~flame_assets.asset.HeadAsset`.

FLAME is downloaded by its users, as a pickle of Python 2 (``generic_model.pkl`` of 2020, ``flame2023.pkl``,
``flame2023_no_jaw.pkl``, the 2023 Open edition), optionally with landmark embeddings and vertex masks beside it. The pickle
is read by :mod:`flame_assets.restricted_pickle`: chumpy is not needed and nothing in the file is executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flame_assets.asset import AssetError, HeadAsset, LandmarkEmbedding
from flame_assets.restricted_pickle import load_npy, load_pickle
from flame_assets.safe_npz import read_npz

N_IDENTITY = 300
"""Identity directions of every FLAME edition; what follows them in ``shapedirs`` is expression."""

PREFERRED_MODELS = ("flame2023.pkl", "flame2023_no_jaw.pkl", "generic_model.pkl")
"""Order in which a folder is searched. The official 2023 archive holds the first two."""

_COMPANIONS = {
    "landmark_embedding": ("landmark_embedding.npy", "landmark_embedding/landmark_embedding.npy"),
    "mediapipe": (
        "mediapipe_landmark_embedding.npz",
        "mediapipe_landmark_embedding/mediapipe_landmark_embedding.npz",
    ),
    "masks": ("FLAME_masks.pkl", "FLAME_masks/FLAME_masks.pkl"),
}
_EDITIONS = {"generic_model": "flame2020", "male_model": "flame2020_male", "female_model": "flame2020_female"}
_REQUIRED = ("f", "v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")
_OTHER_MODELS = {6890: "SMPL", 10475: "SMPL-X", 778: "MANO", 5143: "FLAME with added teeth"}
_PARENTS = [0, 1, 1, 1]
_SOURCE = "FLAME file brought by the user; its own licence applies (see the site it was downloaded from)"


@dataclass(frozen=True)
class FlameFiles:
    """Where the parts of one FLAME model lie; None for a part that is not there."""

    model: Path
    landmark_embedding: Path | None
    mediapipe: Path | None
    masks: Path | None

    def present(self) -> list[Path]:
        """The files that exist, the model first."""
        return [p for p in (self.model, self.landmark_embedding, self.mediapipe, self.masks) if p is not None]


def find_flame_files(path: Path) -> FlameFiles:
    """Locate a FLAME model and its companions.

    Args:
        path: the model's pickle, or a folder that holds it. Companions are looked for in the same folder.

    Raises:
        AssetError: no model in the folder, or several and none has a known name.
    """
    folder = path if path.is_dir() else path.parent
    model = _model_in(path) if path.is_dir() else path
    places = {
        key: next((folder / name for name in names if (folder / name).is_file()), None)
        for key, names in _COMPANIONS.items()
    }
    return FlameFiles(model, **places)


def read_flame(files: FlameFiles) -> HeadAsset:
    """Read a FLAME model and those of its companions that are there.

    The head's name is ``flame2020`` for ``generic_model.pkl`` and the file's own name for others. Landmarks are those that
    the files give (105 MediaPipe points, 68 points); canonical coordinates are left to the caller.

    Raises:
        AssetError: not a FLAME model, damaged, or (:class:`~flame_assets.restricted_pickle.UnsafePickleError`) unsafe.
    """
    source = str(files.model)
    model = _model_dictionary(files.model)
    template = _array(model, "v_template", source, np.float32)
    if template.ndim != 2 or template.shape[1] != 3:
        raise AssetError(f"{source}: v_template has shape {template.shape}; a FLAME model has (5023, 3)")
    if len(template) in _OTHER_MODELS:
        raise AssetError(
            f"{source}: this is a {_OTHER_MODELS[len(template)]} model ({len(template)} vertices), not FLAME (5023); "
            "give generic_model.pkl or flame2023.pkl"
        )
    vertices = len(template)
    shapedirs = _array(model, "shapedirs", source, np.float32)
    if shapedirs.ndim != 3 or shapedirs.shape[:2] != (vertices, 3) or shapedirs.shape[2] < N_IDENTITY:
        raise AssetError(
            f"{source}: shapedirs has shape {shapedirs.shape}; FLAME has ({vertices}, 3, {N_IDENTITY} identity + up to 100 "
            "expression directions)"
        )
    parents = np.asarray(_array(model, "kintree_table", source, np.int64))
    if parents.shape != (2, 5) or parents[0, 1:].tolist() != _PARENTS:
        raise AssetError(f"{source}: kintree_table is not FLAME's (root, neck, jaw, two eyes); is this a FLAME model?")
    weights = _array(model, "weights", source, np.float32)
    faces = _array(model, "f", source, np.int32)
    masks = _masks(files.masks, vertices) if files.masks else {}
    if weights.shape == (vertices, 5):
        for joint, name in ((3, "left_eyeball"), (4, "right_eyeball")):
            masks.setdefault(name, weights[:, joint] > 0.5)
    expressions = shapedirs.shape[2] - N_IDENTITY
    posedirs = _array(model, "posedirs", source, np.float32)
    if posedirs.shape != (vertices, 3, 36):
        raise AssetError(f"{source}: posedirs has shape {posedirs.shape}; FLAME has ({vertices}, 3, 36)")
    landmarks = _landmarks(files, len(faces))
    try:
        return HeadAsset(
            name=_EDITIONS.get(files.model.stem, files.model.stem.lower()),
            v_template=template,
            shapedirs=shapedirs,
            n_identity=N_IDENTITY,
            posedirs=posedirs,
            joint_regressor=_array(model, "J_regressor", source, np.float32),
            weights=weights,
            faces=faces,
            expression_names=tuple(f"expr{i:03d}" for i in range(expressions)),
            expression_range=(-np.inf, np.inf),
            regions=masks,
            landmarks=landmarks,
            provenance={"source": _SOURCE, "files": [p.name for p in files.present()]},
        )
    except AssetError as error:
        raise AssetError(f"{source}: {error}") from error


def _model_in(folder: Path) -> Path:
    for name in PREFERRED_MODELS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(p for p in folder.glob("*.pkl") if "mask" not in p.name.lower())
    if len(others) == 1:
        return others[0]
    if not others:
        raise AssetError(f"{folder}: no FLAME model here; put flame2023.pkl or generic_model.pkl into it, or give the file")
    raise AssetError(f"{folder}: several models ({', '.join(p.name for p in others[:4])}); give the one to use as a file")


def _model_dictionary(path: Path) -> dict[str, Any]:
    data = _read(path)
    if data[:2] == b"PK":
        raise AssetError(f"{path}: this is a zip archive, not a model; unpack it and give the .pkl file inside")
    if not data:
        raise AssetError(f"{path}: the file is empty; download it again")
    model = load_pickle(data, str(path))
    if not isinstance(model, dict):
        raise AssetError(f"{path}: not a FLAME model: the pickle holds a {type(model).__name__}, not a dictionary of arrays")
    missing = [key for key in _REQUIRED if key not in model]
    if missing:
        raise AssetError(f"{path}: not a FLAME model: it lacks {', '.join(missing)}")
    return model


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror})") from error


def _array(model: dict[str, Any], key: str, source: str, dtype: type) -> np.ndarray:
    value = model[key]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise AssetError(f"{source}: {key} is a {type(value).__name__} where FLAME has an array of numbers")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise AssetError(f"{source}: {key} contains values that are not finite; download the file again")
    with np.errstate(invalid="ignore", over="ignore"):  # numbers beyond the type are refused by what they become
        return np.ascontiguousarray(value.astype(dtype))


def _masks(path: Path, vertices: int) -> dict[str, np.ndarray]:
    lists = load_pickle(_read(path), str(path))
    if not isinstance(lists, dict) or not all(isinstance(k, str) for k in lists):
        raise AssetError(f"{path}: not FLAME's masks: expected a dictionary of vertex lists")
    masks = {}
    for name, index in lists.items():
        index = np.asarray(index)
        if index.dtype.kind not in "iu" or index.ndim != 1 or (len(index) and not 0 <= index.min() <= index.max() < vertices):
            raise AssetError(f"{path}: the list '{name}' does not fit a head of {vertices} vertices")
        masks[name] = np.isin(np.arange(vertices), index)
    return masks


def _landmarks(files: FlameFiles, triangles: int) -> dict[str, LandmarkEmbedding]:
    found = {}
    if files.mediapipe:
        found["mediapipe"] = _mediapipe(files.mediapipe, triangles)
    if files.landmark_embedding:
        table = load_npy(_read(files.landmark_embedding), str(files.landmark_embedding))
        if not isinstance(table, dict):
            raise AssetError(f"{files.landmark_embedding}: not FLAME's landmark embedding: expected a dictionary of arrays")
        for prefix, first in (("full", 0), ("static", 17)):  # 68 points, or the 51 without the jaw line
            faces, barycentrics = (table.get(f"{prefix}_lmk_{part}") for part in ("faces_idx", "bary_coords"))
            if isinstance(faces, np.ndarray) and isinstance(barycentrics, np.ndarray):
                indices = first + np.arange(faces.size)
                found["ibug68"] = _embedding(indices, faces, barycentrics, triangles, files.landmark_embedding)
                break
    return found


def _mediapipe(path: Path, triangles: int) -> LandmarkEmbedding:
    keys = ("landmark_indices", "lmk_face_idx", "lmk_b_coords")
    try:
        arrays = read_npz(path, keys)
        parts = [arrays[key] for key in keys]
    except (ValueError, KeyError) as error:
        raise AssetError(f"{path}: not FLAME's MediaPipe landmark embedding ({str(error)[:100]})") from error
    return _embedding(*parts, triangles, path)


def _embedding(
    indices: np.ndarray, faces: np.ndarray, barycentrics: np.ndarray, triangles: int, path: Path
) -> LandmarkEmbedding:
    count = indices.size
    numeric = all(a.dtype.kind in "iuf" for a in (indices, faces, barycentrics))
    if not numeric or faces.size != count or barycentrics.size != 3 * count or not count:
        raise AssetError(f"{path}: the landmark arrays do not fit together")
    faces = faces.reshape(-1).astype(np.int32)
    if faces.min() < 0 or faces.max() >= triangles:
        raise AssetError(f"{path}: landmarks lie on triangles that the model does not have; it belongs to another model")
    weights = np.clip(barycentrics.reshape(-1, 3).astype(np.float32), 0, 1)  # published ones can be -1e-9
    total = weights.sum(1, keepdims=True)
    if not np.isfinite(weights).all() or (total < 0.5).any():
        raise AssetError(f"{path}: barycentric coordinates that do not sum to one")
    return LandmarkEmbedding(indices.reshape(-1).astype(np.int32), faces, weights / total)
