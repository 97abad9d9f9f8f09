"""One command from clips to a network file: prepare, render, measure, train, write, measure again.

Everything that takes long is kept in a work folder, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from densemarks_model.adapt.own_clips import INGEST, PARTS, clip_digest, find_clips, prepare_clips
from densemarks_model.adapt.rendered import held_out_shards, render_pictures
from densemarks_model.adapt.rows import Rows, measure, table, verdict
from densemarks_model.adapt.training import LEAST_STEPS, Material, computes_bf16, fitting_steps, seconds_a_step, train
from densemarks_model.checkpoint_files import DEFAULT_HEAD, HEAD, read_header, save_network
from densemarks_model.data.videos.ingest import IngestSettings
from densemarks_model.errors import ModelError
from densemarks_model.evaluation.network import THREADS, Network
from densemarks_model.inference import fast_network
from densemarks_model.lite import LiteConfig, LiteNet
from densemarks_model.loading import SHIPPED, load_network, speaks_default_cube
from densemarks_model.openvino_graph import RANGES_KEY
from densemarks_model.train.loop import Trainer
from densemarks_model.train.shards import ShardSource
from flame_assets.atomic_files import atomic_file

RENDER_SHARE = 0.2
"""Of the minutes, for rendering."""

_LEAST_SHARDS = 10
"""Pictures that a user's shards must hold."""

_VERSION = 1
_OUTDATED = ("architecture", "config", "cube", "name", "model_card", "data", "steps", "seed", "passes", RANGES_KEY)
"""Entries of a network file's metadata that an adaptation makes untrue, or that are written anew."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for; see ``python -m densemarks_model.adapt --help``."""

    clips: list[Path]
    out: Path
    work: Path
    network: str = "lite"
    minutes: float = 30.0
    steps: int | None = None
    synthetic: Path | None = None
    pictures: int | None = None
    seed: int = 0
    quiet: bool = False
    ingest: IngestSettings = field(default=INGEST)
    parts: int = PARTS


@dataclass(frozen=True)
class Start:
    """The network before: its file, sizes, version of the cube, and what its metadata say."""

    path: Path
    lite: LiteConfig
    cube: int
    metadata: dict[str, str]

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class Stopped(Exception):
    """Training was told to stop; a checkpoint is there."""


def adapt(options: Options, say: Callable[[str], None] = print) -> tuple[Rows, Rows]:
    """Do it all; returns the held-out rows before and after.

    Raises:
        ModelError: input that cannot be used, or too few minutes. Stopped: told to stop while training.
    """
    deadline = time.monotonic() + 60 * options.minutes
    clips, start = find_clips(options.clips), open_start(options)
    options.work.mkdir(parents=True, exist_ok=True)
    run = options.work / f"run-{_key(options, clips, start)}"
    run.mkdir(exist_ok=True)

    say(f"1 of 5: preparing {len(clips)} clip{'s' if len(clips) > 1 else ''} (landmarks, flow tracks); kept in {options.work}")
    prepared = prepare_clips(clips, options.work, options.ingest, options.parts, options.quiet)
    for note in prepared.notes:
        say(f"left out: {note}")
    synthetic, pictures = _pictures(options, run, say)
    passes = start.metadata.get("passes", "")
    material = Material(
        str(start.path), start.lite, start.cube, int(passes) if passes.isdigit() else 0, prepared.training, synthetic, pictures, options.seed
    )
    shards = held_out_shards(synthetic, pictures)

    say("3 of 5: measuring the network as it is, on the end of each clip and on synthetic pictures kept aside")
    before = _once(run / "before.json", lambda: measure(_opened(start.path), prepared.held_out, shards).to_dict())
    steps = _steps(options, material, run, deadline, say)

    say(f"4 of 5: training, {steps} steps")
    trainer = train(material, steps, run, options.quiet)
    if trainer.step < trainer.end:
        raise Stopped(f"stopped at step {trainer.step} of {steps}")
    write_adapted(options.out, trainer, start, prepared.clips, pictures)
    say(f"wrote {options.out}; python track.py --video CLIP --network {options.out}")
    if RANGES_KEY in start.metadata:
        say(f"the ranges for 8-bit integers hold no longer and were left out: python -m densemarks_model.quantise --network {options.out} --out FILE")

    say("5 of 5: measuring it again")
    rows = Rows(**before), measure(_opened(options.out), prepared.held_out, shards)
    say(table(*rows))
    say(verdict(*rows))
    return rows


def open_start(options: Options) -> Start:
    """The network to begin with.

    Raises:
        ModelError: no such network, not a lite one in a ``.safetensors`` file, or the file to be written.
    """
    if options.out.suffix != ".safetensors" or options.out.is_dir():
        raise ModelError(f"--out {options.out}: must be a file that ends in .safetensors")
    path = SHIPPED if options.network == "lite" else Path(options.network)
    if options.out.resolve() == path.resolve():
        raise ModelError(f"--out {options.out}: is the network to begin with; name another file")
    if options.network == "official" or path.suffix != ".safetensors":
        raise ModelError(f"--network {options.network}: only lite networks in .safetensors files can be adapted")
    embedder = load_network(path)
    if not isinstance(embedder.network, LiteNet):
        raise ModelError(f"{path}: not a lite network; only those can be adapted")
    return Start(path, embedder.network.config, embedder.cube, read_header(path)[1])


def _opened(path: Path) -> Network:
    """For measuring: both networks in one precision, though the one before may have ranges for 8-bit integers."""
    fast = fast_network(path, "cpu", "bf16" if computes_bf16() else "f32", THREADS)
    return Network(path.name, fast.runtime, fast, fast.image_size, fast.cube)


def _key(options: Options, clips: list[Path], start: Start) -> str:
    """Tells runs apart: the same command on the same files goes on with the same run."""
    values = [
        _VERSION, start.sha256, [clip_digest(p) for p in clips], options.ingest.digest("flow"), options.parts, options.minutes, options.steps,
        str(options.synthetic.resolve()) if options.synthetic else None, options.pictures, options.seed,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def _pictures(options: Options, run: Path, say: Callable[[str], None]) -> tuple[Path, int]:
    """Folder of synthetic pictures, and how many of them this run uses."""
    if options.synthetic is not None:
        # a folder may grow while a run stands still; what was kept aside must stay so
        total = int(_once(run / "pictures.json", lambda: {"pictures": len(ShardSource(options.synthetic))})["pictures"])
        if total < _LEAST_SHARDS:
            raise ModelError(f"--synthetic {options.synthetic}: {total} pictures are too few; at least {_LEAST_SHARDS}")
        say(f"2 of 5: {total} synthetic pictures in {options.synthetic}")
        return options.synthetic, total
    folder, seconds = options.work / "pictures", 60 * RENDER_SHARE * options.minutes
    say(f"2 of 5: synthetic pictures, so that nothing is forgotten{'' if options.pictures else f'; rendering for at most {seconds / 60:.1f} minutes'}")
    found = _once(run / "pictures.json", lambda: {"pictures": render_pictures(folder, options.pictures, seconds, options.quiet)})
    return folder, int(found["pictures"])


def _steps(options: Options, material: Material, run: Path, deadline: float, say: Callable[[str], None]) -> int:
    """How many steps this run has; decided once.

    Raises:
        ModelError: too few minutes are left.
    """
    if options.steps is not None:
        return options.steps

    def decide() -> dict[str, float]:
        step = seconds_a_step(material, run)
        left = deadline - time.monotonic()
        steps = fitting_steps(left, step)
        if steps < LEAST_STEPS:
            more = options.minutes + (LEAST_STEPS * step / 0.95 - left) / 60
            raise ModelError(
                f"--minutes {options.minutes:g}: too few for {LEAST_STEPS} steps of {step:.1f} s after preparing; give {more + 0.5:.0f} or more "
                "(what was prepared is kept), or say --steps"
            )
        return {"steps": steps, "seconds": step}

    plan = _once(run / "plan.json", decide)
    steps = int(plan["steps"])
    rendered = "" if options.synthetic else f" --pictures {material.pictures}"
    say(f"a step takes {plan['seconds']:.2f} s: {steps} steps (--steps {steps}{rendered} gives the same network again)")
    return steps


def _once(path: Path, make: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What ``make`` gives, kept in a file."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    values = make()
    with atomic_file(path) as staged:
        staged.write_text(json.dumps(values), encoding="utf-8")
    return values


def write_adapted(path: Path, trainer: Trainer, start: Start, clips: int, pictures: int) -> None:
    """Write the averaged weights with what is true of them; no names of the user's files.

    Raises:
        ModelError: the file cannot be written.
    """
    old = start.metadata
    # a file's own name may be the user's, its hash is nobody's
    origin = old.get("name") or old.get("adapted_from") or "a lite network"
    kept = {k: v for k, v in old.items() if k not in _OUTDATED and not k.startswith("adapted_")}
    about = {
        "data": "; ".join(filter(None, [old.get("data"), f"adapted on {clips} clip{'s' if clips > 1 else ''} of a user's"])),
        "adapted_passes": str(trainer.passes - trainer.config.run.passes_before), "adapted_from": origin, "adapted_from_sha256": start.sha256, "adapted_steps": str(trainer.step),
        "adapted_seed": str(trainer.config.run.seed), "adapted_clips": str(clips), "adapted_pictures": str(pictures),
    }  # fmt: skip
    if speaks_default_cube(start.path):
        about[HEAD] = DEFAULT_HEAD
    if old.get("passes", "").isdigit():  # else nobody knows how many there were before
        about["passes"] = str(trainer.passes)
    save_network(path, trainer.averaged().cpu(), kept | about, start.cube)
