"""Score trackers on rendered clips with exact truth and on real clips with held-out cues.

    python tools/benchmark.py --html report.html          # everything; about half an hour on two cores
    python tools/benchmark.py --suites cycles             # clips by a renderer that the shipped network never saw
    python tools/benchmark.py --quick                     # one minute; fails when a figure leaves its band
    python tools/benchmark.py --suites real --video mine.mp4 --trackers landmarks478 dense_landmarks
    python tools/benchmark.py --suites speed              # whole runs, in units of a matrix product
    python tools/benchmark.py --ablation                  # parts of the dense and photometric terms
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np

from configs import PRESETS
from flame_assets.atomic_files import atomic_file
from flame_assets.load import load_head
from tracker.errors import UserError
from tracker.evaluation.bands import outside
from tracker.evaluation.baselines import ABLATIONS, TRACKERS, Preset, Tracked
from tracker.evaluation.baselines.files import read_result
from tracker.evaluation.cycles_suite import known_clips
from tracker.evaluation.html_report import Overlay, html_report, overlays
from tracker.evaluation.independent_landmarks import check_installed
from tracker.evaluation.markdown_report import markdown_report
from tracker.evaluation.plots import figures, write_png
from tracker.evaluation.real_suite import RealClip
from tracker.evaluation.real_suite import run_suite as run_real
from tracker.evaluation.solver_checks import (
    amplitude_kept,
    compare_with_adam,
    convergence_share,
    prepare,
    static_jitter_deg,
)
from tracker.evaluation.speed_suite import speed_scores
from tracker.evaluation.summary import real_summary, synthetic_summary
from tracker.evaluation.synthetic_suite import KnownClip, score_clips
from tracker.evaluation.synthetic_suite import run_suite as run_synthetic
from tracker.video.packaged_clips import EXCERPT, demo_clip, fetch_clip
from tracker.video.reader import open_video

SUITES = ("cycles", "synthetic", "real", "solver", "speed")
QUICK_SUITES = ("synthetic", "real")
QUICK_TRACKERS = ("landmarks478", "dense_landmarks")
ABLATION_CLIPS = 4


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", choices=SUITES, help=f"which to run (default: all; with --quick {' and '.join(QUICK_SUITES)})")
    parser.add_argument(
        "--trackers", nargs="+", choices=tuple(TRACKERS), metavar="NAME",
        help=f"which to score: {', '.join(TRACKERS)} (default: all; with --quick {', '.join(QUICK_TRACKERS)})",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="two short clips and the excerpt; figures are checked against bands")
    parser.add_argument("--ablation", action="store_true", help="parts of the dense and photometric terms instead, on synthetic clips")
    parser.add_argument("--seed", type=int, default=9000, help="of the synthetic clips (default: %(default)s)")
    parser.add_argument("--video", type=Path, nargs="+", metavar="FILE", help="real clips to score on, instead of the packaged ones")
    parser.add_argument("--masks", type=Path, metavar="FOLDER", help="person masks of the one --video, a picture for each frame")
    parser.add_argument(
        "--from-disk", action="append", default=[], metavar="NAME=PATH",
        help="score another tracker's files for the one --video too: a flame_params.npz, VHAP's or SMIRK's .npz, or a folder of "
        ".frame of metrical-tracker or Pixel3DMM; may be given several times",
    )  # fmt: skip
    parser.add_argument("--head", type=Path, metavar="PATH", help="the head that those files belong to, as for track.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with tables, plots and overlays there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write the plots there, as PNG")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when figures leave their bands, 2 when something about the input is wrong."""
    options = build_parser().parse_args(arguments)
    try:
        scores, pictures = measure(options)
        text = markdown_report(scores)
        print(text)
        page = html_report(scores, pictures) if options.html else ""
        plots = figures(scores) if options.plots else {}
    except UserError as error:
        print(f"benchmark.py: error: {error}", file=sys.stderr)
        return 2
    for name, figure in plots.items():
        options.plots.mkdir(parents=True, exist_ok=True)
        write_png(figure, options.plots / f"{name}.png")
    content = json.dumps(scores, indent=2, allow_nan=False) + "\n"
    for path, out in ((options.json, content), (options.markdown, text), (options.html, page)):
        if path is not None:
            with atomic_file(path) as unfinished:
                unfinished.write_text(out, encoding="utf-8")
    problems = outside(scores) if options.quick and not options.ablation else []
    for problem in problems:
        print(f"out of band: {problem}", file=sys.stderr)
    return 1 if problems else 0


def without_nan(scores: Any) -> Any:
    """Scores as JSON knows them: what a tracker or a clip cannot tell is null."""
    if isinstance(scores, dict):
        return {name: without_nan(value) for name, value in scores.items()}
    if isinstance(scores, (list, tuple)):
        return [without_nan(value) for value in scores]
    return None if isinstance(scores, float) and not np.isfinite(scores) else scores


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Overlay]]:
    """Run what was asked for."""
    count, frames = (2, 24) if options.quick else (9, 40)
    suites = options.suites or (QUICK_SUITES if options.quick else SUITES)
    names = options.trackers or (list(QUICK_TRACKERS) if options.quick else list(TRACKERS))
    for option, given in (("--masks", options.masks), ("--from-disk", options.from_disk)):
        if given and len(options.video or ()) != 1:
            raise UserError(f"{option}: give the one --video that belongs to it")
    if "real" in suites and not options.ablation:
        check_installed()
    scores: dict[str, Any] = {"run": run_facts(options.seed), "suites": {}}
    pictures: list[Overlay] = []
    with TemporaryDirectory() as folder:
        work = Path(folder)
        if "cycles" in suites and not options.ablation:
            measure_cycles(names, scores, pictures if options.html else None)
        if options.ablation or "synthetic" in suites:
            trackers = ABLATIONS if options.ablation else {n: TRACKERS[n] for n in names}
            count = min(count, ABLATION_CLIPS) if options.ablation else count
            clips = run_synthetic(trackers, count, frames, work, options.seed)
            scores["run"] |= {"synthetic_clips": count, "synthetic_frames": frames}
            scores["suites"]["synthetic"] = {n: synthetic_summary(c) for n, c in clips.items() if c}
            scores.setdefault("clips", {})["synthetic"] = without_nan(clips)
        if options.ablation:
            return scores, pictures
        if "real" in suites:
            chosen = real_clips(options)
            if any(c.max_frames for c in chosen):
                scores["run"]["real_frames_at_most"] = max(c.max_frames or 0 for c in chosen)
            videos = {c.name: c.video for c in chosen}

            def keep(name: str, clip: str, tracked: Tracked) -> None:
                if options.html:
                    pictures.extend(overlays(clip, name, tracked, videos[clip]))

            found = run_real(names, chosen, read_from_disk(options), keep=keep)
            scores["run"]["real_clips"] = [c.name for c in chosen]
            scores["suites"]["real"] = {n: real_summary(c) for n, c in found.items() if c}
            scores.setdefault("clips", {})["real"] = without_nan(found)
        if "solver" in suites:
            scores["solver"] = solver_scores(names, work)
        if "speed" in suites:
            print("speed …", flush=True)
            scores["speed"] = speed_scores((options.video or [demo_clip(quiet=True)])[0], load_head(), PRESETS, work / "speed")
    return scores, pictures


def measure_cycles(names: list[str], scores: dict[str, Any], pictures: list[Overlay] | None) -> None:
    """Score trackers on the clips that Cycles rendered, into ``scores``; overlays are added to ``pictures``."""
    clips = known_clips()

    def keep(name: str, clip: KnownClip, tracked: Tracked) -> None:
        if pictures is not None:
            pictures.extend(overlays(clip.label, name, tracked, clip.video))

    rows = score_clips({n: TRACKERS[n] for n in names}, clips, keep=keep)
    scores["run"] |= {"cycles_clips": len(clips), "cycles_frames": len(clips[0].truth.yaw)}
    scores["suites"]["cycles"] = {n: synthetic_summary(r) for n, r in rows.items() if r}
    scores.setdefault("clips", {})["cycles"] = without_nan(rows)


def run_facts(seed: int) -> dict[str, Any]:
    """What a run's figures depend on."""
    packages = ("torch", "numpy", "mediapipe", "openvino")
    return {
        "seed": seed,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{p: version(p) for p in packages},
    }


def real_clips(options: argparse.Namespace) -> list[RealClip]:
    """The user's clips, or the packaged ones."""
    if options.video:
        return [RealClip(v.stem, v, masks=options.masks) for v in options.video]
    if options.quick:
        return [RealClip("excerpt", EXCERPT, 60)]
    return [RealClip("demo", demo_clip(quiet=True)), RealClip("carphone", fetch_clip("carphone"))]


def read_from_disk(options: argparse.Namespace) -> dict[str, dict[str, Tracked]]:
    """Results of other trackers, by name and clip."""
    if not options.from_disk:
        return {}
    head, video = load_head(options.head), options.video[0]
    with open_video(video, max_frames=1) as frames:
        rate = frames.frame_rate
    out = {}
    for entry in options.from_disk:
        name, _, path = entry.partition("=")
        if not name or not path or name in TRACKERS:
            raise UserError(f"--from-disk {entry}: expected NAME=PATH with a name of its own")
        out[name] = {video.stem: read_result(Path(path), head, rate)}
    return out


def solver_scores(names: list[str], work: Path) -> dict[str, Any]:
    """Basin of the dense term, speed against Adam, jitter and amplitudes."""
    asset, clip = load_head(), demo_clip(quiet=True)
    print("solver …", flush=True)
    synthetic = [p for p in (work / "clip_0.mov", work / "clip_1.mov") if p.is_file()]
    prepared = [prepare(path, asset, 60) for path in (*synthetic, clip)]
    with open_video(clip, max_frames=1) as video:
        still = next(iter(video)).image
    presets = {n: t for n in names if isinstance(t := TRACKERS[n], Preset)}
    return {
        "convergence_share": float(np.mean([convergence_share(p) for p in prepared])),
        **compare_with_adam(prepared[-1], frames=32).json(),
        "static_jitter_deg": {n: static_jitter_deg(still, t) for n, t in presets.items()},
        "amplitude_kept": {n: amplitude_kept(clip, t, 160) for n, t in presets.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
