"""``livelink.csv``: the table that Epic's Live Link Face app saves, for Unreal (MetaHuman), Blender add-ons, MotionBuilder.

A row a frame, frames without a tracked head included: timecode, the count of values (61), ARKit's 52 values, and yaw, pitch and roll of
the head, the left eye and the right eye. Programs that read such files disagree whether the nine angles are radians or degrees, hence
two formats. ``docs/formats.md`` describes every column.
"""

from __future__ import annotations

import csv
import math

import numpy as np

from flame_assets.atomic_files import atomic_file
from tracker.export.arkit_values import ARKIT_NAMES, arkit_values, eye_angles, head_angles
from tracker.export.registry import ExportJob

RADIANS_NAME, DEGREES_NAME = "livelink.csv", "livelink_degrees.csv"

ANGLE_COLUMNS = tuple(f"{part}{angle}" for part in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll"))

HEADER = ("Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in ARKIT_NAMES), *ANGLE_COLUMNS)


def export(job: ExportJob) -> list[str]:
    """Write ``livelink.csv``, angles in radians."""
    return _write(job, RADIANS_NAME, 1.0)


def export_degrees(job: ExportJob) -> list[str]:
    """Write ``livelink_degrees.csv``, angles in degrees."""
    return _write(job, DEGREES_NAME, 180 / np.pi)


def _write(job: ExportJob, name: str, unit: float) -> list[str]:
    track = job.track
    angles = np.concatenate([head_angles(track), eye_angles(track, 0), eye_angles(track, 1)], axis=1) * unit
    rows = np.concatenate([arkit_values(track, job.head), angles], axis=1)
    with atomic_file(job.folder / name) as unfinished, unfinished.open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number, (time, row) in enumerate(zip(track.timestamps, rows, strict=True), 1):
            values = (f"{value + 0.0:.10f}" for value in np.round(row, 10))  # + 0: no "-0.0"
            writer.writerow((timecode(float(time), track.frame_rate), len(HEADER) - 2, *values))
            job.written(number)
    return [name]


def timecode(seconds: float, frame_rate: float) -> str:
    """``HH:MM:SS:FF.sss``: whole seconds of the video's own time, then frames and thousandths of a frame into the second.

    Frames count at the next whole rate (30 for 29.97), so that SS + FF.sss / rate is the frame's true time to a thousandth of a
    frame, at uneven frame times too.
    """
    rate = max(math.ceil(frame_rate - 1e-6), 1)
    whole, thousandths = divmod(round(seconds * rate * 1000), rate * 1000)
    frames, thousandths = divmod(thousandths, 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frames:02d}.{thousandths:03d}"
