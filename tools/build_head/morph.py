"""From the source's vertices to the vertices of the new head, for any person and any expression.

:class:`Morpher` fixes the topology once (on the mean person) and then turns every deformed source mesh into vertices
of that topology: the cut skin, re-seated lids, sockets, eyeballs, teeth and tongue. The result is not linear in the
source (eyeballs stay spheres), so identity directions are found by sampling it (:mod:`~tools.build_head.basis`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.build_head import eyes, teeth
from tools.build_head.loops import QuadMesh
from tools.build_head.skin import Skin, cut_skin, triangulate
from tools.build_head.source import Source
from tools.build_head.texture import Atlas

LEFT_LID_LOOPS = (
    (7748, 7747), (13352, 13353), (6785, 6784), (11465, 11466), (6787, 6786), (6789, 6840), (11515, 11513)
)  # fmt: skip
"""Two neighbours on each loop around the left eye: lid margin (touches the eyeball), lash line, then outwards."""
LEFT_SOCKET_START = (7791, 7792)
"""Two neighbours on the loop where the source's socket begins; it and everything behind is rebuilt."""
TONGUE_SHIFT = np.array([0.0, -0.0025, -0.0020])
"""The source's tongue lies on the lower teeth; this puts it behind them."""


@dataclass(frozen=True)
class Part:
    """A run of vertices of the new head that is one piece: ``start`` to ``stop``."""

    start: int
    stop: int

    @property
    def indices(self) -> np.ndarray:
        return np.arange(self.start, self.stop)


class Morpher:
    """Topology of the new head, and the map from source vertices to its vertices.

    Attributes:
        parts: name -> :class:`Part`, in vertex order: skin, left/right socket, left/right eyeball, teeth, tongue.
        skin: the cut skin. lid_rings: side -> ``(r, m)`` skin vertices of the lid loops, margin first.
        faces, uv, uv_faces: triangles of the whole head, and its texture map.
        outside: ``(V,)`` mask of the skin's vertices. mirror: ``(V,)`` the vertex at the mirror image of each vertex.
    """

    def __init__(self, source: Source, template: np.ndarray) -> None:
        """Args: ``template``: ``(N, 3)`` source vertices of the mean person in the head frame, metres."""
        self.source = source
        mesh = QuadMesh(source.quads[source.groups == "body"])
        mirror = mirror_map(source.vertices)
        left = [mesh.loop(*pair) for pair in LEFT_LID_LOOPS]
        start = mesh.loop(*LEFT_SOCKET_START)
        left = [_aligned(loop, left[0], template) for loop in left]
        loops = {"left": np.array(left), "right": mirror[np.array(left)]}
        drop = _behind(mesh, start, left[0])
        self.skin: Skin = cut_skin(source, template, np.concatenate([drop, mirror[drop]]))
        slot = np.full(len(source.vertices), -1)
        slot[self.skin.origin] = np.arange(len(self.skin.origin))
        self.slot = slot
        self.lid_rings = {side: slot[ring] for side, ring in loops.items()}
        self.eyeballs = {s: source.group_vertices(f"helper-{s[0]}-eye") for s in ("left", "right")}
        self.mean_radius = float(np.mean([_radius(template[e]) for e in self.eyeballs.values()]))
        self.sphere = eyes.unit_sphere()
        self.tongue = source.group_vertices("helper-tongue")
        self.teeth = {jaw: source.group_vertices(f"helper-{jaw}-teeth") for jaw in ("upper", "lower")}
        self.teeth_rest = {jaw: template[v] for jaw, v in self.teeth.items()}
        self.dentures = {jaw: teeth.denture(self.teeth_rest[jaw], jaw) for jaw in ("upper", "lower")}
        self._number_parts()
        self.mirror = self._mirror(mirror)
        self._build_faces(template)

    def seats(self, person: np.ndarray) -> dict[str, eyes.Seat]:
        """Eyeballs and lid corrections of one person, ``person``: ``(N, 3)`` source vertices in the head frame."""
        skin = self.skin.embedding @ person
        return {
            side: eyes.seat_eye(person[self.eyeballs[side]], skin[rings], self.mean_radius)
            for side, rings in self.lid_rings.items()
        }

    def vertices(self, source: np.ndarray, seats: dict[str, eyes.Seat]) -> np.ndarray:
        """Vertices ``(V, 3)`` of the new head for source vertices ``(N, 3)``, with the eyeballs in ``seats``."""
        skin = self.skin.embedding @ source
        sockets, balls = [], []
        for side, seat in seats.items():
            skin = eyes.shift_lids(skin, (seat.old_centre, seat.old_radius), (seat.centre, seat.radius))
            rings = self.lid_rings[side]
            skin[rings] += seat.correction
            sockets.append(eyes.socket(seat, skin[rings[0]]))
            flip = [1.0, 1.0, 1.0] if side == "left" else [-1.0, 1.0, 1.0]
            balls.append(seat.centre + seat.radius * self.sphere.directions * flip)
        dentures = [
            teeth.carry(self.dentures[jaw].vertices, self.teeth_rest[jaw], source[self.teeth[jaw]])
            for jaw in ("upper", "lower")
        ]
        return np.concatenate([skin, *sockets, *balls, *dentures, source[self.tongue] + TONGUE_SHIFT])

    def _number_parts(self) -> None:
        margin = self.lid_rings["left"].shape[1]
        sizes = {
            "skin": len(self.skin.origin),
            "left_socket": margin * (1 + len(eyes.BAG_RINGS)) + 1,
            "right_socket": margin * (1 + len(eyes.BAG_RINGS)) + 1,
            "left_eyeball": len(self.sphere.directions),
            "right_eyeball": len(self.sphere.directions),
            "upper_teeth": len(self.dentures["upper"].vertices),
            "lower_teeth": len(self.dentures["lower"].vertices),
            "tongue": len(self.tongue),
        }
        self.parts, start = {}, 0
        for name, size in sizes.items():
            self.parts[name] = Part(start, start + size)
            start += size
        self.n_vertices = start
        self.outside = np.zeros(start, bool)
        self.outside[self.parts["skin"].indices] = True

    def _mirror(self, source_mirror: np.ndarray) -> np.ndarray:
        """For each vertex, the one at its mirror image in x."""
        start = {name: part.start for name, part in self.parts.items()}
        pieces = [self.slot[source_mirror[self.skin.origin]]]
        for kind in ("socket", "eyeball"):
            size = self.parts[f"left_{kind}"].stop - start[f"left_{kind}"]
            pieces += [start[f"{other}_{kind}"] + np.arange(size) for other in ("right", "left")]
        for jaw in ("upper", "lower"):
            grid = start[f"{jaw}_teeth"] + np.arange(len(self.dentures[jaw].vertices))
            pieces.append(grid.reshape(teeth.ROWS, -1)[:, ::-1].ravel())
        pieces.append(start["tongue"] + np.searchsorted(self.tongue, source_mirror[self.tongue]))
        return np.concatenate(pieces)

    def _build_faces(self, template: np.ndarray) -> None:
        atlas = Atlas()
        positions = self.vertices(template, self.seats(template))
        corners, quad = triangulate(self.skin.quads, positions)
        triangles = [self.skin.quads[quad[:, None], corners]]
        skin_uv = self.skin.uv_quads[quad[:, None], corners]
        atlas.add_skin(self.source.uv, skin_uv)
        for side, flip in (("left", True), ("right", False)):
            faces = socket_faces(self.lid_rings[side][0], self.parts[f"{side}_socket"].start, flip)
            triangles.append(faces)
            atlas.add_point(f"{side}_socket", len(faces))
        for side in ("left", "right"):
            faces, uv_faces = self.sphere.faces, self.sphere.uv_faces
            if side == "right":
                faces, uv_faces = faces[:, ::-1], uv_faces[:, ::-1]
            triangles.append(faces + self.parts[f"{side}_eyeball"].start)
            atlas.add(f"{side}_eyeball", self.sphere.uv, uv_faces)
        for jaw in ("upper", "lower"):
            denture = self.dentures[jaw]
            triangles.append(denture.faces + self.parts[f"{jaw}_teeth"].start)
            atlas.add(f"{jaw}_teeth", denture.uv, denture.faces)
        in_tongue = self.source.groups == "helper-tongue"
        quads = np.searchsorted(self.tongue, self.source.quads[in_tongue]) + self.parts["tongue"].start
        corners, quad = triangulate(quads, positions)
        triangles.append(quads[quad[:, None], corners])
        atlas.add("tongue", self.source.uv, self.source.uv_quads[in_tongue][quad[:, None], corners])
        self.faces = np.concatenate(triangles).astype(np.int32)
        self.uv, self.uv_faces = atlas.pack()


def mirror_map(vertices: np.ndarray) -> np.ndarray:
    """For each vertex of the symmetric base mesh, the vertex at its mirror image in x."""
    from scipy.spatial import cKDTree

    return cKDTree(vertices).query(vertices * [-1.0, 1.0, 1.0])[1]


def socket_faces(margin: np.ndarray, start: int, flip: bool) -> np.ndarray:
    """Triangles from the lid margin (skin vertices) through the socket's rings to the point behind the eyeball.

    Faces look towards the eyeball; ``flip`` is True when the rings turn clockwise seen from the front.
    """
    n, faces = len(margin), []
    rings = [margin] + [start + r * n + np.arange(n) for r in range(1 + len(eyes.BAG_RINGS))]
    last = start + (1 + len(eyes.BAG_RINGS)) * n
    for inner, outer in zip(rings, rings[1:]):
        for k in range(n):
            j = (k + 1) % n
            faces += [[inner[k], inner[j], outer[k]], [inner[j], outer[j], outer[k]]]
    faces += [[rings[-1][k], rings[-1][(k + 1) % n], last] for k in range(n)]
    out = np.array(faces)
    return out[:, ::-1] if flip else out


def _radius(points: np.ndarray) -> float:
    return float(np.linalg.norm(points - points.mean(0), axis=1).mean())


def _aligned(loop: np.ndarray, reference: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Rotate and, if need be, reverse ``loop`` so that its points lie opposite those of ``reference``."""
    candidates = [np.roll(direction, k) for direction in (loop, loop[::-1]) for k in range(len(loop))]
    distance = [np.linalg.norm(template[c] - template[reference], axis=1).sum() for c in candidates]
    return candidates[int(np.argmin(distance))]


def _behind(mesh: QuadMesh, start: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Vertices of the loop ``start`` and all that is reached from it without crossing ``margin``."""
    seen, stack = set(start.tolist()), start.tolist()
    wall = set(margin.tolist())
    while stack:
        for other in mesh.neighbours[stack.pop()]:
            if other not in seen and other not in wall:
                seen.add(other)
                stack.append(other)
    return np.array(sorted(seen))
