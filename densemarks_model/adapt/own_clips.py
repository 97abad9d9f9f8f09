"""A user's clips as training pairs: each clip's time is cut, and its end is kept aside to measure on.

A part of a clip is handed to :func:`densemarks_model.data.videos.ingest.prepare_clip` as a folder of pictures, which is a clip
as well; what that makes of it (crops, landmarks, flow tracks) serves the training, or the held-out rows.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from densemarks_model.data.videos.__main__ import CLIPS
from densemarks_model.data.videos.ingest import IngestSettings, Rejected, prepare_clip
from densemarks_model.data.videos.point_tracks import FlowTracker
from densemarks_model.errors import ModelError
from flame_assets.atomic_files import atomic_file
from tracker.errors import UserError
from tracker.video.reader import open_video

HELD_OUT_SHARE = 0.2
"""Share of each clip's time that is measured on and never learned from: its end."""

GAP_SECONDS = 0.5
"""Between what is learned from and what is measured on: neighbouring frames are nearly the same picture."""

PARTS = 24
"""Parts that are prepared of all clips together; three of four to learn from. Every clip gets one of either kind."""

INGEST = IngestSettings(frames=32)

_REJECTED = "rejected.json"


@dataclass(frozen=True)
class Part:
    """Frames ``first`` to ``last - 1`` of a clip, every ``stride``-th of them."""

    first: int
    last: int
    stride: int
    held_out: bool


@dataclass(frozen=True)
class Prepared:
    """Prepared parts on disk.

    Attributes:
        training, held_out: folders of ``.npz`` files named after clip and part. clips: how many clips serve. notes: about those that do not.
    """

    training: Path
    held_out: Path
    clips: int
    notes: list[str]


def find_clips(given: list[Path]) -> list[Path]:
    """Clips by name, and those of folders with their subfolders, each once.

    Raises:
        ModelError: no such file, or a folder without clips.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in CLIPS)
            if not inside:
                raise ModelError(f"{path}: holds no clips ({', '.join(sorted(CLIPS))})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ModelError(f"{path}: no such file or folder")
    return list({p.resolve(): p for p in found}.values())


def clip_digest(path: Path) -> str:
    """Hash of a clip's length and both ends, which tell clips apart wherever they lie."""
    size, ends = path.stat().st_size, 1 << 20
    with path.open("rb") as file:
        content = file.read(ends)
        file.seek(max(size - ends, 0))
        content += file.read(ends)
    return hashlib.sha256(str(size).encode() + content).hexdigest()


def plan_parts(total: int, rate: float, wanted: int, settings: IngestSettings) -> list[Part]:
    """Which frames of a clip are learned from and which are kept aside, in order of time.

    Args:
        total: frames of the clip. rate: frames per second. wanted: parts, of which a quarter is kept aside.

    Raises:
        Rejected: too short for a part of either kind.
    """
    cut = math.ceil(total * (1 - HELD_OUT_SHARE))
    regions = [(0, cut - math.ceil(GAP_SECONDS * rate)), (cut, total)]
    shortest = min(end - start for start, end in regions)
    # every frame of a short clip, rather than no clip
    stride = settings.stride if shortest >= settings.least_frames * settings.stride else 1
    if shortest < settings.least_frames * stride:
        least = (settings.least_frames + 1) / HELD_OUT_SHARE / rate
        raise Rejected(f"too short ({total / rate:.1f} s); about {least:.0f} s with a face are needed")
    aside = max(round(wanted / 4), 1)
    parts: list[Part] = []
    for (start, end), count in zip(regions, (max(wanted - aside, 1), aside), strict=True):
        span = min(settings.frames * stride, end - start)
        starts = np.linspace(start, end - span, min(count, (end - start) // span)).round().astype(int)
        parts += [Part(int(first), int(first) + span, stride, start > 0) for first in starts]
    return parts


def prepare_clips(clips: list[Path], work: Path, settings: IngestSettings = INGEST, parts: int = PARTS, quiet: bool = False) -> Prepared:
    """Prepare what is not prepared yet; the rest is taken from ``work``.

    Args:
        parts: of all clips together.

    Raises:
        ModelError: no clip that serves, with the reasons.
    """
    names = json.dumps([clip_digest(p) for p in clips] + [parts, HELD_OUT_SHARE, GAP_SECONDS])
    folder = work / f"clips-{settings.digest('flow')}-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
    training, held_out = folder / "training", folder / "held_out"
    for kind in (training, held_out):
        kind.mkdir(parents=True, exist_ok=True)
    ledger = folder / _REJECTED
    rejected: dict[str, str] = json.loads(ledger.read_text(encoding="utf-8")) if ledger.is_file() else {}
    notes, serving = [], 0
    with tqdm(total=0, unit="part", disable=quiet) as bar:
        for number, clip in enumerate(clips):
            reason = _prepare(clip, f"clip{number:03d}", folder, max(parts // len(clips), 2), settings, rejected, bar)
            _write(ledger, rejected)
            serving += reason is None
            if reason is not None:
                notes.append(f"{clip}: {reason}")
                for kind in (training, held_out):  # half of a clip is of no use
                    for file in kind.glob(f"clip{number:03d}-*.npz"):
                        file.unlink()
    if not serving:
        raise ModelError(notes[0] + (f" (and {len(notes) - 1} more clips that do not serve)" if len(notes) > 1 else ""))
    return Prepared(training, held_out, serving, notes)


def _prepare(
    clip: Path, name: str, folder: Path, wanted: int, settings: IngestSettings, rejected: dict[str, str], bar: tqdm
) -> str | None:
    """Prepare a clip's parts, or say why it does not serve; what is known of ``rejected`` parts is not tried again."""
    if name in rejected:
        return rejected[name]
    try:
        total, rate = _length(clip)
        parts = plan_parts(total, rate, wanted, settings)
        targets = {p: folder / ("held_out" if p.held_out else "training") / f"{name}-{k:03d}.npz" for k, p in enumerate(parts)}
        todo = [p for p in parts if not targets[p].is_file() and targets[p].stem not in rejected]
        bar.total += len(todo)  # known only now
        for part, pictures in _cut_out(clip, todo):
            try:
                prepare_clip(pictures, targets[part], replace(settings, stride=1), FlowTracker())
            except Rejected as reason:
                rejected[targets[part].stem] = str(reason)
            bar.update()
    except UserError as error:
        rejected[name] = f"cannot be read ({error})"
    except Rejected as reason:
        rejected[name] = str(reason)
    else:
        for kind, use in ((False, "learn from"), (True, "measure on")):
            if not any(targets[p].is_file() for p in parts if p.held_out == kind):
                reasons = sorted({rejected.get(targets[p].stem, "too short") for p in parts if p.held_out == kind})
                rejected[name] = f"no part to {use} ({', '.join(reasons)})" + (f"; its last {HELD_OUT_SHARE:.0%} are kept for that" if kind else "")
                break
    return rejected.get(name)


def _length(path: Path) -> tuple[int, float]:
    """Frames, counted where the file does not say, and frames per second."""
    with open_video(path) as video:
        total = video.frame_count if video.frame_count is not None else sum(1 for _ in video)
        return total, float(video.frame_rate or 25.0)


def _cut_out(clip: Path, parts: list[Part]) -> Iterator[tuple[Part, Path]]:
    """Each part's frames as a folder of pictures, which is there until the next one is asked for."""
    waiting = sorted(parts, key=lambda p: p.first)
    if not waiting:
        return
    with open_video(clip) as video, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "0"
        folder.mkdir()
        for frame in video:
            part = waiting[0]
            if frame.index < part.first:
                continue
            if (frame.index - part.first) % part.stride == 0:  # BMP: nothing is lost, and nothing is spent on packing
                cv2.imwrite(str(folder / f"{frame.index:07d}.bmp"), np.ascontiguousarray(frame.image[..., ::-1]))
            if frame.index + 1 < part.last:
                continue
            yield part, folder
            waiting.pop(0)
            if not waiting:
                return
            for file in folder.iterdir():
                file.unlink()
        if any(folder.iterdir()):  # the file ends before it said
            yield waiting[0], folder


def _write(path: Path, values: dict) -> None:
    with atomic_file(path) as staged:
        staged.write_text(json.dumps(values, indent=1), encoding="utf-8")
