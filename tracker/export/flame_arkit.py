"""Between FLAME's expressions and ARKit's: a linear map, fitted on the surfaces of two heads.

The default head has ARKit's 52 shapes. It is laid over the FLAME head: a similarity and then a thin-plate spline through the landmarks that both
have, then the nearest point of the surface. On the points that correspond, every shape is a displacement, and so are FLAME's expression
directions and the turn of its jaw joint. ARKit's values of a FLAME face are those between 0 and 1 whose displacements come nearest to its own;
FLAME's coefficients of ARKit's values are the least-squares sum of those of each shape, and what that leaves over is the residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from flame_assets.asset import HeadAsset
from flame_assets.load import load_head
from flame_assets.surface_points import SurfaceHits
from tracker.export.arkit_values import ARKIT_NAMES
from tracker.head_model import HeadModel
from tracker.transfer.correspondence import correspondence

_JAW_RAD = (0.2, 0.1, 0.1)  # turns at which the jaw's displacement is taken: about what speech has
_SEEN = 1e-3  # of the strongest shape; the tongue's moves nothing of the face
_RIDGE = 1e-3  # of the mean squared displacement: keeps shapes that look alike from working against each other
_SWEEPS = 300


@dataclass(frozen=True)
class ExpressionMap:
    """The two heads' displacements on common points, condensed.

    Attributes:
        gram: products of ARKit's shapes with each other.
        mixed: products of ARKit's shapes with FLAME's directions, the jaw's three axes last.
        seen: whether a shape moves the face at all.
        to_flame: FLAME's coefficients and jaw (radians) of each ARKit shape at 1.
        residual: what of each shape FLAME cannot show: root mean square, as a share of the shape's own.
        points: how many points correspond.
    """

    gram: Float[np.ndarray, "52 52"]
    mixed: Float[np.ndarray, "52 directions"]
    seen: np.ndarray
    to_flame: Float[np.ndarray, "directions 52"]
    residual: Float[np.ndarray, "52"]
    points: int

    def arkit_values(self, expr: Float[np.ndarray, "frames expression"], jaw_pose: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 52"]:
        """ARKit's values of FLAME faces: bounded least squares by coordinate descent, all frames at once. What FLAME cannot show is 0."""
        wanted = np.concatenate([expr, jaw_pose], axis=1) @ self.mixed.T
        values = np.zeros_like(wanted)
        columns = np.flatnonzero(self.seen)
        for _ in range(_SWEEPS):
            before = values.copy()
            for k in columns:
                rest = wanted[:, k] - values @ self.gram[:, k] + values[:, k] * self.gram[k, k]
                values[:, k] = (rest / self.gram[k, k]).clip(0, 1)
            if np.abs(values - before).max(initial=0) < 1e-5:
                break
        return values

    def flame_values(self, values: Float[np.ndarray, "frames 52"]) -> tuple[Float[np.ndarray, "frames expression"], Float[np.ndarray, "frames 3"]]:
        """FLAME's expression coefficients and jaw pose of ARKit's values."""
        both = values @ self.to_flame.T
        return both[:, :-3], both[:, -3:]


def head_map(flame: HeadAsset, arkit: HeadAsset | None = None) -> ExpressionMap:
    """Fit the map; some seconds.

    Args:
        flame: a head with landmarks, whose expressions are to be told in ARKit's.
        arkit: a head with ARKit's shapes; the default head when None.
    """
    arkit = load_head() if arkit is None else arkit
    vertices, hits, turn = correspondence(arkit, flame)
    columns = [arkit.n_identity + arkit.expression_names.index(name) for name in ARKIT_NAMES]
    shapes = np.einsum("ab,vbk->vak", turn, arkit.shapedirs[vertices][:, :, columns].astype(np.float64)).reshape(-1, len(ARKIT_NAMES))
    directions = np.concatenate([_expressions(flame, hits), _jaw(flame, hits)], axis=-1).reshape(len(shapes), -1)

    strength = (shapes**2).sum(0)
    seen = strength > _SEEN * strength.max()
    gram, own = shapes.T @ shapes, directions.T @ directions
    to_flame = np.linalg.solve(own + _RIDGE * np.diag(own).mean() * np.eye(len(own)), directions.T @ shapes) * seen
    left = ((shapes - directions @ to_flame) ** 2).sum(0)
    residual = np.where(seen, np.sqrt(left / np.maximum(strength, 1e-30)), 1.0)
    gram += _RIDGE * strength[seen].mean() * np.eye(len(gram))
    return ExpressionMap(gram, shapes.T @ directions, seen, to_flame, residual, len(vertices))


def _expressions(head: HeadAsset, hits: SurfaceHits) -> Float[np.ndarray, "n 3 expression"]:
    directions = head.shapedirs[:, :, head.n_identity :].astype(np.float64)
    return np.einsum("nk,nkce->nce", hits.barycentrics, directions[head.faces[hits.faces]])


def _jaw(head: HeadAsset, hits: SurfaceHits) -> Float[np.ndarray, "n 3 3"]:
    """Displacement per radian about each axis of the jaw joint, pose correctives included: the slope of a chord."""
    model = HeadModel.from_asset(head, dtype=torch.float64)
    poses = torch.cat([torch.zeros(1, 3), torch.diag(torch.tensor(_JAW_RAD))]).double()
    posed = model.with_shape(torch.zeros(1, head.n_identity, dtype=torch.float64)).with_pose(jaw_pose=poses).skin().numpy()
    slopes = (posed[1:] - posed[:1]) / np.array(_JAW_RAD)[:, None, None]
    return np.einsum("nk,jnkc->ncj", hits.barycentrics, slopes[:, head.faces[hits.faces]])
