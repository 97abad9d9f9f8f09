"""Walk the edge loops of a quad mesh: leave each four-valent vertex by the edge opposite to the one taken in."""

from __future__ import annotations

from collections import defaultdict

import numpy as np


class QuadMesh:
    """Adjacency of a quad mesh.

    Attributes:
        quads: ``(Q, 4)`` vertex indices.
        neighbours: vertex -> set of vertices that share an edge with it.
        edge_faces: edge (frozenset of two vertices) -> list of quads.
    """

    def __init__(self, quads: np.ndarray) -> None:
        self.quads = quads
        self.neighbours: dict[int, set[int]] = defaultdict(set)
        self.edge_faces: dict[frozenset[int], list[int]] = defaultdict(list)
        for face, quad in enumerate(quads.tolist()):
            for a, b in zip(quad, quad[1:] + quad[:1]):
                self.neighbours[a].add(b)
                self.neighbours[b].add(a)
                self.edge_faces[frozenset((a, b))].append(face)

    def loop(self, first: int, second: int) -> np.ndarray | None:
        """Vertices of the closed edge loop through the edge ``first``-``second``; None where it does not close."""
        path, seen = [int(first), int(second)], {int(first), int(second)}
        while True:
            onward = self._straight_on(path[-2], path[-1])
            if onward is None or (onward in seen and onward != path[0]):
                return None
            if onward == path[0]:
                return np.array(path)
            path.append(onward)
            seen.add(onward)

    def _straight_on(self, before: int, here: int) -> int | None:
        if len(self.neighbours[here]) != 4:
            return None
        beside = set(self.edge_faces[frozenset((before, here))])
        for onward in self.neighbours[here]:
            if onward != before and not beside & set(self.edge_faces[frozenset((here, onward))]):
                return onward
        return None
