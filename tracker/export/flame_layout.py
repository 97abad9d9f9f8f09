"""What the formats of FLAME's other trackers share: which heads they hold, FLAME's sizes, and where the head is in each frame.

A FLAME head has 5,023 vertices and numbered expressions. Editions share the layout and not the coefficients: values of a 2023 head put
into FLAME 2020 show another face, which no file can tell.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset, LandmarkEmbedding
from tracker.export.flame_params import FLAME_EXPRESSION, FLAME_IDENTITY, is_flame
from tracker.head_model import HeadModel
from tracker.head_track import HeadTrack
from tracker.track_vertices import posed_frames

FLAME_VERTICES = 5023
VHAP_VERTICES = 5143
"""FLAME's and the teeth that VHAP and GaussianAvatars add."""


def refuses(head: HeadAsset) -> str | None:
    """Why a head is not one of FLAME's."""
    if is_flame(head.expression_names) and head.n_vertices == FLAME_VERTICES and head.n_identity <= FLAME_IDENTITY and head.n_expression <= FLAME_EXPRESSION:
        return None
    return f"the format is for FLAME's parameters ({FLAME_VERTICES:,} vertices, numbered expressions); track with --head and a FLAME file"


def flame_shape(track: HeadTrack) -> Float32[np.ndarray, "300"]:
    """Identity coefficients, padded with zeros to FLAME's number; the first person's where shots show several."""
    return _padded(track.shape, FLAME_IDENTITY)


def flame_shapes(track: HeadTrack) -> Float32[np.ndarray, "*frames 300"]:
    """Identity coefficients for every frame: one set where all have the same."""
    return _padded(track.shapes_of(slice(None)), FLAME_IDENTITY)


def flame_expressions(track: HeadTrack) -> Float32[np.ndarray, "frames 100"]:
    """Expression coefficients, padded likewise."""
    return _padded(track.expr, FLAME_EXPRESSION)


def joint_motion(track: HeadTrack, head: HeadAsset) -> tuple[Float[np.ndarray, "frames 5 3 3"], Float[np.ndarray, "frames 5 3"]]:
    """Turn G and shift o of every joint, which take points of the head at rest to the world, ``G x + o``; float64."""
    model = HeadModel.from_asset(head, dtype=torch.float64)
    # joints need no vertices: the model restricted to no point at all costs nothing per frame
    nothing = LandmarkEmbedding(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.float32))
    linear, offsets = posed_frames(model.at_points(nothing), track, slice(None)).joint_transforms()
    return linear.numpy(), offsets.numpy() + track.translation[:, None]


def six_numbers(axis_angle: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 6"]:
    """Rotations as the first two rows of their matrices."""
    return rows_of(Rotation.from_rotvec(axis_angle).as_matrix())


def rows_of(matrices: Float[np.ndarray, "frames 3 3"]) -> Float[np.ndarray, "frames 6"]:
    """The first two rows of rotation matrices, one after the other."""
    return matrices[:, :2].reshape(len(matrices), 6)


def _padded(values: Float[np.ndarray, "*frames n"], size: int) -> Float32[np.ndarray, "*frames m"]:
    return np.pad(values.astype(np.float32), [(0, 0)] * (values.ndim - 1) + [(0, size - values.shape[-1])])
