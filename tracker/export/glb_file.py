"""The container: numpy arrays as glTF accessors, a JSON document, one binary ``.glb`` file.

Specification: Khronos Group, *glTF 2.0*, sections 3.6 (binary data) and 4 (GLB).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from flame_assets.atomic_files import atomic_file

_COMPONENT_TYPES = {
    np.dtype(np.uint8): 5121,
    np.dtype(np.uint16): 5123,
    np.dtype(np.uint32): 5125,
    np.dtype(np.float32): 5126,
}
_ELEMENT_TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
VERTEX_DATA, INDEX_DATA = 34962, 34963
"""What a buffer view is for, where the specification wants to be told."""


class GlbFile:
    """A glTF document under construction.

    Attributes:
        document: the JSON, to be filled by the caller; accessors, buffer views and the buffer are filled here.
    """

    def __init__(self, generator: str) -> None:
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": generator},
            "accessors": [],
            "bufferViews": [],
        }
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, array: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Store ``array`` (one element per row) and return its accessor's number.

        Args:
            array: uint8, uint16, uint32 or float32; ``(n,)``, ``(n, 2)``, ``(n, 3)``, ``(n, 4)`` or ``(n, 4, 4)`` with
                matrices in the usual row-major order.
            target: :data:`VERTEX_DATA` or :data:`INDEX_DATA` for what a mesh uses.
            bounds: also store the least and greatest value, which positions and key times must have.
        """
        accessor = self._accessor(array, bounds)
        accessor["bufferView"] = self._view(array, target)
        return self._append(accessor)

    def add_offsets(self, array: np.ndarray, threshold: float, bounds: bool = False) -> int:
        """Store per-vertex offsets ``(n, 3)`` float32, without rows below ``threshold`` where that is smaller."""
        rows = np.flatnonzero(np.abs(array).max(axis=1) > threshold)
        if len(rows) == 0:
            rows = np.array([0])  # a sparse accessor must not be empty
        numbers = rows.astype(np.uint16 if len(array) <= 65535 else np.uint32)
        if (numbers.itemsize + 12) * len(rows) >= 12 * len(array):
            return self.add(array, VERTEX_DATA, bounds)
        kept = np.zeros_like(array)
        kept[rows] = array[rows]
        accessor = self._accessor(kept, bounds)
        accessor["sparse"] = {
            "count": len(rows),
            "indices": {"bufferView": self._view(numbers), "componentType": _COMPONENT_TYPES[numbers.dtype]},
            "values": {"bufferView": self._view(array[rows])},
        }
        return self._append(accessor)

    def add_png(self, data: bytes) -> int:
        """Store a PNG file as a texture and return the texture's number."""
        view = self._view(np.frombuffer(data, np.uint8))
        for key in ("images", "samplers", "textures"):
            self.document.setdefault(key, [])
        self.document["images"].append({"bufferView": view, "mimeType": "image/png"})
        self.document["samplers"].append({"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071})
        number = len(self.document["images"]) - 1
        self.document["textures"].append({"source": number, "sampler": number})
        return number

    def write(self, path: Path) -> None:
        """Write the finished document and its data to ``path``."""
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            file.writelines(self.parts())

    def parts(self) -> list[bytes]:
        """The bytes of the finished file, piece by piece."""
        document = {**self.document, "buffers": [{"byteLength": self._size}]}
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("utf-8")
        text += b" " * (-len(text) % 4)
        head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + self._size)
        return [head, struct.pack("<I4s", len(text), b"JSON") + text, struct.pack("<I4s", self._size, b"BIN\0"), *self._chunks]

    def _append(self, accessor: dict[str, Any]) -> int:
        self.document["accessors"].append(accessor)
        return len(self.document["accessors"]) - 1

    @staticmethod
    def _accessor(array: np.ndarray, bounds: bool) -> dict[str, Any]:
        accessor = {
            "componentType": _COMPONENT_TYPES[array.dtype],
            "count": len(array),
            "type": _ELEMENT_TYPES[array.shape[1:]],
        }
        if bounds:
            rows = array.reshape(len(array), -1)
            accessor |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        return accessor

    def _view(self, array: np.ndarray, target: int | None = None) -> int:
        if array.ndim == 3:
            array = array.swapaxes(1, 2)  # glTF stores matrices by columns
        data = np.ascontiguousarray(array).tobytes()
        view = {"buffer": 0, "byteOffset": self._size, "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        padded = data + b"\0" * (-len(data) % 4)
        self._chunks.append(padded)
        self._size += len(padded)
        self.document["bufferViews"].append(view)
        return len(self.document["bufferViews"]) - 1
