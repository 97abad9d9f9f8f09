"""Canonical coordinates: one location in the unit cube for every point of a head's surface.

A pixel classified as "this spot of the left cheek" is expressed as the spot's position on the neutral mean head,
mapped into the cube. The map is one scale for all axes and a shift, so distances in the cube are distances on the
head divided by a constant.

That is version 1 of the cube, and the frame of every version. In version 2 the lips and what lies behind them are parted
(:mod:`flame_assets.parted_mouth`), so that a location says which lip it is on; the rest of the head keeps its coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CUBE_VERSION = 2
"""The cube that heads are loaded with and networks are taught now. Files that name none are of version 1."""


@dataclass(frozen=True)
class CanonicalFrame:
    """Affine map from head-frame metres to the unit cube: ``scale * x + offset``.

    Attributes:
        scale: cube lengths per metre, the same for all axes.
        offset: ``(3,)`` cube position of the head frame's origin.
    """

    scale: float
    offset: np.ndarray

    def to_cube(self, points: np.ndarray) -> np.ndarray:
        """Cube coordinates ``(..., 3)`` of ``points`` ``(..., 3)`` on the neutral mean head, metres."""
        return points * self.scale + self.offset

    def to_head(self, points: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_cube`: metres on the neutral mean head."""
        return (points - self.offset) / self.scale


def canonical_frame(template: np.ndarray) -> CanonicalFrame:
    """The frame that puts the bounding box of ``template`` ``(V, 3)`` into the middle of ``[0, 1]³``.

    The box's longest side fills the cube; the other two axes have the same scale and are centred.

    Raises:
        ValueError: ``template`` is not ``(V, 3)`` finite numbers with a box of positive size.
    """
    template = np.asarray(template, np.float64)
    if template.ndim != 2 or template.shape[1] != 3 or not len(template) or not np.isfinite(template).all():
        raise ValueError(f"template must be finite (V, 3) vertices, not {template.shape}")
    low, high = template.min(0), template.max(0)
    longest = float((high - low).max())
    if longest <= 0:
        raise ValueError("template has no extent")
    scale = 1.0 / longest
    return CanonicalFrame(scale, 0.5 - scale * (low + high) / 2)


def canonical_coordinates(template: np.ndarray) -> np.ndarray:
    """Canonical coordinates ``(V, 3)`` float32 in [0, 1] of the template's own vertices, in version 1 of the cube."""
    cube = canonical_frame(template).to_cube(np.asarray(template, np.float64))
    return np.clip(cube, 0.0, 1.0).astype(np.float32)
