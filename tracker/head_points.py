"""World positions of points on the head, and their analytic derivatives with respect to every parameter.

The derivatives follow from the head model's chain (see :class:`tracker.head_model.PosedHead`)::

    p = Σ_j w_j A_j(v) + translation,    v = template + identity + expression + pose correctives

with A_j the joints' transforms. They are tested against automatic differentiation of :class:`HeadModel` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import CAMERA_POSITION
from tracker.head_model import HeadModel, PosedHead
from tracker.rotations import left_jacobian

POSE_JOINTS = {"rotation": (0,), "neck_pose": (1,), "jaw_pose": (2,), "eyes_pose": (3, 4)}
"""Pose parameter -> the joints that its groups of three numbers turn."""


@dataclass(frozen=True)
class HeadPoints:
    """Points of a head in F frames, with what their derivatives need.

    Attributes:
        model: a head restricted to n points (:meth:`HeadModel.at_points`), or a whole one.
        posed: the head before skinning.
        axis_angles: ``(F, 5, 3)`` joint rotations.
        positions: world positions, metres.
        linear, offsets: joint transforms.
    """

    model: HeadModel
    posed: PosedHead
    axis_angles: Float[Tensor, "frames 5 3"]
    positions: Float[Tensor, "frames n 3"]
    linear: Float[Tensor, "frames 5 3 3"]
    offsets: Float[Tensor, "frames 5 3"]
    translation: Float[Tensor, "frames 3"]

    @staticmethod
    def evaluate(
        model: HeadModel, values: Mapping[str, Tensor], offsets: Float[Tensor, "frames n 3"] | None = None
    ) -> HeadPoints:
        """Forward pass. ``values`` needs rotation and translation ``(F, 3)``; the other head parameters are optional.

        ``offsets`` are added to the points in the rest frame, metres.
        """
        rotation, translation = values["rotation"], values["translation"]
        frames = rotation.shape[0]
        zero = rotation.new_zeros(frames, 3)
        neck, jaw = values.get("neck_pose", zero), values.get("jaw_pose", zero)
        eyes = values.get("eyes_pose", rotation.new_zeros(frames, 6))
        shape = values.get("shape", rotation.new_zeros(model.n_identity))
        expression = values.get("expr")
        posed = model.with_shape(shape, expression).with_pose(rotation, neck, jaw, eyes)
        if offsets is not None:
            posed = replace(posed, vertices=posed.vertices + offsets)
        linear, shifts = posed.joint_transforms()
        blended = torch.einsum("nj,fjab->fnab", model.weights, linear)
        vertices = posed.vertices.expand(frames, -1, 3)
        positions = (blended @ vertices[..., None])[..., 0] + model.weights @ shifts + translation[:, None]
        axis_angles = torch.stack([rotation, neck, jaw, eyes[:, :3], eyes[:, 3:]], dim=1)
        return HeadPoints(model, posed, axis_angles, positions, linear, shifts, translation)

    def turned(self, normals: Float[Tensor, "n 3"]) -> Float[Tensor, "frames n 3"]:
        """Unit normals of the points in the world, from those in the rest frame: turned as the points are, by every joint."""
        blended = torch.einsum("nj,fjab->fnab", self.model.weights, self.linear)
        return torch.nn.functional.normalize((blended @ normals[..., None])[..., 0], dim=-1)

    def facing(self, normals: Float[Tensor, "n 3"]) -> Float[Tensor, "frames n"]:
        """Cosine between each point's normal (given in the rest frame) and the line of sight back to the camera."""
        towards = torch.nn.functional.normalize(self.positions.new_tensor(CAMERA_POSITION) - self.positions, dim=-1)
        return (self.turned(normals) * towards).sum(-1)

    def jacobians(
        self, rows: Float[Tensor, "frames n k 3"], wanted: frozenset[str]
    ) -> dict[str, Float[Tensor, "frames n k d"]]:
        """Chain ``rows`` (derivative of some output with respect to the world positions) to the wanted head parameters.

        Passing the rows in first keeps the wide products small: a pixel residual has k = 2 rows, not 3.
        """
        out: dict[str, Tensor] = {}
        if "translation" in wanted:
            out["translation"] = rows
        for name, joints in POSE_JOINTS.items():
            if name in wanted and self._is_turned_by(joints):
                out[name] = torch.cat([self._joint_jacobian(rows, joint) for joint in joints], dim=-1)
        if wanted & {"expr", "shape"}:
            through_vertices = rows @ torch.einsum("nj,fjab->fnab", self.model.weights, self.linear)
            through_joints = None
            model = self.model
            for name, dirs, joint_dirs, moves_joints in (
                ("expr", model.expression_dirs, model.joint_expression_dirs, model.expression_moves_joints),
                ("shape", model.identity_dirs, model.joint_identity_dirs, model.identity_moves_joints),
            ):
                if name in wanted:
                    # one matrix product per point over all frames: (F k, 3) @ (3, d)
                    out[name] = torch.einsum("fnka,nad->fnkd", through_vertices, dirs)
                    if moves_joints:
                        through_joints = self._rows_to_joints(rows) if through_joints is None else through_joints
                        out[name] += through_joints @ joint_dirs.flatten(0, 1)
        return out

    def _is_turned_by(self, joints: tuple[int, ...]) -> bool:
        """Whether any of the points moves with the joints: eyes turn few points of a head, and none of its scalp."""
        if joints[0] <= 1:
            return True
        return any(j in self.model.skinning_joints or j in self.model.corrective_joints for j in joints)

    def _joint_jacobian(self, rows: Tensor, joint: int) -> Tensor:
        """``(F, n, k, 3)``: derivative with respect to one joint's axis-angle vector."""
        weights, translation = self.model.weights, self.translation[:, None]
        vertices = self.posed.vertices.expand(len(rows), -1, 3)
        spin = left_jacobian(self.axis_angles[:, joint])  # axis-angle change -> rotation vector, parent's frame
        pivot = self.posed.joints[:, joint]
        if joint == 0:
            arms = self.positions - translation - pivot[:, None]
        else:
            picked = slice(1, 5) if joint == 1 else slice(joint, joint + 1)  # the joints that turn with it
            parent = 0 if joint == 1 else 1
            parent_linear, parent_offset = self.linear[:, parent], self.offsets[:, parent]
            spin = parent_linear @ spin
            pivot_world = torch.einsum("fab,fb->fa", parent_linear, pivot) + parent_offset
            blended = torch.einsum("nj,fjab->fnab", weights[:, picked], self.linear[:, picked])
            reached = (blended @ vertices[..., None])[..., 0] + weights[:, picked] @ self.offsets[:, picked]
            arms = reached - weights[:, picked].sum(-1)[:, None] * pivot_world[:, None]
        # d p = (spin dω) × arm = −[arm]× spin dω, so a row r contributes (arm × r)ᵀ spin
        crossed = torch.linalg.cross(arms[:, :, None].expand_as(rows), rows)
        out = crossed @ spin[:, None]
        if joint > 0:
            out = out + self._corrective_jacobian(rows, joint)
        return out

    def _corrective_jacobian(self, rows: Tensor, joint: int) -> Tensor:
        """Through the pose correctives, which are linear in the joint's rotation matrix."""
        if joint not in self.model.corrective_joints:
            return rows.new_zeros(())
        dirs = self.model.pose_dirs[..., 9 * (joint - 1) : 9 * joint]
        spin, rotation = left_jacobian(self.axis_angles[:, joint]), self.posed.rotations[:, joint]
        # column c of dR is (spin_c) × (columns of R)
        change = torch.linalg.cross(
            spin.mT[:, :, :, None].expand(-1, 3, 3, 3), rotation[:, None].expand(-1, 3, 3, 3), dim=2
        )
        by_angle = torch.einsum("nam,fcm->fnac", dirs, change.flatten(2))
        blended = torch.einsum("nj,fjab->fnab", self.model.weights, self.linear)
        return rows @ blended @ by_angle

    def _rows_to_joints(self, rows: Tensor) -> Float[Tensor, "frames n k 15"]:
        """Rows chained to the five rest-frame joint positions (which move with identity and expression)."""
        weights = self.model.weights
        identity = torch.eye(3, dtype=rows.dtype, device=rows.device)
        blocks = []
        for joint in range(5):
            local = identity - self.posed.rotations[:, joint]
            if joint == 0:
                reach = rows.new_ones(weights.shape[0])
            else:
                parent = 0 if joint == 1 else 1
                local = self.linear[:, parent] @ local
                reach = 1 - weights[:, 0] if joint == 1 else weights[:, joint]
            blocks.append((rows @ local[:, None]) * reach[:, None, None])
        return torch.cat(blocks, dim=-1)
