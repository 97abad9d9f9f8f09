"""Template, identity directions and expression directions.

People drawn by :mod:`~tools.build_head.identities` are brought to one frame (their heads aligned by rotation,
translation and scale), turned into the new topology, and summarised by a principal component analysis in which every
vertex counts by the area around it and by where it lies. Sizes are kept, but shrunk to a spread of 2 %: a single
camera cannot tell a large head far away from a small one nearby, so a wider spread would only let the fit wander.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from flame_assets.similarity import similarity
from tools.build_head import blink
from tools.build_head.identities import sample_weights
from tools.build_head.morph import Morpher
from tools.build_head.source import Source

EYE_DISTANCE = 0.063
"""Distance between the eyes' centres on the mean head: the mean of adults, 63 mm."""
EYES_AT = np.array([0.0, 0.0230, 0.0235])
"""Midpoint of the source's eye centres in the head frame; as in FLAME, whose origin is the mean of its vertices."""
PITCH = np.deg2rad(-5.0)
"""Turn about x that makes the head look straight ahead: the source looks down by about this much."""
SIZE_SIGMA = 0.02

CUBES = ("head", "mouth")
"""Helper cubes of the source whose centroids are the positions of its joints."""


@dataclass(frozen=True)
class Frame:
    """Similarity from source coordinates to the head frame: ``scale * (x @ rotation.T) + offset``."""

    scale: float
    rotation: np.ndarray
    offset: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return self.scale * (points @ self.rotation.T) + self.offset

    def vector(self, vectors: np.ndarray) -> np.ndarray:
        """Transform displacements (no offset)."""
        return self.scale * (vectors @ self.rotation.T)


class Population:
    """The random people as a linear model over source vertices.

    Attributes:
        weights: ``(n, K)`` target weights. mean: ``(N, 3)`` source vertices of the mean person, source coordinates.
        frame: the mean person's head frame. template: ``mean`` in the head frame.
    """

    def __init__(self, source: Source, count: int, seed: int) -> None:
        self.source = source
        names, self.weights = sample_weights(source, count, seed)
        self._targets = np.stack([source.target(n) for n in names]).reshape(len(names), -1)
        average = (self.weights.mean(0) @ self._targets).reshape(-1, 3) + source.vertices
        self.frame = _head_frame(source, average)
        self.template = self.frame(average)
        bones = source.bone_weights()
        ears = np.linalg.norm(sum(np.abs(source.target(f"ears/{s}-ear-scale-incr")) for s in "lr"), axis=1) > 1e-4
        skull = sum(bones[b] for b in sorted(source.bones_below("head"))) > 0.95
        body = np.zeros(len(source.vertices), bool)
        body[source.group_vertices("body")] = True
        jaw = sum(bones[b] for b in sorted(source.bones_below("jaw")))
        self._anchor = np.flatnonzero(body & skull & ~ears & (jaw < 0.3))

    def __len__(self) -> int:
        return len(self.weights)

    def chunks(self, size: int = 100):
        """Yield people as source vertices ``(k, N, 3)`` in the head frame, aligned, with sizes evened out."""
        scales = np.concatenate([self._aligned(start, size)[1] for start in range(0, len(self), size)])
        log = np.log(scales)
        share = min(1.0, SIZE_SIGMA / log.std())
        for start in range(0, len(self), size):
            people, scale = self._aligned(start, size)
            keep = np.exp(-share * (np.log(scale) - log.mean()))
            yield (people - EYES_AT) * keep[:, None, None] + EYES_AT

    def _aligned(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.weights[start : start + size]
        people = (rows @ self._targets).reshape(len(rows), -1, 3) + self.source.vertices
        people = self.frame(people)
        scale, rotation, shift = similarity(people[:, self._anchor], self.template[self._anchor])
        people = np.einsum("nvi,nji->nvj", people, rotation) * scale[:, None, None] + shift[:, None]
        return people, scale


def _head_frame(source: Source, mean: np.ndarray) -> Frame:
    left, right = (mean[source.group_vertices(f"joint-{s}-eye")].mean(0) for s in "lr")
    scale = EYE_DISTANCE / np.linalg.norm(left - right)
    c, s = np.cos(PITCH), np.sin(PITCH)
    rotation = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    return Frame(scale, rotation, EYES_AT - scale * ((left + right) / 2 @ rotation.T))


@dataclass(frozen=True)
class Samples:
    """``vertices``: ``(n, V, 3)`` people in the new topology. ``joints``: ``(n, len(CUBES), 3)``."""

    vertices: np.ndarray
    joints: np.ndarray


def morph_population(population: Population, morpher: Morpher) -> Samples:
    """Turn every person into the new topology."""
    source = population.source
    cubes = [source.group_vertices(f"joint-{c}") for c in CUBES]
    vertices = np.empty((len(population), morpher.n_vertices, 3))
    joints = np.empty((len(population), len(CUBES), 3))
    row = 0
    for chunk in population.chunks():
        for person in chunk:
            vertices[row] = morpher.vertices(person, morpher.seats(person))
            joints[row] = [person[c].mean(0) for c in cubes]
            row += 1
    return Samples(vertices, joints)


@dataclass(frozen=True)
class IdentityBasis:
    """Result of :func:`principal_components`.

    Attributes:
        template: ``(V, 3)`` mean head. directions: ``(V, 3, S)`` metres per unit-variance coefficient.
        explained: ``(S,)`` cumulative share of the weighted variance.
    """

    template: np.ndarray
    directions: np.ndarray
    explained: np.ndarray


def principal_components(
    people: np.ndarray, mirror: np.ndarray, vertex_weights: np.ndarray, count: int
) -> IdentityBasis:
    """Principal components of ``people`` ``(n, V, 3)`` together with their mirror images.

    With the mirror images the mean is symmetric and the covariance falls into two blocks, of the symmetric and the
    antisymmetric part of the people, which are analysed apart and merged by variance.

    Args:
        mirror: ``(V,)`` the vertex at the mirror image of each vertex.
        vertex_weights: ``(V,)`` weight of the squared distances. The directions are what the *unweighted* vertices do
            per unit of the coefficients, by linear regression.
    """
    n = len(people)
    flipped = mirrored(people, mirror)
    symmetric, antisymmetric = (people + flipped) / 2, (people - flipped) / 2
    template = symmetric.mean(0)
    symmetric = symmetric - template
    root = np.repeat(np.sqrt(vertex_weights / vertex_weights.mean()), 3)
    values, directions, total = [], [], 0.0
    for part in (symmetric, antisymmetric):
        part = part.reshape(n, -1)
        scaled = part * root
        gram = scaled @ scaled.T / n
        total += np.trace(gram)
        value, vector = scipy.linalg.eigh(gram, subset_by_index=[n - count, n - 1])
        values.append(value)
        directions.append(vector.T @ part / np.sqrt(n))
    values, directions = np.concatenate(values), np.concatenate(directions)
    order = np.argsort(-values, kind="stable")[:count]
    values, directions = values[order], directions[order]
    directions *= np.sign(directions[np.arange(count), np.abs(directions).argmax(1)])[:, None]
    return IdentityBasis(template, directions.reshape(count, -1, 3).transpose(1, 2, 0), np.cumsum(values) / total)


def mirrored(vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mirror image in x of ``vertices`` ``(..., V, 3)``, in the same vertex order."""
    return vertices[..., mirror, :] * [-1.0, 1.0, 1.0]


def expression_directions(
    source: Source, population: Population, morpher: Morpher, mouth_interior: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Displacements ``(V, 3, 52)`` of the ARKit shapes on the mean person, and their names.

    Left and right twins are made exact mirror images of each other, shapes of both sides symmetric. The source's eye
    shapes also move some vertices of the palate; those are held (``mouth_interior``: ``(V,)`` mask).
    """
    person = population.template
    seats = morpher.seats(person)
    rest = morpher.vertices(person, seats)
    raw = {}
    for name in source.expression_names:
        delta = morpher.vertices(person + population.frame.vector(source.expression(name)), seats) - rest
        if name.startswith("eyeBlink"):
            side = name.removeprefix("eyeBlink").lower()
            delta = blink.close_lids(morpher, rest, delta, side, seats[side])
        if name.startswith("eye"):
            delta[mouth_interior] = 0
        raw[name] = blink.clear_eyeballs(morpher, rest, delta, seats) if name.startswith("eye") else delta
    out = [0.5 * (raw[name] + mirrored(raw[twin(name)], morpher.mirror)) for name in raw]
    return np.stack(out, -1), list(raw)


def twin(name: str) -> str:
    """The ARKit shape of the other side (``name`` itself for a shape of both sides)."""
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side):
            return name[: -len(side)] + other
    return name
