"""Prepare clips for training: ``python -m densemarks_model.data.videos CLIPS --out PREPARED``.

Clips that are prepared already are left alone, so an interrupted run goes on; clips that are not fit are dropped, with the
reasons counted at the end and listed in ``dropped.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from densemarks_model.data.videos.ingest import IngestSettings, Rejected, prepare_clip
from densemarks_model.data.videos.point_tracks import CoTracker3, FlowTracker
from densemarks_model.errors import ModelError
from flame_assets.atomic_files import atomic_file

CLIPS = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"}


def main(arguments: list[str] | None = None) -> int:
    """Prepare what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m densemarks_model.data.videos", description="Prepare clips for training.")
    parser.add_argument("clips", type=Path, help="folder of clips, searched with its subfolders")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is prepared")
    parser.add_argument("--tracker", choices=("flow", "cotracker3"), default="flow", help="of points (default: %(default)s)")
    parser.add_argument("--cotracker-weights", type=Path, default=Path("scaled_offline.pth"), help="CoTracker3's checkpoint")
    parser.add_argument("--frames", type=int, default=IngestSettings.frames, help="most frames of a clip (default: %(default)s)")
    parser.add_argument("--stride", type=int, default=IngestSettings.stride, help="every how many-th frame (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    if options.frames < IngestSettings.least_frames or options.stride < 1:
        parser.error(f"--frames starts at {IngestSettings.least_frames}, --stride at 1")
    try:
        return _prepare_all(options)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _prepare_all(options: argparse.Namespace) -> int:
    if not options.clips.is_dir():
        raise ModelError(f"{options.clips}: not a folder")
    clips = sorted(p for p in options.clips.rglob("*") if p.suffix.lower() in CLIPS)
    if not clips:
        raise ModelError(f"{options.clips}: holds no clips ({', '.join(sorted(CLIPS))})")
    settings = IngestSettings(frames=options.frames, stride=options.stride)
    tracker = FlowTracker() if options.tracker == "flow" else CoTracker3(options.cotracker_weights)
    options.out.mkdir(parents=True, exist_ok=True)
    digest = settings.digest(options.tracker)
    ledger = options.out / f"dropped-{digest}.json"
    dropped: dict[str, str] = json.loads(ledger.read_text(encoding="utf-8")) if ledger.is_file() else {}
    made = 0
    for clip in tqdm(clips, unit="clip", disable=options.quiet):
        name = str(clip.relative_to(options.clips))
        target = options.out / f"{name.replace(os.sep, '__')}-{digest}.npz"
        if target.exists() or name in dropped:
            continue
        try:
            prepare_clip(clip, target, settings, tracker)
            made += 1
        except Rejected as reason:
            dropped[name] = str(reason)
            with atomic_file(ledger) as staged:
                staged.write_text(json.dumps(dropped, indent=1), encoding="utf-8")
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(dropped.values()).items()))
    print(f"{len(clips)} clips: {made} prepared now, {len(clips) - made - len(dropped)} before, {len(dropped)} dropped{f' ({reasons})' if reasons else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
