"""Antialiasing driven by silhouette edges.

nvdiffrast's antialiasing starts from pairs of neighbouring pixels and looks for the silhouette among the edges of the
triangles that show in them. On a mesh with triangles about as large as pixels, those at the limb are slivers that no
pixel centre shows, so most of the outline, and most of its gradient, is missed. Here the edges come first:

1. An edge is a silhouette where its two triangles lie on the same side of it in the picture, or where it has only one.
2. A mostly vertical edge is intersected with every row of pixel centres it spans, a mostly horizontal one with every
   column. Each crossing falls between two pixel centres, at a fraction t of the way from the lower to the upper.
   (Within the rasteriser's rounding of a pixel centre, what that pixel shows decides which two.)
3. A crossing counts if the pixel on the triangles' side shows a triangle, and the other shows another surface farther
   away than the edge, or nothing. If several edges of the same facing cross between the same two centres, the outermost
   counts.
4. The pixel in which the crossing lies takes on the other's colour in proportion to how much of it that other side
   covers: 0.5 − t for the lower, t − 0.5 for the upper. This is continuous in the position of the edge.

Gradients flow to the colours, and through t to x, y and w of the two vertices of each edge. What is visible, and which
edges are silhouettes, is held fixed. Edges that reach behind the camera are left as they are. Where two surfaces pierce
each other there is no edge, so nothing is smoothed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from tracker.rendering.topology import EdgeTopology

_MIN_W = 1e-6
_DEPTH_TOLERANCE = 1e-6  # of z/w, which has the rounding errors of float32
_SNAP_PX = 1 / 16  # rasterisers round vertices by 1/32 px (nvdiffrast) or 1/512 px (cpu) before they decide coverage
_EXTENT_STEPS = 1 << 20  # how finely crossings between the same two pixels are told apart


def antialias_edges(
    color: Float[Tensor, "batch height width channels"],
    rast: Float[Tensor, "batch height width 4"],
    pos: Float[Tensor, "batch verts 4"],
    topology: EdgeTopology,
) -> Float[Tensor, "batch height width channels"]:
    """Smooth the silhouettes of a picture; see the module's story.

    Args:
        color: any channels, differentiable. rast: what the picture was made from. pos: clip space, differentiable.
        topology: edges of the triangles that were rasterised.
    """
    return _AntialiasEdges.apply(color, pos, rast, topology)


@dataclass(frozen=True)
class _Silhouettes:
    """Edges that may shape the outline. Vertices are numbered through all pictures.

    Attributes:
        first, second: vertices of each edge.
        inner_left: whether its triangles lie to the left of the way from first to second (y up).
        picture: which one.
    """

    first: Int64[Tensor, " edges"]
    second: Int64[Tensor, " edges"]
    inner_left: Bool[Tensor, " edges"]
    picture: Int64[Tensor, " edges"]


@dataclass(frozen=True)
class _Crossings:
    """Where silhouettes cross rows and columns of pixel centres. Pixels and vertices are numbered through all pictures.

    Attributes:
        lower, upper: the pixels on both sides.
        t: fraction of the way from lower to upper.
        first, second: vertices of the edge.
        share: weight of the second vertex at the crossing.
        normal: derivative of t by the position (x, y), in pixels, of the point that crosses.
    """

    lower: Int64[Tensor, " crossings"]
    upper: Int64[Tensor, " crossings"]
    t: Float[Tensor, " crossings"]
    first: Int64[Tensor, " crossings"]
    second: Int64[Tensor, " crossings"]
    share: Float[Tensor, " crossings"]
    normal: Float[Tensor, "crossings 2"]


def _find_silhouettes(
    pixel: Float[Tensor, "batch verts 2"], in_front: Bool[Tensor, "batch verts"], topology: EdgeTopology
) -> _Silhouettes:
    x, y = pixel[..., 0].contiguous(), pixel[..., 1].contiguous()
    (i, j), (k, m) = topology.edges.unbind(1), topology.opposite.unbind(1)

    def place(vertices: Tensor) -> tuple[Tensor, Tensor]:
        return x.index_select(1, vertices), y.index_select(1, vertices)

    (px, py), (qx, qy), (rx, ry), (sx, sy) = place(i), place(j), place(k), place(m)
    dx, dy = qx - px, qy - py
    left = dx * (ry - py) > dy * (rx - px)
    also_left = dx * (sy - py) > dy * (sx - px)
    same_side = (left == also_left) & in_front.index_select(1, i) & in_front.index_select(1, j)
    picture, edge = same_side.nonzero(as_tuple=True)
    offset = picture * pixel.shape[1]
    return _Silhouettes(i[edge] + offset, j[edge] + offset, left[picture, edge], picture)


def _find_crossings(
    rast: Float[Tensor, "batch height width 4"], pos: Float[Tensor, "batch verts 4"], topology: EdgeTopology
) -> _Crossings:
    # one long function: its steps share two dozen arrays over the same edges, which parts of it would hand to and fro
    height, width = rast.shape[1:3]
    in_front = pos[..., 3] > _MIN_W
    ndc = pos[..., :3] / torch.where(in_front, pos[..., 3], 1)[..., None]
    pixel = (ndc[..., :2] + 1) * pos.new_tensor((0.5 * width, 0.5 * height))
    edges = _find_silhouettes(pixel, in_front, topology)

    pixel, depth = pixel.flatten(0, 1), ndc[..., 2].flatten()
    p, q = pixel[edges.first], pixel[edges.second]
    vertical = (q[:, 1] - p[:, 1]).abs() >= (q[:, 0] - p[:, 0]).abs()
    # "along" counts the rows (or columns) that an edge spans; "across" is where it crosses one
    along = torch.stack([vertical, ~vertical], dim=1).long()
    (p_along, p_across), (q_along, q_across) = p.gather(1, along).unbind(1), q.gather(1, along).unbind(1)
    lines, places = torch.where(vertical, height, width), torch.where(vertical, width, height)
    # half-open, so that of two edges that meet on a row of pixel centres one crosses it
    begin = (torch.minimum(p_along, q_along) - 0.5).ceil().clamp_min(0)
    end = torch.minimum((torch.maximum(p_along, q_along) - 0.5).ceil(), lines)
    count = (end - begin).clamp_min(0).long()

    edge = torch.repeat_interleave(count)
    line = torch.arange(len(edge), device=edge.device) + (begin.long() + count - count.cumsum(0))[edge]
    share = (line + 0.5 - p_along[edge]) / (q_along - p_along)[edge]
    position = torch.lerp(p_across[edge], q_across[edge], share) - 0.5
    place = position.floor()
    vertical, places = vertical[edge], (places - 1)[edge]
    step = torch.where(vertical, 1, width)
    origin = edges.picture[edge] * (height * width) + line * (width + 1 - step)
    first, second = edges.first[edge], edges.second[edge]
    edge_depth = torch.lerp(depth[first], depth[second], share) + _DEPTH_TOLERANCE
    inner_lower = ((edges.inner_left == (q_along > p_along))[edge]) == vertical
    shown = rast.reshape(-1, 4)[:, 2:]

    # A pixel centre that the edge passes this closely may lie on either side of it for the rasteriser. If it shows
    # what belongs on the edge's other side, the pair one further on is the one that the outline separates.
    nearest = (position + 0.5).floor()
    close = shown[origin + nearest.clamp(0).minimum(places).long() * step]
    fore = (close[:, 1] > 0) & (close[:, 0] <= edge_depth)
    wrong = ((position - nearest).abs() < _SNAP_PX) & (fore != (inner_lower == (nearest <= position)))
    place = torch.where(wrong, torch.where(nearest <= position, place - 1, place + 1), place)
    t = position - place
    on_picture = (place >= 0) & (place < places)
    lower = origin + torch.where(on_picture, place, 0).long() * step
    upper = lower + torch.where(on_picture, step, 0)

    shown_lower, shown_upper = shown[lower], shown[upper]
    inner = torch.where(inner_lower[:, None], shown_lower, shown_upper)
    outer = torch.where(inner_lower[:, None], shown_upper, shown_lower)
    behind = (outer[:, 1] == 0) | (outer[:, 0] > edge_depth)
    counts = on_picture & behind & (inner[:, 1] > 0) & (inner[:, 1] != outer[:, 1])

    chosen = counts.nonzero()[:, 0]
    # between the same two pixels, for the same facing, the last in this order lies farthest out (t may leave [0, 1] by
    # a little, hence the half)
    extent = torch.where(inner_lower, t, 1 - t)
    gap = lower * 4 + vertical * 2 + inner_lower
    ranked = (gap * (2 * _EXTENT_STEPS) + ((extent + 0.5) * _EXTENT_STEPS).long())[chosen]
    ranked, order = ranked.sort()
    gap = ranked // (2 * _EXTENT_STEPS)
    outermost = torch.ones_like(gap, dtype=torch.bool)
    outermost[:-1] = gap[1:] != gap[:-1]
    chosen = chosen[order[outermost]]

    vertical = vertical[chosen]
    slope = ((q_across - p_across) / (q_along - p_along))[edge[chosen]]
    one = torch.ones_like(slope)
    normal = torch.stack([torch.where(vertical, one, -slope), torch.where(vertical, -slope, one)], dim=1)
    return _Crossings(lower[chosen], upper[chosen], t[chosen], first[chosen], second[chosen], share[chosen], normal)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Keep torch to this thread for a while, on the CPU.

    The tensors here are small, and torch's thread pool takes them on all the same. On a busy machine each such call
    waits for the other threads to get a core: 2 ms of work were seen to take 200. The setting is the calling thread's.
    """
    if device.type != "cpu":
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _AntialiasEdges(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, color: Tensor, pos: Tensor, rast: Tensor, topology: EdgeTopology) -> Tensor:
        with _one_thread(color.device):
            found = _find_crossings(rast, pos, topology)
            in_lower = found.t < 0.5
            target = torch.where(in_lower, found.lower, found.upper)
            source = torch.where(in_lower, found.upper, found.lower)
            weight = (found.t - 0.5).abs()
            out = color.clone(memory_format=torch.contiguous_format)
            flat = color.reshape(-1, color.shape[3])
            difference = flat[source] - flat[target]
            out.view(flat.shape).index_add_(0, target, weight[:, None] * difference)
        ctx.save_for_backward(
            pos, target, source, weight, difference, in_lower, found.first, found.second, found.share, found.normal
        )
        ctx.resolution = rast.shape[1:3]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        pos, target, source, weight, difference, in_lower, *edge = ctx.saved_tensors
        grad_color = grad_pos = None
        with _one_thread(grad_out.device):
            grad_target = grad_out.reshape(-1, grad_out.shape[3])[target]
            if ctx.needs_input_grad[0]:
                grad_color = grad_out.clone(memory_format=torch.contiguous_format)
                moved = weight[:, None] * grad_target
                flat = grad_color.view(-1, grad_out.shape[3])
                flat.index_add_(0, source, moved).index_add_(0, target, moved, alpha=-1)
            if ctx.needs_input_grad[1]:
                grad_weight = (grad_target * difference).sum(1)
                grad_t = torch.where(in_lower, -grad_weight, grad_weight)
                grad_pos = _to_clip_space(grad_t, pos, *edge, *ctx.resolution)
        return grad_color, grad_pos, None, None


def _to_clip_space(
    grad_t: Tensor, pos: Tensor, first: Tensor, second: Tensor, share: Tensor, normal: Tensor, height: int, width: int
) -> Tensor:
    """Gradient with respect to the crossings' t, taken to the edges' vertices: to clip-space x, y and w."""
    grad_point = grad_t[:, None] * normal
    grad_pixel = pos.new_zeros(pos.shape[0] * pos.shape[1], 2)
    grad_pixel.index_add_(0, first, (1 - share)[:, None] * grad_point)
    grad_pixel.index_add_(0, second, share[:, None] * grad_point)
    # pixel = (x / w + 1) N / 2
    w = torch.where(pos[..., 3:] > _MIN_W, pos[..., 3:], 1)
    grad_xy = grad_pixel.view(*pos.shape[:2], 2) * pos.new_tensor((0.5 * width, 0.5 * height)) / w
    grad_w = -(grad_xy * pos[..., :2]).sum(-1, keepdim=True) / w
    return torch.cat([grad_xy, torch.zeros_like(grad_w), grad_w], dim=-1)
