"""Nearest neighbours in the cube and the tools built on them, on rendered heads whose coordinates are exact."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import trimesh

from densemarks_model import ModelError
from densemarks_model.crops import HeadCrop, center_crop
from densemarks_model.evaluation.network import Network
from densemarks_model.evaluation.queries import heat, region_places, vertex_places, warp_texture
from densemarks_model.evaluation.stereo import StereoCamera, read_cameras, reconstruct, triangulate
from densemarks_model.evaluation.still_pictures import HeadMaps, paste, read_picture, write_picture
from densemarks_model.matching import CubeIndex, mutual_matches, sample_bilinear
from flame_assets.load import load_head
from tools import evaluate_embeddings, highlight_region, stereo_points
from tools import warp_texture as warp_texture_tool
from tracker.camera import CAMERA_POSITION
from tracker.rendering import perspective, world_to_clip
from tracker.rendering.canvas import MeshCanvas

SIZE = 224
FOCAL = 560.0


def camera(yaw: float) -> StereoCamera:
    """0.8 m in front of the head's middle, ``yaw`` degrees around it; OpenCV's axes."""
    a = np.deg2rad(yaw)
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    rotation = np.diag([1.0, -1, -1]) @ turn
    middle = load_head().v_template.mean(0)
    extrinsics = np.concatenate([rotation, ([0, 0, 0.8] - rotation @ middle)[:, None]], 1)
    return StereoCamera(np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]]), extrinsics)


def render(view: StereoCamera) -> tuple[HeadMaps, np.ndarray]:
    """Exact maps of the default head, and the position in the world behind every pixel."""
    head = load_head()
    in_camera = head.v_template @ view.extrinsics[:, :3].T + view.extrinsics[:, 3]
    projection = perspective(FOCAL, SIZE / 2, SIZE / 2, SIZE, SIZE)
    in_world = in_camera * [1, -1, -1] + CAMERA_POSITION  # the renderer's own world, in OpenGL's axes
    clip = world_to_clip(torch.tensor(in_world, dtype=torch.float32), projection)
    canvas = MeshCanvas(SIZE, SIZE)
    shown = canvas.rasterize(clip.reshape(-1, 4).numpy(), head.faces)[::-1, :, 3] > 0
    maps = canvas.interpolate(np.concatenate([head.canonical, head.v_template], 1), head.faces)[::-1].copy()
    return HeadMaps(center_crop(SIZE, SIZE), maps[..., :3], shown.astype(np.float32)), maps[..., 3:].astype(np.float64)


@pytest.fixture(scope="module")
def pair() -> tuple[HeadMaps, HeadMaps, np.ndarray]:
    left, world = render(camera(-8))
    right, _ = render(camera(8))
    return left, right, world


def picture(maps: HeadMaps) -> np.ndarray:
    """Coordinates as colours."""
    return np.round(255 * maps.coordinates * maps.confidence[..., None]).astype(np.uint8)


@pytest.fixture
def colours(monkeypatch) -> None:
    """Tools open a network that reads coordinates off the picture's colours."""
    network = Network("colours", "numpy", lambda i: SimpleNamespace(coordinates=i / 255.0, confidence=(i.max(-1) > 0) * 1.0))
    for tool in (warp_texture_tool, highlight_region, stereo_points):
        monkeypatch.setattr(tool, "open_network", lambda name: network)


def test_bilinear_samples_by_hand():
    values = np.array([[0.0, 1.0], [2.0, 3.0]])
    points = np.array([[0.5, 0.5], [1.0, 1.0], [1.5, 1.0], [-9, -9], [9, 9]])
    np.testing.assert_allclose(sample_bilinear(values, points), [0, 1.5, 2, 0, 3])
    assert sample_bilinear(np.ones((1, 1, 3)), points).shape == (5, 3)


def test_the_index_finds_places_between_pixels():
    rows, columns = np.mgrid[:30, :40] + 0.5
    u, v = columns / 40, rows / 30
    coordinates = np.stack([u, v, 0.5 + 0.2 * np.sin(3 * u) * np.cos(2 * v)], -1)
    points = np.random.default_rng(0).uniform(2, 28, (200, 2))
    wanted = sample_bilinear(coordinates, points)
    index = CubeIndex(coordinates)
    coarse, fine = index.query(wanted, refine=False), index.query(wanted)
    assert np.abs(coarse.points - points).max() <= 0.8
    assert np.linalg.norm(fine.points - points, axis=1).max() < 1e-2 and fine.distance.max() < 1e-4
    assert (fine.distance <= coarse.distance + 1e-12).all()


def test_the_index_leaves_invalid_pixels_alone_and_stays_still_on_flat_maps():
    coordinates = np.zeros((4, 4, 3))
    coordinates[:, :, 0] = np.arange(4) / 4
    valid = np.ones((4, 4), bool)
    valid[:, :2] = False
    assert CubeIndex(coordinates, valid).query(np.zeros((1, 3)), refine=False).points[0, 0] == 2.5
    flat = CubeIndex(np.full((4, 4, 3), 0.5)).query(np.array([[0.6, 0.5, 0.5]]))
    assert np.isfinite(flat.points).all() and flat.distance[0] == pytest.approx(0.1)


def test_mutual_matches_follow_the_projected_surface(pair):
    left, right, world = pair
    found = mutual_matches(left.coordinates, left.confidence > 0, right.coordinates, right.confidence > 0)
    assert len(found.left) > 0.5 * (left.confidence > 0).sum()
    where = (found.left - 0.5).astype(int)
    expected, _ = camera(8).project(world[where[:, 1], where[:, 0]])
    error = np.linalg.norm(found.right - expected, axis=1)
    assert np.median(error) < 0.05 and np.mean(error) < 0.25
    empty = mutual_matches(left.coordinates, left.confidence > 2, right.coordinates, right.confidence > 0)
    assert empty.left.shape == (0, 2)


def test_triangulation_inverts_projection():
    points = np.random.default_rng(1).normal(0, 0.08, (50, 3))
    views = camera(-20), camera(15)
    np.testing.assert_allclose(triangulate(*views, *(v.project(points)[0] for v in views)), points, atol=1e-10)


def test_stereo_from_exact_coordinates_is_below_a_millimetre(pair):
    left, right, world = pair
    found = reconstruct(camera(-8), camera(8), left, right)
    where = (found.left - 0.5).astype(int)
    error = np.linalg.norm(found.points - world[where[:, 1], where[:, 0]], axis=1)
    print(f"stereo: {len(error)} points, mean error {1000 * error.mean():.3f} mm, worst {1000 * error.max():.1f} mm")
    assert len(error) > 0.4 * (left.confidence > 0).sum()
    assert error.mean() < 0.001
    assert found.reprojection.max() <= 2.0
    # a camera that is known wrongly: rays pass each other by ten pixels on either side
    intrinsics = camera(8).intrinsics + np.array([[0, 0, 0], [0, 0, 20], [0, 0, 0]])
    assert not len(reconstruct(camera(-8), StereoCamera(intrinsics, camera(8).extrinsics), left, right).points)


def test_the_stereo_tool_writes_coloured_points(pair, colours, tmp_path, capsys):
    left, right, _ = pair
    views = {}
    for side, maps, yaw in (("left", left, -8), ("right", right, 8)):
        write_picture(tmp_path / f"{side}.png", picture(maps))
        views[side] = {"intrinsics": camera(yaw).intrinsics.tolist(), "extrinsics": camera(yaw).extrinsics.tolist()}
    (tmp_path / "cameras.json").write_text(json.dumps(views))
    arguments = [f"--{k}={tmp_path / v}" for k, v in {"left": "left.png", "right": "right.png", "cameras": "cameras.json", "out": "points.ply"}.items()]
    assert stereo_points.main([*arguments, "--crop", "center"]) == 0
    cloud = trimesh.load(tmp_path / "points.ply")
    found, _ = camera(-8).project(np.asarray(cloud.vertices))
    own = sample_bilinear(picture(left), found)
    assert len(cloud.vertices) > 1000
    assert np.median(np.abs(np.asarray(cloud.colors)[:, :3] - own)) < 3
    assert "points" in capsys.readouterr().out and not list(tmp_path.glob(".*part*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"left": {}}', 'needs "left"'),
        ('{"left": {"intrinsics": [[1, 2]], "extrinsics": [[1]]}}', r"intrinsics are \(1, 2\)"),
        (json.dumps({"left": {"intrinsics": np.eye(3).tolist(), "extrinsics": np.ones((3, 4)).tolist()}}), "not a rotation"),
    ],
)
def test_wrong_cameras_are_refused(tmp_path, content, message):
    (tmp_path / "cameras.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        read_cameras(tmp_path / "cameras.json")


def test_warped_texture_shows_the_sources_colours_where_both_see_them(pair):
    left, right, _ = pair
    source, target = picture(left), np.full((SIZE, SIZE, 3), 30, np.uint8)
    warped = warp_texture(source, left, target, right)
    head = cv2.erode((right.confidence > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    changed = (warped != 30).any(-1)
    assert changed[head].mean() > 0.9 and not changed[right.confidence == 0].any()
    # the source's colours are coordinates, so those that arrive must be the target's own
    error = np.abs(warped.astype(float) - 255 * right.coordinates)[head & changed].max(-1)
    assert np.median(error) < 2 and np.mean(error < 8) > 0.9


def test_texture_that_the_source_does_not_show_is_not_invented():
    """A source seen from the subject's left has nothing for the right ear."""
    side, _ = render(camera(-80))
    front, _ = render(camera(0))
    warped = warp_texture(picture(side), side, np.full((SIZE, SIZE, 3), 30, np.uint8), front)
    changed = (warped != 30).any(-1)
    near = front.coordinates[..., 0][changed & (front.confidence > 0)]
    sides = (np.percentile(near, 5), np.percentile(near, 95))
    hidden = front.coordinates[..., 0] < 0.35 if np.mean(sides) > 0.5 else front.coordinates[..., 0] > 0.65
    assert changed[front.confidence > 0].mean() > 0.3
    assert changed[hidden & (front.confidence > 0)].mean() < 0.25


def test_highlights_lie_on_the_region(pair):
    left, _, _ = pair
    head = load_head()
    surface, nose = region_places(head, None), region_places(head, ["nose"])
    warm = heat(left, nose, surface, reach=0.01)
    pixels, depth = camera(-8).project(head.v_template[head.regions["nose"]])
    low, high = pixels.min(0) - 4, pixels.max(0) + 4
    rows, columns = np.nonzero(warm > 0.5)
    assert len(rows) > 100 and (depth > 0).all()
    assert (columns > low[0]).all() and (columns < high[0]).all() and (rows > low[1]).all() and (rows < high[1]).all()
    assert warm[left.confidence == 0].max() == 0
    # a network that sees everything 0.03 too near still means the nose, not its rim alone
    near, far = (HeadMaps(left.crop, left.coordinates + np.float32([0, 0, z]), left.confidence) for z in (0.03, 0.3))
    assert heat(near, nose, surface, 0.01)[warm > 0.5].mean() > 0.6 and heat(far, nose, surface, 0.01).max() < 0.1
    tip = int(head.v_template[:, 2].argmax())
    at = np.array(np.unravel_index(heat(left, vertex_places(head, [tip]), surface, 0.01).argmax(), warm.shape))[::-1] + 0.5
    assert np.linalg.norm(at - camera(-8).project(head.v_template[[tip]])[0][0]) < 1.5


def test_the_query_tools_write_pictures_and_explain_mistakes(pair, colours, tmp_path, capsys):
    left, right, _ = pair
    a, b, out = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "out.png"
    write_picture(a, picture(left))
    write_picture(b, picture(right))
    assert warp_texture_tool.main([f"--source={a}", f"--target={b}", f"--out={out}", "--crop=center", "--beside"]) == 0
    assert read_picture(out).shape == (SIZE, 3 * SIZE, 3)
    for what in ("--region=ears,nose", "--point=0.5,0.5,0.85", "--vertices=3,5"):
        assert highlight_region.main([what, f"--image={a}", f"--out={out}", "--crop=center"]) == 0
        assert read_picture(out).shape == (SIZE, SIZE, 3)
    assert highlight_region.main(["--list"]) == 0
    assert "scalp" in capsys.readouterr().out
    out.unlink()
    mistakes = [
        (["--region=tail"], "has no tail"),
        (["--point=1,2,3"], "three numbers from 0 to 1"),
        (["--vertices=x"], "not whole numbers"),
        (["--vertices=999999"], "not one of the head's vertices"),
        (["--region=nose", "--crop=face"], "no face was found"),
        (["--region=nose", f"--image={tmp_path / 'no.png'}"], "cannot be read"),
        (["--region=nose", f"--out={tmp_path / 'no' / 'x.png'}"], "does not exist"),
        (["--region=nose", f"--out={tmp_path / 'x.txt'}"], "ending must be"),
    ]
    for arguments, message in mistakes:
        assert highlight_region.main([f"--image={a}", f"--out={out}", "--crop=center", *arguments]) == 1
        said = capsys.readouterr().err
        assert message in said and said.startswith("error: ") and said.count("\n") == 1
    assert not out.exists()


def test_evaluating_a_network_that_does_not_exist_ends_with_one_line(tmp_path, capsys):
    assert evaluate_embeddings.main([f"--network={tmp_path / 'none.safetensors'}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "none.safetensors" in said and said.count("\n") == 1


def test_pasting_puts_a_crop_back_where_it_came_from():
    image = np.zeros((80, 100, 3), np.uint8)
    crop = HeadCrop(np.array([60.0, 30.0]), 40.0, 0.0)
    colour, opacity = np.full((20, 20, 3), 200.0), np.zeros((20, 20))
    opacity[5:15, 5:15] = 1
    pasted = paste(image, crop, colour, opacity)
    rows, columns = np.nonzero(pasted[..., 0] > 100)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (20, 40, 50, 70)
