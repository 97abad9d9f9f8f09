"""A first head pose for every frame in closed form, so that no frame depends on the one before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tracker.camera import CAMERA_POSITION
from tracker.rotations import matrix_to_axis_angle


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
    observed = torch.stack(
        [pixels[..., 0] - principal_point[0], principal_point[1] - pixels[..., 1], -depth], dim=-1
    )
    model_mean, observed_mean = model_points.mean(0), observed.mean(1)
    model_centred = model_points - model_mean
    covariance = torch.einsum("fna,nb->fab", observed - observed_mean[:, None], model_centred) / len(model_points)
    u, singular, vt = torch.linalg.svd(covariance)
    sign = torch.ones_like(singular)
    sign[:, 2] = torch.sign(torch.det(u @ vt))  # a reflection would turn the face inside out
    matrix = u @ torch.diag_embed(sign) @ vt
    scale = ((singular * sign).sum(-1) / model_centred.square().sum(-1).mean()).clamp_min(1e-6)

    in_camera = torch.stack(
        [observed_mean[:, 0] / scale, observed_mean[:, 1] / scale, -focal_px / scale], dim=-1
    )  # where the landmarks' mean must stand
    turned_mean = torch.einsum("fab,b->fa", matrix, model_mean - root_joint) + root_joint
    translation = in_camera + in_camera.new_tensor(CAMERA_POSITION) - turned_mean
    return RigidPose(matrix_to_axis_angle(matrix), translation, scale)
