"""Pictures on their way to shards: kept one by one as they are finished, joined when a shard's are complete.

Several processes may work into one folder. A picture of theirs appears under its own name in ``.pictures`` at once or not at
all; who takes a person holds a lock that ends with the process, so nothing is left behind by one that is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densemarks_model.data.synthetic.scene import Sample
from densemarks_model.errors import ModelError
from flame_assets.atomic_files import atomic_file
from flame_assets.canonical import CUBE_VERSION

try:
    import fcntl
except ImportError:  # Windows: two processes may then make the same picture twice, which costs time and nothing else
    fcntl = None

SHARD = 50
"""Pictures a shard."""


class Shelf:
    """The pictures of one series in one folder.

    Args:
        out: folder of the shards, made if it is not there. seed: series. image_size, map_size: pixels.
        samples: paths a pixel; pictures with others are of another series.

    Raises:
        ModelError: the folder holds unfinished pictures of other settings.
    """

    def __init__(self, out: Path, seed: int, image_size: int, map_size: int, samples: int) -> None:
        self.out, self.seed, self.image_size, self.map_size, self.samples = out, seed, image_size, map_size, samples
        self._loose = out / ".pictures"
        self._loose.mkdir(parents=True, exist_ok=True)
        settings = {"seed": seed, "image_size": image_size, "map_size": map_size, "samples": samples, "cube": CUBE_VERSION}
        note = self._loose / "settings.json"
        if not note.exists():
            _write(note, json.dumps(settings).encode())
        elif json.loads(note.read_text(encoding="utf-8")) != settings:
            raise ModelError(f"{self._loose}: unfinished pictures of other settings ({note.read_text(encoding='utf-8')}); finish or delete them")

    def _path(self, index: int) -> Path:
        return self._loose / f"{index:06d}.npz"

    def shard(self, number: int) -> Path:
        """Folder of a shard."""
        return self.out / f"shard_{number:04d}"

    def has(self, index: int) -> bool:
        """Whether a picture is finished."""
        return self._path(index).exists() or self.shard(index // SHARD).exists()

    def put(self, index: int, sample: Sample) -> None:
        """Keep a picture."""
        staging = tempfile.NamedTemporaryFile(dir=self._loose, prefix=".new-", suffix=".npz", delete=False)
        with staging as file:
            np.savez(
                file, image=sample.image, coordinates=sample.coordinates.astype(np.float16),
                masks=np.round(255 * np.stack([sample.head, sample.surface], -1)).astype(np.uint8), pose=np.array([sample.yaw, sample.pitch]),
            )  # fmt: skip
        os.replace(staging.name, self._path(index))

    @contextlib.contextmanager
    def taken(self, name: str) -> Iterator[bool]:
        """Try to take a job; yields whether it is ours until the block ends."""
        path = self._loose / f"{name}.lock"
        with open(path, "wb") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    yield False
                    return
            yield True

    def join(self, number: int) -> bool:
        """Make shard ``number`` if all of its pictures are there; returns whether it exists now."""
        indices = range(number * SHARD, (number + 1) * SHARD)
        if self.shard(number).exists():
            return True
        if not all(self._path(i).exists() for i in indices):
            return False
        try:
            self._build(number, indices)
        except FileNotFoundError:  # another process joined it meanwhile
            return self.shard(number).exists()
        for index in indices:
            self._path(index).unlink(missing_ok=True)
        return True

    def _build(self, number: int, indices: range) -> None:
        size, cells = self.image_size, self.map_size
        images = np.empty((SHARD, size, size, 3), np.uint8)
        coordinates = np.empty((SHARD, cells, cells, 3), np.float16)
        masks = np.empty((SHARD, cells, cells, 2), np.uint8)
        poses = np.empty((SHARD, 2))
        for k, index in enumerate(indices):
            with np.load(self._path(index), allow_pickle=False) as kept:
                images[k], coordinates[k], masks[k], poses[k] = (kept[key] for key in ("image", "coordinates", "masks", "pose"))
        meta = {
            "generator": "densemarks_model.data.cycles", "count": SHARD, "seed": self.seed, "first_index": indices[0], "image_size": size,
            "map_size": cells, "samples": self.samples, "yaw_deg": poses[:, 0].round(2).tolist(), "pitch_deg": poses[:, 1].round(2).tolist(),
            "cube": CUBE_VERSION,
        }  # fmt: skip
        staging = Path(tempfile.mkdtemp(prefix=".shard-", dir=self.out))
        images.tofile(staging / "images.u8")
        coordinates.tofile(staging / "coordinates.f16")
        masks.tofile(staging / "masks.u8")
        (staging / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        try:
            os.replace(staging, self.shard(number))
        except OSError:  # another process was faster
            shutil.rmtree(staging, ignore_errors=True)

    def clear_up(self) -> None:
        """Remove the folder of unfinished pictures if none is left in it."""
        if not any(self._loose.glob("*.npz")):
            shutil.rmtree(self._loose, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as staged:
        staged.write_bytes(content)
