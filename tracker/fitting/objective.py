"""The objective: which residuals a batch of frames gets, and how much each counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_assets.asset import AssetError, HeadAsset, LandmarkEmbedding
from tracker.camera import CAMERA_POSITION, FocalPrior
from tracker.config import (
    DenseSettings,
    LandmarkSettings,
    PhotometricSettings,
    PriorSettings,
    SmoothnessSettings,
    TrackerConfig,
)
from tracker.dense.outline import finer, signed_distance
from tracker.dense.sites import DenseSites
from tracker.fitting.dense import DenseBatch, DenseSurface, embedding_term, look_up_term, outline_term
from tracker.fitting.kinematics import HeadPoints
from tracker.fitting.observations import FrameBatch
from tracker.fitting.photometric import PictureBatch, SkinSurface, photometric_term
from tracker.fitting.residuals import DifferenceResidual, LandmarkResidual, PriorResidual, SmoothnessResidual
from tracker.fitting.rigid import RigidPose, align_affine, align_scaled_orthographic, rigid_error
from tracker.fitting.robust import GemanMcClure
from tracker.fitting.solver import Term, Values, Variable
from tracker.fitting.visibility import coverage, visible_places
from tracker.head_model import HeadModel
from tracker.landmarks.landmark_schemes import INTER_OCULAR, landmark_groups
from tracker.photometric.light import Appearance
from tracker.rendering import get_renderer

# Landmarks that speech and expression hardly move, for the closed-form pose: forehead, nose, eye corners, cheekbones.
_STABLE = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263, 127, 356, 234, 454, 93, 323, 116, 345, 50, 280)
# Groups that stay with the landmarks where a network speaks of the rest of the head.
_LANDMARK_LED = ("lips", "lids", "irises", "brows")
# The closed-form pose from the dense places replaces the landmarks' where it explains those places this much better.
_CLEARLY_BETTER = 0.7
_DTYPE = torch.float32  # residuals and Jacobians; the normal equations are accumulated in double precision


@dataclass(frozen=True)
class FaceLandmarks:
    """A head seen at its landmarks (and at its dense places), with what the objective needs to weigh them.

    Attributes:
        head: the whole head model.
        points: the head restricted to its L landmarks.
        numbers: each landmark's number in MediaPipe's scheme.
        expected_error: in units of the inter-ocular distance.
        normals: outward surface normals in the rest frame.
        stable: rows of the landmarks that fix the rigid pose.
        coverable: 1 for landmarks whose place the dense term covers too, 0 for those of lips, lids, irises and brows.
        dense: the head at its dense places, or None.
        skin: the head at places of its skin, or None.
    """

    head: HeadModel
    points: HeadModel
    numbers: Tensor
    expected_error: Float[Tensor, "n"]
    normals: Float[Tensor, "n 3"]
    stable: Tensor
    coverable: Float[Tensor, "n"]
    dense: DenseSurface | None = None
    skin: SkinSurface | None = None

    @staticmethod
    def build(
        asset: HeadAsset,
        settings: LandmarkSettings,
        device: torch.device | str = "cpu",
        sites: DenseSites | None = None,
        skin: LandmarkEmbedding | None = None,
    ) -> FaceLandmarks:
        """Restrict ``asset`` to its MediaPipe landmarks, and to ``sites`` and ``skin`` where they are given.

        Raises:
            AssetError: the head brings no MediaPipe embedding.
        """
        if "mediapipe" not in asset.landmarks:
            raise AssetError(f"head {asset.name!r} has no MediaPipe landmark embedding")
        embedding = asset.landmarks["mediapipe"]
        head = HeadModel.from_asset(asset, device, _DTYPE)
        corners = asset.v_template[asset.faces[embedding.faces]].astype(np.float64)
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        error, coverable = np.full(478, settings.error_percent["default"]), np.ones(478)
        for group, numbers in landmark_groups().items():
            error[list(numbers)] = settings.error_percent[group]
            coverable[list(numbers)] = group not in _LANDMARK_LED
        return FaceLandmarks(
            head=head,
            points=head.at_points(embedding),
            numbers=torch.as_tensor(embedding.indices, device=device).long(),
            expected_error=torch.as_tensor(error[embedding.indices] / 100, dtype=_DTYPE, device=device),
            normals=torch.as_tensor(normals, dtype=_DTYPE, device=device),
            stable=torch.as_tensor(np.flatnonzero(np.isin(embedding.indices, _STABLE)), device=device),
            coverable=torch.as_tensor(coverable[embedding.indices], dtype=_DTYPE, device=device),
            dense=None if sites is None else DenseSurface.build(asset, head, sites),
            skin=None if skin is None else SkinSurface.build(asset, head, skin),
        )

    def inter_ocular_m(self, identity: Float[Tensor, "identity"] | None = None) -> float:
        """Distance of the outer eye corners on the neutral head (or the closest thing the embedding has), metres."""
        where = [int((self.numbers == n).nonzero()[0]) for n in INTER_OCULAR if bool((self.numbers == n).any())]
        if len(where) < 2:
            return 0.09  # the mean adult's; only sets the unit of the weights
        shaped = self.points.template if identity is None else self.points.with_shape(identity).vertices
        return float((shaped[where[0]] - shaped[where[1]]).norm())

    def rigid_poses(
        self, batch: FrameBatch, focal_px: float, principal_point: tuple[float, float], identity: Tensor | None = None
    ) -> RigidPose:
        """Closed-form head poses of a batch, from the landmarks that expressions leave alone.

        Where no landmarks were found, or the dense places contradict them, from the dense places.
        """
        rows = self.stable if len(self.stable) >= 6 else torch.arange(len(self.numbers), device=self.numbers.device)
        rest = self.points.with_shape(self.points.template.new_zeros(0) if identity is None else identity)
        numbers = self.numbers[rows]
        poses = align_scaled_orthographic(
            rest.vertices[rows], rest.joints[0], batch.points[:, numbers], batch.depth[:, numbers], focal_px, principal_point
        )
        if self.dense is None or batch.dense is None or not bool(batch.dense.seen.any()):
            return poses
        return self._with_dense_poses(poses, batch, batch.dense, focal_px, principal_point, identity)

    def _with_dense_poses(
        self, poses: RigidPose, batch: FrameBatch, seen: DenseBatch, focal_px: float,
        principal_point: tuple[float, float], identity: Tensor | None,
    ) -> RigidPose:  # fmt: skip
        assert self.dense is not None
        surface = self.dense.points.with_shape(self.points.template.new_zeros(0) if identity is None else identity)
        places = surface.vertices + seen.offsets
        trust = (seen.precision > 0).to(places)
        found = align_affine(places, surface.joints[0], seen.pixels, trust, focal_px, principal_point)
        before = rigid_error(poses, places, surface.joints[0], seen.pixels, trust, focal_px, principal_point)
        after = rigid_error(found, places, surface.joints[0], seen.pixels, trust, focal_px, principal_point)
        use = seen.seen & (~batch.has_landmarks | (after < _CLEARLY_BETTER * before))
        return RigidPose(
            torch.where(use[:, None], found.rotation, poses.rotation),
            torch.where(use[:, None], found.translation, poses.translation),
            torch.where(use, found.pixels_per_metre, poses.pixels_per_metre),
        )

    def visibility(self, values: Mapping[str, Tensor], settings: LandmarkSettings) -> Float[Tensor, "frames n"]:
        """Trust in [0, 1] by how much each landmark's surface faces the camera at ``values``.

        A detector places landmarks on the far side of a turned head by habit, not by sight; contour points slide along
        the silhouette. Both show as normals that turn away from the line of sight.
        """
        to_camera = torch.nn.functional.normalize(values["translation"].new_tensor(CAMERA_POSITION) - values["translation"], dim=-1)
        cosine = torch.einsum("fna,fa->fn", HeadPoints.evaluate(self.points, values).turned(self.normals), to_camera)
        span = settings.visible_cosine - settings.hidden_cosine
        ramp = ((cosine - settings.hidden_cosine) / max(span, 1e-6)).clamp(0, 1)
        return ramp * ramp * (3 - 2 * ramp)


def landmark_term(
    face: FaceLandmarks,
    batch: FrameBatch,
    pixels_per_metre: Float[Tensor, "frames"],
    values: Mapping[str, Tensor],
    config: TrackerConfig,
    principal_point: tuple[float, float],
) -> Term:
    """Reprojection of the landmarks that are visible at ``values``; errors are judged relative to each frame's face size,
    seen frontally."""
    settings = config.landmarks
    unit_px = pixels_per_metre * face.inter_ocular_m()
    trust = face.visibility(values, settings) * batch.iris_trust()[:, face.numbers]
    trust = trust * batch.has_landmarks.to(trust)[:, None]
    precision = trust.sqrt() / (face.expected_error * unit_px[:, None])
    if batch.dense is not None:
        covered = batch.dense.seen.to(trust)[:, None] * face.coverable
        precision = precision / (1 + (config.dense.landmark_factor - 1) * covered)
    residual = LandmarkResidual(face.points, batch.points[:, face.numbers], precision, principal_point)
    return Term("landmarks", residual, GemanMcClure(settings.kernel_scale) if settings.kernel_scale else None)


def dense_terms(
    face: FaceLandmarks,
    batch: FrameBatch,
    pixels_per_metre: Float[Tensor, "frames"],
    settings: DenseSettings,
    principal_point: tuple[float, float],
    values: Mapping[str, Tensor] | None = None,
) -> list[Term]:
    """The look-up term, and the outline's where ``values`` are near enough to tell which places lie on it."""
    if face.dense is None or batch.dense is None:
        return []
    terms = []
    if settings.look_up:
        terms.append(look_up_term(face.dense, batch.dense, pixels_per_metre, settings, principal_point))
    if values is not None and settings.outline_inflation > 0 and bool(batch.dense.outline.any()):
        drawn = _drawn_outline(face.head, batch.dense, values, principal_point)
        terms.append(outline_term(face.dense, batch.dense, values, settings, principal_point, drawn))
    return terms


def _drawn_outline(
    head: HeadModel, seen: DenseBatch, values: Mapping[str, Tensor], principal_point: tuple[float, float]
) -> Float[Tensor, "frames h w"]:
    """Signed distances to the outline of the head at ``values``, on the pixels of the network's maps."""
    size = (seen.maps.shape[2], seen.maps.shape[3])
    shares = coverage(head, seen.to_map, size, values, principal_point, get_renderer("auto", head.device), finer(size))
    distances = np.stack([signed_distance(share) for share in shares.cpu().numpy()])
    return torch.as_tensor(distances, dtype=head.dtype, device=head.device)


def compare_terms(
    face: FaceLandmarks,
    batch: FrameBatch,
    values: Mapping[str, Tensor],
    settings: DenseSettings,
    principal_point: tuple[float, float],
) -> list[Term]:
    """Render-and-compare at the places that are visible at ``values``."""
    if face.dense is None or batch.dense is None:
        return []
    renderer = get_renderer("auto", face.head.device)
    seen = batch.dense
    size = (seen.maps.shape[2], seen.maps.shape[3])
    visible = visible_places(face.head, face.dense.points, seen.to_map, size, values, principal_point, renderer)
    return [embedding_term(face.dense, batch.dense, values, settings, principal_point, visible)]


def look_at_face(
    face: FaceLandmarks, batch: FrameBatch, values: Mapping[str, Tensor], principal_point: tuple[float, float]
) -> tuple[SkinSurface, PictureBatch, Tensor] | None:
    """The skin, the pictures of it, and which of its places are visible at ``values``; None without pictures."""
    if face.skin is None or batch.pictures is None:
        return None
    pictures = batch.pictures
    size = (pictures.pictures.shape[2], pictures.pictures.shape[3])
    renderer = get_renderer("auto", face.head.device)
    visible = visible_places(face.head, face.skin.points, pictures.to_map, size, values, principal_point, renderer)
    return face.skin, pictures, visible


def colour_terms(
    face: FaceLandmarks,
    batch: FrameBatch,
    values: Mapping[str, Tensor],
    appearance: Appearance | None,
    settings: PhotometricSettings,
    principal_point: tuple[float, float],
) -> list[Term]:
    """The photometric term, where there are pictures and the clip's colours are known."""
    looked = look_at_face(face, batch, values, principal_point)
    if looked is None or appearance is None:
        return []
    skin, pictures, visible = looked
    return [photometric_term(skin, pictures, appearance, values, settings, principal_point, visible)]


def frame_variables(head: HeadModel, config: TrackerConfig) -> list[Variable]:
    """What is solved for in every frame.

    Heads whose expressions open the jaw (the ARKit shapes) keep the jaw joint at rest: both at once would be the same
    motion twice.
    """
    low, high = head.expression_range
    limit = config.priors.eye_limit_rad
    variables = [
        Variable("rotation"),
        Variable("translation"),
        Variable("expr", lower=low, upper=high),
        Variable("eyes_pose", lower=-limit, upper=limit),
    ]
    if not has_jaw_expressions(head):
        # about x the jaw opens (positive) and hardly goes beyond closed; sideways and twist are small
        low_jaw = head.template.new_tensor([-0.1, -0.2, -0.1])
        variables.append(Variable("jaw_pose", lower=low_jaw, upper=head.template.new_tensor([0.6, 0.2, 0.1])))
    if config.tracking.free_neck:
        variables.append(Variable("neck_pose", lower=-0.6, upper=0.6))
    return variables


def has_jaw_expressions(head: HeadModel) -> bool:
    """Whether expression shapes of the head open the jaw, so that its joint need not."""
    return "jawOpen" in head.expression_names


def _expression_unit(head: HeadModel) -> float:
    """What ``priors.expression`` is counted in: of shapes with a range (ARKit's) one is the whole range; directions without
    one (FLAME's) have unit variance, which the default of the setting stands for."""
    return 1.0 if math.isfinite(head.expression_range[1]) else 1.0 / PriorSettings().expression


def prior_terms(variables: Sequence[Variable], priors: PriorSettings, head: HeadModel) -> list[Term]:
    """Zero-mean priors on the frame variables that have one."""
    sigmas = {
        "expr": priors.expression * _expression_unit(head),
        "eyes_pose": priors.gaze_rad,
        "jaw_pose": priors.jaw_rad,
        "neck_pose": priors.neck_rad,
    }
    names = {v.name for v in variables}
    terms = [Term(f"{n} prior", PriorResidual(n, s)) for n, s in sigmas.items() if n in names]
    identity = torch.eye(3, dtype=head.dtype, device=head.device)
    same_gaze = DifferenceResidual("eyes_pose", torch.cat([identity, -identity], dim=1), priors.vergence_rad)
    return [*terms, Term("vergence", same_gaze)]


def smoothness_terms(
    variables: Sequence[Variable], smoothness: SmoothnessSettings, time_steps: Float[Tensor, "frames"]
) -> list[Term]:
    """Temporal coupling of the frame variables; see :class:`SmoothnessResidual`."""
    sigmas = {
        "rotation": smoothness.rotation_rad,
        "translation": smoothness.translation_m,
        "expr": smoothness.expression,
        "eyes_pose": smoothness.eyes_rad,
        "jaw_pose": smoothness.jaw_rad,
        "neck_pose": smoothness.neck_rad,
    }
    return [
        Term(f"{v.name} smoothness", SmoothnessResidual(v.name, sigmas[v.name], time_steps))
        for v in variables
        if math.isfinite(sigmas[v.name])
    ]


def identity_terms(priors: PriorSettings, camera: FocalPrior) -> list[Term]:
    """Priors on what all frames share: identity, and focal length unless it is known."""
    terms = [Term("identity prior", PriorResidual("shape", priors.identity))]
    if camera.log_sigma > 0:
        focal = PriorResidual("log_focal", camera.log_sigma, math.log(camera.focal_px))
        terms.append(Term("focal prior", focal))
    return terms


def initial_values(face: FaceLandmarks, batch: FrameBatch, poses: RigidPose, config: TrackerConfig) -> Values:
    """Starting values of the frame variables for a batch."""
    frames, head = len(batch), face.head
    zeros = poses.rotation.new_zeros
    guess = batch.expression_guess
    values = {
        "rotation": poses.rotation,
        "translation": poses.translation,
        "expr": zeros(frames, head.n_expression) if guess is None else guess,
        "eyes_pose": zeros(frames, 6),
    }
    if not has_jaw_expressions(head):
        values["jaw_pose"] = zeros(frames, 3)
    if config.tracking.free_neck:
        values["neck_pose"] = zeros(frames, 3)
    return values
