"""A first head pose for every frame in closed form, so that no frame depends on the one before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import CAMERA_POSITION, project
from tracker.observe.frame_batch import DenseBatch, FrameBatch
from tracker.residuals.fit_head import DensePoints, FitHead
from tracker.rotations import axis_angle_to_matrix, matrix_to_axis_angle

# Landmarks that speech and expression hardly move: forehead, nose, eye corners, cheekbones.
_STABLE = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263, 127, 356, 234, 454, 93, 323, 116, 345, 50, 280)
_LEAST = 6  # of them must a head have
# The pose from the sites replaces the landmarks' where it explains those sites this much better.
_CLEARLY_BETTER = 0.7


@dataclass(frozen=True)
class RigidPose:
    """Head poses under scaled-orthographic projection.

    Attributes:
        rotation: axis-angle.
        translation: metres, for the focal length that was assumed.
        pixels_per_metre: the projection's scale at the head.
    """

    rotation: Float[Tensor, "frames 3"]
    translation: Float[Tensor, "frames 3"]
    pixels_per_metre: Float[Tensor, "frames"]

    def select(self, frames: Tensor) -> RigidPose:
        """The same for some of the frames."""
        return RigidPose(self.rotation[frames], self.translation[frames], self.pixels_per_metre[frames])


def first_poses(head: FitHead, batch: FrameBatch, focal_px: float, principal_point: tuple[float, float]) -> RigidPose:
    """Poses of the neutral head in a batch, from the landmarks that expressions leave alone; from the sites where no landmarks
    were found, or the sites contradict them.

    Args:
        focal_px: sets the distance that goes with a face's size.
        principal_point: pixels.
    """
    rows = torch.isin(head.numbers, torch.tensor(_STABLE, device=head.numbers.device)).nonzero()[:, 0]
    if len(rows) < _LEAST:
        rows = torch.arange(len(head.numbers), device=head.numbers.device)
    rest, numbers = head.landmarks, head.numbers[rows]
    root = rest.joint_template[0]
    poses = align_scaled_orthographic(
        rest.template[rows], root, batch.points[:, numbers], batch.depth[:, numbers], focal_px, principal_point
    )
    if head.dense is None or batch.dense is None or not bool(batch.dense.seen.any()):
        return poses
    return _with_dense_poses(poses, batch, head.dense, batch.dense, focal_px, principal_point)


def _with_dense_poses(
    poses: RigidPose,
    batch: FrameBatch,
    dense: DensePoints,
    seen: DenseBatch,
    focal_px: float,
    principal_point: tuple[float, float],
) -> RigidPose:
    points, root = dense.points.template + seen.offsets, dense.points.joint_template[0]
    weight = (seen.precision > 0).to(points)
    found = align_affine(points, root, seen.pixels, weight, focal_px, principal_point)
    before = rigid_error(poses, points, root, seen.pixels, weight, focal_px, principal_point)
    after = rigid_error(found, points, root, seen.pixels, weight, focal_px, principal_point)
    use = seen.seen & (~batch.has_landmarks | (after < _CLEARLY_BETTER * before))
    return RigidPose(
        torch.where(use[:, None], found.rotation, poses.rotation),
        torch.where(use[:, None], found.translation, poses.translation),
        torch.where(use, found.pixels_per_metre, poses.pixels_per_metre),
    )


def align_scaled_orthographic(
    model_points: Float[Tensor, "n 3"],
    root_joint: Float[Tensor, "3"],
    pixels: Float[Tensor, "frames n 2"],
    depth: Float[Tensor, "frames n"],
    focal_px: float,
    principal_point: tuple[float, float],
) -> RigidPose:
    """Similarity transform that takes the model's landmarks to detected pixels and relative depths.

    Umeyama, *Least-squares estimation of transformation parameters between two point patterns*, PAMI 1991.

    Args:
        model_points: rest-frame landmarks, metres.
        root_joint: the joint that the head's rotation turns about.
        pixels, depth: detections; depth in pixels, towards the camera negative.
        focal_px: sets the distance that goes with the scale.
        principal_point: pixels.
    """
    observed = torch.cat([_from_principal_point(pixels, principal_point), -depth[..., None]], dim=-1)
    model_mean, observed_mean = model_points.mean(0), observed.mean(1)
    model_centred = model_points - model_mean
    covariance = torch.einsum("fna,nb->fab", observed - observed_mean[:, None], model_centred) / len(model_points)
    u, singular, vt = torch.linalg.svd(covariance)
    sign = torch.ones_like(singular)
    sign[:, 2] = torch.sign(torch.det(u @ vt))  # a reflection would turn the face inside out
    matrix = u @ torch.diag_embed(sign) @ vt
    scale = ((singular * sign).sum(-1) / model_centred.square().sum(-1).mean()).clamp_min(1e-6)

    return _placed(matrix, scale, model_mean.expand(len(scale), 3), observed_mean[:, :2], root_joint, focal_px)


def align_affine(
    points: Float[Tensor, "frames n 3"],
    root_joint: Float[Tensor, "3"],
    pixels: Float[Tensor, "frames n 2"],
    weight: Float[Tensor, "frames n"],
    focal_px: float,
    principal_point: tuple[float, float],
) -> RigidPose:
    """Scaled-orthographic pose from points and pixels alone: affine camera by re-weighted least squares, then the nearest
    rotation (Hartley and Zisserman, *Multiple view geometry*, 7.2, and orthogonal Procrustes). No start is needed.

    Args:
        points: rest-frame points, metres.
        root_joint: the joint that the head's rotation turns about.
        pixels: where they were seen.
        weight: 0 for points that were not.
        focal_px: sets the distance that goes with the scale.
        principal_point: pixels.
    """
    seen = _from_principal_point(pixels, principal_point)
    w = weight
    for _ in range(4):
        total = w.sum(1).clamp_min(1e-9)
        model_mean = torch.einsum("fn,fna->fa", w, points) / total[:, None]
        seen_mean = torch.einsum("fn,fna->fa", w, seen) / total[:, None]
        x, y = points - model_mean[:, None], seen - seen_mean[:, None]
        spread = torch.einsum("fn,fna,fnb->fab", w, x, x) / total[:, None, None]
        # a little of the identity holds the direction that flat or missing points leave open
        spread = spread + (1e-4 * spread.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-9))[:, None, None] * torch.eye(3, dtype=x.dtype, device=x.device)
        across = torch.einsum("fn,fna,fnb->fab", w, y, x) / total[:, None, None]
        camera = across @ torch.linalg.inv(spread)
        error = (torch.einsum("fab,fnb->fna", camera, x) - y).norm(dim=-1)
        typical = _median_where(error, weight > 0).clamp_min(1e-6)[:, None]
        w = weight / (1 + (error / (2 * typical)).square()).square()
    u, singular, vt = torch.linalg.svd(camera, full_matrices=False)
    two_rows = u @ vt
    matrix = torch.cat([two_rows, torch.linalg.cross(two_rows[:, :1], two_rows[:, 1:])], dim=1)
    return _placed(matrix, singular.mean(1).clamp_min(1e-6), model_mean, seen_mean, root_joint, focal_px)


def rigid_error(
    poses: RigidPose,
    points: Float[Tensor, "frames n 3"],
    root_joint: Float[Tensor, "3"],
    pixels: Float[Tensor, "frames n 2"],
    weight: Float[Tensor, "frames n"],
    focal_px: float,
    principal_point: tuple[float, float],
) -> Float[Tensor, "frames"]:
    """Median distance in pixels between rigidly posed points and where they were seen (weight above 0); inf without any."""
    rotation = axis_angle_to_matrix(poses.rotation)
    world = torch.einsum("fab,fnb->fna", rotation, points - root_joint) + root_joint + poses.translation[:, None]
    projected, _ = project(world, focal_px, principal_point)
    return _median_where((projected - pixels).norm(dim=-1), weight > 0)


def _median_where(values: Float[Tensor, "frames n"], mask: Tensor) -> Float[Tensor, "frames"]:
    """Median of each row's values where ``mask`` is true; infinite for rows without any."""
    ordered = torch.where(mask, values, torch.inf).sort(dim=1).values
    middle = ((mask.sum(1) - 1).clamp_min(0) // 2)[:, None]
    return ordered.gather(1, middle)[:, 0]


def _from_principal_point(pixels: Tensor, principal_point: tuple[float, float]) -> Tensor:
    """Relative to the principal point, y up."""
    return torch.stack([pixels[..., 0] - principal_point[0], principal_point[1] - pixels[..., 1]], dim=-1)


def _placed(
    matrix: Tensor, scale: Tensor, model_mean: Tensor, seen_mean: Tensor, root_joint: Tensor, focal_px: float
) -> RigidPose:
    """The pose that turns the head by ``matrix`` and puts ``model_mean`` on the line of sight through ``seen_mean``."""
    in_camera = torch.stack([seen_mean[:, 0] / scale, seen_mean[:, 1] / scale, -focal_px / scale], dim=-1)
    turned_mean = torch.einsum("fab,fb->fa", matrix, model_mean - root_joint) + root_joint
    translation = in_camera + in_camera.new_tensor(CAMERA_POSITION) - turned_mean
    return RigidPose(matrix_to_axis_angle(matrix), translation, scale)
