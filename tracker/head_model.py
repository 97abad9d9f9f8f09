"""The head model: load it, give it a shape, give it a pose, skin it.

Each stage is a small frozen record that holds only what is known by then::

    HeadModel --with_shape(identity, expression)--> ShapedHead --with_pose(...)--> PosedHead --skin(translation)--> vertices

Nothing is stored between calls, every stage takes any leading batch axes, and gradients flow through all of it. The
arithmetic is FLAME's (Li et al., *Learning a model of facial shape and expression from 4D scans*, SIGGRAPH Asia 2017):
linear identity and expression offsets, joints regressed from the shaped vertices, pose correctives linear in the joint
rotation matrices, linear blend skinning.

Shapes: V vertices, F triangles, S identity and E expression coefficients, 5 joints (root, neck, jaw, left eye, right
eye). Lengths are metres, rotations are axis-angle vectors in radians, axes are FLAME's (x to the subject's left, y up, z
out of the face).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_assets.asset import JOINT_NAMES, JOINT_PARENTS, HeadAsset, LandmarkEmbedding
from tracker.rotations import axis_angle_to_matrix

N_JOINTS = len(JOINT_NAMES)


@dataclass(frozen=True)
class HeadModel:
    """Constant tensors of one head. Build it with :meth:`from_asset`.

    Attributes:
        template: neutral mean head.
        identity_dirs, expression_dirs: offset of every vertex per coefficient.
        pose_dirs: offset of every vertex per entry of ``R_j - I`` for joints 1..4, row-major.
        joint_template, joint_identity_dirs, joint_expression_dirs: the joints as the same linear function. FLAME regresses
            joints from shaped vertices; the regressor is folded in once, so that a model restricted to a few points
            (:meth:`at_points`) keeps its joints.
        weights: skinning weights.
        faces: triangles, counter-clockwise from outside; empty for a model made by :meth:`at_points`.
        expression_names, expression_range: meaning and box of the expression coefficients.
    """

    template: Float[Tensor, "verts 3"]
    identity_dirs: Float[Tensor, "verts 3 identity"]
    expression_dirs: Float[Tensor, "verts 3 expression"]
    pose_dirs: Float[Tensor, "verts 3 36"]
    joint_template: Float[Tensor, "joints 3"]
    joint_identity_dirs: Float[Tensor, "joints 3 identity"]
    joint_expression_dirs: Float[Tensor, "joints 3 expression"]
    weights: Float[Tensor, "verts joints"]
    faces: Int[Tensor, "faces 3"]
    expression_names: tuple[str, ...]
    expression_range: tuple[float, float]

    @staticmethod
    def from_asset(
        asset: HeadAsset, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> HeadModel:
        """Move a head's arrays to ``device`` as ``dtype`` and fold the joint regressor into the bases."""

        def tensor(array) -> Tensor:
            return torch.as_tensor(array, dtype=dtype, device=device)

        template, shapedirs, regressor = (
            torch.as_tensor(a, dtype=torch.float64) for a in (asset.v_template, asset.shapedirs, asset.joint_regressor)
        )
        joint_dirs = torch.einsum("jv,vck->jck", regressor, shapedirs)
        s = asset.n_identity
        return HeadModel(
            template=tensor(asset.v_template),
            identity_dirs=tensor(asset.shapedirs[:, :, :s]).contiguous(),
            expression_dirs=tensor(asset.shapedirs[:, :, s:]).contiguous(),
            pose_dirs=tensor(asset.posedirs),
            joint_template=tensor(regressor @ template),
            joint_identity_dirs=tensor(joint_dirs[..., :s]).contiguous(),
            joint_expression_dirs=tensor(joint_dirs[..., s:]).contiguous(),
            weights=tensor(asset.weights),
            faces=torch.as_tensor(asset.faces, dtype=torch.int32, device=device),
            expression_names=asset.expression_names,
            expression_range=asset.expression_range,
        )

    @property
    def n_vertices(self) -> int:
        return self.template.shape[0]

    @property
    def n_identity(self) -> int:
        return self.identity_dirs.shape[-1]

    @property
    def n_expression(self) -> int:
        return self.expression_dirs.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.template.device

    @property
    def dtype(self) -> torch.dtype:
        return self.template.dtype

    @cached_property
    def skinning_joints(self) -> frozenset[int]:
        """Joints that some vertex has a skinning weight of. This and the next three are read from the device once."""
        return frozenset(j for j, used in enumerate((self.weights != 0).any(0).tolist()) if used)

    @cached_property
    def corrective_joints(self) -> frozenset[int]:
        """Joints whose rotation has pose correctives."""
        used = (self.pose_dirs != 0).flatten(0, 1).any(0).unflatten(0, (N_JOINTS - 1, 9)).any(1)
        return frozenset(j + 1 for j, some in enumerate(used.tolist()) if some)

    @cached_property
    def identity_moves_joints(self) -> bool:
        """Whether the joints depend on the identity."""
        return bool(self.joint_identity_dirs.any())

    @cached_property
    def expression_moves_joints(self) -> bool:
        """Whether the joints depend on the expression."""
        return bool(self.joint_expression_dirs.any())

    def at_points(self, embedding: LandmarkEmbedding) -> HeadModel:
        """The same head seen only at points on its triangles: a model whose "vertices" are those points.

        Every linear part is interpolated with the points' barycentrics, the skinning weights too. Interpolating weights
        is exact for points whose triangle's corners have equal weights; elsewhere the difference from interpolating
        skinned vertices is of second order: nothing for most landmarks, below 0.5 mm where jaw and neck meet and both are
        turned as far as they go.
        """
        corners = self.faces.long()[torch.as_tensor(embedding.faces, device=self.device).long()]
        barycentrics = torch.as_tensor(embedding.barycentrics, dtype=self.dtype, device=self.device)

        def blend(array: Tensor) -> Tensor:
            return torch.einsum("lk,lk...->l...", barycentrics, array[corners]).contiguous()

        return replace(
            self,
            template=blend(self.template),
            identity_dirs=blend(self.identity_dirs),
            expression_dirs=blend(self.expression_dirs),
            pose_dirs=blend(self.pose_dirs),
            weights=blend(self.weights),
            faces=self.faces[:0],
        )

    def with_shape(
        self,
        identity: Float[Tensor, "*batch identity"],
        expression: Float[Tensor, "*batch expression"] | None = None,
    ) -> ShapedHead:
        """Add identity and expression offsets. Missing trailing coefficients count as zero; batch axes broadcast."""
        vertices = self.template + _offsets(self.identity_dirs, identity)
        joints = self.joint_template + _offsets(self.joint_identity_dirs, identity)
        if expression is not None:
            vertices = vertices + _offsets(self.expression_dirs, expression)
            joints = joints + _offsets(self.joint_expression_dirs, expression)
        return ShapedHead(self, vertices, joints)


@dataclass(frozen=True)
class ShapedHead:
    """A head with a shape and no pose yet: vertices and joints in the model's rest frame, metres."""

    model: HeadModel
    vertices: Float[Tensor, "*batch verts 3"]
    joints: Float[Tensor, "*batch joints 3"]

    def with_pose(
        self,
        rotation: Float[Tensor, "*batch 3"] | None = None,
        neck_pose: Float[Tensor, "*batch 3"] | None = None,
        jaw_pose: Float[Tensor, "*batch 3"] | None = None,
        eyes_pose: Float[Tensor, "*batch 6"] | None = None,
    ) -> PosedHead:
        """Turn the five joints, each relative to its parent; what is not given stays at rest.

        Args:
            rotation: of the whole head about its root joint.
            neck_pose, jaw_pose: of the neck and jaw joints.
            eyes_pose: left eye in the first three numbers, right eye in the last three.
        """
        zero = self.vertices.new_zeros(3)
        left, right = (eyes_pose[..., :3], eyes_pose[..., 3:]) if eyes_pose is not None else (zero, zero)
        given = [zero if p is None else p for p in (rotation, neck_pose, jaw_pose, left, right)]
        # numpy's: torch.broadcast_shapes imports a computer algebra system, one second at the first call
        batch = np.broadcast_shapes(self.joints.shape[:-2], *(p.shape[:-1] for p in given))
        axis_angles = torch.stack([p.expand(*batch, 3) for p in given], dim=-2)
        rotations = axis_angle_to_matrix(axis_angles)

        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        features = (rotations[..., 1:, :, :] - identity).flatten(-3)
        vertices = self.vertices + _offsets(self.model.pose_dirs, features)
        return PosedHead(self.model, vertices, self.joints.expand(*batch, N_JOINTS, 3), rotations)


@dataclass(frozen=True)
class PosedHead:
    """A head with shape, pose correctives and joint rotations, still unskinned."""

    model: HeadModel
    vertices: Float[Tensor, "*batch verts 3"]
    joints: Float[Tensor, "*batch joints 3"]
    rotations: Float[Tensor, "*batch joints 3 3"]

    def joint_transforms(self) -> tuple[Float[Tensor, "*batch joints 3 3"], Float[Tensor, "*batch joints 3"]]:
        """Per joint, rotation G and offset o that take a rest-frame point x to the world, ``G x + o``."""
        linear, offsets = [], []
        for joint, parent in enumerate(JOINT_PARENTS):
            r, pivot = self.rotations[..., joint, :, :], self.joints[..., joint, :]
            # about the pivot, then whatever the parent does
            shift = pivot - torch.einsum("...ij,...j->...i", r, pivot)
            if parent >= 0:
                shift = torch.einsum("...ij,...j->...i", linear[parent], shift) + offsets[parent]
                r = linear[parent] @ r
            linear.append(r)
            offsets.append(shift)
        return torch.stack(linear, dim=-3), torch.stack(offsets, dim=-2)

    def skin(self, translation: Float[Tensor, "*batch 3"] | None = None) -> Float[Tensor, "*batch verts 3"]:
        """World vertices by linear blend skinning, then ``translation`` (metres) added."""
        linear, offsets = self.joint_transforms()
        weights = self.model.weights
        blended = torch.einsum("vj,...jab->...vab", weights, linear)
        moved = (blended @ self.vertices.unsqueeze(-1)).squeeze(-1) + weights @ offsets
        return moved if translation is None else moved + translation.unsqueeze(-2)


def _offsets(dirs: Float[Tensor, "n 3 k"], coefficients: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n 3"]:
    """Sum of ``dirs`` weighted by ``coefficients`` (c <= k; the directions beyond c are left out)."""
    count = coefficients.shape[-1]
    if count > dirs.shape[-1]:
        raise ValueError(f"{count} coefficients given, the head has {dirs.shape[-1]} directions")
    flat = dirs[..., :count].flatten(0, 1)
    return (coefficients @ flat.T).unflatten(-1, dirs.shape[:2])
