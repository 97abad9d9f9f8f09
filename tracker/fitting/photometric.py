"""The photometric term: colours of the skin in the picture against albedo under the estimated light.

Places on the skin that the camera sees are projected; the picture's colour there should be the place's albedo times the
light on its normal. The residual is a look at the picture at moving places, so its derivatives are the picture's slopes, as in
Lucas and Kanade's registration; it refines what landmarks and locations have brought to within a pixel or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flame_assets.asset import HeadAsset, LandmarkEmbedding
from tracker.camera import project
from tracker.config import PhotometricSettings
from tracker.fitting.dense import MapResidual, sample_map
from tracker.fitting.kinematics import HeadPoints
from tracker.fitting.robust import GemanMcClure
from tracker.fitting.solver import Term
from tracker.head_model import HeadModel
from tracker.photometric.light import Appearance, harmonics
from tracker.rendering.clip_space import vertex_normals

_GRAZING = 0.3  # cosine below which a place is seen too flatly for its colour to tell anything


@dataclass(frozen=True)
class SkinSurface:
    """A head seen at places of its skin.

    Attributes:
        points: the head restricted to n places.
        normals: outward normals in the rest frame.
    """

    points: HeadModel
    normals: Float[Tensor, "n 3"]

    @staticmethod
    def build(asset: HeadAsset, head: HeadModel, places: LandmarkEmbedding) -> SkinSurface:
        """Restrict ``head`` (made from ``asset``) to ``places``; normals vary smoothly over the surface."""
        template, faces = torch.as_tensor(asset.v_template), torch.as_tensor(asset.faces)
        at_vertices = vertex_normals(template, faces).numpy()
        normals = torch.as_tensor(places.positions(at_vertices, asset.faces), dtype=head.dtype, device=head.device)
        return SkinSurface(head.at_points(places), torch.nn.functional.normalize(normals, dim=-1))


@dataclass(frozen=True)
class PictureBatch:
    """Pictures of the head in F frames.

    Attributes:
        pictures: RGB, [0, 1], channels first, a little blurred.
        trust: [0, 1], pixels that show the head and nothing in front of it.
        to_map: affine maps from full-frame pixels to the pictures' pixels.
        present: frames that have a picture.
    """

    pictures: Float[Tensor, "frames 3 h w"]
    trust: Float[Tensor, "frames h w"]
    to_map: Float[Tensor, "frames 2 3"]
    present: Tensor

    def select(self, frames: Tensor) -> PictureBatch:
        """The same for some of the frames."""
        return PictureBatch(self.pictures[frames], self.trust[frames], self.to_map[frames], self.present[frames])


@dataclass(frozen=True)
class SkinView:
    """The skin as the camera sees it at some parameters: colours, unit normals, and 0-to-1 weights of the places."""

    colours: Float[Tensor, "frames n 3"]
    normals: Float[Tensor, "frames n 3"]
    weight: Float[Tensor, "frames n"]


@torch.no_grad()
def look_at_skin(
    skin: SkinSurface,
    batch: PictureBatch,
    values: Mapping[str, Tensor],
    principal_point: tuple[float, float],
    visible: Float[Tensor, "frames n"],
) -> SkinView:
    """Colours, normals and weights of the places at ``values``; ``visible`` is 0 for places behind others."""
    head = HeadPoints.evaluate(skin.points, values)
    pixels, _ = project(head.positions, values["log_focal"].exp().expand(len(head.positions)), principal_point)
    on_map = pixels @ batch.to_map[:, :, :2].mT + batch.to_map[:, None, :, 2]
    height, width = batch.pictures.shape[2:]
    inside = ((on_map > 1) & (on_map < on_map.new_tensor([width, height]) - 1)).all(-1)
    seen, _ = sample_map(torch.cat([batch.pictures, batch.trust[:, None]], dim=1), on_map)
    facing = ((head.facing(skin.normals) - _GRAZING) / (1 - _GRAZING)).clamp(0, 1)
    trusted = seen[..., 3].clamp(0, 1) * batch.present.to(facing)[:, None]
    return SkinView(seen[..., :3], head.turned(skin.normals), torch.where(inside, facing * trusted * visible, 0))


def photometric_term(
    skin: SkinSurface,
    batch: PictureBatch,
    appearance: Appearance,
    values: Mapping[str, Tensor],
    settings: PhotometricSettings,
    principal_point: tuple[float, float],
    visible: Float[Tensor, "frames n"],
) -> Term:
    """Colours at the visible places; light falls on their normals as they stand at ``values``."""
    view = look_at_skin(skin, batch, values, principal_point, visible)
    expected = appearance.albedo * (harmonics(view.normals) @ appearance.light)
    # each frame's exposure, from the places themselves
    w = (view.weight * appearance.trust)[..., None]
    gain = (w * expected * view.colours).sum(1) / (w * expected.square()).sum(1).clamp_min(1e-6)
    expected = expected * gain.clamp(0.5, 2)[:, None]
    precision = (view.weight * appearance.trust).sqrt() / settings.error
    residual = MapResidual(skin.points, expected, precision, batch.pictures, batch.to_map, principal_point)
    return Term("photometric", residual, GemanMcClure(settings.kernel_scale))
