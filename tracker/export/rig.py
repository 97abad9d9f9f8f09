"""A track as skeletal animation: what glTF's skins and morph targets need to reproduce the head model exactly.

glTF deforms a mesh in the head model's own order, morph then skin, so nothing needs to be approximated:

* identity never changes and is baked into the base mesh; where shots show several people, the others are offsets from the first;
* expressions are linear offsets, i.e. morph targets;
* pose correctives are linear in the entries of ``R − I``, i.e. morph targets too, whose weights are those entries. Of
  the 36 only a few combinations matter in one track; :func:`corrective_basis` finds them;
* weights stay in [0, 1] (:func:`unit_weights`): glTF allows any, but Blender's importer clamps what lies outside;
* joints turn about pivots that move a little with the expression. Joint nodes can be translated, which makes up for it.

T frames, V vertices, 5 joints, metres, radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from flame_assets.asset import JOINT_PARENTS, HeadAsset, LandmarkEmbedding
from tracker.head_model import HeadModel
from tracker.head_track import HeadTrack
from tracker.track_vertices import posed_frames

CORRECTIVE_ERROR_M = 1e-5
"""Largest displacement of any vertex that leaving out pose correctives may cause."""

_UNUSED_WEIGHT = 1e-4  # an expression that never exceeds this moves no vertex by more than a micrometre or so


@dataclass(frozen=True)
class Rig:
    """Attributes:
    vertices: rest mesh with the track's identity.
    joints: rest positions of the joints.
    morph_names: names of the morph targets.
    morph_scales: coefficient that weight one stands for; negative for the second target of a signed coefficient.
    morphs: their offsets at weight one.
    morph_weights: per frame, 0 to 1.
    rotations: of each joint relative to its parent, unit quaternions (x, y, z, w) without jumps of sign.
    translations: of each joint relative to its parent.
    """

    vertices: Float[np.ndarray, "verts 3"]
    joints: Float[np.ndarray, "5 3"]
    morph_names: tuple[str, ...]
    morph_scales: Float[np.ndarray, "morphs"]
    morphs: Float[np.ndarray, "morphs verts 3"]
    morph_weights: Float[np.ndarray, "frames morphs"]
    rotations: Float[np.ndarray, "frames 5 4"]
    translations: Float[np.ndarray, "frames 5 3"]


def build_rig(track: HeadTrack, asset: HeadAsset) -> Rig:
    """Separate a track into rest mesh, morph targets and joint motion. All arrays are float64."""
    model = HeadModel.from_asset(asset, dtype=torch.float64)
    rest = model.with_shape(torch.as_tensor(track.shape, dtype=torch.float64))
    rest_joints = rest.joints.numpy()

    # joints need no vertices: the model restricted to no point at all costs nothing per frame
    nothing = LandmarkEmbedding(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.float32))
    posed = posed_frames(model.at_points(nothing), track, slice(None))
    linear, offsets = (array.numpy() for array in posed.joint_transforms())
    origins = np.einsum("tjab,jb->tja", linear, rest_joints) + offsets + track.translation[:, None]

    used = np.flatnonzero(np.abs(track.expr).max(axis=0) > _UNUSED_WEIGHT)
    expressions = model.expression_dirs.numpy()[:, :, used].transpose(2, 0, 1)
    features = (posed.rotations[:, 1:].numpy() - np.eye(3)).reshape(track.n_frames, -1)
    weights, correctives = corrective_basis(features, asset.posedirs.astype(np.float64))
    identities, shown = other_identities(track, model)
    names = [track.expression_names[i] for i in used] + [f"pose_corrective_{i:02d}" for i in range(len(correctives))]
    names += [f"identity_{i:02d}" for i in range(1, len(identities) + 1)]
    source, scales, unit = unit_weights(np.concatenate([track.expr[:, used], weights, shown], axis=1))
    return Rig(
        vertices=rest.vertices.numpy(),
        joints=rest_joints,
        morph_names=tuple(
            names[i] if scale > 0 else f"{names[i]}_negative" for i, scale in zip(source, scales, strict=True)
        ),
        morph_scales=scales,
        morphs=np.concatenate([expressions, correctives, identities])[source] * scales[:, None, None],
        morph_weights=unit,
        rotations=joint_quaternions(track),
        translations=_relative_to_parent(origins, linear),
    )


def other_identities(track: HeadTrack, model: HeadModel) -> tuple[Float[np.ndarray, "r verts 3"], Float[np.ndarray, "frames r"]]:
    """Morph targets that make of the track's first person each other one, and their weights: 1 in that one's frames."""
    if track.shapes is None or track.person is None:
        return np.zeros((0, model.n_vertices, 3)), np.zeros((track.n_frames, 0))
    offsets = track.shapes[1:].astype(np.float64) - track.shapes[0]
    targets = np.einsum("vck,rk->rvc", model.identity_dirs.numpy(), offsets)
    return targets, (track.person[:, None] == np.arange(1, track.n_people)).astype(np.float64)


def corrective_basis(
    features: Float[np.ndarray, "frames 36"],
    posedirs: Float[np.ndarray, "verts 3 36"],
    error_m: float = CORRECTIVE_ERROR_M,
) -> tuple[Float[np.ndarray, "frames r"], Float[np.ndarray, "r verts 3"]]:
    """The fewest morph targets that give a track's pose correctives to within ``error_m``.

    The offsets of all frames form the product ``features @ posedirs``. Its singular vectors, found without ever forming
    it, are the best targets of any number r; r is the first for which a bound on every vertex's error is small enough.

    Returns:
        Weights, at most one in size, and targets.
    """
    left, scale, right = np.linalg.svd(posedirs.reshape(-1, posedirs.shape[-1]).T, full_matrices=False)
    rank = int((scale > 1e-9 * scale[0]).sum())
    left, scale, right = left[:, :rank], scale[:rank], right[:rank]
    if rank == 0:
        return np.zeros((len(features), 0)), np.zeros((0, len(posedirs), 3))
    per_frame, strength, mixing = np.linalg.svd(features @ (left * scale), full_matrices=False)
    coefficients = per_frame * strength
    # |offset of v| <= |coefficients left out| · |rows of `right` that belong to v|
    reach = np.linalg.norm(right.reshape(rank, -1, 3), axis=(0, 2)).max()
    tail = np.sqrt(np.cumsum((coefficients**2)[:, ::-1], axis=1)[:, ::-1].max(axis=0)) * reach
    needed = int((tail > error_m).sum())
    weights, targets = coefficients[:, :needed], mixing[:needed] @ right
    size = np.abs(weights).max(axis=0)
    return weights / size, (size[:, None] * targets).reshape(needed, len(posedirs), 3)


def unit_weights(
    coefficients: Float[np.ndarray, "frames n"],
) -> tuple[Int[np.ndarray, "m"], Float[np.ndarray, "m"], Float[np.ndarray, "frames m"]]:
    """Write coefficients of any sign and size with weights from 0 to 1.

    A coefficient that takes both signs becomes two targets, of which at most one is in use. A linear blend across zero
    stays linear, because the one falls as the other rises. Coefficients beyond one are scaled down, their targets up.

    Returns:
        For each target the coefficient it stems from, the (signed) coefficient at weight one, and its weights.
    """
    highest, lowest = coefficients.max(axis=0), coefficients.min(axis=0)
    source, scales = [], []
    for number, (high, low) in enumerate(zip(highest, lowest, strict=True)):
        # a coefficient that is always zero keeps its positive target
        for scale in ([max(high, 1.0)] if high > 0 or low >= 0 else []) + ([min(low, -1.0)] if low < 0 else []):
            source.append(number)
            scales.append(scale)
    source_index, signed = np.array(source, int), np.array(scales, float)
    return source_index, signed, (coefficients[:, source_index] / signed).clip(0, 1)


def joint_quaternions(track: HeadTrack) -> Float[np.ndarray, "frames 5 4"]:
    """Local joint rotations as unit quaternions (x, y, z, w).

    q and −q are the same rotation, but blending from one to the other makes a full turn: each frame takes the sign that
    is closer to the frame before it.
    """
    eyes = track.eyes_pose
    poses = (track.rotation, track.neck_pose, track.jaw_pose, eyes[:, :3], eyes[:, 3:])
    axis_angles = np.stack(poses, axis=1).astype(np.float64)
    half = np.linalg.norm(axis_angles, axis=-1, keepdims=True) / 2
    quaternions = np.concatenate([axis_angles * np.sinc(half / np.pi) / 2, np.cos(half)], axis=-1)
    flips = (quaternions[1:] * quaternions[:-1]).sum(axis=-1) < 0
    quaternions[1:][np.cumsum(flips, axis=0) % 2 == 1] *= -1
    return quaternions


def _relative_to_parent(
    origins: Float[np.ndarray, "frames 5 3"], linear: Float[np.ndarray, "frames 5 3 3"]
) -> Float[np.ndarray, "frames 5 3"]:
    local = origins.copy()
    for joint, parent in enumerate(JOINT_PARENTS):
        if parent >= 0:
            local[:, joint] = np.einsum("tba,tb->ta", linear[:, parent], origins[:, joint] - origins[:, parent])
    return local
