"""Command line of training: ``python -m densemarks_model.train --config FILE``, or under ``torchrun -m``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from densemarks_model.errors import ModelError


def main(arguments: list[str] | None = None) -> int:
    """Train, then write the averaged weights; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m densemarks_model.train", description="Train an embedding network.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see docs/training.md")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override an entry of the config")
    parser.add_argument("--resume", default="auto", metavar="auto|none|FILE", help="auto goes on where the run in run.out stopped (default)")
    parser.add_argument("--export", type=Path, metavar="FILE", help="where the weights go (default: weights.safetensors in run.out)")
    options = parser.parse_args(arguments)
    from densemarks_model.train.config import read_config
    from densemarks_model.train.distributed import processes
    from densemarks_model.train.loop import CHECKPOINT, WEIGHTS, Trainer

    try:
        config = read_config(options.config, options.set)
        with processes() as group:
            trainer = Trainer(config, group)
            found = Path(config.run.out) / CHECKPOINT
            if options.resume not in ("auto", "none"):
                trainer.resume(Path(options.resume))
            elif options.resume == "auto" and found.is_file():
                trainer.resume(found)
            trainer.run()
            if group.leads:
                target = options.export or Path(config.run.out) / WEIGHTS
                trainer.export(target)
                print(f"wrote {target}")
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
