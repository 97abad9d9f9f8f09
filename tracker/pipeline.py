"""From a video to a finished folder: the one place that knows the order of things.

    decode + landmarks + embedding  →  keyframes: identity, focal length  →  every frame  →  track  →  exports

Each step hands the next plain data. The video is decoded twice (once to detect, once to draw) rather than kept: what
is held in memory does not grow with its length, but for about one kilobyte of parameters per frame.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from densemarks_model.errors import ModelError
from densemarks_model.loading import is_shipped, network_cube
from flame_assets.asset import AssetError, HeadAsset
from flame_assets.load import load_head
from tracker.camera import FocalPrior, focal_prior
from tracker.config import TrackerConfig
from tracker.dense.calibration import measure
from tracker.dense.embedder import HeadEmbedder
from tracker.dense.embedding_store import EmbeddingStore
from tracker.dense.reading import read_dense
from tracker.dense.sites import DenseSites, skin_triangles, spread_points, spread_sites
from tracker.errors import UserError
from tracker.fitting.keyframes import SharedFit, fit_shared
from tracker.fitting.objective import FaceLandmarks
from tracker.fitting.observations import FrameBatch
from tracker.fitting.sequence import FrameFits, fit_frames
from tracker.head_track import HeadTrack
from tracker.landmarks.mediapipe_detector import FaceLandmarker
from tracker.landmarks.store import LandmarkStore
from tracker.photometric.picture_store import PictureStore
from tracker.photometric.reading import read_pictures
from tracker.report import RunReport, StageClock, peak_memory_mb
from tracker.video.reader import at_times, open_video
from tracker.workspace import result_folder

# Keyframes are chosen among at most this many frames, evenly spread over the video.
_KEYFRAME_CANDIDATES = 1000

# Canonical coordinates of a foreign head are averaged over at most this many frames, chosen among this many.
_CALIBRATION_FRAMES, _CALIBRATION_CANDIDATES = 24, 120

_NOT_CALIBRATED = (
    "too little of the head was seen to calibrate this head and network to each other; the dense term is unreliable here"
)

# A texture is averaged over at most this many frames.
_TEXTURE_FRAMES = 60

# Confidence at most of frames whose face no detector found and the dense term alone tracked.
_DENSE_ONLY_CONFIDENCE = 0.5


# Landmark error up to which a frame's confidence is the detector's own: percent, and at most this share of the limit.
_FULL_ERROR_PERCENT, _FULL_ERROR_SHARE = 2.0, 0.1


@dataclass(frozen=True)
class Request:
    """What the user asked for; see ``track.py --help`` for the meaning of each field."""

    video: Path
    out: Path
    config: TrackerConfig
    name: str | None = None
    preset: str = "balanced"
    head: Path | None = None
    landmarker: Path | None = None
    network: str = "lite"
    focal_px: float | None = None
    fov_deg: float | None = None
    intrinsics: Path | None = None
    device: str = "auto"
    max_frames: int | None = None
    fps: float | None = None
    start: float | None = None
    end: float | None = None
    mesh: str | None = None
    overlay: bool = True
    quiet: bool = False


@dataclass(frozen=True)
class VideoFacts:
    """What the first pass learnt: picture size (pixels), frames per second, and notes for the user."""

    width: int
    height: int
    frame_rate: float
    notes: tuple[str, ...]


def track_video(request: Request) -> RunReport:
    """Track a video and write ``request.out/NAME/``.

    Raises:
        UserError: anything about the input, the options or the machine that stands in the way. Nothing is written then.
    """
    clock = StageClock()
    device = choose_device(request.device)
    with one_torch_thread():
        return _track(request, device, clock)


def _track(request: Request, device: str, clock: StageClock) -> RunReport:
    try:
        asset = load_head(request.head)
        if request.config.dense.enabled:
            asset = asset.with_cube(network_cube(request.network))
        foreign = request.config.dense.enabled and not speaks_of(request.network, request.head, asset)
        photometric = request.config.photometric if request.config.photometric.enabled else None
        if photometric is not None and not request.config.dense.enabled:
            raise UserError("config: photometric.enabled needs dense.enabled, which finds the head in the pictures")
        sites, face = at_places(asset, device, request.config)
        # a cube that is not known to be the head's contradicts every landmark
        doubt = math.inf if foreign else request.config.dense.landmark_doubt
        embedder = None if sites is None else HeadEmbedder(request.network, device, asset, sites, doubt)
    except (AssetError, ModelError) as error:
        raise UserError(str(error)) from error
    name = request.name or request.video.resolve().stem or "video"
    with (
        result_folder(request.out, name) as (staging, scratch),
        LandmarkStore(scratch) as store,
        EmbeddingStore(scratch) as embeddings,
        PictureStore(scratch, request.config.photometric.picture_size) as pictures,
    ):
        uncalibrated = False
        if foreign and embedder is not None and sites is not None:
            measured = calibrate(request, scratch, asset, face, sites, embedder, clock)
            uncalibrated = measured is None
            if measured is not None:
                asset = replace(asset, canonical=measured)
                sites, face = at_places(asset, device, request.config)
                doubt = request.config.dense.landmark_doubt
            embedder = embedder.for_head(asset, sites, doubt)
        facts = observe(request, store, embeddings, pictures, embedder, clock)
        camera_prior = focal_prior(facts.width, facts.height, request.focal_px, request.fov_deg, request.intrinsics)
        found = store.found
        tracked = np.array([f for f in range(len(store)) if found[f] or f in embeddings], int)
        if len(tracked) == 0:
            raise UserError(
                f"{request.video}: no face was found in any of its {len(store)} frames; the face must be larger than about "
                "40 pixels and not turned away"
            )

        def read(frames: torch.Tensor, dense: bool = True, places_only: bool = False, outlines: bool = True) -> FrameBatch:
            numbers = frames.cpu().numpy()
            drawn = outlines and not places_only
            batch = read_batch(store, numbers, face, embeddings if dense else None, sites, request.config, drawn)
            if dense and photometric is not None and not places_only:
                batch = replace(batch, pictures=read_pictures(pictures, embeddings, numbers, face.head))
            return batch

        offered = tracked[:: math.ceil(len(tracked) / _KEYFRAME_CANDIDATES)]
        with clock.stage("keyframes"):
            shared = fit_shared(face, torch.as_tensor(offered), read, camera_prior, request.config)
        with clock.stage("frames"):
            # windows that never look at outlines need not have them measured
            outlines = request.config.dense.refine_iterations > 0 or photometric is not None
            windows = fit_frames(face, torch.as_tensor(tracked), partial(read, outlines=outlines), shared, camera_prior.principal_point, request.config)
            fits = list(_progress(windows, len(tracked), "fit", request.quiet))
        track, error = assemble(store, facts, fits, shared, camera_prior, asset, request.config)
        texture = None
        if photometric is not None and asset.uv is not None:
            with clock.stage("texture"):
                texture = unwrap_texture(request, track, asset, shared, embeddings)
        files = write_outputs(request, staging, track, asset, clock, texture)

        report = RunReport(
            folder=request.out / name,
            files=(*files, "summary.json"),
            head=asset.name,
            preset=request.preset,
            device=device,
            frames=len(store),
            valid_frames=int(track.valid.sum()),
            error_percent=error[track.valid],
            focal_px=shared.focal_px,
            focal_log_sigma=shared.focal_log_sigma,
            seconds=clock.seconds,
            total_seconds=clock.total,
            peak_memory_mb=peak_memory_mb(),
            notes=(*facts.notes, *((_NOT_CALIBRATED,) if uncalibrated else ()), *_notes(track, store.found)),
        )
        (staging / "summary.json").write_text(json.dumps(report.json(), indent=2) + "\n", encoding="utf-8")
    return report


def speaks_of(network: str, head: Path | None, asset: HeadAsset) -> bool:
    """Whether the network's cube is this head's own, as it is of the shipped pair, whatever their files are called.

    Args:
        network, head: what the user named.
        asset: the head, in the network's version of the cube.
    """
    if not is_shipped(network):
        return False
    if head is None:
        return True
    default = load_head(None).with_cube(asset.cube)
    return asset.sha256() == default.sha256() and np.array_equal(asset.canonical, default.canonical)


def at_places(asset: HeadAsset, device: str, config: TrackerConfig) -> tuple[DenseSites | None, FaceLandmarks]:
    """The head at its dense places (None without a dense term), landmarks and, for the photometric term, points of the skin."""
    sites = spread_sites(asset, config.dense.sites) if config.dense.enabled else None
    skin = spread_points(asset, skin_triangles(asset), config.photometric.points) if config.photometric.enabled else None
    return sites, FaceLandmarks.build(asset, config.landmarks, device, sites, skin)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """PyTorch on one thread meanwhile: the matrices here are small, and waiting threads would take the cores that
    decoding, detection and encoding need (measured: up to five times slower on two busy cores)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(wanted: str) -> str:
    """Where the fit runs. ``auto`` is the CPU: landmark problems are too small to gain from a GPU.

    Raises:
        UserError: CUDA was asked for and PyTorch sees none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device; install a CUDA build of torch, or use --device cpu")
    return wanted if wanted != "auto" else "cpu"


def observe(
    request: Request,
    store: LandmarkStore,
    embeddings: EmbeddingStore,
    pictures: PictureStore | None,
    embedder: HeadEmbedder | None,
    clock: StageClock,
    at_most: int | None = None,
) -> VideoFacts:
    """First pass: landmarks of every frame into ``store``, what the network says into ``embeddings``, and what it saw into
    ``pictures``. With ``at_most``, about so many frames are looked at, evenly spread."""
    stride = request.config.dense.stride
    with open_video(request.video, request.max_frames, request.fps, request.start, request.end) as video:
        # known at once: a focal length that cannot be must not cost the user the whole first pass
        focal_prior(video.width, video.height, request.focal_px, request.fov_deg, request.intrinsics)
        since = stride  # frames since the network looked last
        with clock.stage("landmarks"):
            detector = FaceLandmarker(request.landmarker)
        with detector:
            every = math.ceil((video.frame_count or 0) / at_most) if at_most else 1
            chosen = islice(video, 0, None, max(every, 1))
            total = None if video.frame_count is None else math.ceil(video.frame_count / max(every, 1))
            label = "calibrate" if at_most else "look"
            frames = iter(tqdm(chosen, total=total, desc=label, unit="frame", disable=request.quiet))
            while True:
                with clock.stage("landmarks"):
                    frame = next(frames, None)
                    if frame is None:
                        break
                    detection = detector.detect(frame.image, frame.timestamp)
                if embedder is None:
                    store.append(frame.timestamp, detection)
                    continue
                with clock.stage("network"):
                    since += 1
                    if detection is not None and since < stride:
                        embedder.follow(detection)
                        store.append(frame.timestamp, detection)
                        continue
                    record, detection = embedder.embed(frame.image, detection)
                    store.append(frame.timestamp, detection)
                    if record is not None:
                        embeddings.put(len(store) - 1, record)
                        if request.config.photometric.enabled and pictures is not None:
                            pictures.put(len(store) - 1, record.crop, frame.image)
                        since = 0 if detection is not None else stride
        notes = (f"{video.problem}; the {len(store)} frames that decode were tracked",) if video.problem else ()
        return VideoFacts(video.width, video.height, video.frame_rate, notes)


def read_batch(
    store: LandmarkStore,
    frames: np.ndarray,
    face: FaceLandmarks,
    embeddings: EmbeddingStore | None,
    sites: DenseSites | None,
    config: TrackerConfig,
    outlines: bool = True,
) -> FrameBatch:
    """What is known of some frames as tensors on the head's device; blendshape scores start heads that share their names."""
    like = {"dtype": face.head.dtype, "device": face.head.device}
    records = store.read(frames)
    guess = None
    names = {name: column for column, name in enumerate(store.blendshape_names)}
    columns = [names.get(n, -1) for n in face.head.expression_names]
    if any(c >= 0 for c in columns):
        scores = np.concatenate([records.blendshapes, np.zeros((len(frames), 1))], axis=1)
        guess = torch.as_tensor(scores[:, columns], **like)
    dense = None
    if embeddings is not None and sites is not None:
        stride = config.dense.stride
        around = {g for f in frames.tolist() for g in range(f - stride, f + stride + 1)} if stride > 1 else set()
        near = np.array(sorted(g for g in around if g in embeddings and store.has_face(g)), int)
        neighbours = dict(zip(near.tolist(), store.read(near).points, strict=True)) if len(near) else {}
        dense = read_dense(
            embeddings, frames, records.points, neighbours, sites, config.dense.error_floor, like, outlines, config.dense.min_trust
        )
    return FrameBatch(
        points=torch.as_tensor(records.points, **like),
        depth=torch.as_tensor(records.depth, **like),
        timestamps=torch.as_tensor(records.timestamps, dtype=torch.float64, device=face.head.device),
        expression_guess=guess,
        found=torch.as_tensor(records.found, device=face.head.device),
        dense=dense,
    )


def assemble(
    store: LandmarkStore,
    facts: VideoFacts,
    fits: list[FrameFits],
    shared: SharedFit,
    camera: FocalPrior,
    asset: HeadAsset,
    config: TrackerConfig,
) -> tuple[HeadTrack, np.ndarray]:
    """Put the windows together; frames without a head take the values of the nearest tracked frame.

    Returns:
        The track, and ``(T,)`` landmark errors in percent (infinite where no head was tracked).
    """
    total = len(store)
    error = np.full(total, np.inf)
    frames = torch.cat([f.frames for f in fits]).cpu().numpy()
    error[frames] = torch.cat([f.error_percent for f in fits]).cpu().numpy()
    valid = error <= config.tracking.max_error_percent
    if not valid.any():
        raise UserError("the head model could not be fitted to any frame; are these really faces?")
    held = nearest_index(valid)
    row_of = np.zeros(total, int)
    row_of[frames] = np.arange(len(frames))
    rows = row_of[held]

    def column(name: str, width: int) -> np.ndarray:
        if name not in fits[0].values:
            return np.zeros((total, width))
        return torch.cat([f.values[name] for f in fits]).cpu().numpy()[rows]

    # a detection counts fully up to 2 % error, and not at all at the limit that makes it invalid; a stricter limit is
    # stricter all the way
    limit = config.tracking.max_error_percent
    full = min(_FULL_ERROR_PERCENT, _FULL_ERROR_SHARE * limit)
    quality = np.clip((limit - error) / (limit - full), 0, 1)
    detected = np.where(store.found, store.confidence, _DENSE_ONLY_CONFIDENCE)
    return (
        HeadTrack(
            rotation=column("rotation", 3),
            neck_pose=column("neck_pose", 3),
            jaw_pose=column("jaw_pose", 3),
            eyes_pose=column("eyes_pose", 6),
            translation=column("translation", 3),
            shape=shared.identity.cpu().numpy(),
            expr=column("expr", asset.n_expression),
            focal_px=shared.focal_px,
            principal_point=np.array(camera.principal_point),
            image_size=np.array([facts.height, facts.width]),
            timestamps=np.asarray(store.timestamps),
            valid=valid,
            confidence=np.where(valid, quality * detected, 0.0),
            timestep_id=np.array([f"{t:05d}" for t in range(total)]),
            expression_names=asset.expression_names,
            head_name=asset.name,
            head_sha256=asset.sha256(),
            frame_rate=facts.frame_rate,
        ),
        error,
    )


def nearest_index(valid: np.ndarray) -> np.ndarray:
    """For every frame, the nearest valid one (the earlier of two)."""
    positions = np.flatnonzero(valid)
    after = np.searchsorted(positions, np.arange(len(valid))).clip(0, len(positions) - 1)
    before = (after - 1).clip(0)
    frames = np.arange(len(valid))
    closer_before = np.abs(frames - positions[before]) <= np.abs(positions[after] - frames)
    return np.where(closer_before, positions[before], positions[after])


def write_outputs(
    request: Request,
    staging: Path,
    track: HeadTrack,
    asset: HeadAsset,
    clock: StageClock,
    texture: np.ndarray | None = None,
) -> list[str]:
    """All files of a run; returns their names."""
    from tracker.export.flame_params import write_flame_params
    from tracker.export.gltf import write_glb
    from tracker.export.pictures import write_picture
    from tracker.overlay import write_overlay

    with clock.stage("parameters"):
        write_flame_params(staging / "flame_params.npz", track)
        files = ["flame_params.npz"]
    with clock.stage("head.glb"):
        write_glb(staging / "head.glb", track, asset, texture)
        files.append("head.glb")
    if texture is not None:
        write_picture(staging / "texture.png", texture)
        files.append("texture.png")
    if request.overlay:
        with clock.stage("overlay"):
            write_overlay(staging / "overlay.mp4", request.video, track, asset, request.config.overlay, texture, request.quiet)
            files.append("overlay.mp4")
    if request.mesh:
        from tracker.export.meshes import write_mesh_sequence  # brings trimesh, which few runs need

        with clock.stage("meshes"):
            write_mesh_sequence(staging / "meshes", track, asset, request.mesh)
            files.append("meshes/")
    return files


def calibrate(
    request: Request,
    scratch: Path,
    asset: HeadAsset,
    face: FaceLandmarks,
    sites: DenseSites,
    embedder: HeadEmbedder,
    clock: StageClock,
) -> np.ndarray | None:
    """Canonical coordinates of a head that the network was not made for, measured on frames of the clip that are looked at
    for this alone; None when too little of the head was seen."""
    config = replace(
        request.config,
        keyframes=replace(request.config.keyframes, count=_CALIBRATION_FRAMES),
        dense=replace(request.config.dense, stride=1),
        photometric=replace(request.config.photometric, enabled=False),
    )
    folder = scratch / "calibration"
    folder.mkdir()
    with LandmarkStore(folder) as store, EmbeddingStore(folder) as embeddings:
        facts = observe(replace(request, config=config), store, embeddings, None, embedder, clock, _CALIBRATION_CANDIDATES)
        camera = focal_prior(facts.width, facts.height, request.focal_px, request.fov_deg, request.intrinsics)
        candidates = np.array([f for f in np.flatnonzero(store.found) if f in embeddings], int)
        if len(candidates) == 0:
            return None

        def read(frames: torch.Tensor, dense: bool = True, places_only: bool = False) -> FrameBatch:
            return read_batch(store, frames.cpu().numpy(), face, None, None, config)

        with clock.stage("calibration"):
            blind = replace(face, dense=None, skin=None)
            fit = fit_shared(blind, torch.as_tensor(candidates), read, camera, config)
            batch = read_batch(store, fit.keyframes.cpu().numpy(), face, embeddings, sites, config)
            if batch.dense is None:
                return None
            return measure(asset, face.head, batch.dense, fit.solution.values, camera.principal_point)


def unwrap_texture(
    request: Request, track: HeadTrack, asset: HeadAsset, shared: SharedFit, embeddings: EmbeddingStore
) -> np.ndarray:
    """The clip's texture, from frames spread evenly over those with a tracked head."""
    from tracker.export.vertices import track_vertices
    from tracker.photometric.texture import TextureBuilder

    usable = [t for t in np.flatnonzero(track.valid) if t in embeddings]
    picked = set(usable[:: max(math.ceil(len(usable) / _TEXTURE_FRAMES), 1)])
    builder = TextureBuilder(asset, track.camera, request.config.photometric.texture_size, shared.appearance)
    with open_video(request.video, None, request.fps, request.start, request.end) as video:
        frames = at_times(video, track.timestamps)
        for number, (frame, vertices) in enumerate(zip(frames, track_vertices(track, asset), strict=True)):
            if number in picked:
                builder.add(frame.image, vertices, embeddings.read(number))
    return builder.finish()


def _notes(track: HeadTrack, found: np.ndarray) -> Iterator[str]:
    blind = int((track.valid & ~found).sum())
    if blind:
        yield (
            f"{blind} frames have no detected face, or one that the network contradicts, and were tracked by the dense term "
            f"alone, with confidence at most {_DENSE_ONLY_CONFIDENCE:g}"
        )
    missing = int((~track.valid).sum())
    if missing:
        yield f"{missing} frames have no tracked head; they hold the nearest tracked frame's values, with valid=False"


def _progress(windows: Iterator[FrameFits], total: int, label: str, quiet: bool) -> Iterator[FrameFits]:
    with tqdm(total=total, desc=label, unit="frame", disable=quiet) as bar:
        for window in windows:
            bar.update(len(window.frames))
            yield window
