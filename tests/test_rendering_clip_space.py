"""From the camera to clip space and back to the picture, normals, visibility."""

from __future__ import annotations

import pytest
import torch
from rendering_scenes import bumpy_ball, screen, to_clip, triangles

from tracker.camera import CAMERA_POSITION, project
from tracker.rendering import (
    clip_to_pixels,
    get_renderer,
    perspective,
    to_image,
    vertex_normals,
    visible_points,
    world_to_clip,
)

RENDERER = get_renderer("cpu")


def test_clip_space_lands_on_the_pixels_of_the_camera():
    points = torch.randn(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.2
    projection = perspective(torch.tensor(911.0, dtype=torch.float64), 301.5, 170.25, 640, 360)
    clip = world_to_clip(points, projection)
    expected, _ = project(points, 911.0, (301.5, 170.25))
    assert torch.allclose(clip_to_pixels(clip, 640, 360), expected, atol=1e-9)
    assert torch.allclose(clip[..., 3], CAMERA_POSITION[2] - points[..., 2])


def test_near_and_far_planes_are_at_the_ends_of_depth():
    clip = world_to_clip(torch.tensor([[0, 0, 1 - 0.2], [0, 0, 1 - 5.0]]), perspective(500.0, 8, 8, 16, 16, 0.2, 5.0))
    assert torch.allclose(clip[:, 2] / clip[:, 3], torch.tensor([-1.0, 1.0]), atol=1e-5)
    with pytest.raises(ValueError, match="0 < near < far"):
        perspective(500.0, 8, 8, 16, 16, 5.0, 0.2)


def test_focal_length_may_be_a_batch_and_is_differentiable():
    focal = torch.tensor([400.0, 800.0], requires_grad=True)
    clip = world_to_clip(torch.tensor([[[0.1, 0.05, 0.0]]]), perspective(focal, 50, 40, 100, 80))
    pixels = clip_to_pixels(clip, 100, 80)
    assert torch.allclose(pixels[:, 0], torch.tensor([[90.0, 20], [130, 0]]), atol=1e-4)
    pixels[..., 0].sum().backward()
    assert torch.allclose(focal.grad, torch.tensor([0.1, 0.1]))


def test_a_small_triangle_shows_at_its_full_frame_pixel():
    """A point of the world, through clip space, rasteriser and flip, ends in the pixel that the camera says."""
    width, height, focal = 64, 48, 70.0
    point = torch.tensor([0.15, 0.11, 0.05])
    corners = point + torch.tensor([[-0.025, -0.02, 0], [0.025, -0.02, 0], [0, 0.03, 0]])
    pos = world_to_clip(corners[None], perspective(focal, width / 2, height / 2, width, height))
    image = to_image(RENDERER.rasterize(pos, triangles((0, 1, 2)), (height, width)))[0]
    pixels, _ = project(point[None], focal, (width / 2, height / 2))
    u, v = pixels[0].tolist()
    assert image[int(v), int(u), 3] == 1
    rows, columns = image[..., 3].nonzero(as_tuple=True)
    assert (rows - v).abs().max() < 4 and (columns - u).abs().max() < 4


def test_normals_of_a_ball_point_outwards():
    vertices, tri = bumpy_ball(3, 0.0)
    ball = vertices / torch.tensor([0.09, 0.12, 0.10], dtype=torch.float64)
    both = vertex_normals(torch.stack([ball, 2 * ball]), tri)
    assert torch.allclose(both[0], ball, atol=0.02)
    assert torch.allclose(both[1], both[0], atol=1e-6)
    assert (vertex_normals(torch.zeros(3, 3), triangles((0, 1, 2))) == 0).all()


def test_points_behind_a_surface_are_not_visible():
    wall = screen([(0, 0, 0, 1), (8, 0, 0, 1), (8, 16, 0, 1), (0, 16, 0, 1)], 16, 16)
    tri = triangles((0, 1, 2), (0, 2, 3))
    rast = RENDERER.rasterize(wall, tri, (16, 16))
    cases = [
        ((4, 8, 0, 1.0), True),
        ((4, 8, 0, 0.9), True),
        ((4, 8, 0, 1.1), False),
        ((4, 8, 0, 1.002), True),
        ((12, 8, 0, 1.1), True),
        ((20, 8, 0, 1), False),
        ((4, 8, -2, 1), False),
    ]
    seen = visible_points(screen([place for place, _ in cases], 16, 16), rast, wall, tri)
    assert seen[0].tolist() == [expected for _, expected in cases]
    nothing = torch.zeros(0, 3, dtype=torch.int32)
    assert visible_points(wall, torch.zeros_like(rast), wall, nothing).all()


def test_visible_vertices_of_a_ball_are_those_that_face_the_camera():
    vertices, tri = bumpy_ball(4, 0.0)
    pos = to_clip(vertices)
    seen = visible_points(pos, RENDERER.rasterize(pos, tri, (256, 256)), pos, tri, tolerance=0.001)[0]
    toward = torch.tensor(CAMERA_POSITION, dtype=torch.float64) - vertices
    facing = (vertex_normals(vertices, tri) * torch.nn.functional.normalize(toward, dim=1)).sum(1)
    assert seen[facing > 0.1].all()
    assert not seen[facing < -0.3].any()
