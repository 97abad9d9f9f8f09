"""Make ``body_parts.npz``: shoulders and a hand for the synthetic pictures, cut from the default head's source (CC0).

    python -m tools.build_head.body_parts [--wheel FILE] [--out FILE]

Shoulders are in the head's frame and vary with a few principal components of random people. The hand lies with its wrist
at the origin, fingers along +x, palm down (−y), unit metres.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from flame_assets.stable_npz import write_stable_npz
from tools.build_head.basis import Population
from tools.build_head.source import Source
from tools.build_head.wheel import fetch_wheel

OUT = Path(__file__).resolve().parents[2] / "densemarks_model" / "data" / "synthetic" / "body_parts.npz"
PEOPLE, SEED, DIRECTIONS = 160, 11, 8
TORSO_TOP, TORSO_BOTTOM, TORSO_HALF_WIDTH = -0.135, -0.46, 0.36
"""Metres in the head's frame. The top overlaps the head's neck, whose cut is near -0.16, so that no gap can open."""


def main(arguments: list[str] | None = None) -> None:
    """Build the file and write it."""
    parser = argparse.ArgumentParser(prog="python -m tools.build_head.body_parts", description=main.__doc__)
    parser.add_argument("--wheel", type=Path, help="the source's wheel (default: downloaded by pip)")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    source = Source(fetch_wheel(options.wheel))
    population = Population(source, PEOPLE, SEED)
    quads = source.quads[source.groups == "body"]
    write_stable_npz(options.out, {**_torso(source, population, quads), **_hand(source, population.template, quads)})


def _torso(source: Source, population: Population, quads: np.ndarray) -> dict[str, np.ndarray]:
    template = population.template
    bones = source.bone_weights()
    above_neck = sum(bones[b] for b in source.bones_below("head")) > 0.3
    inside = (template[:, 1] < TORSO_TOP) & (template[:, 1] > TORSO_BOTTOM) & (np.abs(template[:, 0]) < TORSO_HALF_WIDTH)
    keep, faces = _cut(quads, inside & ~above_neck)
    people = np.concatenate([chunk[:, keep] for chunk in population.chunks()])
    mean = people.mean(0)
    _, sigma, directions = np.linalg.svd((people - mean).reshape(len(people), -1), full_matrices=False)
    scaled = directions[:DIRECTIONS] * (sigma[:DIRECTIONS, None] / np.sqrt(len(people)))
    return {
        "torso_vertices": mean.astype(np.float32),
        "torso_directions": scaled.reshape(DIRECTIONS, -1, 3).astype(np.float16),
        "torso_faces": faces,
    }


def _hand(source: Source, template: np.ndarray, quads: np.ndarray) -> dict[str, np.ndarray]:
    bones = source.bone_weights()
    weight = sum(bones[b] for b in source.bones_below("wrist.L")) + 0.9 * sum(bones[b] for b in source.bones_below("lowerarm02.L"))
    keep, faces = _cut(quads, weight > 0.6)
    points = template[keep]
    wrist = points[bones["wrist.L"][keep] > 0.3].mean(0)
    finger = points[bones["finger3-3.L"][keep] > 0.5].mean(0)
    thumb = points[bones["finger1-3.L"][keep] > 0.5].mean(0)
    along = (finger - wrist) / np.linalg.norm(finger - wrist)
    up = np.cross(thumb - wrist, along)
    up /= np.linalg.norm(up)
    axes = np.stack([along, up, np.cross(along, up)])
    return {"hand_vertices": ((points - wrist) @ axes.T).astype(np.float32), "hand_faces": faces}


def _cut(quads: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chosen = quads[inside[quads].all(1)]
    keep, local = np.unique(chosen, return_inverse=True)
    local = local.reshape(-1, 4)
    return keep, np.concatenate([local[:, :3], local[:, [0, 2, 3]]]).astype(np.int32)


if __name__ == "__main__":
    main()
