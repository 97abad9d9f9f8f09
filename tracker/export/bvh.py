"""``head.bvh``: the turns of head, jaw and eyes as motion capture has them, for programs that put them on a character of their own.

BVH knows bones of fixed length, turned by Euler angles in degrees, at one even rate: frame k stands at k / the nominal rate, and the little
that expressions move the joints is left out. The root moves and turns the whole head about its foot, ``neck`` turns the skull, and the
bones of the eyes point where they look. Metres, y up, in rest the face looks along z.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import JOINT_NAMES, JOINT_PARENTS
from flame_assets.atomic_files import atomic_file
from tracker.export.registry import ExportJob
from tracker.export.rig import Rig, build_rig

_ENDS_M = {"jaw": (0.0, -0.03, 0.07), "left_eye": (0.0, 0.0, 0.05), "right_eye": (0.0, 0.0, 0.05)}
"""From a joint without children to the tip of its bone."""

_TURNS = "Zrotation Xrotation Yrotation"  # R = Rz Rx Ry: a head's yaw, the largest of its turns, is the innermost


def export(job: ExportJob) -> list[str]:
    """Write ``head.bvh``."""
    track, rig = job.track, build_rig(job.track, job.head)
    rows = channels(rig)
    line = " ".join(["%.6f"] * rows.shape[1]) + "\n"
    with atomic_file(job.folder / "head.bvh") as unfinished, unfinished.open("w", encoding="ascii", newline="\n") as file:
        file.write("HIERARCHY\n" + "".join(_joint(rig, 0, 0)))
        file.write(f"MOTION\nFrames: {track.n_frames}\nFrame Time: {1 / track.frame_rate:.8f}\n")
        for number, row in enumerate(rows.tolist(), 1):
            file.write(line % tuple(row))
            job.written(number)
    return ["head.bvh"]


def channels(rig: Rig) -> Float[np.ndarray, "frames 18"]:
    """The root's place (metres), then every joint's three angles (degrees), in the order of the hierarchy.

    Angles go on where they passed ±180°, so that programs which blend between frames take the short way.
    """
    frames, joints = rig.rotations.shape[:2]
    angles = Rotation.from_quat(rig.rotations.reshape(-1, 4)).as_euler("ZXY").reshape(frames, joints * 3)
    return np.concatenate([rig.translations[:, 0], np.degrees(np.unwrap(angles, axis=0))], axis=1)


def _joint(rig: Rig, joint: int, depth: int) -> list[str]:
    """A joint's lines and those of its children, depth first: FLAME's own order, so that channels need no sorting."""
    indent, parent, name = "\t" * depth, JOINT_PARENTS[joint], JOINT_NAMES[joint]
    offset = rig.joints[joint] - (rig.joints[parent] if parent >= 0 else rig.joints[joint])
    moves = "CHANNELS 3" if parent >= 0 else "CHANNELS 6 Xposition Yposition Zposition"
    lines = [
        f"{indent}{'JOINT' if parent >= 0 else 'ROOT'} {name}\n",
        f"{indent}{{\n",
        f"{indent}\tOFFSET {_numbers(offset)}\n",
        f"{indent}\t{moves} {_TURNS}\n",
    ]
    for child, its_parent in enumerate(JOINT_PARENTS):
        if its_parent == joint:
            lines += _joint(rig, child, depth + 1)
    if name in _ENDS_M:
        lines += [f"{indent}\tEnd Site\n", f"{indent}\t{{\n", f"{indent}\t\tOFFSET {_numbers(_ENDS_M[name])}\n", f"{indent}\t}}\n"]
    return [*lines, f"{indent}}}\n"]


def _numbers(values: Float[np.ndarray, "3"]) -> str:
    return " ".join(f"{value:.6f}" for value in values)
