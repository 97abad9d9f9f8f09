"""Joints, skinning weights and jaw correctives, in FLAME's layout.

Joints: *root* at the base of the neck, *neck* in the middle of the neck (it bends the skull against the base), *jaw*
near the jaw's hinge, and the two eyes at the centres of their spheres. Each is a sparse convex combination of
vertices. Root and eyes are exact; neck and jaw are fitted to where the source's own joints lie over many people.

The jaw can be moved in two ways: by the jaw joint, as in FLAME, and by the ARKit shapes (``jawOpen``, ``jawLeft`` …).
Pose correctives make the first look like the second: they hold what the ARKit jaw shapes do beyond a rigid rotation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from flame_assets.asset import JOINT_NAMES
from tools.build_head.basis import CUBES, Samples
from tools.build_head.morph import Morpher

CANDIDATES = 90
SUM_WEIGHT = 1e2
"""Weight in metres of the equation "weights sum to one" against position errors."""
NECK_SHARE = {"neck03": 0.9, "neck02": 0.5, "neck01": 0.12}
"""Share of the neck joint in what follows a neck bone of the source; the rest stays with the root."""
RIDGE = 1e-3
NECK_AT = 0.5
"""The neck joint's place on the way from the root to the source's head joint."""
EXPRESSION_WEIGHT = 10.0
"""Weight of "expressions do not move the joint", per expression, against "the joint is right", per person."""


def joint_positions(morpher: Morpher, samples: Samples) -> np.ndarray:
    """Wanted joints ``(n, 3, 3)`` (root, neck, jaw) of every person.

    The root is the centre of the neck's cut. The neck joint lies half way from there to the source's head joint (below
    the skull), where a turn of the head looks most natural with a single joint.
    """
    cube = {name: samples.joints[:, k] for k, name in enumerate(CUBES)}
    root = samples.vertices[:, morpher.skin.ring].mean(1)
    return np.stack([root, NECK_AT * cube["head"] + (1 - NECK_AT) * root, cube["mouth"]], 1)


def joint_regressor(
    morpher: Morpher, samples: Samples, template: np.ndarray, expression: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the regressor.

    Expressions are asked not to move the joints, which should depend on identity alone.

    Args:
        template: ``(V, 3)``. expression: ``(V, 3, E)`` displacements.

    Returns:
        regressor: ``(5, V)``, rows non-negative with sum one.
        error: ``(2,)`` root mean square distance in metres of neck and jaw from where they are wanted.
    """
    wanted = joint_positions(morpher, samples)
    regressor = np.zeros((len(JOINT_NAMES), morpher.n_vertices))
    error = np.zeros(2)
    step = max(1, len(samples.vertices) // 400)
    people, goals = samples.vertices[::step], wanted[::step]
    surface = np.flatnonzero(morpher.outside)
    regressor[0, morpher.skin.ring] = 1 / len(morpher.skin.ring)
    for joint in (1, 2):
        pick = _spread_around(template, surface, goals[:, joint].mean(0))
        design = people[:, pick].transpose(0, 2, 1).reshape(-1, len(pick))
        stay = EXPRESSION_WEIGHT * expression[pick].reshape(len(pick), -1).T
        design = np.concatenate([design, stay, np.full((1, len(pick)), SUM_WEIGHT)])
        weights = nnls(design, np.concatenate([goals[:, joint].ravel(), np.zeros(len(stay)), [SUM_WEIGHT]]))[0]
        regressor[joint, pick] = weights / weights.sum()
        reached = np.einsum("v,nvc->nc", regressor[joint, pick], samples.vertices[:, pick])
        error[joint - 1] = np.sqrt(np.mean(np.sum((reached - wanted[:, joint]) ** 2, axis=1)))
    for joint, side in ((3, "left"), (4, "right")):
        equator = morpher.parts[f"{side}_eyeball"].start + morpher.sphere.equator
        regressor[joint, equator] = 1 / len(equator)
    return regressor, error


def _spread_around(template: np.ndarray, surface: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Vertices of ``surface`` near ``centre``, spread evenly: every next one is the farthest from those chosen."""
    distance = np.linalg.norm(template[surface] - centre, axis=1)
    near = surface[np.argsort(distance, kind="stable")[: len(surface) // 2]]
    chosen = [int(near[0])]
    gap = np.linalg.norm(template[near] - template[chosen[0]], axis=1)
    while len(chosen) < CANDIDATES:
        chosen.append(int(near[int(gap.argmax())]))
        gap = np.minimum(gap, np.linalg.norm(template[near] - template[chosen[-1]], axis=1))
    return np.array(chosen)


def skinning_weights(morpher: Morpher) -> np.ndarray:
    """Weights ``(V, 5)`` from the source's bones; rows sum to one."""
    bones = morpher.source.bone_weights()
    embed = morpher.skin.embedding
    head = sum(bones[b] for b in sorted(morpher.source.bones_below("head")))
    jaw = sum(bones[b] for b in sorted(morpher.source.bones_below("jaw")))
    total = sum(bones.values())
    neck = head + sum(share * bones[b] for b, share in NECK_SHARE.items())
    weights = np.zeros((morpher.n_vertices, len(JOINT_NAMES)))
    skin = morpher.parts["skin"].indices
    weights[skin, 1] = np.clip(embed @ ((neck - jaw) / np.maximum(total, 1e-9)), 0, 1)
    weights[skin, 2] = np.clip(embed @ (jaw / np.maximum(total, 1e-9)), 0, 1)
    for name, joint in {
        "left_socket": 1, "right_socket": 1, "upper_teeth": 1, "lower_teeth": 2, "tongue": 2,
        "left_eyeball": 3, "right_eyeball": 4,
    }.items():  # fmt: skip
        weights[morpher.parts[name].indices, joint] = 1.0
    weights[weights < 1e-3] = 0.0
    weights[:, 0] = np.maximum(1 - weights[:, 1:].sum(1), 0)
    return weights / weights.sum(1, keepdims=True)


@dataclass(frozen=True)
class JawCorrectives:
    """``posedirs`` ``(V, 3, 36)``; ``open_angle`` radians of jaw rotation that correspond to ``jawOpen`` = 1;
    ``side_angle`` radians about y that correspond to ``jawLeft`` = 1."""

    posedirs: np.ndarray
    open_angle: float
    side_angle: float


def jaw_correctives(
    template: np.ndarray, weights: np.ndarray, jaw: np.ndarray, shapes: dict[str, np.ndarray], teeth: np.ndarray
) -> JawCorrectives:
    """Correctives linear in the entries of ``R_jaw - I`` that turn the skinned jaw into the ARKit jaw shapes.

    The angle of each shape is the rotation about the jaw joint that best follows the lower teeth. Half openings are
    fitted too, against half of the shape; the least-squares solution of smallest norm is spread over the nine entries.

    Args:
        jaw: ``(3,)`` jaw joint. shapes: ``jawOpen``, ``jawLeft``, ``jawRight`` -> ``(V, 3)`` displacement.
        teeth: vertices of the lower teeth.
    """
    arm = template[teeth] - jaw
    vectors = {}
    for name, axis in (("jawOpen", 0), ("jawLeft", 1), ("jawRight", 1)):
        turned = Rotation.align_vectors(arm + shapes[name][teeth], arm)[0].as_rotvec()
        vectors[name] = turned[axis] * np.eye(3)[axis]
    side = 0.5 * (vectors["jawLeft"] - vectors["jawRight"])
    vectors["jawLeft"], vectors["jawRight"] = side, -side
    features, wanted = [], []
    for name, vector in vectors.items():
        for share in (0.25, 0.5, 0.75, 1.0):
            matrix = Rotation.from_rotvec(share * vector).as_matrix()
            features.append((matrix - np.eye(3)).ravel())
            posed = template + share * shapes[name]
            blend = (1 - weights[:, 2])[:, None, None] * np.eye(3) + weights[:, 2, None, None] * matrix
            shift = weights[:, 2, None] * (jaw - matrix @ jaw)
            rest = np.linalg.solve(blend, (posed - shift)[..., None])[..., 0]
            wanted.append((rest - template).ravel())
    features, wanted = np.array(features), np.array(wanted)
    scale = np.trace(features.T @ features)
    normal = features.T @ features + RIDGE * scale / 9 * np.eye(9)
    solution = np.linalg.solve(normal, features.T @ wanted)
    posedirs = np.zeros((*template.shape, 36))
    posedirs[:, :, 9:18] = np.moveaxis(solution.reshape(9, *template.shape), 0, -1)
    return JawCorrectives(posedirs, float(vectors["jawOpen"][0]), float(side[1]))
