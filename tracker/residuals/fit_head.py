"""A head model restricted to the points that residuals look at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_assets.asset import AssetError, HeadAsset, LandmarkEmbedding
from tracker.head_model import HeadModel
from tracker.landmarks.landmark_schemes import INTER_OCULAR
from tracker.observe.sites import DenseSites
from tracker.rendering.clip_space import vertex_normals

_DTYPE = torch.float32  # residuals and Jacobians; the normal equations are accumulated in double precision


@dataclass(frozen=True)
class DensePoints:
    """A head at its sites.

    Attributes:
        points: the head restricted to its n sites.
        canonical: their locations in the cube.
        normals: outward normals in the rest frame.
        sites: where they are on the head, for reading observations.
    """

    points: HeadModel
    canonical: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    sites: DenseSites

    @property
    def metres_per_cube(self) -> float:
        """Length of the cube's side on the head."""
        return self.sites.metres_per_cube

    @staticmethod
    def build(head: HeadModel, sites: DenseSites) -> DensePoints:
        """Restrict ``head`` to ``sites``, which were spread over the asset that it was made from."""
        like = {"dtype": head.dtype, "device": head.device}
        return DensePoints(
            points=head.at_points(sites.embedding),
            canonical=torch.as_tensor(sites.canonical, **like),
            normals=torch.as_tensor(sites.normals, **like),
            sites=sites,
        )


@dataclass(frozen=True)
class SkinPoints:
    """A head at points of its skin.

    Attributes:
        points: the head restricted to n points.
        normals: outward normals in the rest frame, smooth over the surface.
    """

    points: HeadModel
    normals: Float[Tensor, "n 3"]

    @staticmethod
    def build(asset: HeadAsset, head: HeadModel, where: LandmarkEmbedding) -> SkinPoints:
        """Restrict ``head`` (made from ``asset``) to points on its surface."""
        template, faces = torch.as_tensor(asset.v_template), torch.as_tensor(asset.faces)
        normals = where.positions(vertex_normals(template, faces).numpy(), asset.faces)
        tensor = torch.as_tensor(normals, dtype=head.dtype, device=head.device)
        return SkinPoints(head.at_points(where), torch.nn.functional.normalize(tensor, dim=-1))


@dataclass(frozen=True)
class FitHead:
    """A head model, whole and at its landmarks, its sites, and points of its skin.

    Attributes:
        model: the whole head.
        landmarks: the head restricted to its L landmarks.
        numbers: each landmark's number in MediaPipe's scheme.
        normals: outward surface normals at the landmarks, rest frame.
        dense: at its sites, or None.
        skin: at points of its skin, or None.
    """

    model: HeadModel
    landmarks: HeadModel
    numbers: Tensor
    normals: Float[Tensor, "n 3"]
    dense: DensePoints | None = None
    skin: SkinPoints | None = None

    @staticmethod
    def build(
        asset: HeadAsset,
        device: torch.device | str = "cpu",
        sites: DenseSites | None = None,
        skin: LandmarkEmbedding | None = None,
    ) -> FitHead:
        """Restrict ``asset`` to its MediaPipe landmarks, and to ``sites`` and ``skin`` where they are given.

        Raises:
            AssetError: the head brings no MediaPipe embedding.
        """
        if "mediapipe" not in asset.landmarks:
            raise AssetError(f"head {asset.name!r} has no MediaPipe landmark embedding")
        embedding = asset.landmarks["mediapipe"]
        model = HeadModel.from_asset(asset, device, _DTYPE)
        corners = asset.v_template[asset.faces[embedding.faces]].astype(np.float64)
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        return FitHead(
            model=model,
            landmarks=model.at_points(embedding),
            numbers=torch.as_tensor(embedding.indices, device=device).long(),
            normals=torch.as_tensor(normals, dtype=_DTYPE, device=device),
            dense=None if sites is None else DensePoints.build(model, sites),
            skin=None if skin is None else SkinPoints.build(asset, model, skin),
        )

    def inter_ocular_m(self) -> float:
        """Distance of the outer eye corners on the neutral head (or the closest thing the embedding has), metres."""
        where = [int((self.numbers == n).nonzero()[0]) for n in INTER_OCULAR if bool((self.numbers == n).any())]
        if len(where) < 2:
            return 0.09  # the mean adult's; only sets the unit of the weights
        return float((self.landmarks.template[where[0]] - self.landmarks.template[where[1]]).norm())

    def with_identity(self, identity: Float[Tensor, "identity"]) -> FitHead:
        """The same head with its identity baked into the templates and no identity left to solve for."""
        dense, skin = self.dense, self.skin
        return replace(
            self,
            model=_baked(self.model, identity),
            landmarks=_baked(self.landmarks, identity),
            dense=None if dense is None else replace(dense, points=_baked(dense.points, identity)),
            skin=None if skin is None else replace(skin, points=_baked(skin.points, identity)),
        )

    def landmarks_only(self) -> FitHead:
        """The same without sites and skin."""
        return replace(self, dense=None, skin=None)


def _baked(model: HeadModel, identity: Tensor) -> HeadModel:
    shaped = model.with_shape(identity)
    return replace(
        model,
        template=shaped.vertices,
        joint_template=shaped.joints,
        identity_dirs=model.identity_dirs[..., :0],
        joint_identity_dirs=model.joint_identity_dirs[..., :0],
    )
