"""Measure where MediaPipe's detector puts its landmarks on the default head, and write the landmarks' face model.

    python tools/calibrate_landmarks.py            # measure and report
    python tools/calibrate_landmarks.py --write    # also write canonical_face_model.npz

Random people of the head model are drawn, shaded and coloured, from many sides and in many lights; the detector runs on
the pictures; each landmark that it finds is cast back onto the surface and noted as a place on the neutral mean head. The
median over people and views is where the landmark belongs. Not part of building the head or of tracking: the result is
committed, and needs measuring again only when the head changes visibly.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flame_assets.asset import HeadAsset, LandmarkEmbedding  # noqa: E402
from flame_assets.landmark_registration import register_landmarks  # noqa: E402
from flame_assets.load import load_head  # noqa: E402
from flame_assets.normals import vertex_normals  # noqa: E402
from flame_assets.registration_model import CANONICAL_FILE, MODEL_FILE  # noqa: E402
from flame_assets.stable_npz import write_stable_npz  # noqa: E402
from flame_assets.surface_points import Surface  # noqa: E402
from tracker.landmarks.landmark_schemes import landmark_groups  # noqa: E402
from tracker.rendering.canvas import MeshCanvas  # noqa: E402

SIZE, FOCAL, DISTANCE = 448, 1900.0, 0.9
AIM = np.array([0.0, -0.005, 0.03])
VIEWS = tuple((yaw, pitch) for yaw in (-60, -30, 0, 30, 60) for pitch in (-12, 0, 12))
JAW_OPEN = (0.0, 0.25)
MIN_COSINE, REACHES = 0.5, (0.02, 0.012, 0.009)
IDENTITY_SPREAD = 0.8
HIDDEN = ("eyes", "teeth", "tongue", "mouth_interior", "left_eye_socket", "right_eye_socket")
MOUTH = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
         78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)  # fmt: skip
"""Landmarks for which pictures with an open mouth count too."""

PUPIL_M = 2.2e-3
SKIN = (0.62, 0.42, 0.33)
COLOURS = {
    "scalp": (0.16, 0.11, 0.08), "brows": (0.22, 0.14, 0.10), "lips": (0.55, 0.25, 0.24), "eyes": (0.80, 0.80, 0.80),
    "left_iris": (0.22, 0.14, 0.08), "right_iris": (0.22, 0.14, 0.08), "teeth": (0.80, 0.78, 0.72),
    "mouth_interior": (0.30, 0.08, 0.08), "tongue": (0.60, 0.25, 0.25),
}  # fmt: skip


@dataclass(frozen=True)
class Sighting:
    """One detection, cast back onto the head.

    Attributes:
        places: ``(468, 3)`` on the neutral mean head, metres.
        cosine: ``(468,)`` between the surface and the direction to the camera; -1 where the ray met no skin.
        errors: ``(478,)`` distance in the picture to where the present embedding lies, in inter-ocular distances; nan
            where that point is hidden.
        yaw: degrees of the view.
        open_mouth: the picture was of an open mouth.
    """

    places: np.ndarray
    cosine: np.ndarray
    errors: np.ndarray
    yaw: float
    open_mouth: bool


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--head", type=Path, help="head with regions to colour (default: the default head)")
    parser.add_argument("--people", type=int, default=20, help="number of people drawn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of people, views and lights (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {MODEL_FILE.name}")
    options = parser.parse_args(arguments)
    asset = load_head(options.head)
    embedding = register_landmarks(replace(asset, landmarks={}))["mediapipe"]
    sightings = list(look(asset, embedding, options.people, options.seed))
    print(f"{len(sightings)} faces found in {options.people * len(JAW_OPEN) * len(VIEWS)} pictures")
    _report(sightings)
    places, spread = consensus(sightings, embedding.positions(asset.v_template, asset.faces)[:468].astype(np.float64))
    print(f"spread of one landmark: median {np.median(spread) * 1e3:.2f} mm, p95 {np.percentile(spread, 95) * 1e3:.2f} mm")
    if options.write:
        write_stable_npz(MODEL_FILE, _model_arrays(asset, places))
        print(f"wrote {MODEL_FILE}")
    return 0


def _report(sightings: list[Sighting]) -> None:
    print("detector to embedding, % of inter-ocular distance, mouth closed:")
    for title, limit in (("yaw up to 35", 35), ("all views", 90)):
        errors = 100 * np.array([s.errors for s in sightings if not s.open_mouth and abs(s.yaw) <= limit])
        groups = ", ".join(f"{name} {np.nanmedian(errors[:, list(rows)]):.2f}" for name, rows in landmark_groups().items())
        print(f"  {title}: median {np.nanmedian(errors):.2f}, p95 {np.nanpercentile(errors, 95):.2f} ({groups})")


def look(asset: HeadAsset, embedding: LandmarkEmbedding, people: int, seed: int) -> Iterator[Sighting]:
    """Draw, detect, cast back: one sighting for each picture in which a face was found."""
    canvas = MeshCanvas(SIZE, SIZE)
    rng = np.random.default_rng(seed)
    colours = _paint(asset)
    skin = ~_hidden(asset)
    jaw = asset.n_identity + asset.expression_names.index("jawOpen")
    with _detector() as detect:
        for person, opened, (yaw, pitch) in product(range(people), JAW_OPEN, VIEWS):
            if (opened, yaw, pitch) == (JAW_OPEN[0], *VIEWS[0]):
                identity = rng.normal(size=asset.n_identity) * (IDENTITY_SPREAD if person else 0.0)
            coefficients = np.append(identity, np.zeros(asset.n_expression))
            coefficients[jaw] = opened
            vertices = asset.v_template + asset.shapedirs @ coefficients
            points = embedding.positions(vertices, asset.faces)
            turn = Rotation.from_euler("YX", (yaw + 3 * rng.normal(), pitch + 3 * rng.normal()), degrees=True)
            to_camera = (turn * Rotation.from_euler("Z", 4 * rng.normal(), degrees=True)).inv().as_matrix()
            seen = (vertices - AIM) @ to_camera.T - (0.0, 0.0, DISTANCE)
            triangle, weights = _rasterise(canvas, seen, asset.faces)
            light = rng.normal(size=3) * (0.5, 0.3, 0.0) + (0.0, 0.5, 0.9)
            found = detect(_shade(seen, asset.faces, colours * (0.6 + 0.8 * rng.random()), triangle, weights, light))
            if found is None:
                continue
            places, cosine = _cast_back(asset, found[:468], seen, triangle, weights, skin)
            drawn = (points - AIM) @ to_camera.T - (0.0, 0.0, DISTANCE)
            ocular = float(np.linalg.norm(points[33] - points[263])) * FOCAL / DISTANCE
            errors = np.linalg.norm(_pixels(drawn) - found, axis=1) / ocular
            errors[_covered(drawn, seen, asset.faces, triangle, weights)] = np.nan
            yield Sighting(places, cosine, errors, yaw, opened > 0)


def _paint(asset: HeadAsset) -> np.ndarray:
    """Colours ``(V, 3)`` of skin, hair, brows, lips, eyes; linear RGB."""
    colours = np.tile(np.array(SKIN), (asset.n_vertices, 1))
    for region, colour in COLOURS.items():
        if region in asset.regions:
            colours[asset.regions[region]] = colour
    for centre in asset.joint_regressor[3:] @ asset.v_template:
        x, y, z = (asset.v_template - centre).T
        colours[asset.regions["eyes"] & (np.hypot(x, y) < PUPIL_M) & (z > 0)] = 0.03
    return colours


def consensus(sightings: list[Sighting], prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric places ``(468, 3)`` and their spread ``(468,)``: geometric medians of the sightings around ``prior``."""
    places = np.array([s.places for s in sightings])
    cosine = np.array([s.cosine for s in sightings])
    closed = ~np.array([s.open_mouth for s in sightings])
    mirror = _mirror_landmarks()
    flip = np.array([-1.0, 1.0, 1.0])
    prior = (prior + prior[mirror] * flip) / 2
    out, spread = np.empty_like(prior), np.zeros(len(prior))
    for number, x in enumerate(prior):
        for reach in REACHES:
            distance = np.linalg.norm(places[:, number] - x, axis=1)
            good = (distance < reach) & (closed | (number in MOUTH)) & (cosine[:, number] > MIN_COSINE)
            if good.sum() < 10:
                break
            x = _geometric_median(places[good, number], cosine[good, number])
            spread[number] = np.median(np.linalg.norm(places[good, number] - x, axis=1))
        out[number] = x
    return (out + out[mirror] * flip) / 2, spread


@contextmanager
def _detector() -> Iterator[Callable[[np.ndarray], np.ndarray | None]]:
    os.environ.setdefault("GLOG_minloglevel", "2")
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    model = ROOT / "flame_assets" / "face_landmarker_v2.task"
    options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_buffer=model.read_bytes()))
    with vision.FaceLandmarker.create_from_options(options) as landmarker:

        def detect(image: np.ndarray) -> np.ndarray | None:
            found = landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)).face_landmarks
            return np.array([(p.x * SIZE, p.y * SIZE) for p in found[0]]) if found else None

        yield detect


def _pixels(camera: np.ndarray) -> np.ndarray:
    """Full-frame pixels ``(N, 2)``, row 0 on top, of camera coordinates."""
    return SIZE / 2 + FOCAL * camera[:, :2] * (1, -1) / -camera[:, 2:]


def _rasterise(canvas: MeshCanvas, camera: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangle ``(H, W)`` (-1 where none) and barycentrics ``(H, W, 3)``, row 0 on top."""
    near, far = 0.2, 3.0
    depth = -camera[:, 2]
    clip = np.column_stack([2 * FOCAL / SIZE * camera[:, :2], (depth * (far + near) - 2 * far * near) / (far - near), depth])
    drawn = canvas.rasterize(clip.astype(np.float32), faces)[::-1]
    u, v = drawn[..., 0], drawn[..., 1]
    return drawn[..., 3].astype(np.int64) - 1, np.stack([u, v, 1 - u - v], -1)


def _shade(
    camera: np.ndarray, faces: np.ndarray, colours: np.ndarray, triangle: np.ndarray, weights: np.ndarray, light: np.ndarray
) -> np.ndarray:
    """A photograph-like uint8 picture: two lights, sky from above, a little gloss, gamma."""
    hit = triangle >= 0
    corners, w = faces[triangle[hit]], weights[hit]
    normals = np.einsum("pk,pkc->pc", w, vertex_normals(camera, faces)[corners])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    light, fill = light / np.linalg.norm(light), np.array([-0.7, 0.2, 0.5]) / 0.883
    half = light + (0, 0, 1)
    diffuse = 0.35 + 0.15 * normals[:, 1] + 0.5 * (normals @ light).clip(0) + 0.2 * (normals @ fill).clip(0)
    gloss = 0.08 * (normals @ (half / np.linalg.norm(half))).clip(0) ** 25
    picture = np.tile(np.array([0.55, 0.60, 0.65]), (*triangle.shape, 1))
    picture[hit] = np.einsum("pk,pkc->pc", w, colours[corners]) * diffuse[:, None] + gloss[:, None]
    return np.ascontiguousarray(picture.clip(0, 1) ** (1 / 1.6) * 255, np.uint8)


def _cast_back(
    asset: HeadAsset, found: np.ndarray, camera: np.ndarray, triangle: np.ndarray, weights: np.ndarray, skin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places on the neutral mean head of the skin pixels nearest to the detections, and their cosines."""
    rows, columns = np.nonzero((triangle >= 0) & skin[triangle.clip(0)])
    distance, nearest = cKDTree(np.column_stack([columns, rows]) + 0.5).query(found, distance_upper_bound=5)
    met = np.isfinite(distance)
    pixel = np.where(met, nearest, 0)
    hit, w = triangle[rows[pixel], columns[pixel]], weights[rows[pixel], columns[pixel]]
    corners = camera[asset.faces[hit]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = -corners.mean(1)
    cosine = (normal * towards).sum(1) / (np.linalg.norm(normal, axis=1) * np.linalg.norm(towards, axis=1)).clip(1e-15)
    places = np.einsum("nk,nkc->nc", w, asset.v_template[asset.faces[hit]])
    return places, np.where(met, cosine, -1.0)


def _covered(
    points: np.ndarray, camera: np.ndarray, faces: np.ndarray, triangle: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """``(N,)`` bool: points more than two millimetres behind what is drawn at their pixel."""
    column, row = _pixels(points).astype(int).clip(0, SIZE - 1).T
    hit = triangle[row, column]
    depth = np.einsum("nk,nk->n", weights[row, column], camera[faces[hit.clip(0)]][..., 2])
    return (hit >= 0) & (points[:, 2] < depth - 2e-3)


def _hidden(asset: HeadAsset) -> np.ndarray:
    hidden = np.zeros(len(asset.faces), bool)
    for region in HIDDEN:
        if region in asset.regions:
            hidden |= asset.regions[region][asset.faces].all(1)
    return hidden


def _geometric_median(points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weiszfeld's iteration."""
    x = np.average(points, 0, weight)
    for _ in range(40):
        x = np.average(points, 0, weight / np.linalg.norm(points - x, axis=1).clip(2e-4))
    return x


def _mirror_landmarks() -> np.ndarray:
    """``(468,)`` number of each landmark's counterpart on the other side of the face."""
    with np.load(CANONICAL_FILE, allow_pickle=False) as file:
        vertices = file["vertices_cm"].astype(np.float64)
    return cKDTree(vertices).query(vertices * (-1, 1, 1))[1]


def _model_arrays(asset: HeadAsset, places: np.ndarray) -> dict[str, np.ndarray]:
    """What ``canonical_face_model.npz`` holds: mean and identity basis of the landmarks and of the eyes' centres."""
    hits = Surface(asset.v_template, asset.faces, ~_hidden(asset)).nearest(places)
    identity = asset.shapedirs[:, :, : asset.n_identity]
    basis = np.einsum("lk,lkcs->lcs", hits.barycentrics, identity[asset.faces[hits.faces]])
    eyes = asset.joint_regressor[3:]
    return {
        "mean": np.vstack([hits.points, eyes @ asset.v_template]).astype(np.float32),
        "basis": np.concatenate([basis, np.einsum("jv,vcs->jcs", eyes, identity)]).astype(np.float16),
    }


if __name__ == "__main__":
    sys.exit(main())
