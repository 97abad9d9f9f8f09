"""Which triangles meet at which edge: what antialiasing needs to know of a mesh before it sees it from anywhere."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import torch
from jaxtyping import Int32, Int64
from torch import Tensor


@dataclass(frozen=True)
class EdgeTopology:
    """Edges of a mesh and the vertices across from them.

    Attributes:
        edges: the two vertices of each edge.
        opposite: the third vertex of each of the edge's two triangles; on an edge with one triangle, twice the same.
            Where more than two triangles meet, the edge is listed once for each.
    """

    edges: Int64[Tensor, "edges 2"]
    opposite: Int64[Tensor, "edges 2"]


def build_topology(tri: Int32[Tensor, "faces 3"]) -> EdgeTopology:
    """Find the edges of a mesh, on its own device.

    Args:
        tri: welded triangles, either winding. Triangles that name a vertex twice have no area and are left out.
    """
    corners = tri.long()
    a, b, c = corners.unbind(1)
    corners = corners[(a != b) & (b != c) & (c != a)]
    sides = torch.cat([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    across = torch.cat([corners[:, 2], corners[:, 0], corners[:, 1]])
    sides = sides.sort(dim=1).values
    edges, members, counts = torch.unique(sides, dim=0, return_inverse=True, return_counts=True)
    order = torch.argsort(members, stable=True)
    across, members = across[order], members[order]
    first = torch.cumsum(counts, 0) - counts
    paired = counts == 2
    lone = ~paired[members]
    pairs = torch.stack([across[first[paired]], across[first[paired] + 1]], dim=1)
    singles = across[lone][:, None].expand(-1, 2)
    return EdgeTopology(torch.cat([edges[paired], edges[members[lone]]]), torch.cat([pairs, singles]))


class TopologyCache:
    """Remembers the topology of the last few meshes by the identity of their triangle tensors. Threads may share it."""

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._known: dict[int, tuple[weakref.ref[Tensor], int, EdgeTopology]] = {}

    def of(self, tri: Int32[Tensor, "faces 3"]) -> EdgeTopology:
        """The topology of these triangles, built anew if the tensor was changed in place."""
        version = -1 if tri.is_inference() else tri._version
        with self._lock:
            known = self._known.get(id(tri))
            if known is not None and known[0]() is tri and known[1] == version:
                return known[2]
            topology = build_topology(tri)
            while len(self._known) >= self._size:
                self._known.pop(next(iter(self._known)))
            self._known[id(tri)] = (weakref.ref(tri), version, topology)
            return topology
