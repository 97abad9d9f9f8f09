"""Held-out error against passes: ``python -m densemarks_model.train.plot RUN… --out docs/images/training.png``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from densemarks_model.errors import ModelError
from densemarks_model.train.finish import finish_folders
from densemarks_model.train.records import LOG, read_log
from flame_assets.atomic_files import atomic_file


def held_out_curves(run: Path, key: str = "error") -> dict[str, list[tuple[int, float]]]:
    """(passes, value) of every validation of a run, by held-out folder.

    Args:
        run: folder with a ``log.jsonl``. key: ``"error"``, ``"surface_error"`` or ``"mask_iou"``.

    Raises:
        ModelError: no log there.
    """
    if not (run / LOG).is_file():
        raise ModelError(f"{run / LOG}: no such file; give the folder of a run (run.out)")
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in read_log(run / LOG):
        if line["kind"] == "held_out":
            for name, values in line["scores"].items():
                curves.setdefault(name, []).append((line["passes"], values[key]))
    return curves


def draw(runs: list[Path], out: Path) -> None:
    """Draw the runs into one picture: lines for long runs; broken ones that end in a dot for the decays that branched from them.

    Raises:
        ModelError: nothing to draw, matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModelError("drawing needs matplotlib: pip install densemarks-tracker[benchmark]") from error
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, key, label in zip(axes, ("error", "mask_iou"), ("cube error", "mask IoU"), strict=True):
        for run in runs:
            prefix = f"{run.name}, " if len(runs) > 1 else ""
            decays = [held_out_curves(f, key) for f in finish_folders(run) if (f / LOG).is_file()]
            for name, points in held_out_curves(run, key).items():
                (line,) = axis.plot(*_columns(points), ".-", label=prefix + name, linewidth=1.4)
                for number, decay in enumerate(d[name] for d in decays if name in d):
                    before = [p for p in points if p[0] < decay[0][0]][-1:]  # where it left the long run, to the last validation
                    axis.plot(*_columns(before + decay), "--", color=line.get_color(), linewidth=1)
                    axis.plot(*_columns(decay[-1:]), "o", color=line.get_color(), label=None if number else f"{prefix}{name}, after a decay")
        axis.set_xlabel("pictures seen, thousands")
        axis.set_ylabel(f"held-out {label}")
        axis.grid(alpha=0.3)
    if not axes[0].lines:
        raise ModelError(f"{', '.join(map(str, runs))}: no validation in the log yet")
    axes[0].legend(frameon=False, fontsize=8)
    _write(figure, out)


def _columns(points: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [passes / 1000 for passes, _ in points], [value for _, value in points]


def _write(figure: Any, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as staged:
            figure.savefig(staged, dpi=110)
    except (OSError, ValueError) as error:
        raise ModelError(f"{out}: cannot be written ({error})") from error


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m densemarks_model.train.plot", description="Draw held-out error against passes.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, with its log.jsonl")
    parser.add_argument("--out", type=Path, default=Path("training.png"), help="picture to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        draw(options.runs, options.out)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
