"""Normal equations of poses that are tied in pairs: one small block a pose, one a pair, solved as a band."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import solveh_banded


def solve_pose_graph(
    diagonal: Float[np.ndarray, "poses d d"],
    pairs: Int[np.ndarray, "pairs 2"],
    coupling: Float[np.ndarray, "pairs d d"],
    gradient: Float[np.ndarray, "poses d"],
) -> Float[np.ndarray, "poses d"]:
    """The step x with ``H x = −gradient``.

    Poses should be numbered so that pairs are near each other: time and memory grow with the farthest pair.

    Args:
        diagonal: blocks of H on its diagonal, symmetric.
        pairs: (i, j) with i < j; a pair may come more than once.
        coupling: of each pair, its part of H's rows of i and columns of j.
        gradient: of half the cost.

    Raises:
        numpy.linalg.LinAlgError: H is not positive definite.
    """
    poses, d = gradient.shape
    apart = pairs[:, 1] - pairs[:, 0]
    if len(pairs) and (apart.min() < 1 or pairs.max() >= poses or pairs.min() < 0):
        raise ValueError("pairs must be (i, j) with 0 <= i < j < the number of poses")
    width = d * (int(apart.max()) if len(pairs) else 0) + d
    band = np.zeros((width, poses * d))  # lower form: band[r − c, c] = H[r, c]
    row, column = np.meshgrid(np.arange(d), np.arange(d), indexing="ij")
    lower = row >= column
    for pose in range(poses):
        band[(row - column)[lower], (pose * d + column)[lower]] += diagonal[pose][lower]
    for (i, j), block in zip(pairs.tolist(), coupling, strict=True):
        # below the diagonal stands the block's transpose: rows of j, columns of i
        band[(j - i) * d + column - row, i * d + row] += block
    return solveh_banded(band, -gradient.reshape(-1), lower=True).reshape(poses, d)
