"""Vertex normals: the one version for arrays against the one for tensors, and against a surface whose normals are known."""

from __future__ import annotations

import numpy as np
import torch
from trimesh.creation import icosphere

from flame_assets.normals import vertex_normals
from tests.heads import tiny_head
from tracker.export.surface import unit_normals
from tracker.rendering.clip_space import vertex_normals as normals_of_tensors


def test_arrays_and_tensors_agree():
    head = tiny_head()
    vertices = head.v_template.astype(np.float64)
    expected = normals_of_tensors(torch.as_tensor(vertices), torch.as_tensor(head.faces)).numpy()
    np.testing.assert_allclose(vertex_normals(vertices, head.faces), expected, atol=1e-12)


def test_a_sphere_points_outwards():
    ball = icosphere(4)
    np.testing.assert_allclose(vertex_normals(0.1 * ball.vertices + 1, ball.faces), ball.vertices, atol=0.01)  # no normal is off by a degree


def test_large_triangles_count_for_more():
    """Two triangles of a right angle meet at the origin; the one of area 2 lies flat, the one of area 1/2 stands."""
    vertices = np.array([(0, 0, 0), (2, 0, 0), (0, 2, 0), (0, 1, 0), (0, 0, 1)], float)
    normals = vertex_normals(vertices, np.array([(0, 1, 2), (0, 3, 4)]))
    np.testing.assert_allclose(normals[0], np.array([1, 0, 4]) / np.sqrt(17))


def test_vertices_without_area():
    vertices = np.array([(0, 0, 0), (1, 0, 0), (2, 0, 0), (5, 5, 5)], float)
    faces = np.array([(0, 1, 2)])
    assert (vertex_normals(vertices, faces) == 0).all()
    np.testing.assert_array_equal(unit_normals(vertices, faces), [(0, 0, 1)] * 4)
