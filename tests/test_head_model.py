"""The head model against smplx's FLAME, its own invariants, and its derivatives."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from smplx import FLAME

from flame_assets.asset import HeadAsset, LandmarkEmbedding
from flame_assets.flame_files import find_flame_files, read_flame
from flame_assets.load import load_head
from tests.heads import tiny_head
from tracker.head_model import HeadModel
from tracker.head_points import HeadPoints
from tracker.residuals.reprojection import ReprojectionResidual
from tracker.rotations import axis_angle_to_matrix, left_jacobian, matrix_to_axis_angle

POSES = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}


def write_official_layout(asset: HeadAsset, folder: Path) -> Path:
    """The head's arrays as an official FLAME pickle (300 identity + 100 expression directions, the unused ones zero)."""
    dirs = np.zeros((asset.n_vertices, 3, 400), np.float32)
    s, e = asset.n_identity, asset.n_expression
    dirs[:, :, :s], dirs[:, :, 300 : 300 + e] = asset.shapedirs[:, :, :s], asset.shapedirs[:, :, s:]
    model = {
        "f": asset.faces.astype(np.uint32),
        "v_template": asset.v_template,
        "shapedirs": dirs,
        "posedirs": asset.posedirs,
        "J_regressor": asset.joint_regressor,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        "weights": asset.weights,
    }
    path = folder / "FLAME_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(model, protocol=2))
    static = {"lmk_face_idx": np.zeros(51, np.int64), "lmk_b_coords": np.full((51, 3), 1 / 3, np.float32)}
    (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(static, protocol=2))
    return path


def random_pose(batch: int, asset: HeadAsset, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = {name: 0.4 * torch.randn(batch, size, generator=generator) for name, size in POSES.items()}
    values["identity"] = torch.randn(batch, asset.n_identity, generator=generator)
    values["expression"] = torch.rand(batch, asset.n_expression, generator=generator)
    return values


def ours(model: HeadModel, v: dict[str, torch.Tensor]) -> torch.Tensor:
    posed = model.with_shape(v["identity"], v["expression"]).with_pose(
        v["rotation"], v["neck_pose"], v["jaw_pose"], v["eyes_pose"]
    )
    return posed.skin(v["translation"])


def assert_equals_smplx(asset: HeadAsset, folder: Path) -> None:
    values = random_pose(3, asset)
    reference = FLAME(str(folder), num_betas=asset.n_identity, num_expression_coeffs=asset.n_expression, use_face_contour=False)
    theirs = reference(
        betas=values["identity"],
        expression=values["expression"],
        global_orient=values["rotation"],
        neck_pose=values["neck_pose"],
        jaw_pose=values["jaw_pose"],
        leye_pose=values["eyes_pose"][:, :3],
        reye_pose=values["eyes_pose"][:, 3:],
        transl=values["translation"],
    ).vertices
    mine = ours(HeadModel.from_asset(asset), values)
    assert (mine - theirs).abs().max().item() < 1e-5
    assert (mine - torch.as_tensor(asset.v_template)).abs().max().item() > 0.05  # the pose did something


def test_default_head_equals_smplx(tmp_path):
    asset = load_head(None)
    write_official_layout(asset, tmp_path)
    assert_equals_smplx(asset, tmp_path)


def test_official_layout_file_equals_smplx(tmp_path):
    """smplx and our reader open the same file; all 300 + 100 directions are exercised."""
    asset = tiny_head(identity=300, expressions=tuple(f"e{i}" for i in range(100)))
    path = write_official_layout(asset, tmp_path)
    read = read_flame(find_flame_files(path))
    assert (read.n_identity, read.n_expression) == (300, 100)
    assert_equals_smplx(read, tmp_path)


def test_any_batch_axes_and_stateless():
    asset = tiny_head()
    model = HeadModel.from_asset(asset)
    values = random_pose(6, asset)
    flat = ours(model, values)
    nested = ours(model, {k: v.reshape(2, 3, -1) for k, v in values.items()})
    assert nested.shape == (2, 3, asset.n_vertices, 3)
    assert torch.equal(nested.reshape(flat.shape), flat)
    single = ours(model, {k: v[4] for k, v in values.items()})
    assert torch.allclose(single, flat[4], atol=1e-6)
    assert torch.equal(ours(model, values), flat)


def test_shared_identity_broadcasts_against_many_poses():
    asset = tiny_head()
    model = HeadModel.from_asset(asset)
    values = random_pose(4, asset)
    one = values | {"identity": values["identity"][0]}
    many = values | {"identity": values["identity"][:1].expand(4, -1)}
    assert torch.allclose(ours(model, one), ours(model, many), atol=1e-6)


def test_rest_pose_is_the_template_and_translation_adds_after_rotation():
    asset = tiny_head()
    model = HeadModel.from_asset(asset, dtype=torch.float64)
    shaped = model.with_shape(torch.zeros(1, dtype=torch.float64))
    template = torch.as_tensor(asset.v_template, dtype=torch.float64)
    assert torch.allclose(shaped.with_pose().skin(), template)

    turn = torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64)
    move = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    pivot = model.joint_template[0]
    expected = (template - pivot) @ axis_angle_to_matrix(turn).T + pivot + move
    assert torch.allclose(shaped.with_pose(rotation=turn).skin(move), expected, atol=1e-12)


def test_too_many_coefficients_are_refused():
    model = HeadModel.from_asset(tiny_head())
    with pytest.raises(ValueError, match="coefficients"):
        model.with_shape(torch.zeros(model.n_identity + 1))


def test_points_on_the_mesh_stay_on_the_mesh():
    """The restricted model's points against interpolated skinned vertices, over the joints' range."""
    asset = load_head(None)
    model = HeadModel.from_asset(asset, dtype=torch.float64)
    embedding = asset.landmarks["mediapipe"]
    values = {k: v.double() * 0.8 for k, v in random_pose(4, asset).items()}
    values["jaw_pose"][:, 0] = torch.tensor([0.0, 0.2, 0.3, 0.1], dtype=torch.float64)
    values["jaw_pose"][:, 1:] *= 0.2
    vertices = ours(model, values)
    corners = vertices[:, model.faces.long()[torch.as_tensor(embedding.faces).long()]]
    expected = torch.einsum("lk,flkc->flc", torch.as_tensor(embedding.barycentrics).double(), corners)
    found = ours(model.at_points(embedding), values)
    distance = (found - expected).norm(dim=-1)
    assert distance.max().item() < 5e-4  # half a millimetre, where jaw and neck meet
    assert distance.median().item() < 1e-6


def test_analytic_derivatives_equal_automatic_ones():
    asset = tiny_head()
    rng = np.random.default_rng(0)
    count, frames = 30, 3
    corners = rng.dirichlet((1, 1, 1), count).astype(np.float32)
    embedding = LandmarkEmbedding(np.arange(count, dtype=np.int32), rng.integers(0, len(asset.faces), count), corners)
    points = HeadModel.from_asset(asset, dtype=torch.float64).at_points(embedding)
    pose = {k: v.double() for k, v in random_pose(frames, asset).items()}
    values = {
        **{k: pose[k] for k in POSES},
        "expr": pose["expression"],
        "shape": pose["identity"][0],
        "log_focal": torch.tensor([6.5], dtype=torch.float64),
    }
    residual = ReprojectionResidual(
        points,
        torch.as_tensor(rng.normal(size=(frames, count, 2)) * 50),
        torch.as_tensor(rng.random((frames, count))),
        (100.0, 80.0),
    )
    names = list(values)
    analytic = residual(values, frozenset(names)).jacobians

    def flat(*tensors: torch.Tensor) -> torch.Tensor:
        return residual(dict(zip(names, tensors, strict=True)), frozenset()).residual

    automatic = torch.autograd.functional.jacobian(flat, tuple(values.values()))
    for name, expected in zip(names, automatic, strict=True):
        if name not in ("shape", "log_focal"):
            expected = torch.stack([expected[f, :, :, f] for f in range(frames)])
        scale = expected.abs().max().item()
        assert scale > 0, name
        # the derivatives assume skinning weights that sum to one; in float32 they do to seven digits
        assert (analytic[name] - expected).abs().max().item() < 1e-6 * scale, name


def test_head_points_agree_with_the_model():
    asset = tiny_head()
    model = HeadModel.from_asset(asset, dtype=torch.float64)
    pose = {k: v.double() for k, v in random_pose(2, asset).items()}
    values = {k: pose[k] for k in POSES} | {"expr": pose["expression"], "shape": pose["identity"][0]}
    expected = ours(model, pose | {"identity": pose["identity"][0]})
    assert torch.allclose(HeadPoints.evaluate(model, values).positions, expected, atol=1e-12)


def test_rotations_round_trip_and_differentiate():
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(50, 3, dtype=torch.float64, generator=generator)
    w[0], w[1] = 0, w[1] * 1e-5
    r = axis_angle_to_matrix(w)
    assert torch.allclose(r @ r.mT, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(axis_angle_to_matrix(matrix_to_axis_angle(r)), r, atol=1e-7)
    small = 1e-6 * torch.randn(50, 3, dtype=torch.float64, generator=generator)
    moved = axis_angle_to_matrix(w + small)
    predicted = axis_angle_to_matrix((left_jacobian(w) @ small[..., None])[..., 0]) @ r
    assert torch.allclose(moved, predicted, atol=1e-10)


def test_gradient_at_the_identity_is_finite():
    w = torch.zeros(3, requires_grad=True)
    axis_angle_to_matrix(w)[2, 1].backward()
    assert torch.allclose(w.grad, torch.tensor([1.0, 0.0, 0.0]))
