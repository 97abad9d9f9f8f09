"""The dense correspondence term: predicted canonical locations of pixels against the head's own.

Two residuals for one discrepancy, after DenseMarks (arXiv 2511.02830):

* *Look-up* (:class:`LookUpResidual`): a pixel whose predicted location is x belongs to the surface point at x; the residual is
  the distance in the picture between the pixel and that point's projection. No render is needed and the pose may be far off.
* *Render and compare* (:class:`MapResidual`): a visible surface point at location c is projected, and the location that
  the network predicts there is compared with c. Derivatives go through the embedding map, so it needs a good start.

Both work at the places of :mod:`tracker.dense.sites`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flame_assets.asset import HeadAsset
from tracker.camera import from_principal_point, project
from tracker.config import DenseSettings
from tracker.dense.sites import DenseSites
from tracker.fitting.kinematics import HeadPoints
from tracker.fitting.robust import GemanMcClure
from tracker.fitting.solver import Linearization, Term
from tracker.head_model import HeadModel

_EDGE_COSINE = 0.2  # on a head 9 cm across, places within it lie less than 2 mm inside the outline
_OUTLINE_REACH = 6.0  # map pixels
_RIM = 2.0  # map pixels from the head's own outline within which a place tells of it


@dataclass(frozen=True)
class DenseSurface:
    """A head seen at its dense places.

    Attributes:
        points: the head restricted to its n places.
        canonical: their locations in the cube.
        normals: outward normals in the rest frame.
        metres_per_cube: length of the cube's side on the head.
    """

    points: HeadModel
    canonical: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    metres_per_cube: float

    @staticmethod
    def build(asset: HeadAsset, head: HeadModel, sites: DenseSites) -> DenseSurface:
        """Restrict ``head`` (made from ``asset``) to ``sites``."""
        like = {"dtype": head.dtype, "device": head.device}
        return DenseSurface(
            points=head.at_points(sites.embedding),
            canonical=torch.as_tensor(sites.canonical, **like),
            normals=torch.as_tensor(sites.normals, **like),
            metres_per_cube=sites.metres_per_cube,
        )


@dataclass(frozen=True)
class DenseBatch:
    """What the network said about F frames, at the n places and as maps.

    Attributes:
        pixels: where each place was seen, full-frame pixels.
        offsets: from the place to the surface point that was seen there, rest frame, metres.
        precision: 1 / expected error, in 1 / cube units; 0 where the place was not seen.
        maps: predicted locations, channels first.
        trust: of the maps' pixels.
        scale: expected error of the maps' pixels, cube units.
        outline: signed distance of the maps' pixels to the bald head's outline, map pixels, negative inside; zeros where no
            outline is known.
        outline_error: expected error of the outline near each pixel, map pixels.
        to_map: affine maps from full-frame pixels to the maps' pixels.
    """

    pixels: Float[Tensor, "frames n 2"]
    offsets: Float[Tensor, "frames n 3"]
    precision: Float[Tensor, "frames n"]
    maps: Float[Tensor, "frames 3 h w"]
    trust: Float[Tensor, "frames h w"]
    scale: Float[Tensor, "frames h w"]
    outline: Float[Tensor, "frames h w"]
    outline_error: Float[Tensor, "frames h w"]
    to_map: Float[Tensor, "frames 2 3"]

    def select(self, frames: Tensor) -> DenseBatch:
        """The same for some of the frames."""
        return DenseBatch(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    @property
    def seen(self) -> Tensor:
        """``(F,)`` bool: frames that have a map."""
        return (self.precision > 0).any(dim=1)


@dataclass(frozen=True)
class LookUpResidual:
    """Projected surface points minus the pixels that the network assigned to them, in units of the expected error.

    Attributes:
        points: the head restricted to the places.
        offsets: see :class:`DenseBatch`.
        targets: pixels.
        precision: 1 / (expected error in pixels); 0 leaves a place out.
        principal_point: pixels.
    """

    points: HeadModel
    offsets: Float[Tensor, "frames n 3"]
    targets: Float[Tensor, "frames n 2"]
    precision: Float[Tensor, "frames n"]
    principal_point: tuple[float, float]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        head = HeadPoints.evaluate(self.points, values, self.offsets)
        focal = values["log_focal"].exp()
        pixels, per_metre = project(head.positions, focal.expand(len(head.positions)), self.principal_point)
        weight = self.precision[..., None]
        residual = (pixels - self.targets) * weight
        if not wanted:
            return Linearization(residual)
        jacobians = head.jacobians(per_metre * weight[..., None], wanted)
        if "log_focal" in wanted:
            offset = from_principal_point(pixels, self.principal_point)
            jacobians["log_focal"] = (offset * weight)[..., None]
        return Linearization(residual, jacobians)


@dataclass(frozen=True)
class MapResidual:
    """What a map holds where a place is projected to, minus what it should hold, in units of the expected error.

    Attributes:
        points: the head restricted to the places.
        expected: what the map should hold there: the places' own locations for a map of locations, their distance to the
            head's own outline for a map of distances, colours for a picture.
        precision: 1 / (expected error in the map's units); 0 leaves a place out (hidden, off the map).
        maps, to_map: see :class:`DenseBatch`.
        principal_point: pixels.
    """

    points: HeadModel
    expected: Float[Tensor, "*frames n c"]
    precision: Float[Tensor, "frames n"]
    maps: Float[Tensor, "frames c h w"]
    to_map: Float[Tensor, "frames 2 3"]
    principal_point: tuple[float, float]

    def __call__(self, values: Mapping[str, Tensor], wanted: frozenset[str]) -> Linearization:
        head = HeadPoints.evaluate(self.points, values)
        focal = values["log_focal"].exp()
        pixels, per_metre = project(head.positions, focal.expand(len(head.positions)), self.principal_point)
        linear, shift = self.to_map[:, :, :2], self.to_map[:, None, :, 2]
        predicted, slope = sample_map(self.maps, pixels @ linear.mT + shift)
        weight = self.precision[..., None]
        residual = (predicted - self.expected) * weight
        if not wanted:
            return Linearization(residual)
        per_pixel = (slope @ linear[:, None]) * weight[..., None]
        jacobians = head.jacobians(per_pixel @ per_metre, wanted)
        if "log_focal" in wanted:
            offset = from_principal_point(pixels, self.principal_point)
            jacobians["log_focal"] = per_pixel @ offset[..., None]
        return Linearization(residual, jacobians)


def sample_map(
    maps: Float[Tensor, "frames c h w"], points: Float[Tensor, "frames n 2"]
) -> tuple[Float[Tensor, "frames n c"], Float[Tensor, "frames n c 2"]]:
    """Bilinear samples at map pixels (centres at halves), and their derivatives with respect to x and y.

    Beyond the outermost pixel centres the map continues straight.
    """
    _, channels, height, width = maps.shape
    x, y = points[..., 0] - 0.5, points[..., 1] - 0.5
    left, top = x.detach().floor().clamp(0, width - 2), y.detach().floor().clamp(0, height - 2)
    a, b = (x - left)[..., None], (y - top)[..., None]
    flat = maps.flatten(2).mT  # (F, h w, c)
    start = (top * width + left).long()

    def corner(step: int) -> Tensor:
        return flat.gather(1, (start + step)[..., None].expand(-1, -1, channels))

    p00, p01, p10, p11 = corner(0), corner(1), corner(width), corner(width + 1)
    upper, lower = p00 + a * (p01 - p00), p10 + a * (p11 - p10)
    along_x = (1 - b) * (p01 - p00) + b * (p11 - p10)
    return upper + b * (lower - upper), torch.stack([along_x, lower - upper], dim=-1)


def look_up_term(
    surface: DenseSurface,
    batch: DenseBatch,
    pixels_per_metre: Float[Tensor, "frames"],
    settings: DenseSettings,
    principal_point: tuple[float, float],
) -> Term:
    """Reprojection of the places where the network saw them."""
    pixels_per_cube = pixels_per_metre * surface.metres_per_cube
    precision = batch.precision / (pixels_per_cube[:, None] * settings.error_inflation)
    residual = LookUpResidual(surface.points, batch.offsets, batch.pixels, precision, principal_point)
    return Term("dense look-up", residual, GemanMcClure(settings.kernel_scale))


def outline_term(
    surface: DenseSurface,
    batch: DenseBatch,
    values: Mapping[str, Tensor],
    settings: DenseSettings,
    principal_point: tuple[float, float],
    drawn: Float[Tensor, "frames h w"],
) -> Term:
    """Agreement of outlines, at the places whose surface is seen edge-on given the current ``values``.

    The network's mask tells where lines of sight meet the bald head, hair or not. The slope of its signed distance is the
    outline's normal, so the residual is one more look at a map. A place should be as far from the outline that the network
    sees as it is from the outline of the head itself, ``drawn`` at ``values`` as signed distances: edge-on places lie a
    little inside of it, those of ears and jaws even by a centimetre, and zero would swell the head.
    """
    with torch.no_grad():
        head = HeadPoints.evaluate(surface.points, values)
        pixels, _ = project(head.positions, values["log_focal"].exp().expand(len(head.positions)), principal_point)
        linear, shift = batch.to_map[:, :, :2], batch.to_map[:, None, :, 2]
        on_map = pixels @ linear.mT + shift
        size = on_map.new_tensor([batch.maps.shape[3], batch.maps.shape[2]])
        inside = ((on_map > 1.5) & (on_map < size - 1.5)).all(-1)
        edge_on = (1 - (head.facing(surface.normals) / _EDGE_COSINE).square()).clamp_min(0)
        known, _ = sample_map(torch.stack([batch.outline, batch.outline_error, drawn], dim=1), on_map)
        # edge-on places well inside belong to the outline of a nose or an ear, which the mask does not show
        near = (known[..., 0].abs() < _OUTLINE_REACH) & (known[..., 2].abs() < _RIM)
        is_known = (batch.outline != 0).flatten(1).any(1)[:, None]
        precision = torch.where(inside & near & is_known, edge_on, 0).sqrt() / (known[..., 1] * settings.outline_inflation)
    residual = MapResidual(surface.points, known[..., 2:], precision, batch.outline[:, None], batch.to_map, principal_point)
    return Term("outline", residual, GemanMcClure(settings.kernel_scale))


def embedding_term(
    surface: DenseSurface,
    batch: DenseBatch,
    values: Mapping[str, Tensor],
    settings: DenseSettings,
    principal_point: tuple[float, float],
    visible: Float[Tensor, "frames n"],
) -> Term:
    """Comparison of locations at the places that ``visible`` (0 to 1) trusts, given the current ``values``."""
    with torch.no_grad():
        head = HeadPoints.evaluate(surface.points, values)
        pixels, _ = project(head.positions, values["log_focal"].exp().expand(len(head.positions)), principal_point)
        linear, shift = batch.to_map[:, :, :2], batch.to_map[:, None, :, 2]
        on_map = pixels @ linear.mT + shift
        size = on_map.new_tensor([batch.maps.shape[3], batch.maps.shape[2]])
        inside = ((on_map > 0.5) & (on_map < size - 0.5)).all(-1)
        known, _ = sample_map(torch.stack([batch.trust, batch.scale], dim=1), on_map)
        trust = torch.where(inside & (known[..., 0] > settings.min_trust), known[..., 0], 0) * visible
        error = known[..., 1].clamp_min(0).square() + settings.error_floor**2
        precision = trust.clamp_min(0).sqrt() / (error.sqrt() * settings.error_inflation)
    residual = MapResidual(surface.points, surface.canonical, precision, batch.maps, batch.to_map, principal_point)
    return Term("dense render-and-compare", residual, GemanMcClure(settings.kernel_scale))
