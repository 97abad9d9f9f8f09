"""Synthetic clips with exact ground truth: one random person who turns, talks, blinks and looks around.

They measure trackers. Unlike the training pictures of :mod:`densemarks_model.data.synthetic.scene` the frames are whole
pictures of a fixed pinhole camera, and everything but pose, face and gaze stays as it is from frame to frame. The person has
a shape that the head model's identity basis cannot reach (see ``people.random_person``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from densemarks_model.crops import HeadCrop
from densemarks_model.data.synthetic import effects
from densemarks_model.data.synthetic.people import Pose, head_kit, pose_head, random_person
from densemarks_model.data.synthetic.repertoire import PLAIN
from densemarks_model.data.synthetic.scene import SceneRenderer, View

STRETCH = 0.03
"""Spread of the people's shape outside the identity basis, relative to the head."""


@dataclass(frozen=True)
class Script:
    """What happens in a clip.

    Attributes:
        seed: of the person, the scene and the motion.
        frames, frame_rate: length, and pictures per second.
        yaw_deg: the head turns from side to side by this much.
        size: width and height, pixels. focal_ratio: focal length over size.
        speech: how wide the mouth opens, 0 to 1.
        start, turns: where on its circle from side to side the head begins, radians (π/2: turned by ``yaw_deg``), and how
            much of the circle it goes.
        nod: how far it nods and tilts; 1 is up to 9 degrees up and down and 5 to the sides.
    """

    seed: int
    frames: int = 60
    frame_rate: float = 12.5
    yaw_deg: float = 30.0
    size: int = 512
    focal_ratio: float = 1.4
    speech: float = 0.5
    start: float = 0.0
    turns: float = 1.0
    nod: float = 1.0

    @property
    def timestamps(self) -> Float[np.ndarray, "frames"]:
        """When each picture is seen, seconds: whoever tracks the clip is to be told these."""
        return np.arange(self.frames) / self.frame_rate


@dataclass(frozen=True)
class Truth:
    """One frame's ground truth.

    Attributes:
        vertices: of the default head's mesh, camera space (OpenGL axes, camera at the origin), metres.
        skull_rotation: rotation of the skull, head frame to camera space.
        expression: ARKit coefficients, in the default head's order.
        eyes: axis-angle of the left and of the right eye, radians.
        focal_px: focal length; the principal point is the picture's centre.
        yaw: degrees.
    """

    vertices: Float[np.ndarray, "verts 3"]
    skull_rotation: Float[np.ndarray, "3 3"]
    expression: Float[np.ndarray, "expression"]
    eyes: Float[np.ndarray, "6"]
    focal_px: float
    yaw: float


def render_sequence(script: Script) -> Iterator[tuple[UInt8[np.ndarray, "size size 3"], Truth]]:
    """Frames (RGB) with their truths, always the same for one script."""
    rng = np.random.default_rng([script.seed, 77])
    person = random_person(rng, STRETCH)
    motion = Motion(script, rng)
    scene = SceneRenderer(script.size, 64, PLAIN)
    sensor_noise, distance = rng.uniform(1.5, 4.0), script.focal_ratio * rng.uniform(0.42, 0.58)
    outside = head_kit().outside
    for index in range(script.frames):
        expression, pose, body, shift = motion.at(index)
        head, skull, offset = pose_head(person, expression, pose)
        centre = person.rest[outside].mean(0)
        translation = np.array([0.0, 0.0, -distance]) + shift - body @ centre
        view = View(body, translation, HeadCrop(np.zeros(2), 1 / script.focal_ratio), 0.0, 0.0)
        # the same random numbers for every frame: the same hair, clothes, light and room
        scenery = np.random.default_rng([script.seed, 78])
        meshes, _ = scene.dress(person, head, skull, offset, view, scenery)
        linear, parts = scene.draw(meshes, person, view, np.random.default_rng([script.seed, 79]))
        subject = cv2.resize(parts, (script.size, script.size), interpolation=cv2.INTER_AREA) > 0.5
        image = effects.develop(linear, subject, np.random.default_rng([script.seed, 80])).astype(np.float32)
        image += np.random.default_rng([script.seed, 81, index]).normal(0, sensor_noise, image.shape).astype(np.float32)
        truth = Truth(
            vertices=meshes[0].vertices,
            skull_rotation=body @ skull,
            expression=expression,
            eyes=pose.eyes,
            focal_px=script.focal_ratio * script.size,
            yaw=float(np.degrees(np.arctan2(*(body @ skull)[[0, 2], 2]))),
        )
        yield np.clip(image + 0.5, 0, 255).astype(np.uint8), truth


class Motion:
    """Smooth curves through a clip: pose, speech, blinks, glances."""

    def __init__(self, script: Script, rng: np.random.Generator) -> None:
        self._script = script
        self._phase = rng.uniform(0, 2 * np.pi, 16)
        self._tempo = rng.uniform(0.8, 1.25, 16)
        self._neck_share = rng.uniform(0.3, 0.7)
        seconds = script.frames / script.frame_rate
        self._blinks = np.cumsum(rng.uniform(0.9, 1.9, int(seconds / 0.9) + 2))
        self._glances = rng.normal(0, np.deg2rad([6, 12]), (int(seconds / 0.6) + 2, 2))
        self._smile, self._brow = rng.uniform(0, 0.7), rng.uniform(0, 0.7)

    def _wave(self, which: int, seconds: float, period: float) -> float:
        return float(np.sin(2 * np.pi * seconds / (period * self._tempo[which]) + self._phase[which]))

    def at(self, index: int) -> tuple[np.ndarray, Pose, np.ndarray, np.ndarray]:
        """Expression, neck and eyes, the body's rotation, and the head's shift in metres."""
        script, names = self._script, head_kit().asset.expression_names
        seconds = index / script.frame_rate
        turned = script.start + script.turns * (2 * np.pi * index / script.frames)
        yaw = script.yaw_deg * np.sin(turned) + 2 * self._wave(0, seconds, 1.3)
        pitch = script.nod * (6 * self._wave(1, seconds, 2.9) + 3 * self._wave(2, seconds, 1.1))
        roll = script.nod * 5 * self._wave(3, seconds, 3.7)
        share = self._neck_share
        neck = np.clip([pitch * share, yaw * share, roll * share], [-25, -45, -20], [30, 45, 20])
        rest = np.array([pitch, yaw, roll]) - neck
        body = Rotation.from_euler("YXZ", rest[[1, 0, 2]], degrees=True).as_matrix()
        neck_vector = Rotation.from_euler("YXZ", neck[[1, 0, 2]], degrees=True).as_rotvec()

        values = dict.fromkeys(names, 0.0)
        talking = script.speech * max(0.0, 0.55 + 0.45 * self._wave(4, seconds, 4.1))
        values["jawOpen"] = 0.7 * talking * max(0.0, 0.5 + 0.5 * self._wave(5, seconds, 0.45))
        values["mouthFunnel"] = 0.6 * talking * max(0.0, self._wave(6, seconds, 0.8))
        values["mouthPucker"] = 0.6 * talking * max(0.0, self._wave(7, seconds, 1.1))
        for side in ("Left", "Right"):
            values[f"mouthSmile{side}"] = self._smile * max(0.0, self._wave(8, seconds, 4.5))
            values[f"mouthLowerDown{side}"] = 0.4 * talking * max(0.0, self._wave(9, seconds, 0.6))
            values[f"browOuterUp{side}"] = self._brow * max(0.0, self._wave(10, seconds, 3.3))
            nearest = float(np.abs(self._blinks - seconds).min())
            values[f"eyeBlink{side}"] = float(np.clip(1.25 - nearest / 0.12, 0, 1))
        values["browInnerUp"] = self._brow * max(0.0, self._wave(10, seconds, 3.3))
        glance = self._glances[min(int(seconds / 0.6), len(self._glances) - 1)]
        eyes = np.tile([glance[0], glance[1], 0.0], 2)
        shift = 0.02 * np.array([self._wave(11, seconds, 3.1), self._wave(12, seconds, 2.3), self._wave(13, seconds, 4.0)])
        return np.array([values[n] for n in names], np.float32), Pose(neck_vector, eyes), body, shift


def suite(seed: int, count: int, frames: int = 60) -> list[Script]:
    """Scripts of a test suite: people and focal lengths differ, the head turns by 25 to 80 degrees to both sides.

    A clip takes 4.8 seconds, however many frames that is.
    """
    rng = np.random.default_rng([seed, 5])
    base = Script(seed=0, frames=frames, frame_rate=frames / 4.8)
    return [
        replace(base, seed=seed + k, yaw_deg=(80.0, 25.0, 55.0)[k % 3], focal_ratio=float(rng.uniform(1.0, 2.2)), speech=float(rng.uniform(0.4, 0.9)))
        for k in range(count)
    ]
