"""What unfinished work belongs to: all that decides the bits of a result, so that work is never gone on with by another run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from densemarks_model.loading import SHIPPED
from flame_assets.load import DEFAULT_HEAD
from tracker import __version__
from tracker.landmarks.mediapipe_detector import DEFAULT_MODEL
from tracker.pipeline import LARGEST, Request

_ENDS = 1 << 20  # bytes at each end of a file that are looked at
_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("tracker", "densemarks_model", "flame_assets", "configs")
_LIBRARIES = ("numpy", "scipy", "torch", "mediapipe", "openvino", "numba", "av", "opencv-python-headless")


def work_identity(request: Request) -> dict[str, Any]:
    """Record of a request, for JSON, by names that a user understands. Two requests with equal records do the same work."""
    return {
        "video": {**video_identity(request.video), "changed at": _times(request.video)},
        **_options(request),
        "device": f"{request.device}, {'with' if torch.cuda.is_available() else 'without'} a GPU",
        "program": f"{__version__} ({_program()})",
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "settings": request.settings.model_dump(mode="json"),
    }


def asked_for(request: Request, formats: Sequence[str], overlay: bool, page: bool = True) -> str:
    """Digest of all that was asked for but the video: the same on any machine, and for any version of the program."""
    wanted = {**_options(request), "settings": request.settings.model_dump(mode="json"), "formats": sorted(formats), "overlay": overlay}
    if not page:  # with the page the digest is that of versions that knew none
        wanted["page"] = page
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]


def _options(request: Request) -> dict[str, Any]:
    part = request.part
    return {
        "part": {"frames": part.max_frames, "start": part.start, "end": part.end, "fps": part.frame_rate, "photos": request.photos},
        "preset": request.preset,
        "head": _model(request.head, DEFAULT_HEAD),
        "network": _model(Path(request.network), SHIPPED) if request.network != "lite" else _model(None, SHIPPED),
        "landmarker": _model(request.landmarker, DEFAULT_MODEL),
        "camera": {"focal_px": request.focal_px, "fov": request.fov_deg, "intrinsics": _model(request.intrinsics, None)},
        **({} if request.person == LARGEST else {"person": str(request.person)}),
        **({} if request.start_from is None else {"start from": _start(request.start_from)}),
    }


def video_identity(video: Path) -> dict[str, Any]:
    """What tells one video from another, wherever it lies: name, size in bytes, and a digest of the file's two ends; of a
    folder, those of all of its files."""
    files = _files(video)
    digest = hashlib.sha256()
    for file in files if video.is_dir() else ():
        digest.update(os.fsencode(file.name) + b"\0%d\0" % file.stat().st_size)
    for file in (files[0], files[-1]) if files else ():
        digest.update(_ends(file))
    return {"name": video.resolve().name, "bytes": sum(file.stat().st_size for file in files), "digest": digest.hexdigest()[:16]}


def _model(path: Path | None, default: Path | None) -> str:
    """A model file by its name and contents."""
    chosen = path or default
    if chosen is None:
        return "none"
    if not chosen.exists():
        return str(chosen)  # the name of a download, or a mistake that the run will tell
    digest = hashlib.sha256()
    for file in _files(chosen):
        digest.update(_ends(file))
    return f"{'the one that comes with the program' if path is None else path.name} ({digest.hexdigest()[:8]})"


def _start(path: Path) -> str:
    """An earlier track by its name and contents: a file, or the files of a folder and of those within, as trackers leave them."""
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in (".npz", ".frame")) if path.is_dir() else [path]:
        digest.update(_ends(file))
    return f"{path.name} ({digest.hexdigest()[:8]})"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    try:
        return sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
    except OSError:  # for the run to tell
        return []


def _times(video: Path) -> int:
    return max((file.stat().st_mtime_ns for file in _files(video)), default=0)


def _ends(file: Path) -> bytes:
    """Digest of a file's size, beginning and end; what cannot be read is for the run to tell."""
    try:
        size = file.stat().st_size
        with file.open("rb") as content:
            begin = content.read(_ENDS)
            content.seek(max(size - _ENDS, len(begin)))
            end = content.read(_ENDS)
    except OSError:
        return b"cannot be read"
    return hashlib.sha256(b"%d\0" % size + begin + end).digest()


def _program() -> str:
    """Digest of the program's own files: between two versions, too, results may change."""
    return _digest_of(file for package in _PACKAGES for ending in ("*.py", "*.yaml") for file in sorted((_ROOT / package).rglob(ending)))


def _digest_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
