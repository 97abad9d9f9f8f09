"""The animated head for the page: the glb as it is but rounded, or with fewer frames and morph targets where that is too large."""

from __future__ import annotations

import base64
import gzip
import json
import math
import struct
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from flame_assets.asset import HeadAsset
from tracker.camera import CAMERA_POSITION
from tracker.export.gltf import rig_glb
from tracker.export.rig import Rig, build_rig
from tracker.head_track import HeadTrack
from tracker.track_vertices import track_vertices

FOV_DEG = 30.0
"""Vertical field of view of the close view."""

_MOST_FRAMES = 600  # of a shortened animation
_TEXTURE_SIDE = 512
_FEWEST_TARGETS = 4
_LARGEST_GLB = 40_000_000  # bytes; a larger one is not read, only shortened
# steps to which a viewer's numbers are rounded: 15 µm, a quarter of a degree of a normal, a fifth of a thousandth of a weight
_OFFSET_STEP, _NORMAL_STEP, _WEIGHT_STEP = 2.0**-16, 2.0**-8, 2.0**-12
_FRAMING_FRAMES = 24
_FAR = 0.6  # of the head's size: who moves farther is followed


@dataclass(frozen=True)
class PageHead:
    """Attributes:
    packed: the glb, gzip and base64; empty when it does not fit.
    note: what was left out, one sentence; empty when nothing was.
    """

    packed: str
    note: str


@dataclass(frozen=True)
class Framing:
    """Attributes:
    target: the point looked at, world, metres.
    distance: of the close view from it, metres.
    centres: ``(frames, 3)`` middle of the head in every frame, where it moves too far for one close view; None where it does not.
    """

    target: Float[np.ndarray, "3"]
    distance: float
    centres: Float[np.ndarray, "frames 3"] | None


def page_head(
    glb: bytes, track: HeadTrack, asset: HeadAsset, texture: UInt8[np.ndarray, "size size 3"] | None, budget: int
) -> PageHead:
    """The head in at most ``budget`` characters.

    Args:
        glb: the finished head.glb, whose numbers are rounded for the page; empty where there is none, or a too large one.
        track, asset, texture: what it was made of, to make a shorter one.
    """
    if 0 < len(glb) <= _LARGEST_GLB:
        packed = pack(rounded(glb))
        if len(packed) <= budget:
            return PageHead(packed, "")
    frames = np.unique(np.linspace(0, track.n_frames - 1, min(track.n_frames, _MOST_FRAMES)).round().astype(int))
    shorter = track.select(frames)
    rig = build_rig(shorter, asset)
    small = None if texture is None else cv2.resize(texture, (_TEXTURE_SIDE, _TEXTURE_SIDE), interpolation=cv2.INTER_AREA)
    # of each vertex the mesh at rest takes about 50 bytes when packed, a target 6
    targets = min(max((budget * 3 // 4 // asset.n_vertices - 50) // 6, _FEWEST_TARGETS), len(rig.morphs))
    while targets >= min(_FEWEST_TARGETS, len(rig.morphs)):
        fewer, left_out = with_fewer_targets(rig, targets)
        packed = pack(rounded(b"".join(rig_glb(fewer, shorter, asset, small).parts())))
        if len(packed) <= budget:
            return PageHead(packed, _shortened(len(frames), track.n_frames, targets, left_out, texture is not None))
        targets //= 2
    return PageHead("", "the animation is too large for this page; open head.glb itself")


def _shortened(frames: int, of: int, targets: int, left_out_m: float, textured: bool) -> str:
    kept = "all frames" if frames == of else f"{frames} of {of} frames"
    finer = f", a texture of {_TEXTURE_SIDE} pixels" if textured else ""
    return (
        f"to keep this page small the head here has {kept}, {targets} mixed morph targets (vertices within {1000 * left_out_m:.1f} mm){finer}; "
        "head.glb has everything"
    )


def with_fewer_targets(rig: Rig, count: int) -> tuple[Rig, float]:
    """The rig with the ``count`` morph targets that give the frames best, of weights of either sign, and the largest distance in metres
    by which any vertex of any frame is displaced before skinning."""
    if count >= len(rig.morphs):
        return rig, 0.0
    flat = rig.morphs.reshape(len(rig.morphs), -1)
    left, scale, right = np.linalg.svd(flat, full_matrices=False)
    per_frame, strength, mixing = np.linalg.svd(rig.morph_weights @ (left * scale), full_matrices=False)
    weights = per_frame[:, :count] * strength[:count]
    size = np.maximum(np.abs(weights).max(axis=0), 1e-12)
    count = weights.shape[1]
    kept = (size[:, None] * (mixing[:count] @ right)).reshape(count, -1, 3)
    rest = (per_frame[:, count:] * strength[count:]) @ mixing[count : len(strength)]
    worst = 0.0
    for row in rest:  # one frame at a time: all of them would be as large as the animation's vertices
        worst = max(worst, float(np.linalg.norm((row @ right).reshape(-1, 3), axis=1).max()))
    names = tuple(f"mixed_{i:02d}" for i in range(count))
    return replace(rig, morph_names=names, morph_scales=np.ones(count), morphs=kept, morph_weights=weights / size), worst


def framing(track: HeadTrack, asset: HeadAsset) -> Framing:
    """From where to look at a track: close, with room for most of the head's motion, or following it."""
    heads = np.flatnonzero(track.valid) if track.valid.any() else np.arange(track.n_frames)
    frames = np.unique(heads[np.linspace(0, len(heads) - 1, min(_FRAMING_FRAMES, len(heads))).round().astype(int)])
    boxes = np.array([(v.min(0), v.max(0)) for v in track_vertices(track.select(frames), asset)])
    centres = boxes.mean(1)
    size, target = float((boxes[:, 1] - boxes[:, 0]).max()), np.median(centres, axis=0)
    motion = float(np.percentile(np.linalg.norm(centres - target, axis=1), 90))
    follow = motion > _FAR * size
    reach = size / 2 + (0 if follow else motion)
    return Framing(target, 1.1 * reach / math.tan(math.radians(FOV_DEG / 2)), head_centres(track, asset) if follow else None)


def head_centres(track: HeadTrack, asset: HeadAsset) -> Float[np.ndarray, "frames 3"]:
    """About the middle of the mean head in every frame, world, metres; the neck's bend is left out."""
    pivot = asset.joint_regressor[0] @ asset.v_template
    middle = (asset.v_template.min(0) + asset.v_template.max(0)) / 2
    return pivot + Rotation.from_rotvec(track.rotation).apply(middle - pivot) + track.translation


def camera_distance(at: Framing) -> float:
    """Metres from the video's camera to the point looked at, along the camera's axis."""
    return float(CAMERA_POSITION[2] - at.target[2])


def pack(data: bytes) -> str:
    """Bytes for a page: gzip (the same for the same bytes) and base64."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def rounded(glb: bytes) -> bytes:
    """A glb whose morph targets and weights are rounded to what eyes can see, so that it packs well; everything else stays."""
    length = struct.unpack_from("<I", glb, 12)[0]
    document = json.loads(glb[20 : 20 + length])
    data = np.frombuffer(glb, np.uint8, offset=28 + length).copy()
    steps: dict[int, float] = {}
    for mesh in document["meshes"]:
        for target in (t for primitive in mesh["primitives"] for t in primitive.get("targets", ())):
            steps |= {target["POSITION"]: _OFFSET_STEP, target["NORMAL"]: _NORMAL_STEP}
    for animation in document["animations"]:
        outputs = {c["sampler"]: c["target"]["path"] for c in animation["channels"]}
        steps |= {s["output"]: _WEIGHT_STEP for i, s in enumerate(animation["samplers"]) if outputs.get(i) == "weights"}
    for number, step in steps.items():
        accessor = document["accessors"][number]
        for view in (accessor.get("bufferView"), accessor.get("sparse", {}).get("values", {}).get("bufferView")):
            if view is not None:
                _round(data, document["bufferViews"][view], step)
        for bound in ("min", "max"):
            if bound in accessor:
                accessor[bound] = (np.round(np.array(accessor[bound]) / step) * step).tolist()
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + len(data), len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(data), b"BIN\0") + data.tobytes()


def _round(data: np.ndarray, view: dict[str, int], step: float) -> None:
    begin = view.get("byteOffset", 0)
    part = data[begin : begin + view["byteLength"]].view(np.float32)
    part[:] = np.round(part / np.float32(step)) * np.float32(step) + np.float32(0)  # no negative zeros
