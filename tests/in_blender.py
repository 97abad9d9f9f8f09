"""What Blender makes of an exported file: a program of its own, because Blender as a module changes the process that loads it.

``look(file, times, …)`` runs it, and gives the vertices and their pictures' places through the imported camera at each time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

needs_blender = pytest.mark.skipif(find_spec("bpy") is None, reason="what Blender reads NOT CHECKED: no bpy installed (extra [cycles])")


@dataclass(frozen=True)
class Seen:
    """Attributes:
    vertices: (times, vertices, 3) in our axes (y up), in the file's order.
    pixels: (times, vertices, 2) through the imported camera, from the picture's top left; None without a camera.
    faces: (faces, 3) vertices, as wound in Blender.
    uv: (corners, 2), v up; None without.
    bones: name to (times, 3, 3), each bone's turn from its rest, our axes.
    """

    vertices: np.ndarray
    pixels: np.ndarray | None
    faces: np.ndarray
    uv: np.ndarray | None
    bones: dict[str, np.ndarray]


def look(path: Path, times: np.ndarray, frame_rate: float, size: tuple[int, int], **options: object) -> Seen:
    """Open ``path`` in Blender.

    Args:
        times: seconds; Blender's frame is time × ``frame_rate``.
        size: (width, height) of the picture.
        options: ``picture`` to render the last time to, transparent beside the head; ``time_mode`` of the Mesh Cache; ``sensor_fit`` of the camera, set by hand.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seen.npz"
        task = {"path": str(path), "times": list(map(float, times)), "fps": frame_rate, "size": size, "out": str(out)} | options
        done = subprocess.run([sys.executable, __file__, json.dumps(task)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        found = dict(np.load(out))
    bones = {name[5:]: array for name, array in found.items() if name.startswith("bone:")}
    return Seen(found.get("vertices"), found.get("pixels"), found.get("faces"), found.get("uv"), bones)


def _main(task: dict) -> None:
    import bpy
    from mathutils import Matrix

    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps = round(task["fps"])
    scene.render.resolution_x, scene.render.resolution_y = task["size"]
    _load(bpy, Path(task["path"]), task)
    y_up = Matrix(((1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, 0), (0, 0, 0, 1)))
    mesh = next((o for o in bpy.data.objects if o.type == "MESH" and o.name != "Icosphere"), None)
    bones = next((o for o in bpy.data.objects if o.type == "ARMATURE"), None)
    scene.camera = next((o for o in bpy.data.objects if o.type == "CAMERA"), None)
    if task.get("sensor_fit"):
        scene.camera.data.sensor_fit = task["sensor_fit"]
    found: dict[str, list] = {}
    for time in task["times"]:
        frame = time * scene.render.fps
        scene.frame_set(int(frame), subframe=frame - int(frame))
        graph = bpy.context.evaluated_depsgraph_get()
        if mesh is not None:
            _look_at_mesh(scene, mesh.evaluated_get(graph), y_up, found)
        if bones is not None:
            for bone in bones.evaluated_get(graph).pose.bones:
                world, rest = (y_up @ bones.matrix_world @ m for m in (bone.matrix, bone.bone.matrix_local))
                turn = world.to_quaternion() @ rest.to_quaternion().inverted()
                found.setdefault(f"bone:{bone.name}", []).append(np.array(turn.to_matrix()))
                found.setdefault(f"bone:{bone.name}:head", []).append(np.array(world.translation))
    if mesh is not None:
        found["faces"] = [list(p.vertices) for p in mesh.data.polygons]
        if mesh.data.uv_layers:
            found["uv"] = [tuple(c.uv) for c in mesh.data.uv_layers[0].data]
    np.savez(task["out"], **{name: np.array(values) for name, values in found.items()})
    if task.get("picture"):
        _render(bpy, scene, task["picture"])


def _load(bpy, path: Path, task: dict) -> None:
    if path.suffix in (".mdd", ".pc2"):
        bpy.ops.wm.obj_import(filepath=str(path.parent / "rest.obj"))
        cache = bpy.context.selected_objects[0].modifiers.new("cache", "MESH_CACHE")
        cache.cache_format, cache.filepath = path.suffix[1:].upper(), str(path)
        cache.frame_start = 0
        if task.get("time_mode") == "TIME":
            cache.play_mode, cache.time_mode = "CUSTOM", "TIME"
            for time in task["times"]:
                cache.eval_time = time
                cache.keyframe_insert("eval_time", frame=time * task["fps"])
            for curve in bpy.context.selected_objects[0].animation_data.action.fcurves:
                for key in curve.keyframe_points:
                    key.interpolation = "LINEAR"
    elif path.suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=str(path))
    elif path.suffix.startswith(".usd"):
        bpy.ops.wm.usd_import(filepath=str(path), import_subdiv=False)
    elif path.suffix == ".abc":
        bpy.ops.wm.alembic_import(filepath=str(path), as_background_job=False, set_frame_range=False)
    elif path.suffix == ".bvh":
        bpy.ops.import_anim.bvh(filepath=str(path), frame_start=1, use_fps_scale=False)


def _look_at_mesh(scene, mesh, y_up, found: dict) -> None:
    from bpy_extras.object_utils import world_to_camera_view

    world = [mesh.matrix_world @ v.co for v in mesh.to_mesh().vertices]
    found.setdefault("vertices", []).append(np.array([y_up @ v for v in world]))
    if scene.camera is not None:
        width, height = scene.render.resolution_x, scene.render.resolution_y
        seen = [world_to_camera_view(scene, scene.camera, v) for v in world]
        found.setdefault("pixels", []).append(np.array([(s.x * width, (1 - s.y) * height) for s in seen]))


def _render(bpy, scene, path: str) -> None:
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.rotation_euler = 3, (0.9, 0.3, 0.3)
    scene.collection.objects.link(sun)
    scene.world = bpy.data.worlds.new("grey")
    scene.world.color = (0.5, 0.5, 0.55)
    scene.render.engine = "CYCLES"  # the one engine that needs no display
    scene.cycles.samples = 8
    scene.cycles.use_denoising = False
    scene.render.film_transparent = True
    scene.render.image_settings.color_mode = "RGBA"
    scene.render.filepath = path
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
