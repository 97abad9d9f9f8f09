"""The pixels of one picture of a head, carried over its surface to where another pose shows them."""

from __future__ import annotations

import numpy as np

from tracker.rendering.jit import kernel


@kernel
def carry(triangle, first, second, faces, at, depth, nearest, grey, tolerance, carried, seen):
    """Fill ``carried`` and ``seen``, pixel for pixel of the second picture, rows from the top.

    Args:
        triangle: (H, W) int32, what the second pose shows at each pixel; −1 where it shows nothing.
        first, second: (H, W) float32, weights of the triangle's corners 0 and 1 there.
        faces: (F, 3) int32.
        at, depth: (V, 2) and (V,) float32, vertices in the first pose: picture pixels (centres at halves), metres from the camera.
        nearest: (H, W) float32, depth of what the first pose shows at its pixels.
        grey: (H, W) uint8, the first picture.
        tolerance: metres by which a surface may lie behind what is shown and still be it.
        carried: (H, W) uint8; left as it is where the surface is not seen in both.
        seen: (H, W) uint8; 1 where it is.
    """
    height, width = triangle.shape
    for row in range(height):
        for column in range(width):
            number = triangle[row, column]
            if number < 0:
                continue
            a, b, c = faces[number, 0], faces[number, 1], faces[number, 2]
            u, v = first[row, column], second[row, column]
            w = np.float32(1) - u - v
            x = u * at[a, 0] + v * at[b, 0] + w * at[c, 0] - np.float32(0.5)
            y = u * at[a, 1] + v * at[b, 1] + w * at[c, 1] - np.float32(0.5)
            if not (x >= 0 and y >= 0 and x < width - 1 and y < height - 1):
                continue
            z = u * depth[a] + v * depth[b] + w * depth[c]
            left, top = int(x), int(y)
            shown = nearest[int(y + np.float32(0.5)), int(x + np.float32(0.5))]
            if abs(z - shown) > tolerance:
                continue
            p, q = x - left, y - top
            upper = (1 - p) * grey[top, left] + p * grey[top, left + 1]
            lower = (1 - p) * grey[top + 1, left] + p * grey[top + 1, left + 1]
            carried[row, column] = np.uint8((1 - q) * upper + q * lower + np.float32(0.5))
            seen[row, column] = 1
