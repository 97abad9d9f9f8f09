"""Poses of heads, and the cameras and crops that look at them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from densemarks_model.crops import HeadCrop, crop_around_landmarks
from densemarks_model.data.synthetic.mesh import Mesh
from densemarks_model.data.synthetic.people import Pose, head_kit
from densemarks_model.data.synthetic.repertoire import Repertoire

MARGIN = 1.12
"""How much larger pictures are than the crops of :mod:`densemarks_model.crops`, so that augmentation has room."""

NEAR, FAR = 0.03, 30.0
"""Depths that are drawn, metres."""


@dataclass(frozen=True)
class View:
    """Where the head is and what the crop shows.

    Attributes:
        rotation: ``(3, 3)``, translation: ``(3,)`` head frame to camera space (OpenGL axes), metres.
        crop: in the image plane at unit focal length, y down.
        yaw, pitch: degrees.
    """

    rotation: np.ndarray
    translation: np.ndarray
    crop: HeadCrop
    yaw: float
    pitch: float

    def clip(self, points: np.ndarray) -> np.ndarray:
        """Clip coordinates ``(n, 4)`` float32 of points in camera space."""
        x, y, w = points[:, 0], -points[:, 1], -points[:, 2]
        cos, sin = np.cos(self.crop.roll), np.sin(self.crop.roll)
        dx, dy = x - self.crop.center[0] * w, y - self.crop.center[1] * w
        z = w * (FAR + NEAR) / (FAR - NEAR) - 2 * FAR * NEAR / (FAR - NEAR)
        scale = 2 / self.crop.side
        return np.stack([scale * (cos * dx + sin * dy), -scale * (cos * dy - sin * dx), z, w], 1).astype(np.float32)


def axis(x: float, y: float, z: float) -> np.ndarray:
    """Roll after yaw after pitch, radians: ``Rz Ry Rx``."""
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    pitch = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    roll = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return roll @ yaw @ pitch


def random_pose(rng: np.random.Generator) -> tuple[float, float, float, Pose]:
    """Yaw, pitch and roll of the head in degrees, and the neck's and eyes' rotations."""
    kind = rng.random()
    yaw = rng.normal(0, 25) if kind < 0.5 else rng.uniform(-88, 88) if kind < 0.93 else rng.uniform(-180, 180)
    pitch = rng.normal(0, 13) if rng.random() < 0.88 else rng.uniform(-55, 55)
    roll = rng.normal(0, 9) if rng.random() < 0.9 else rng.uniform(-50, 50)
    turn = np.clip(yaw * rng.uniform(0, 0.7) + rng.normal(0, 8), -50, 50)
    neck = np.deg2rad([np.clip(pitch * rng.uniform(0, 0.8), -30, 35), turn, np.clip(roll * rng.uniform(0, 0.9), -25, 25)])
    eyes = np.deg2rad(np.concatenate([rng.normal(0, [7, 13, 0])] * 2) + rng.normal(0, 1, 6))
    return float(yaw), float(pitch), float(roll), Pose(neck, eyes)


def wide_pose(
    plain: tuple[float, float, float, Pose], repertoire: Repertoire, extra: np.random.Generator, sideways: bool = False
) -> tuple[float, float, float, Pose]:
    """``plain`` (see :func:`random_pose`), or in the repertoire's shares a strong view from above, below or the side, or any roll.

    Args:
        sideways: prefer yaws of 30 to 90 degrees, half of the time.
    """
    yaw, pitch, roll, pose = plain
    if extra.random() < repertoire.steep_share:
        if extra.random() < 0.6:
            pitch = float(extra.uniform(30, 70) * extra.choice([-1, 1]))
            yaw = float(np.clip(yaw, -90, 90))
        else:
            yaw = float(extra.uniform(70, 125) * extra.choice([-1, 1]))
    elif sideways and extra.random() < 0.5:
        yaw = float(extra.uniform(30, 90) * extra.choice([-1, 1]))
    if extra.random() < repertoire.turned_share:
        roll = float(extra.uniform(-180, 180))
    if (yaw, pitch, roll) != plain[:3]:  # the neck turns a part of the way, as far as necks do
        share = extra.uniform(0, 0.8, 3)
        neck = np.deg2rad([np.clip(pitch * share[0], -30, 35), np.clip(yaw * share[1], -50, 50), np.clip(min(abs(roll), 40) * np.sign(roll) * share[2], -25, 25)])
        pose = Pose(neck, pose.eyes)
    return yaw, pitch, roll, pose


def random_view(head: Mesh, yaw: float, pitch: float, roll: float, skull: np.ndarray, rng: np.random.Generator) -> View:
    """A camera that sees the head in this pose, and a crop that finds it about as well as landmarks of a face do."""
    wanted = axis(*np.deg2rad([pitch, yaw, roll]))
    rotation = wanted @ skull.T
    distance = np.exp(rng.uniform(np.log(0.35), np.log(3.0)))
    lateral = np.tan(np.deg2rad(rng.normal(0, 9, 2))) * distance
    translation = np.array([lateral[0], lateral[1], -distance]) - rotation @ head.vertices[head_kit().outside].mean(0)
    kit = head_kit()
    camera = head.vertices @ rotation.T + translation

    if abs(yaw) < 100 and rng.random() < 0.8:
        crop = crop_around_landmarks(plane(kit.asset.landmarks["mediapipe"].positions(camera, kit.asset.faces)))
    else:
        outline = plane(camera[kit.outside])
        low, high = outline.min(0), outline.max(0)
        crop = HeadCrop((low + high) / 2, 1.3 * float((high - low).max()), -np.deg2rad(roll) * rng.uniform(0, 1))
    wild = rng.random() < 0.15
    side = crop.side * MARGIN * np.exp(rng.uniform(-0.25, 0.3) if wild else rng.normal(0, 0.08))
    shift = rng.uniform(-0.2, 0.2, 2) if wild else rng.normal(0, 0.04, 2)
    tilt = np.deg2rad(rng.uniform(-45, 45) if rng.random() < 0.15 else rng.normal(0, 7))
    return View(rotation, translation, HeadCrop(crop.center + shift * side, side, crop.roll + tilt), yaw, pitch)


def plane(points: np.ndarray) -> np.ndarray:
    """Points ``(n, 3)`` in camera space to the image plane at unit focal length ``(n, 2)``, y down."""
    return np.stack([points[:, 0], -points[:, 1]], 1) / -points[:, 2:]


def wide_view(view: View, head: Mesh, repertoire: Repertoire, extra: np.random.Generator) -> View:
    """``view`` (see :func:`random_view`), or in the repertoire's shares a crop that is far too large or small, or turned by any angle.

    Faces seen steeply have no landmarks to crop by, so there the crop is taken around the head's outline.
    """
    crop = view.crop
    outline = plane(head.vertices[head_kit().outside] @ view.rotation.T + view.translation)
    low, high = outline.min(0), outline.max(0)
    around = HeadCrop((low + high) / 2, 1.3 * MARGIN * float((high - low).max()), crop.roll)
    if abs(view.pitch) > 45 and repertoire.steep_share > 0:
        crop = HeadCrop(around.center + extra.normal(0, 0.04, 2) * around.side, around.side * np.exp(extra.normal(0, 0.08)), crop.roll)
    if extra.random() < repertoire.far_share:
        factor = np.exp(extra.uniform(0.1, np.log(2.0)) if extra.random() < 0.7 else extra.uniform(-0.55, -0.25))
        side = around.side * factor
        room = max(factor - 0.6, 0.1) / 2  # small heads may lie anywhere in the crop
        crop = HeadCrop(around.center + extra.uniform(-room, room, 2) / factor * side * 0.7, side, crop.roll)
    if extra.random() < repertoire.turned_share:
        crop = HeadCrop(crop.center, crop.side, extra.uniform(-np.pi, np.pi))
    return View(view.rotation, view.translation, crop, view.yaw, view.pitch)
