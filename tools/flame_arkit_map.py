#!/usr/bin/env python3
"""How well a FLAME head and ARKit's 52 shapes can tell each other's faces.

    python tools/flame_arkit_map.py --head PATH [--save map.npz]

Prints, for each shape, the residual: what of it the head's expressions and jaw cannot show, as a share of the shape's own displacement.
--save writes the linear map from ARKit's values to the head's coefficients (to_flame; the jaw's three angles last).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", type=Path, required=True, metavar="PATH", help="a FLAME file, or a folder that holds one")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the map as .npz")
    options = parser.parse_args(arguments)

    import numpy as np

    from flame_assets.asset import AssetError
    from flame_assets.load import load_head
    from flame_assets.stable_npz import write_stable_npz
    from tracker.export.arkit_values import ARKIT_NAMES
    from tracker.export.flame_arkit import head_map
    from tracker.export.flame_params import is_flame

    try:
        head = load_head(options.head)
        if not is_flame(head.expression_names):
            raise AssetError(f"{options.head}: its expressions are not FLAME's; give a FLAME file")
    except AssetError as error:
        print(f"flame_arkit_map.py: error: {error}", file=sys.stderr)
        return 2
    found = head_map(head)
    print(f"{head.name}: {found.points} points correspond to the default head's")
    for name, residual, seen in sorted(zip(ARKIT_NAMES, found.residual, found.seen, strict=True)):
        print(f"{name:<22}{residual:6.1%}" if seen else f"{name:<22}  moves no skin")
    if options.save is not None:
        names = np.array(ARKIT_NAMES)
        write_stable_npz(options.save, {"to_flame": found.to_flame, "arkit_names": names, "residual": found.residual, "head_name": np.array(head.name)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
