"""Command line of training: ``python -m densemarks_model.train --config FILE``, or under ``torchrun -m``."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from densemarks_model.errors import ModelError


def main(arguments: list[str] | None = None) -> int:
    """Train, then write the averaged weights; returns the exit code."""
    options = _parser().parse_args(arguments)
    # OpenMP reads this once, when torch is imported. Threads that wait busily cost four times the processor time where cores are shared
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from densemarks_model.train.checkpoint import CHECKPOINT, PREVIOUS
    from densemarks_model.train.config import read_config
    from densemarks_model.train.distributed import processes
    from densemarks_model.train.finish import begin_finish
    from densemarks_model.train.loop import WEIGHTS, Trainer

    try:
        config = read_config(options.config, options.set)
        with processes() as group:
            trainer = Trainer(config, group, say=partial(print, flush=True))  # read while it goes on, in a file
            named = None if options.resume in ("auto", "none") else Path(options.resume)
            if options.finish is not None:
                begin_finish(trainer, options.finish or None, named)
            elif named is not None:
                trainer.resume(named)
            elif options.resume == "auto" and any((trainer.out / name).is_file() for name in (CHECKPOINT, PREVIOUS)):
                trainer.resume(trainer.out)
            trainer.run(options.until, options.minutes)
            done = trainer.step >= trainer.end
            # weights in the folder of a decay say that it is done
            if group.leads and (done or trainer.decay is None):
                target = options.export or trainer.out / WEIGHTS
                trainer.export(target)
                print(f"wrote {target}")
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m densemarks_model.train", description="Train an embedding network.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see docs/training.md")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override an entry of the config")
    parser.add_argument("--resume", default="auto", metavar="auto|none|FILE", help="auto goes on where the run in run.out stopped (default)")
    parser.add_argument("--until", type=_positive, metavar="STEP", help="stop at this step of the run, with a checkpoint")
    parser.add_argument("--minutes", type=float, help="stop after so long, with a checkpoint")
    parser.add_argument(
        "--finish", type=_positive, nargs="?", const=0, metavar="STEPS",
        help="branch from the newest checkpoint, lower the rates to zero within STEPS (default: a tenth of the run's steps, at most 3000) and "
        "write the network to finish-<step> in run.out; the run itself can go on",
    )  # fmt: skip
    parser.add_argument("--export", type=Path, metavar="FILE", help="where the weights go (default: weights.safetensors in the run's folder)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
