"""``head.glb``: the tracked head as one animated glTF 2.0 file.

The scene holds a skinned mesh, its five joints and the camera. Joint and weight channels have one key per frame at the
frame's true time, counted from the first frame's, so that clips of variable frame rate play at the right speed. At
every key the file gives the head model's vertices (:mod:`tracker.export.rig` says why); between keys, players
interpolate.

glTF's axes are this project's: metres, y up, the camera looks down −z.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from flame_assets.asset import JOINT_NAMES, JOINT_PARENTS, HeadAsset
from tracker.camera import CAMERA_POSITION, Camera
from tracker.export.camera_matrices import FAR_M, NEAR_M
from tracker.export.glb_file import INDEX_DATA, VERTEX_DATA, GlbFile
from tracker.export.registry import ExportJob
from tracker.export.rig import Rig, build_rig
from tracker.export.surface import SplitSurface, material, split_at_seams, surface_parts, unit_normals
from tracker.export.texture_png import encode_png
from tracker.head_track import HeadTrack
from tracker.track_vertices import check_head

GLB_NAME = "head.glb"

_OFFSET_THRESHOLD_M = 2e-7  # smaller morph offsets are left out
_NORMAL_THRESHOLD = 2e-3  # and smaller changes of the unit normal
_STILL_M, _STILL_QUATERNION = 1e-7, 1e-7  # channels that move less than this are left out

# nodes: the joints come first, so that a joint's number is its node's
_MESH_NODE = len(JOINT_NAMES)
_CAMERA_NODE = _MESH_NODE + 1


def export(job: ExportJob) -> list[str]:
    """Write ``head.glb``."""
    write_glb(job.folder / GLB_NAME, job.track, job.head, job.texture)
    return [GLB_NAME]


def write_glb(
    path: Path, track: HeadTrack, asset: HeadAsset, texture: UInt8[np.ndarray, "size size 3"] | None = None
) -> None:
    """Write the animated head to ``path``.

    Args:
        path: of the file.
        track, asset: what to write.
        texture: RGB, row 0 at v = 1, for skin and lips; plain colours without one, and for eyes and teeth.

    Raises:
        UserError: ``asset`` is not the head that the track was made with.
    """
    check_head(track, asset)
    rig_glb(build_rig(track, asset), track, asset, texture).write(path)


def rig_glb(
    rig: Rig, track: HeadTrack, asset: HeadAsset, texture: UInt8[np.ndarray, "size size 3"] | None = None
) -> GlbFile:
    """The animated head of a rig; see :func:`write_glb`. ``track`` gives the times and the camera."""
    parts = surface_parts(asset)
    glb = GlbFile(generator="densemarks-tracker")
    number = None if texture is None else glb.add_png(encode_png(texture))
    glb.document |= {
        "scene": 0,
        "scenes": [{"name": "head track", "nodes": [0, _MESH_NODE, _CAMERA_NODE]}],
        "nodes": [
            *_joint_nodes(rig),
            {"name": "head", "mesh": 0, "skin": 0},
            {"name": "camera", "camera": 0, "translation": list(CAMERA_POSITION)},
        ],
        "cameras": [_camera(track.camera)],
        "skins": [_skin(glb, rig)],
        "materials": [material(part, number) for part in parts],
        "meshes": [_mesh(glb, rig, asset, list(parts.values()))],
        "animations": [_animation(glb, rig, track)],
    }
    return glb


def _joint_nodes(rig: Rig) -> list[dict[str, Any]]:
    """The joints, standing as in the first frame, for viewers that do not play animations."""
    nodes = []
    for joint, name in enumerate(JOINT_NAMES):
        node = {
            "name": name,
            "translation": rig.translations[0, joint].tolist(),
            "rotation": rig.rotations[0, joint].tolist(),
        }
        children = [child for child, parent in enumerate(JOINT_PARENTS) if parent == joint]
        nodes.append(node | ({"children": children} if children else {}))
    return nodes


def _camera(camera: Camera) -> dict[str, Any]:
    """A perspective camera. glTF knows no principal point; an off-centre one is only told in the extras."""
    return {
        "name": "camera",
        "type": "perspective",
        "perspective": {
            "yfov": 2 * math.atan(camera.height / 2 / camera.focal_px),
            "aspectRatio": camera.width / camera.height,
            "znear": NEAR_M,
            "zfar": FAR_M,
        },
        "extras": {
            "focal_px": camera.focal_px,
            "principal_point": [camera.cx, camera.cy],
            "image_size": [camera.height, camera.width],
        },
    }


def _skin(glb: GlbFile, rig: Rig) -> dict[str, Any]:
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (len(JOINT_NAMES), 1, 1))
    inverse_bind[:, :3, 3] = -rig.joints
    return {"joints": list(range(len(JOINT_NAMES))), "skeleton": 0, "inverseBindMatrices": glb.add(inverse_bind)}


def _mesh(glb: GlbFile, rig: Rig, asset: HeadAsset, parts: list[np.ndarray]) -> dict[str, Any]:
    """One primitive per part of the surface, in the order of the materials; all share vertices and morph targets."""
    surface = split_at_seams(asset)
    attributes = _attributes(glb, rig, asset, surface)
    targets = _morph_targets(glb, rig, asset, surface)
    index_type = np.uint16 if len(surface.source) < 65535 else np.uint32
    primitives = []
    for number, triangles in enumerate(parts):
        primitive = {
            "attributes": attributes,
            "indices": glb.add(surface.faces[triangles].ravel().astype(index_type), INDEX_DATA),
            "material": number,
        }
        primitives.append(primitive | ({"targets": targets} if targets else {}))
    mesh = {"name": asset.name, "primitives": primitives}
    if targets:
        extras = {"targetNames": list(rig.morph_names), "targetScales": rig.morph_scales.tolist()}
        mesh |= {"weights": rig.morph_weights[0].tolist(), "extras": extras}
    return mesh


def _attributes(glb: GlbFile, rig: Rig, asset: HeadAsset, surface: SplitSurface) -> dict[str, int]:
    def per_vertex(array: np.ndarray, bounds: bool = False) -> int:
        return glb.add(array[surface.source], VERTEX_DATA, bounds)

    attributes = {
        "POSITION": per_vertex(rig.vertices.astype(np.float32), bounds=True),
        "NORMAL": per_vertex(unit_normals(rig.vertices, asset.faces).astype(np.float32)),
    }
    if surface.uv is not None:
        downwards = np.stack([surface.uv[:, 0], 1 - surface.uv[:, 1]], axis=-1)  # glTF's v runs down
        attributes["TEXCOORD_0"] = glb.add(downwards.astype(np.float32), VERTEX_DATA)
    for number, (joints, weights) in enumerate(_influences(asset.weights)):
        attributes[f"JOINTS_{number}"] = per_vertex(joints)
        attributes[f"WEIGHTS_{number}"] = per_vertex(weights)
    return attributes


def _influences(weights: Float[np.ndarray, "verts 5"]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Skinning weights as glTF's sets of four (joint, weight) pairs, strongest first; a second set only if needed."""
    order = np.argsort(-weights, axis=1, kind="stable")
    strength = np.take_along_axis(weights, order, axis=1).astype(np.float64).clip(0)
    strength /= strength.sum(axis=1, keepdims=True)
    sets = math.ceil(int((strength > 0).sum(axis=1).max()) / 4)
    padding = ((0, 0), (0, max(4 * sets - weights.shape[1], 0)))
    joints = np.pad(np.where(strength > 0, order, 0), padding).astype(np.uint8)
    strength = np.pad(strength, padding).astype(np.float32)
    return [(joints[:, s : s + 4], strength[:, s : s + 4]) for s in range(0, 4 * sets, 4)]


def _morph_targets(glb: GlbFile, rig: Rig, asset: HeadAsset, surface: SplitSurface) -> list[dict[str, int]]:
    """Offsets of positions and, to first order, of normals, for players that do not compute normals anew."""
    at_rest = unit_normals(rig.vertices, asset.faces)
    targets = []
    for offsets in rig.morphs:
        turned = unit_normals(rig.vertices + offsets, asset.faces) - at_rest
        positions = offsets[surface.source].astype(np.float32)
        normals = turned[surface.source].astype(np.float32)
        targets.append(
            {
                "POSITION": glb.add_offsets(positions, _OFFSET_THRESHOLD_M, bounds=True),
                "NORMAL": glb.add_offsets(normals, _NORMAL_THRESHOLD),
            }
        )
    return targets


def _animation(glb: GlbFile, rig: Rig, track: HeadTrack) -> dict[str, Any]:
    """One linear channel for everything that moves; what stands still is already in the nodes."""
    times = (track.timestamps - track.timestamps[0]).astype(np.float32)
    keys = np.flatnonzero(np.diff(times, prepend=-1.0) > 0)  # times that float32 cannot tell apart would be invalid
    key_times = glb.add(times[keys], bounds=True)
    channels: list[dict[str, Any]] = []
    samplers: list[dict[str, Any]] = []

    def channel(node: int, path: str, values: np.ndarray) -> None:
        samplers.append({"input": key_times, "output": glb.add(values.astype(np.float32)), "interpolation": "LINEAR"})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    for joint in range(len(JOINT_NAMES)):
        rotations, translations = rig.rotations[keys, joint], rig.translations[keys, joint]
        if joint == 0 or np.ptp(rotations, axis=0).max() > _STILL_QUATERNION:
            channel(joint, "rotation", rotations)
        if joint == 0 or np.ptp(translations, axis=0).max() > _STILL_M:
            channel(joint, "translation", translations)
    if rig.morph_names:
        channel(_MESH_NODE, "weights", rig.morph_weights[keys].ravel())
    return {
        "name": "head track",
        "channels": channels,
        "samplers": samplers,
        "extras": {"frame_rate": track.frame_rate, "invalid_frames": np.flatnonzero(~track.valid).tolist()},
    }
