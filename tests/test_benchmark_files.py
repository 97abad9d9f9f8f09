"""Other trackers' files, written here as their documentation describes them, and read back onto the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tests.heads import tiny_head
from tracker.camera import CAMERA_POSITION
from tracker.errors import UserError
from tracker.evaluation.baselines.files import read_result
from tracker.head_model import HeadModel

FRAMES, HEIGHT, WIDTH, FOCAL = 3, 240, 320, 400.0


@pytest.fixture(scope="module")
def parts() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    head = tiny_head()
    return {
        "rotation": rng.normal(0, 0.3, (FRAMES, 3)),
        "translation": np.array([0.02, 0.01, 0.3]) + rng.normal(0, 0.02, (FRAMES, 3)),
        "jaw": rng.normal(0, 0.1, (FRAMES, 3)),
        "eyes": rng.normal(0, 0.2, (FRAMES, 6)),
        "shape": rng.normal(0, 1, head.n_identity),
        "expr": rng.random((FRAMES, head.n_expression)),
    }


def rest(parts: dict[str, np.ndarray]) -> np.ndarray:
    """Vertices with everything but the head's own rotation and translation, from the head model itself."""
    model = HeadModel.from_asset(tiny_head(), "cpu", torch.float64)
    shaped = model.with_shape(torch.as_tensor(parts["shape"]), torch.as_tensor(parts["expr"]))
    zero = torch.zeros(FRAMES, 3, dtype=torch.float64)
    posed = shaped.with_pose(zero, zero, torch.as_tensor(parts["jaw"]), torch.as_tensor(parts["eyes"]))
    return posed.skin(zero).numpy()


def rows(vectors: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix()[:, :2].reshape(len(vectors), -1)


def write_metrical(folder: Path, parts: dict[str, np.ndarray], turn: np.ndarray, shift: np.ndarray) -> None:
    folder.mkdir()
    k = np.array([[FOCAL, 0, WIDTH / 2 + 3], [0, FOCAL, HEIGHT / 2 - 2], [0, 0, 1]])
    for f in range(FRAMES):
        content = {
            "flame": {
                "exp": parts["expr"][f][None].astype(np.float32),
                "shape": parts["shape"][None].astype(np.float32),
                "eyes": rows(parts["eyes"][f][None].reshape(2, 3)).reshape(1, 12).astype(np.float32),
                "jaw": rows(parts["jaw"][f][None]).astype(np.float32),
                "eyelids": np.zeros((1, 2), np.float32),
            },
            "opencv": {"R": turn[f][None].astype(np.float32), "t": shift[f][None].astype(np.float32), "K": k[None].astype(np.float32)},
            "img_size": np.array([HEIGHT, WIDTH]),
            "frame_id": f"{f:05d}",
            "global_step": f,
        }
        torch.save(content, folder / f"{f:05d}.frame")


def test_metrical_tracker_lands_on_its_own_pixels(parts, tmp_path):
    turn = Rotation.from_euler("x", 180, degrees=True).as_matrix() @ Rotation.from_rotvec(parts["rotation"]).as_matrix()
    shift = np.array([0.01, -0.02, 0.7]) + np.zeros((FRAMES, 3))
    write_metrical(tmp_path / "checkpoint", parts, turn, shift)
    tracked = read_result(tmp_path / "checkpoint", tiny_head(), 25.0)
    camera_space = np.einsum("fab,fnb->fna", turn, rest(parts)) + shift[:, None]  # OpenCV axes
    wanted = FOCAL * camera_space[..., :2] / camera_space[..., 2:] + [WIDTH / 2 + 3, HEIGHT / 2 - 2]
    np.testing.assert_allclose(tracked.pixels(tracked.vertices), wanted, atol=0.02)
    assert tracked.track.timestamps[1] == pytest.approx(0.04)


def test_vhap_lands_on_its_own_pixels(parts, tmp_path):
    zero = np.zeros((FRAMES, 3), np.float32)
    file = tmp_path / "tracked_flame_params_30.npz"
    np.savez(
        file, rotation=parts["rotation"], neck_pose=zero, jaw_pose=parts["jaw"], eyes_pose=parts["eyes"],
        translation=parts["translation"], shape=np.pad(parts["shape"], (0, 300 - len(parts["shape"]))),
        expr=np.pad(parts["expr"], ((0, 0), (0, 100 - parts["expr"].shape[1]))), image_size=np.array([HEIGHT, WIDTH]),
        focal_length=np.array([FOCAL / WIDTH]), timestep_id=np.array(["0", "1", "2"]), n_processed_frames=0,
    )  # fmt: skip
    tracked = read_result(file, tiny_head(), 30.0)
    model = HeadModel.from_asset(tiny_head(), "cpu", torch.float64)
    # expressions move the root joint slightly: each frame has its own
    shaped = model.with_shape(torch.as_tensor(parts["shape"]), torch.as_tensor(parts["expr"]))
    root = np.broadcast_to(shaped.joints.numpy().reshape(-1, 5, 3)[:, 0], (FRAMES, 3))
    turned = np.einsum("fab,fnb->fna", Rotation.from_rotvec(parts["rotation"]).as_matrix(), rest(parts) - root[:, None])
    space = turned + root[:, None] + parts["translation"][:, None] - np.asarray(CAMERA_POSITION)
    wanted = FOCAL * space[..., :2] / -space[..., 2:] * [1, -1] + [WIDTH / 2, HEIGHT / 2]
    np.testing.assert_allclose(tracked.pixels(tracked.vertices), wanted, atol=0.02)


def test_pixel3dmm_lands_on_its_own_pixels(parts, tmp_path):
    turn, shift = Rotation.from_rotvec(parts["rotation"]).as_matrix(), parts["translation"] - [0, 0, 0.3]
    base, base_shift = Rotation.from_euler("y", 12, degrees=True).as_matrix(), np.array([0.01, -0.02, -0.9])
    (tmp_path / "frames").mkdir()
    neck = np.random.default_rng(1).normal(0, 0.1, (FRAMES, 3))
    for f in range(FRAMES):
        flame = {
            "exp": parts["expr"][f][None], "shape": parts["shape"][None], "eyelids": np.zeros((1, 2)),
            "eyes": rows(parts["eyes"][f].reshape(2, 3)).reshape(1, 12), "jaw": rows(parts["jaw"][f][None]),
            "neck": rows(neck[f][None]), "R": rows(parts["rotation"][f][None]), "R_rotation_matrix": turn[f][None], "t": shift[f][None],
        }  # fmt: skip
        camera = {"R_base_0": base[None], "t_base_0": base_shift[None], "fl": np.array([[3.9]]), "pp": np.array([[0.02, -0.01]])}
        content = {"flame": flame, "camera": camera, "frame_id": f}
        torch.save(
            {k: {n: v.astype(np.float32) for n, v in p.items()} if isinstance(p, dict) else p for k, p in content.items()},
            tmp_path / "frames" / f"{f:05d}.frame",
        )
    tracked = read_result(tmp_path / "frames", tiny_head(), 25.0)
    model = HeadModel.from_asset(tiny_head(), "cpu", torch.float64)
    zero = torch.zeros(FRAMES, 3, dtype=torch.float64)
    shaped = model.with_shape(torch.as_tensor(parts["shape"]), torch.as_tensor(parts["expr"]))
    posed = shaped.with_pose(zero, *(torch.as_tensor(v) for v in (neck, parts["jaw"], parts["eyes"]))).skin(zero).numpy()
    world = np.einsum("fab,fnb->fna", turn, posed) + shift[:, None]
    space = world @ base.T + base_shift
    wanted = 3.9 * 256 * space[..., :2] / -space[..., 2:] * [1, -1] + [128.5 + 0.02 * 128.5, 128.5 - 0.01 * 128.5]
    np.testing.assert_allclose(tracked.pixels(tracked.vertices), wanted, atol=0.02)


def test_smirk_lands_near_its_own_pixels(parts, tmp_path):
    """Its camera is orthographic; ours stands ten metres away."""
    cam = np.array([[7.0, 0.01, -0.02], [7.5, 0.0, 0.01], [6.8, -0.01, 0.0]])
    file = tmp_path / "smirk.npz"
    np.savez(
        file, pose_params=parts["rotation"], cam=cam, shape_params=np.tile(parts["shape"], (FRAMES, 1)),
        expression_params=parts["expr"], jaw_params=parts["jaw"], eyelid_params=np.zeros((FRAMES, 2)),
    )  # fmt: skip
    tracked = read_result(file, tiny_head(), 25.0)
    model = HeadModel.from_asset(tiny_head(), "cpu", torch.float64)
    zero = torch.zeros(FRAMES, 3, dtype=torch.float64)
    shaped = model.with_shape(torch.as_tensor(parts["shape"]), torch.as_tensor(parts["expr"]))
    posed = shaped.with_pose(torch.as_tensor(parts["rotation"]), zero, torch.as_tensor(parts["jaw"])).skin(zero).numpy()
    wanted = 112 + 112 * cam[:, None, :1] * (posed[..., :2] + cam[:, None, 1:]) * [1, -1]
    assert np.abs(tracked.pixels(tracked.vertices) - wanted).max() < 0.015 * 224


def test_wrong_files_give_one_line(parts, tmp_path):
    head = tiny_head()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \*\.frame"):
        read_result(tmp_path / "empty", head, 25.0)
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(UserError, match="lacks rotation"):
        read_result(tmp_path / "other.npz", head, 25.0)
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="not a readable"):
        read_result(tmp_path / "broken.npz", head, 25.0)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "00000.frame").write_bytes(b"no pickle")
    with pytest.raises(UserError, match=r"00000\.frame"):
        read_result(tmp_path / "bad", head, 25.0)


def test_a_frame_that_would_execute_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "evil").mkdir()
    torch.save({"flame": Evil()}, tmp_path / "evil" / "00000.frame")
    with pytest.raises(UserError, match="safely"):
        read_result(tmp_path / "evil", tiny_head(), 25.0)
    assert not (tmp_path / "executed").exists()


def test_coefficients_that_the_head_does_not_have_are_refused(parts, tmp_path):
    turn, shift = np.tile(np.eye(3), (FRAMES, 1, 1)), np.ones((FRAMES, 3))
    more = parts | {"expr": np.ones((FRAMES, 50))}
    write_metrical(tmp_path / "checkpoint", more, turn, shift)
    with pytest.raises(UserError, match="50 coefficients"):
        read_result(tmp_path / "checkpoint", tiny_head(), 25.0)
