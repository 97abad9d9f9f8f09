"""Differentiable rendering with nvdiffrast's four primitives on interchangeable backends.

    from tracker.rendering import get_renderer

    renderer = get_renderer("auto")
    rast = renderer.rasterize(pos, tri, (height, width))   # clip space in, (u, v, z/w, triangle + 1) out
    color = renderer.interpolate(vertex_colors, rast, tri)
    color = renderer.antialias(color, rast, pos, tri)      # smooth outlines that carry gradients to pos
    picture = to_image(color)                              # row 0 on top, once, at the very end

``docs/rendering.md`` defines every convention; ``clip_space`` builds clip-space positions from the project's camera.
"""

from __future__ import annotations

from tracker.rendering.antialias import antialias_edges
from tracker.rendering.backends import BackendName, available_backends, get_renderer
from tracker.rendering.clip_space import (
    camera_to_clip,
    clip_to_pixels,
    perspective,
    to_image,
    vertex_normals,
    world_to_clip,
)
from tracker.rendering.devices import Device, resolve_device
from tracker.rendering.renderer import Renderer
from tracker.rendering.topology import EdgeTopology, build_topology
from tracker.rendering.visibility import visible_points

__all__ = [
    "BackendName",
    "Device",
    "EdgeTopology",
    "Renderer",
    "antialias_edges",
    "available_backends",
    "build_topology",
    "camera_to_clip",
    "clip_to_pixels",
    "get_renderer",
    "perspective",
    "resolve_device",
    "to_image",
    "vertex_normals",
    "visible_points",
    "world_to_clip",
]
