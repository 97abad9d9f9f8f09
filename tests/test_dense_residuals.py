"""The dense and photometric residuals: derivatives against finite differences, and what each of them puts right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from flame_assets.load import load_head
from tests.heads import tiny_head
from tests.observed import observed, reader
from tests.views import lit_picture, perfect_record
from tracker.camera import FocalPrior, project
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.observe.frame_batch import DenseBatch, FrameBatch, PictureBatch
from tracker.observe.observe_settings import ObserveSettings
from tracker.observe.sites import skin_triangles, spread_points, spread_sites
from tracker.rendering import get_renderer
from tracker.residuals import compare, look_up, outline, photometric
from tracker.residuals.appearance import Appearance, estimate_appearance
from tracker.residuals.drawn_head import visible_places
from tracker.residuals.fit_head import DensePoints, FitHead, SkinPoints
from tracker.residuals.map_residual import MapResidual, sample_map
from tracker.residuals.priors import PriorResidual
from tracker.residuals.reprojection import ReprojectionResidual
from tracker.residuals.state import FitState
from tracker.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from tracker.solver import SolverConfig, Term, Values, Variable, solve
from tracker.solver.robust import GemanMcClure
from tracker.stages.rigid import align_affine

CENTRE, FOCAL = (256.0, 256.0), 720.0
FREE = ("rotation", "translation", "neck_pose", "expr", "shape", "log_focal")


# --- derivatives ---------------------------------------------------------------------------------------------------


def random_values(head: HeadModel, frames: int = 2) -> Values:
    draw = torch.Generator().manual_seed(3)

    def normal(*shape: int, size: float) -> Tensor:
        return size * torch.randn(*shape, dtype=torch.float64, generator=draw)

    return {
        "rotation": normal(frames, 3, size=0.3),
        "translation": torch.tensor([0.02, 0.03, 0.3], dtype=torch.float64) + normal(frames, 3, size=0.02),
        "neck_pose": normal(frames, 3, size=0.2),
        "expr": normal(frames, head.n_expression, size=0.3).abs(),
        "shape": normal(head.n_identity, size=0.7),
        "log_focal": torch.tensor([math.log(FOCAL)], dtype=torch.float64),
    }


def smooth_maps(frames: int, channels: int, size: int = 40) -> Tensor:
    """Random polynomials of second order: bilinear samples of them bend, so a wrong slope shows."""
    draw = torch.Generator().manual_seed(4)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size, dtype=torch.float64)] * 2, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])
    return torch.einsum("fck,khw->fchw", torch.randn(frames, channels, 6, dtype=torch.float64, generator=draw), basis)


def check_derivatives(residual: Callable, values: Values, step: float = 1e-7) -> None:
    """Every entry of every Jacobian against central differences."""
    base = residual(values, frozenset(FREE))
    assert torch.isfinite(base.residual).all() and base.residual.abs().max() > 1e-3
    for name in FREE:
        analytic = base.jacobians[name]
        for column in range(values[name].shape[-1]):
            moved = []
            for sign in (1, -1):
                changed = values[name].clone()
                changed[..., column] += sign * step
                moved.append(residual(values | {name: changed}, frozenset()).residual)
            numeric = (moved[0] - moved[1]) / (2 * step)
            scale = numeric.abs().max().clamp_min(1e-6)
            assert ((analytic[..., column] - numeric).abs().max() / scale) < 1e-5, (name, column)


@pytest.fixture(scope="module")
def places() -> HeadModel:
    asset = tiny_head()
    return HeadModel.from_asset(asset, "cpu", torch.float64).at_points(spread_sites(asset, 40).embedding)


def test_look_up_derivatives(places):
    draw = torch.Generator().manual_seed(5)
    n = len(places.template)
    residual = ReprojectionResidual(
        places,
        offsets=0.01 * torch.randn(2, n, 3, dtype=torch.float64, generator=draw),
        targets=200 + 100 * torch.rand(2, n, 2, dtype=torch.float64, generator=draw),
        precision=torch.rand(2, n, dtype=torch.float64, generator=draw),
        principal_point=CENTRE,
    )
    check_derivatives(residual, random_values(places))


@pytest.mark.parametrize("channels", [1, 3], ids=["outline", "locations and colours"])
def test_map_derivatives(places, channels):
    draw = torch.Generator().manual_seed(6)
    n = len(places.template)
    # a turned crop, so that a mixed-up row and column would show
    to_map = torch.tensor([[0.07, 0.02, -2.0], [-0.02, 0.07, 6.0]], dtype=torch.float64).expand(2, 2, 3)
    residual = MapResidual(
        places,
        expected=torch.randn(n, channels, dtype=torch.float64, generator=draw),
        precision=torch.rand(2, n, dtype=torch.float64, generator=draw),
        maps=smooth_maps(2, channels),
        to_map=to_map,
        principal_point=CENTRE,
    )
    check_derivatives(residual, random_values(places))


def test_left_out_places_say_nothing(places):
    n = len(places.template)
    precision = torch.ones(2, n, dtype=torch.float64)
    precision[:, 7] = 0
    zeros = torch.zeros(2, n, 3, dtype=torch.float64)
    out = ReprojectionResidual(places, zeros[..., :2], precision, CENTRE, zeros)(random_values(places), frozenset({"rotation"}))
    assert (out.residual[:, 7] == 0).all() and (out.jacobians["rotation"][:, 7] == 0).all()
    assert (out.residual[:, 6] != 0).all()


def test_samples_lie_between_pixel_centres():
    ramp = torch.arange(12.0).reshape(1, 1, 3, 4)
    values, slopes = sample_map(ramp, torch.tensor([[[0.5, 0.5], [2.0, 1.5], [3.5, 2.5], [5.5, 0.5]]]))
    # the last lies two pixels beyond the border: the map goes on straight
    assert torch.allclose(values[0, :, 0], torch.tensor([0.0, 5.5, 11.0, 5.0]))
    assert torch.allclose(slopes[0, :, 0], torch.tensor([1.0, 4.0]).expand(4, 2))


# --- what they put right --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scene:
    """The default head at known parameters, and what a perfect network says about it."""

    head: HeadModel
    surface: DensePoints
    seen: DenseBatch
    skin: SkinPoints
    pictures: PictureBatch
    truth: Values

    def state(self, values: Values, appearance: Appearance | None = None, **seen: Tensor) -> FitState:
        """At ``values``; ``seen`` replaces what the network said."""
        frames = len(values["rotation"])
        points, depth = torch.zeros(frames, 478, 2), torch.zeros(frames, 478)
        dense = dataclasses.replace(self.seen, **seen)
        batch = FrameBatch(points, depth, torch.arange(frames, dtype=torch.float64), dense=dense, pictures=self.pictures)
        none = torch.empty(0, dtype=torch.long)
        head = FitHead(self.head, self.surface.points, none, torch.empty(0, 3), self.surface, self.skin)
        per_metre = FOCAL / (1 - values["translation"][:, 2])
        return FitState(head, batch, values, frozenset(), per_metre, FocalPrior(FOCAL, 0.0, CENTRE), None, appearance)

    def visible(self, points: HeadModel, to_map: Tensor, size: int, values: Values) -> Tensor:
        return visible_places(self.head, points, to_map, (size, size), values, CENTRE, get_renderer("cpu", "cpu"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    """Three views: from the front, half from the side, and a profile."""
    asset = load_head(None)
    head = HeadModel.from_asset(asset, "cpu", torch.float32)
    sites = spread_sites(asset, 400)
    frames = 3
    truth = {
        "rotation": torch.tensor([[0.05, 0.1, 0.02], [0.1, -0.7, 0.05], [-0.1, 1.3, 0.0]]),
        "translation": torch.tensor([[0.0, 0.0, 0.4], [0.03, -0.02, 0.42], [-0.02, 0.01, 0.38]]),
        "neck_pose": torch.tensor([[0.0, 0.0, 0.0], [0.0, -0.2, 0.05], [0.1, 0.15, 0.0]]),
        "expr": torch.zeros(frames, head.n_expression),
        "shape": 0.7 * torch.randn(head.n_identity, generator=torch.Generator().manual_seed(8)),
        "log_focal": torch.tensor([math.log(FOCAL)]),
    }
    albedo = stripes(asset.v_template)
    light = torch.zeros(9, 3)
    light[0], light[1], light[2] = 0.8, 0.25, 0.15
    crops, images = zip(*(lit_picture(asset, head, truth, f, CENTRE, albedo, light) for f in range(frames)), strict=True)
    records = {f: perfect_record(asset, head, truth, f, CENTRE) for f in range(frames)}
    settings = ObserveSettings(error_floor=0.003)
    with observed(tmp_path_factory.mktemp("store"), [None] * frames, records, settings) as observations:
        dense = reader(observations, sites)(torch.arange(frames)).dense
    assert dense is not None
    size = images[0].shape[0]
    to_map = [np.linalg.inv(np.vstack([c.matrix(size), [0, 0, 1]]))[:2] for c in crops]
    pictures = PictureBatch(
        torch.as_tensor(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        torch.ones(frames, size, size),
        torch.as_tensor(np.stack(to_map), dtype=torch.float32),
        torch.ones(frames, dtype=torch.bool),
    )
    skin = SkinPoints.build(asset, head, spread_points(asset, skin_triangles(asset), 1200))
    return Scene(head, DensePoints.build(head, sites), dense, skin, pictures, truth)


def stripes(template: np.ndarray) -> np.ndarray:
    """Skin with soft spots of different sizes, so that every shift changes colours."""
    waves = np.sin(template @ np.array([[160.0, 40, 90], [-60, 190, 50], [30, 70, 140]]))
    return (np.array([0.7, 0.5, 0.4]) + 0.12 * waves).astype(np.float32)


def rotation_error_deg(found: Values, truth: Values) -> Tensor:
    def skull(values: Values) -> Tensor:
        return axis_angle_to_matrix(values["rotation"]) @ axis_angle_to_matrix(values["neck_pose"])

    trace = torch.einsum("fab,fab->f", skull(found), skull(truth))
    return torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos())


def pixel_error(scene: Scene, found: Values) -> Tensor:
    """Mean distance in the picture of the head's places from where they truly are."""

    def pixels(values: Values) -> Tensor:
        positions = HeadPoints.evaluate(scene.surface.points, values).positions
        return project(positions, values["log_focal"].exp().expand(len(positions)), CENTRE)[0]

    return (pixels(found) - pixels(scene.truth)).norm(dim=-1).mean(1)


def turned(values: Values, degrees: float, shift: float, seed: int = 0) -> Values:
    """Wrong by an angle about random axes and by a distance (metres) in random directions."""
    draw = torch.Generator().manual_seed(seed)
    frames = len(values["rotation"])
    axes, way = (torch.nn.functional.normalize(torch.randn(frames, 3, generator=draw), dim=1) for _ in range(2))
    wrong = axis_angle_to_matrix(math.radians(degrees) * axes) @ axis_angle_to_matrix(values["rotation"])
    return values | {"rotation": matrix_to_axis_angle(wrong), "translation": values["translation"] + shift * way}


RIGID = [Variable("rotation"), Variable("translation")]


def test_look_up_recovers_a_pose_that_is_far_off(scene):
    start = turned(scene.truth, 25, 0.04)
    assert rotation_error_deg(start, scene.truth).min() > 20
    [term] = look_up.terms(scene.state(start), look_up.LookUpSettings())
    found = solve([term], RIGID, start, SolverConfig(max_iterations=20)).values
    assert rotation_error_deg(found, scene.truth).max() < 0.7
    assert (found["translation"] - scene.truth["translation"]).norm(dim=1).max() < 0.01


def test_look_up_finds_the_shape(scene):
    """Ears, scalp and neck of another person than the mean."""
    start = scene.truth | {"shape": torch.zeros_like(scene.truth["shape"])}
    terms = [
        *look_up.terms(scene.state(start), look_up.LookUpSettings()),
        Term("prior", PriorResidual("shape", 1.0)),
    ]
    found = solve(terms, [*RIGID, Variable("shape", shared=True)], start, SolverConfig(max_iterations=20)).values
    error = [(scene.head.with_shape(v["shape"]).vertices - scene.head.with_shape(scene.truth["shape"]).vertices) for v in (start, found)]
    before, after = (e.norm(dim=-1).mean() for e in error)
    assert after < 0.4 * before


def test_look_up_tells_the_neck_from_the_head(scene):
    start = scene.truth | {"neck_pose": torch.zeros(3, 3)}
    [term] = look_up.terms(scene.state(start), look_up.LookUpSettings())
    found = solve([term], [*RIGID, Variable("neck_pose")], start, SolverConfig(max_iterations=20)).values
    assert (found["neck_pose"] - scene.truth["neck_pose"]).abs().max() < 0.05


def test_render_and_compare_refines_a_pose(scene):
    start = turned(scene.truth, 4, 0.005)
    values = start
    for _ in range(3):  # visible places are those of the pose at hand
        [term] = compare.terms(scene.state(values), compare.CompareSettings())
        values = solve([term], RIGID, values, SolverConfig(max_iterations=8)).values
    assert rotation_error_deg(values, scene.truth).max() < 0.7
    assert pixel_error(scene, values).max() < 0.8


def test_outline_puts_place_and_size_right(scene):
    """The outline alone cannot see a turn about the line of sight of a round head; shift and distance it can."""
    start = scene.truth | {"translation": scene.truth["translation"] + torch.tensor([0.006, -0.006, -0.03])}
    values = start
    for _ in range(4):  # which places lie on the outline changes as the head moves
        [term] = outline.terms(scene.state(values), outline.OutlineSettings())
        values = solve([term], [Variable("translation")], values, SolverConfig(max_iterations=8)).values
    before, after = pixel_error(scene, start), pixel_error(scene, values)
    assert (after < 0.3 * before).all() and after.max() < 1.5
    assert torch.equal(values["rotation"], start["rotation"])  # nothing but the place was free


def test_photometric_refines_a_pose(scene):
    look = photometric.look_at_skin(scene.state(scene.truth))
    appearance = estimate_appearance(look.colours, look.normals, look.weight)
    start = turned(scene.truth, 1.5, 0.002, seed=4)
    values = start
    for _ in range(3):
        [term] = photometric.terms(scene.state(values, appearance), photometric.PhotometricSettings())
        values = solve([term], RIGID, values, SolverConfig(max_iterations=8)).values
    before, after = pixel_error(scene, start), pixel_error(scene, values)
    assert (after < 0.35 * before).all(), (before, after)
    assert (rotation_error_deg(values, scene.truth) < 0.5 * rotation_error_deg(start, scene.truth)).all()


def test_places_behind_the_head_are_not_seen(scene):
    visible = scene.visible(scene.surface.points, scene.seen.to_map, 64, scene.truth)
    x = scene.surface.canonical[:, 0]
    left, right = visible[:, x > x.median() + 0.15].mean(1), visible[:, x < x.median() - 0.15].mean(1)
    # frame 1 is turned to the subject's right and shows the left half; frame 2 the other way round
    assert left[1] > 3 * right[1] and right[2] > 3 * left[2]


def test_hands_and_glasses_hardly_move_the_fit(scene):
    """A quarter of the places are said to be elsewhere, all in the same direction."""
    start = turned(scene.truth, 10, 0.02)
    spoilt = scene.seen.pixels.clone()
    spoilt[:, ::4] += 60
    [term] = look_up.terms(scene.state(start, pixels=spoilt), look_up.LookUpSettings())
    robust = solve([term], RIGID, start, SolverConfig(max_iterations=30)).values
    plain = solve([Term("squares", term.residual)], RIGID, start, SolverConfig(max_iterations=30)).values
    assert isinstance(term.kernel, GemanMcClure)
    assert rotation_error_deg(robust, scene.truth).max() < 1.0
    assert pixel_error(scene, robust).max() < 0.2 * pixel_error(scene, plain).min()


def test_affine_alignment_needs_no_start(scene):
    """Closed form, from places alone; right to within what perspective and an unknown shape leave."""
    rest = scene.surface.points.with_shape(scene.truth["shape"])
    trust = (scene.seen.precision > 0).float()
    found = align_affine(rest.vertices + scene.seen.offsets, rest.joints[0], scene.seen.pixels, trust, FOCAL, CENTRE)
    wanted = scene.truth
    angle = rotation_error_deg({"rotation": found.rotation, "neck_pose": torch.zeros(3, 3)}, wanted)
    assert angle.max() < 12
    # exact for points under scaled-orthographic projection, whatever share of them is missing
    turn = axis_angle_to_matrix(torch.tensor([[0.2, 1.2, -0.3]]))
    points = torch.randn(1, 60, 3, generator=torch.Generator().manual_seed(0)) * 0.08
    pixels = torch.einsum("fab,fnb->fna", turn, points)[..., :2] * torch.tensor([900.0, -900.0]) + torch.tensor(CENTRE)
    weight = torch.ones(1, 60)
    weight[:, 20:] = 0
    pixels[:, 20:] = 1e4
    exact = align_affine(points, torch.zeros(3), pixels, weight, FOCAL, CENTRE)
    assert (axis_angle_to_matrix(exact.rotation) - turn).abs().max() < 1e-3
    assert exact.pixels_per_metre.item() == pytest.approx(900, rel=1e-3)
