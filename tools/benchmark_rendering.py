"""Print the renderer's milliseconds on this machine.

    python tools/benchmark_rendering.py [--backend cpu|cuda|pytorch3d] [--repeats N] [--threads N]

The scene is the default head, or a ball of about as many triangles, seen so that it covers some 60 % of a square
picture. Each figure is the fastest and the median of the repeats, for the whole batch; other work on the machine moves
the median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flame_assets.asset import load_npz
from tracker.errors import UserError
from tracker.rendering import Renderer, get_renderer, perspective, world_to_clip

DEFAULT_HEAD = Path(__file__).resolve().parents[1] / "flame_assets" / "default_head.npz"
WANTED_COVERAGE = 0.6
CHANNELS = 4
WARM_UP = 3


def load_scene() -> tuple[str, Tensor, Tensor]:
    """A name, vertices (V, 3) in metres, centred, and triangles (F, 3) int32."""
    if DEFAULT_HEAD.is_file():
        head = load_npz(DEFAULT_HEAD)
        name, vertices, faces = "default head", np.asarray(head.v_template), np.asarray(head.faces)
    else:
        ball = trimesh.creation.uv_sphere(radius=0.1, count=[50, 50])
        name, vertices, faces = "ball", np.asarray(ball.vertices), np.asarray(ball.faces)
    vertices = vertices - (vertices.max(0) + vertices.min(0)) / 2
    return name, torch.tensor(vertices, dtype=torch.float32), torch.tensor(faces.astype(np.int32))


def frame(renderer: Renderer, vertices: Tensor, tri: Tensor, size: int) -> tuple[Tensor, float]:
    """Clip-space positions (1, V, 4) and the share of the picture that they cover, focal length chosen by bisection."""
    low, high = 0.5, 20.0
    for _ in range(12):
        middle = (low + high) / 2
        projection = perspective(middle * size, size / 2, size / 2, size, size).to(vertices)
        pos = world_to_clip(vertices, projection)[None]
        coverage = (renderer.rasterize(pos, tri, (size, size))[..., 3] > 0).float().mean().item()
        low, high = (middle, high) if coverage < WANTED_COVERAGE else (low, middle)
    return pos, coverage


def measure(work: Callable[[], object], device: torch.device, repeats: int) -> str:
    """Fastest and median milliseconds."""
    times = []
    for repeat in range(WARM_UP + repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if repeat >= WARM_UP:
            times.append(1000 * (time.perf_counter() - start))
    return f"{min(times):8.2f} {statistics.median(times):8.2f}"


def steps(renderer: Renderer, pos: Tensor, tri: Tensor, size: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    resolution = (size, size)
    attr = torch.rand(1, pos.shape[1], CHANNELS, device=pos.device)
    pull = torch.rand(len(pos), size, size, CHANNELS, device=pos.device)
    pos_leaf, attr_leaf = pos.clone().requires_grad_(), attr.clone().requires_grad_()

    def forward() -> Tensor:
        return renderer.interpolate(attr, renderer.rasterize(pos, tri, resolution), tri)

    def forward_backward() -> None:
        rast = renderer.rasterize(pos_leaf, tri, resolution)
        color = renderer.interpolate(attr_leaf, rast, tri)
        pos_leaf.grad = attr_leaf.grad = None
        renderer.antialias(color, rast, pos_leaf, tri).backward(pull)

    shown = renderer.rasterize(pos, tri, resolution)
    color_leaf = renderer.interpolate(attr, shown, tri).requires_grad_()

    def antialias_alone() -> None:
        pos_leaf.grad = color_leaf.grad = None
        renderer.antialias(color_leaf, shown, pos_leaf, tri).backward(pull)

    return {
        "rasterize": lambda: renderer.rasterize(pos, tri, resolution),
        f"rasterize + interpolate, {CHANNELS} channels": forward,
        "antialias alone, forward + backward": antialias_alone,
        "all three, forward + backward": forward_backward,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("cpu", "cuda", "pytorch3d"), default="cpu", help="default: cpu")
    parser.add_argument("--repeats", type=int, default=50, help="timed runs of each figure (default: 50)")
    parser.add_argument("--threads", type=int, help="torch's and the renderer's threads (default: torch's own)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        renderer = get_renderer(options.backend)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    name, vertices, tri = load_scene()
    vertices, tri = vertices.to(renderer.device), tri.to(renderer.device)
    print(
        f"{name}: {len(vertices)} vertices, {len(tri)} triangles; backend {renderer.name}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    print(f"{'':42}{'fastest':>8} {'median':>8}  ms")
    for size in (256, 512):
        pos, coverage = frame(renderer, vertices, tri, size)
        for batch in (1, 8):
            print(f"{size}² × {batch}, {coverage:.0%} covered")
            for label, work in steps(renderer, pos.expand(batch, -1, -1).contiguous(), tri, size).items():
                print(f"  {label:40}{measure(work, renderer.device, options.repeats)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
