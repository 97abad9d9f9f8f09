"""``nerf/``: pictures, masks and ``transforms.json``, as NeRF's programs (instant-ngp, nerfstudio and their kin) read them.

These see one still scene from moving cameras: the scene is the head at rest, and each frame's camera stands where the head saw it.
Any head will do.
"""

from __future__ import annotations

import json

import numpy as np

from flame_assets.atomic_files import atomic_folder
from tracker.camera import CAMERA_POSITION
from tracker.export.flame_layout import joint_motion
from tracker.export.head_masks import HeadMasks
from tracker.export.pictures import check_tracked, intrinsics, masked_frames, matrix, write_png
from tracker.export.registry import ExportJob

FOLDER = "nerf"

_NECK = 1  # the skull moves with it


def export(job: ExportJob) -> list[str]:
    """Write ``nerf/transforms.json``, ``nerf/images/`` and ``nerf/masks/``.

    Raises:
        UserError: the head was tracked in no frame, or the video is another.
    """
    check_tracked(job, "nerf")
    track, camera = job.track, job.track.camera
    linear, offsets = joint_motion(track, job.head)
    from_camera = matrix(np.eye(3), np.array(CAMERA_POSITION))
    masks, frames = HeadMasks(job.head, camera), []
    with atomic_folder(job.folder / FOLDER) as temporary:
        for name in ("images", "masks"):
            (temporary / name).mkdir()
        for seen in masked_frames(job, masks):
            image, mask = (f"{folder}/{seen.number:05d}.png" for folder in ("images", "masks"))
            write_png(temporary / image, seen.image)
            write_png(temporary / mask, seen.mask)
            to_world = matrix(linear[seen.number, _NECK], offsets[seen.number, _NECK])
            pose = (np.linalg.inv(to_world) @ from_camera).tolist()
            time = float(track.timestamps[seen.number])
            frames.append({"file_path": image, "mask_path": mask, "timestep_index": seen.number, "time": time, "transform_matrix": pose})
        content = {**intrinsics(camera), "camera_model": "OPENCV", "mask_source": masks.words, "frames": frames}
        (temporary / "transforms.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [f"{FOLDER}/"]
