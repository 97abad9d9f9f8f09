"""The end of a run that has none: ``--finish`` branches from its newest checkpoint, lets the rates go to zero and writes the network.

Everything goes to a folder of its own, ``finish-<step>`` in the run's; the long run's files stay as they are, and it goes on.
"""

from __future__ import annotations

from pathlib import Path

from densemarks_model.errors import ModelError
from densemarks_model.train.checkpoint import CHECKPOINT, PREVIOUS
from densemarks_model.train.loop import WEIGHTS, Trainer

MOST = 3000
"""Steps of a decay when nobody says how many, at most; else a tenth of the run's."""


def begin_finish(trainer: Trainer, steps: int | None = None, checkpoint: Path | None = None) -> None:
    """Put ``trainer`` at the beginning of a decay, or where one of this run was interrupted.

    Args:
        steps: of the decay; a tenth of those so far, at most :data:`MOST`, when None.
        checkpoint: what to branch from; the run's newest when None.

    Raises:
        ModelError: no checkpoint, one of another run, or a branch that is done already.
    """
    run = trainer.out
    unfinished = [f for f in finish_folders(run) if not (f / WEIGHTS).is_file() and ((f / CHECKPOINT).is_file() or (f / PREVIOUS).is_file())]
    if checkpoint is None and unfinished:
        folder = unfinished[-1]
        trainer.resume(folder)
        trainer.out = folder
        trainer.say(f"going on with the decay in {folder}; remove that folder to branch from the newest checkpoint instead")
        return
    trainer.resume(checkpoint or run)
    folder = run / f"finish-{trainer.step}"
    if (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder / WEIGHTS}: step {trainer.step} was finished already; remove the folder to do it again")
    steps = min(max(trainer.step // 10, 1), MOST) if steps is None else steps
    trainer.branch(steps, folder)
    trainer.say(f"finishing: {steps} steps of decay from step {trainer.step}, in {folder}")


def finish_folders(run: Path) -> list[Path]:
    """Folders of decays of a run, by the step where they left it."""
    found = [p for p in Path(run).glob("finish-*") if p.is_dir() and p.name.removeprefix("finish-").isdigit()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("finish-")))
