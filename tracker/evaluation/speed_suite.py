"""How fast whole runs are, in units of a fixed yardstick, so that machines can be compared.

A run is a process of its own, timed from its start to its end: libraries, first look, fit, exports, overlay. MediaPipe's face landmarker
alone, on the same clip, stands beside it. Each time is also given as a multiple of what a product of two matrices took just before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from flame_assets.asset import HeadAsset
from tracker.errors import UserError
from tracker.evaluation.solver_checks import prepare
from tracker.landmarks.mediapipe_detector import DEFAULT_MODEL
from tracker.landmarks.mediapipe_graph import Graph
from tracker.pipeline import one_torch_thread
from tracker.solver import SolverConfig, solve
from tracker.stages.recipe import variables
from tracker.video.reader import open_video

_SIDE, _PRODUCTS = 1000, 20
_ROOT = Path(__file__).resolve().parents[2]


def yardstick() -> float:
    """Seconds of a product of two 1000 × 1000 matrices of doubles by numpy: the median of twenty."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, _SIDE, _SIDE))
    a @ b  # threads of the library start
    return median(_seconds(lambda: a @ b) for _ in range(_PRODUCTS))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed_scores(clip: Path, asset: HeadAsset, presets: Sequence[str], work: Path, repeats: int = 3) -> dict[str, Any]:
    """Seconds and yardsticks of runs of the command line, of their stages, of MediaPipe alone, and of the solver.

    Args:
        clip: a video.
        asset: the default head.
        presets: to run, each ``repeats`` times; the run of median wall clock is kept.
        work: folder for what the runs write.
    """
    runs = {}
    for preset in presets:
        several = [_run(clip, preset, work / preset) for _ in range(repeats)]
        runs[preset] = sorted(several, key=lambda run: run["seconds"])[len(several) // 2]
    return {
        "runs": runs,
        "mediapipe": _mediapipe(clip),
        "solver_ms_per_frame": solver_ms(clip, asset),
        "repeats": repeats,
    }


def _run(clip: Path, preset: str, out: Path) -> dict[str, Any]:
    """One run of ``track.py``.

    Raises:
        UserError: it failed.
    """
    unit, before, began = yardstick(), os.times(), time.perf_counter()
    command = [sys.executable, str(_ROOT / "track.py"), "--video", str(clip), "--out", str(out), "--preset", preset, "--restart", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds, after = time.perf_counter() - began, os.times()
    if done.returncode != 0:
        raise UserError(f"{clip}: a run of {preset} failed: {done.stderr.strip()}")
    summary = json.loads((out / clip.stem / "summary.json").read_text(encoding="utf-8"))
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        **_figures(seconds, processor, summary["frames"], unit),
        "stages": summary["seconds"],
        "peak_memory_mb": summary["peak_memory_mb"],
    }


def _mediapipe(clip: Path) -> dict[str, float]:
    """MediaPipe's face landmarker in its video mode on every frame, decoding included."""
    unit, before, began, frames = yardstick(), time.process_time(), time.perf_counter(), 0
    landmarker = Graph(DEFAULT_MODEL, faces=1, follow=True)
    with open_video(clip) as video:
        for frame in video:
            landmarker(frame.image)
            frames += 1
    landmarker.close()
    return _figures(time.perf_counter() - began, time.process_time() - before, frames, unit)


def _figures(seconds: float, processor: float, frames: int, unit: float) -> dict[str, float]:
    return {
        "frames": frames,
        "seconds": seconds,
        "processor_seconds": processor,
        "frames_per_second": frames / seconds,
        "yardsticks_per_frame": seconds / unit / frames,
        "processor_yardsticks_per_frame": processor / unit / frames,
        "yardstick_seconds": unit,
    }


def solver_ms(clip: Path, asset: HeadAsset, frames: int = 32, repeats: int = 7) -> float:
    """Milliseconds a frame of the solver on a window's landmarks, dense look-up and priors: the least of some runs."""
    prepared = prepare(clip, asset, frames)
    settings, poses, batch = prepared.settings, prepared.poses, prepared.batch
    free = variables(("pose", "face", "neck"), prepared.head.model, prepared.camera, settings)
    start = prepared.start(batch, poses)
    steps = SolverConfig(max_iterations=next(iter(settings.window_stages.values())).iterations)

    def window() -> None:
        solve(prepared.terms(("landmarks", "look_up", "priors"), batch, poses, start), free, start, steps)

    with one_torch_thread(), torch.no_grad():
        return 1000 * min(_seconds(window) for _ in range(repeats)) / len(batch)


def speed_lines(speed: dict[str, Any]) -> list[str]:
    """The scores as a markdown table and a sentence."""
    columns = {**speed["runs"], "MediaPipe alone": speed["mediapipe"]}
    rows = (
        ("frames a second", "frames_per_second", ".1f"),
        ("seconds", "seconds", ".1f"),
        ("processor seconds", "processor_seconds", ".1f"),
        ("yardsticks a frame", "yardsticks_per_frame", ".2f"),
        ("processor's yardsticks a frame", "processor_yardsticks_per_frame", ".2f"),
        ("yardstick, ms", "yardstick_seconds", ".1f"),
        ("peak memory, MB", "peak_memory_mb", ".0f"),
    )
    lines = ["| whole runs | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for label, key, style in rows:
        scale = 1000 if key == "yardstick_seconds" else 1
        lines.append(f"| {label} | " + " | ".join(format(c[key] * scale, style) if key in c else "–" for c in columns.values()) + " |")
    stages = list(dict.fromkeys(name for run in speed["runs"].values() for name in run["stages"]))
    for stage in stages:
        cells = (format(c["stages"][stage], ".2f") if stage in c.get("stages", {}) else "–" for c in columns.values())
        lines.append(f"| {stage}, seconds | " + " | ".join(cells) + " |")
    return [
        *lines,
        "",
        "Stages run beside each other (landmarks beside the network), so they add up to more than the whole.",
        f"Solver, a window's landmarks, dense look-up and priors: {speed['solver_ms_per_frame']:.2f} ms a frame.",
    ]
