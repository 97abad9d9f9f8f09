"""The picture of ``docs/synthetic_heads.md``: ``python tools/picture_synthetic_heads.py --out docs/images/synthetic_heads.jpg``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from densemarks_model.data.synthetic.scene import Sample, SceneRenderer


def main() -> None:
    """Draw samples in two columns: picture, coordinates as RGB, mask in green."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file to write (.jpg or .png)")
    parser.add_argument("--seed", type=int, default=2, help="series (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="first picture of the series (default: %(default)s)")
    parser.add_argument("--count", type=int, default=12, help="how many, even (default: %(default)s)")
    options = parser.parse_args()
    renderer = SceneRenderer()
    rows = [_row(renderer.sample(options.seed, options.first + k)) for k in range(options.count)]
    sheet = np.concatenate([np.concatenate(rows[k : k + 2], 1) for k in range(0, len(rows) - 1, 2)])
    sheet = cv2.resize(sheet, None, fx=0.625, fy=0.625, interpolation=cv2.INTER_AREA)
    if not cv2.imwrite(str(options.out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88]):
        parser.error(f"{options.out} cannot be written")


def _row(sample: Sample) -> np.ndarray:
    size = sample.image.shape[0]
    coordinates, head, surface = (
        cv2.resize(x, (size, size), interpolation=cv2.INTER_LINEAR) for x in (sample.coordinates, sample.head, sample.surface)
    )
    colours = (255 * coordinates * np.maximum(surface, 0.25)[..., None]).astype(np.uint8)
    marked = sample.image // 2
    marked[..., 1] = np.maximum(marked[..., 1], (128 * head).astype(np.uint8))
    return np.concatenate([sample.image, colours, marked], 1)


if __name__ == "__main__":
    main()
