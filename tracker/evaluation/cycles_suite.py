"""The clips that Cycles rendered, and their truth.

Path tracing gives pictures far nearer to photographs than the renderer that the network learns from, with truth as exact.
The clips are shipped as H.264 (``tools/render_cycles_suite.py`` made them, ``data/cycles_suite/PROVENANCE.md`` says with what),
so that everybody scores the same pixels without having Blender. The truth is shipped as the head model's parameters and, for what
those cannot say of a person's shape, one displacement a vertex; vertices are computed from them. They are those of one
head only, so a default head that has changed since is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from flame_assets.load import load_head
from flame_assets.stable_npz import write_stable_npz
from tracker.errors import UserError
from tracker.evaluation.synthetic_suite import ClipTruth, KnownClip
from tracker.head_model import HeadModel

FOLDER = Path(__file__).parent / "data" / "cycles_suite"
"""Where the shipped clips lie: ``clip_0.mp4`` and on, and ``truth.npz``."""

SAMPLED = 300
"""Of so many vertices, one is in the file of truths as it was rendered."""

RENDER_AGAIN = "render the suite again with tools/render_cycles_suite.py"


@dataclass(frozen=True)
class Performance:
    """Everything that a clip's geometry depends on.

    Attributes:
        identity: coefficients of the head's identity basis.
        bend: displacement of the shaped head outside that basis, metres.
        expression: coefficients. neck, eyes: axis-angle vectors of the neck joint and of the left and right eye, radians.
        rotation, translation: axis-angle vector and metres that take the head's frame to the camera's (OpenGL axes, camera
            at the origin).
        focal_px: focal length, pixels; the principal point is the picture's centre.
    """

    identity: Float[np.ndarray, "identity"]
    bend: Float[np.ndarray, "verts 3"]
    expression: Float[np.ndarray, "frames expression"]
    neck: Float[np.ndarray, "frames 3"]
    eyes: Float[np.ndarray, "frames 6"]
    rotation: Float[np.ndarray, "frames 3"]
    translation: Float[np.ndarray, "frames 3"]
    focal_px: float

    def truth(self, head: HeadModel) -> ClipTruth:
        """Vertices in camera space and what else trackers are scored against."""
        body = Rotation.from_rotvec(self.rotation).as_matrix()
        skull = body @ Rotation.from_rotvec(self.neck).as_matrix()
        with torch.no_grad():
            shaped = head.with_shape(*(torch.as_tensor(a, dtype=head.dtype) for a in (self.identity, self.expression)))
            bent = type(shaped)(head, shaped.vertices + torch.as_tensor(self.bend, dtype=head.dtype), shaped.joints)
            neck, eyes = (torch.as_tensor(a, dtype=head.dtype) for a in (self.neck, self.eyes))
            local = bent.with_pose(neck_pose=neck, eyes_pose=eyes).skin().numpy()
        vertices = local @ np.swapaxes(body, 1, 2) + self.translation[:, None]
        yaw = np.degrees(np.arctan2(skull[:, 0, 2], skull[:, 2, 2]))
        return ClipTruth(
            vertices.astype(np.float32), skull, self.expression.astype(np.float32), self.eyes, self.focal_px, yaw
        )


def write_truths(
    path: Path, clips: dict[str, Performance], rendered: Float[np.ndarray, "clips frames verts 3"], asset: HeadAsset
) -> None:
    """Write performances by what the clips show, in the clips' order, for the head ``asset``.

    Of the vertices that were rendered, in camera space, one in :data:`SAMPLED` is kept to check against, in the first, a middle and the
    last frame.
    """
    sample = rendered[:, [0, rendered.shape[1] // 3, -1], ::SAMPLED].astype(np.float32)
    arrays = {"head_sha256": np.array(asset.sha256()), "shows": np.array(list(clips)), "rendered": sample}
    for number, clip in enumerate(clips.values()):
        for item in fields(Performance):
            value = np.asarray(getattr(clip, item.name))
            # rotations and positions at full precision: they cost nothing beside the bend
            arrays[f"{number}/{item.name}"] = value.astype(np.float32) if item.name in ("bend", "identity", "expression") else value
    write_stable_npz(path, arrays)


def read_truths(path: Path, asset: HeadAsset) -> dict[str, Performance]:
    """What :func:`write_truths` wrote.

    Raises:
        UserError: no such file, not a file of truths, or one for another head than ``asset``.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["head_sha256"]) != asset.sha256():
                raise UserError(f"{path}: these truths are of another version of the head {asset.name!r}; {RENDER_AGAIN}")
            return {
                str(shown): Performance(
                    **{f.name: file[f"{number}/{f.name}"] for f in fields(Performance) if f.name != "focal_px"},
                    focal_px=float(file[f"{number}/focal_px"]),
                )
                for number, shown in enumerate(file["shows"])
            }
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as the suite's truths ({error}); {RENDER_AGAIN}") from error


def known_clips(folder: Path = FOLDER) -> list[KnownClip]:
    """The suite, ready for ``synthetic_suite.score_clips``.

    Raises:
        UserError: a file is missing, or the default head is not the one whose truth is known.
    """
    asset = load_head()
    performances = read_truths(folder / "truth.npz", asset)
    head = HeadModel.from_asset(asset)
    clips = []
    for number, (shown, performance) in enumerate(performances.items()):
        video = folder / f"clip_{number}.mp4"
        if not video.is_file():
            raise UserError(f"{video}: no such file; {RENDER_AGAIN}")
        clips.append(KnownClip(f"Cycles clip {number} ({shown})", video, performance.truth(head)))
    return clips
