"""Strands: many thin hairs from few grown ones, and short hairs (brows, lashes, beards) that follow the skin they stand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from densemarks_model.data.synthetic.people import Person, head_kit
from densemarks_model.data.synthetic.short_hair import beard_masks


@dataclass(frozen=True)
class Strands:
    """Hairs of one kind.

    Attributes:
        points: ``(n, m, 3)`` metres. radius: ``(m,)`` from root to tip, metres. tone: ``(n,)`` factor of the colour.
    """

    points: np.ndarray
    radius: np.ndarray
    tone: np.ndarray


def thicken(guides: np.ndarray, count: int, radius: float, rng: np.random.Generator) -> Strands:
    """``count`` strands between the ``guides`` ``(n, m, 3)``: each a mixture of two that grow side by side, with a life of its own."""
    total, steps, _ = guides.shape
    neighbours = cKDTree(guides[:, 0]).query(guides[:, 0], k=min(5, total), workers=1)[1]
    first = rng.integers(total, size=count)
    second = neighbours[first, rng.integers(neighbours.shape[1], size=count)]
    # neighbours across a parting go other ways: what would lie between them is nobody's hair
    apart = np.linalg.norm(guides[first, -1] - guides[second, -1], axis=1)
    length = np.linalg.norm(np.diff(guides, axis=1), axis=-1).sum(1)
    second = np.where(apart > 0.35 * length[first] + 0.004, first, second)
    share = (rng.random(count) * 0.7)[:, None, None]
    points = guides[first] * (1 - share) + guides[second] * share
    along = np.linspace(0, 1, steps)[None, :, None]
    spacing = min(0.0015, 0.25 * float(np.median(length)))
    points = points + spacing * rng.normal(0, 1, (count, 1, 3)) * np.minimum(3 * along, 1)
    flutter = np.cumsum(rng.normal(0, 1, (count, steps, 3)), 1) * 0.012 * length[first][:, None, None] / np.sqrt(steps)
    points = points + flutter * along
    points = _shortened(points, 1 - 0.3 * rng.random(count) ** 2)
    taper = radius * (1 - 0.75 * np.linspace(0, 1, steps) ** 3)
    # tone runs in locks: the guide's, and a little of the strand's own
    tone = rng.normal(1, 0.14, total)[first] + rng.normal(0, 0.08, count)
    return Strands(points.astype(np.float32), taper.astype(np.float32), np.clip(tone, 0.5, 1.5).astype(np.float32))


def _shortened(points: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The first ``share`` ``(n,)`` of every strand, in as many points."""
    steps = points.shape[1]
    place = np.linspace(0, 1, steps)[None] * share[:, None] * (steps - 1)
    low = np.minimum(place.astype(int), steps - 2)
    part = (place - low)[..., None]
    row = np.arange(len(points))[:, None]
    return points[row, low] * (1 - part) + points[row, low + 1] * part


@dataclass(frozen=True)
class Rooted:
    """Short hairs on the head's surface, in the frames of the triangles that they stand on.

    Attributes:
        corners: ``(n, 3)`` vertices of the triangle. barycentrics: ``(n, 3)`` of the root.
        local: ``(n, m, 3)`` points in the triangle's frame at rest, metres. radius, tone: as in :class:`Strands`.
    """

    corners: np.ndarray
    barycentrics: np.ndarray
    local: np.ndarray
    radius: np.ndarray
    tone: np.ndarray

    def on(self, vertices: np.ndarray) -> np.ndarray:
        """Points ``(n, m, 3)`` on the head with ``vertices`` ``(V, 3)``."""
        root = np.einsum("nk,nkc->nc", self.barycentrics, vertices[self.corners])
        return (root[:, None] + self.local @ _frames(vertices, self.corners)).astype(np.float32)


def _frames(vertices: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Rows ``(n, 3, 3)``: along the first edge, across it, and the normal of triangles."""
    a, b, c = (vertices[corners[:, k]].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-15)
    along = (b - a) / np.maximum(np.linalg.norm(b - a, axis=1, keepdims=True), 1e-15)
    return np.stack([along, np.cross(normal, along), normal], 1)


def _planted(
    person: Person, corners: np.ndarray, barycentrics: np.ndarray, start: np.ndarray, end: np.ndarray, length: np.ndarray, steps: int,
    radius: float, rng: np.random.Generator,
) -> Rooted:
    """Hairs that leave their roots along ``start`` and bend to ``end`` (n, 3), ``length`` (n,) metres."""  # fmt: skip
    share = np.linspace(0, 1, steps)[None, :, None]
    way = start[:, None] * (1 - share) + end[:, None] * share
    way /= np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-9)
    points = np.cumsum(way, 1) - way[:, :1]
    points *= (length / (steps - 1))[:, None, None]
    local = points @ _frames(person.rest, corners).transpose(0, 2, 1)
    taper = radius * (1 - 0.8 * np.linspace(0, 1, steps) ** 2)
    tone = np.clip(rng.normal(1, 0.15, len(corners)), 0.5, 1.5)
    return Rooted(corners, barycentrics, local.astype(np.float32), taper.astype(np.float32), tone.astype(np.float32))


def _scatter(person: Person, density: np.ndarray, per_area: float, rng: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots by ``density`` (V,) × ``per_area`` (per square metre): corners ``(n, 3)``, barycentrics, normals."""
    faces = head_kit().asset.faces
    a, b, c = (person.rest[faces[:, k]].astype(np.float64) for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    weight = area * density[faces].mean(1)
    count = int(min(weight.sum() * per_area, most))
    if count < 1:
        return np.zeros((0, 3), int), np.zeros((0, 3)), np.zeros((0, 3))
    chosen = rng.choice(len(faces), count, p=weight / weight.sum())
    bary = rng.dirichlet([1, 1, 1], count)
    keep = rng.random(count) < np.einsum("nk,nk->n", bary, density[faces[chosen]]) / np.maximum(density[faces[chosen]].max(1), 1e-6)
    corners, bary = faces[chosen][keep], bary[keep]
    normal = np.einsum("nk,nkc->nc", bary, person.normals[corners])
    return corners, bary, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)


def _combed(direction: np.ndarray, normal: np.ndarray) -> np.ndarray:
    flat = direction - np.sum(direction * normal, 1, keepdims=True) * normal
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def brows(person: Person, rng: np.random.Generator) -> Rooted | None:
    """Brows: hairs that stand up near the nose and lie outwards further along."""
    mask = head_kit().masks["brows"]
    strength = float(np.clip(person.details[mask > 0.6, 1].mean(), 0.1, 1))
    density = np.clip((mask - 0.25) / 0.5, 0, 1)
    corners, bary, normal = _scatter(person, density, 1.1e6 * (0.35 + 0.65 * strength), rng, 1600)
    if not len(corners):
        return None
    root = np.einsum("nk,nkc->nc", bary, person.rest[corners])
    side, outward = np.sign(root[:, :1]), np.clip((np.abs(root[:, :1]) - 0.012) / 0.03, 0, 1)
    lean = np.concatenate([side * (0.35 + outward), 1.0 - 1.25 * outward, np.zeros((len(root), 1))], 1)
    comb = _combed(lean + rng.normal(0, 0.15, lean.shape), normal)
    length = rng.uniform(0.005, 0.0095, len(root))
    return _planted(person, corners, bary, 0.6 * normal + comb, 0.1 * normal + comb, length, 5, 0.00011, rng)


def beard(person: Person, length: float, rng: np.random.Generator, kind: str | None = None) -> Rooted | None:
    """Hairs ``length`` metres long where a beard of this ``kind`` (of ``short_hair.BEARDS``) grows; None: where the skin is dark with stubble."""
    density = np.asarray(beard_masks()[kind] if kind else person.details[:, 1] * (head_kit().masks["brows"] < 0.05), np.float64)
    density = density * (density > 0.03)
    corners, bary, normal = _scatter(person, density, 1.0e6, rng, 9000)
    if len(corners) < 50:
        return None
    root = np.einsum("nk,nkc->nc", bary, person.rest[corners])
    down = np.array([0.0, -1.0, 0.25]) + np.concatenate([0.5 * np.sign(root[:, :1]) * (np.abs(root[:, :1]) > 0.008), np.zeros((len(root), 2))], 1)
    comb = _combed(down + rng.normal(0, 0.25, root.shape), normal)
    # under the chin hair is longer than on the cheeks; over the lip it must not hang into the mouth
    place = np.clip(0.55 + (-0.05 - root[:, 1]) / 0.06, 0.3, 1.2)
    lengths = length * place * rng.uniform(0.6, 1.1, len(root))
    lip = (np.abs(root[:, 0]) < 0.028) & (root[:, 1] > -0.045)
    lengths[lip] = np.minimum(lengths[lip], 0.007)
    fall = np.array([0.0, -0.6 if length > 0.01 else -0.1, 0.0])
    return _planted(person, corners, bary, 0.9 * normal + 0.7 * comb, 0.25 * normal + comb + fall, lengths, 6, 0.00012, rng)


def lashes(person: Person, rng: np.random.Generator) -> Rooted:
    """Lashes on the rims of both lids: long and curled up above, short and down below."""
    asset = head_kit().asset
    corners, bary, away, upper = [], [], [], []
    for side in ("left", "right"):
        rim, centre = asset.regions[f"{side}_lid_rim"], asset.v_template[asset.regions[f"{side}_eyeball"]].mean(0)
        ours = person.rest[asset.regions[f"{side}_eyeball"]].mean(0)
        for face in asset.faces[rim[asset.faces].sum(1) == 2]:
            turned = next(np.roll(face, -k) for k in range(3) if rim[face[k]] and rim[face[(k + 1) % 3]])
            middle = asset.v_template[turned[:2]].mean(0)
            above = middle[1] > centre[1] - 0.0012
            count = int(rng.integers(9, 13) if above else rng.integers(4, 7))
            t = rng.random(count)
            corners.append(np.tile(turned, (count, 1)))
            bary.append(np.stack([t, 1 - t, 0 * t], 1))
            away.append(bary[-1] @ person.rest[turned] - ours)
            upper.append(np.full(count, above))
    away, up = np.concatenate(away), np.concatenate(upper)[:, None]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    away = away + rng.normal(0, 0.1, away.shape)
    start = away + np.where(up, [0, -0.25, 0.3], [0, -0.2, 0.1])
    end = away + np.where(up, [0, 1.3, 0.2], [0, -0.9, 0.0])
    length = np.where(up[:, 0], rng.uniform(0.006, 0.0095, len(up)), rng.uniform(0.003, 0.005, len(up)))
    return _planted(person, np.concatenate(corners), np.concatenate(bary), start, end, length, 6, 0.00011, rng)
