"""Score the trackers: exact synthetic truth, and how the solver behaves.

    python tools/benchmark.py                      # about 15 minutes on two cores
    python tools/benchmark.py --quick              # two short clips, three minutes
    python tools/benchmark.py --json scores.json --markdown scores.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np  # noqa: E402

from flame_assets.load import load_head  # noqa: E402
from tracker.demo import demo_clip  # noqa: E402
from tracker.evaluation.report import markdown_report  # noqa: E402
from tracker.evaluation.solver_checks import (  # noqa: E402
    amplitude_kept,
    compare_with_adam,
    convergence_share,
    prepare,
    static_jitter_deg,
)
from tracker.evaluation.synthetic_suite import run_suite  # noqa: E402
from tracker.evaluation.trackers import ABLATIONS, TRACKERS  # noqa: E402
from tracker.export.atomic import atomic_file  # noqa: E402
from tracker.video.reader import open_video  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short clips and fewer frames")
    parser.add_argument("--ablation", action="store_true", help="parts of the dense and photometric terms instead, on four clips")
    parser.add_argument("--trackers", nargs="+", choices=tuple(TRACKERS), default=list(TRACKERS))
    parser.add_argument("--seed", type=int, default=9000, help="of the synthetic clips (default: 9000)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    count, frames = (2, 24) if options.quick else (9, 60)
    asset = load_head()
    if options.ablation:
        with TemporaryDirectory() as folder:
            synthetic = run_suite(list(ABLATIONS), 2 if options.quick else 4, frames, Path(folder), options.seed)
        return finish({"seed": options.seed, "clips": 2 if options.quick else 4, "frames": frames, "synthetic": synthetic}, options)
    with TemporaryDirectory() as folder:
        work = Path(folder)
        synthetic = run_suite(options.trackers, count, frames, work, options.seed)
        clip = demo_clip(quiet=True)
        print("solver: convergence and Adam …", flush=True)
        prepared = [prepare(path, asset, 60) for path in (work / "clip_0", work / "clip_1", clip)]
        converged = [convergence_share(p) for p in prepared]
        adam = compare_with_adam(prepared[2], frames=8 if options.quick else 32)
        print("jitter and amplitudes …", flush=True)
        with open_video(clip, max_frames=1) as video:
            still = next(iter(video)).image
        names = [t for t in options.trackers if t != "dense_landmarks_photometric" or not options.quick]
        jitter = {t: static_jitter_deg(still, asset, t) for t in names}
        kept = {t: amplitude_kept(clip, asset, t, 60 if options.quick else 240) for t in names}
    scores = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "seed": options.seed,
        "clips": count,
        "frames": frames,
        "synthetic": synthetic,
        "solver": {
            "convergence_share": float(np.mean(converged)),
            "speedup_over_adam": adam.speedup,
            "ms_per_frame": adam.solver_ms,
            "adam_ms_per_frame": adam.adam_ms,
            "cost": adam.solver_cost,
            "adam_cost": adam.adam_cost,
        },
        "static_jitter_deg": jitter,
        "amplitude_kept": kept,
    }
    return finish(scores, options)


def finish(scores: dict[str, Any], options: argparse.Namespace) -> int:
    """Print the tables and write the files that were asked for."""
    text = markdown_report(scores)
    print(text)
    for path, content in ((options.json, json.dumps(scores, indent=2) + "\n"), (options.markdown, text)):
        if path is not None:
            with atomic_file(path) as unfinished:
                unfinished.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
