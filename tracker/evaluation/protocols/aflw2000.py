"""Head pose on AFLW2000-3D (Zhu et al., *Face alignment across large poses: a 3D solution*, CVPR 2016).

The data are pictures ``image*.jpg`` with ``image*.mat`` beside them, whose ``Pose_Para`` begins with pitch, yaw and roll in
radians. Conventions, in the camera's OpenGL axes (x right, y up, z towards the viewer)::

    R = Rx(-pitch) Ry(-yaw) Rz(-roll)

so that pitch is positive for a head that looks up, yaw for one that looks to the picture's left, and roll for one that leans
clockwise in the picture. The published protocol scores the pictures whose three angles lie within ±99° (1969 of 2000), and gives the
mean absolute error of each angle and the mean of the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.spatial.transform import Rotation

from tracker.errors import UserError

LIMIT_DEG = 99.0
"""Pictures with an angle beyond it are left out, as in HopeNet (Ruiz et al., 2018) and everything since."""


@dataclass(frozen=True)
class PoseScores:
    """Mean absolute errors, degrees, over ``pictures`` pictures; ``missing`` of them had no prediction and are left out."""

    pitch: float
    yaw: float
    roll: float
    pictures: int
    missing: int

    @property
    def mean(self) -> float:
        """Mean of the three."""
        return (self.pitch + self.yaw + self.roll) / 3


def angles_deg(rotation: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3"]:
    """Pitch, yaw and roll of head-to-camera rotations (OpenGL axes), degrees."""
    return -Rotation.from_matrix(rotation).as_euler("XYZ", degrees=True)


def rotations(angles: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Inverse of :func:`angles_deg`."""
    return Rotation.from_euler("XYZ", -np.asarray(angles), degrees=True).as_matrix()


def read_poses(folder: Path) -> dict[str, Float[np.ndarray, "3"]]:
    """Name -> pitch, yaw, roll in degrees, of every picture of the protocol.

    Raises:
        UserError: no such data there.
    """
    poses = {}
    for file in sorted(Path(folder).glob("*.mat")):
        try:
            content = loadmat(file, variable_names=["Pose_Para"])
            angles = np.degrees(np.ravel(content["Pose_Para"])[:3].astype(np.float64))
        except (OSError, ValueError, KeyError, MatReadError, NotImplementedError) as error:
            raise UserError(f"{file}: no AFLW2000-3D annotation ({error})") from error
        if len(angles) == 3 and (np.abs(angles) <= LIMIT_DEG).all():
            poses[file.stem] = angles
    if not poses:
        raise UserError(f"{folder}: it holds no *.mat of AFLW2000-3D")
    return poses


def score(predicted: dict[str, Float[np.ndarray, "3"]], truth: dict[str, Float[np.ndarray, "3"]]) -> PoseScores:
    """Compare pitch, yaw and roll in degrees; differences are taken around the circle."""
    names = [n for n in truth if n in predicted]
    if not names:
        raise UserError("none of the pictures has a prediction")
    difference = np.array([predicted[n] for n in names]) - np.array([truth[n] for n in names])
    error = np.abs((difference + 180) % 360 - 180).mean(0)
    return PoseScores(*(float(e) for e in error), len(truth), len(truth) - len(names))
