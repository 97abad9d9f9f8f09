"""Write ``.npz`` files that are byte-for-byte the same for the same arrays, and never half-written."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from flame_assets.atomic_files import atomic_file

_EPOCH = (1980, 1, 1, 0, 0, 0)  # numpy.savez stamps the present time into the archive; a fixed one keeps builds equal


def write_stable_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write ``arrays`` to ``path`` (deflated, sorted by name), through a temporary name that is renamed when complete."""
    with atomic_file(path) as staged, zipfile.ZipFile(staged, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(arrays[name], order="C"), allow_pickle=False)
            info = zipfile.ZipInfo(name + ".npy", date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, buffer.getvalue(), compresslevel=9)
