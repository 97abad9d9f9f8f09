#!/usr/bin/env python3
"""Open a .glb in Blender, compare it with the parameters it was made from, and render one frame through its camera.

Usage:  blender -b --python tools/check_in_blender.py -- head.glb [--vertices FILE.npy] [--frame N] [--picture OUT.png]
   or:  python tools/check_in_blender.py head.glb …        (with the `bpy` package of the same Python version)

A validator does not know what Blender does with a valid file; it clamps shape keys, for one. ``--vertices`` takes world
vertices of every frame, ``(T, V, 3)``, as ``tracker.track_vertices.track_vertices`` yields them, and the frames are
compared as point sets, in millimetres; the exit code is 1 if they differ by more than 0.1 mm. Frames are visited at
their true times, so any frame rate will do. The rendered picture has the video's size, to be laid over its frame.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
from pathlib import Path

import bpy
import numpy as np


def main() -> int:
    given = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glb", type=Path)
    parser.add_argument("--vertices", type=Path, help="expected world vertices (T, V, 3), .npy")
    parser.add_argument("--frame", type=int, default=0, help="frame to render (default: 0)")
    parser.add_argument("--picture", type=Path, help="where to render it to, .png")
    options = parser.parse_args(given)

    document, times = read_glb(options.glb)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    frame_rate = document["animations"][0]["extras"]["frame_rate"]
    scene.render.fps = round(frame_rate)  # fps_base stays 1: importers ignore it or apply it the wrong way round
    bpy.ops.import_scene.gltf(filepath=str(options.glb))
    last = max(action.frame_range[1] for action in bpy.data.actions)
    head = next(o for o in bpy.data.objects if o.type == "MESH" and o.find_armature())
    print(f"Blender {bpy.app.version_string}: {len(head.data.vertices)} vertices, {shape_keys(head)} shape keys")
    print(f"animation ends at {last / scene.render.fps:.3f} s; the file's last key is at {times[-1]:.3f} s")
    if options.vertices:
        expected = np.load(options.vertices, allow_pickle=False)
        worst = max(difference_mm(head, scene, *pair) for pair in zip(times, expected, strict=True))
        print(f"largest distance from the expected vertices over {len(expected)} frames: {worst:.5f} mm")
        if worst > 0.1:
            return 1
    if options.picture:
        render(scene, document["cameras"][0]["extras"]["image_size"], times[options.frame], options.picture)
        print(f"frame {options.frame} rendered to {options.picture}")
    return 0


def read_glb(path: Path) -> tuple[dict, np.ndarray]:
    """The file's JSON and its key times, seconds."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    document = json.loads(data[20 : 20 + length])
    accessor = document["accessors"][document["animations"][0]["samplers"][0]["input"]]
    start = 20 + length + 8 + document["bufferViews"][accessor["bufferView"]]["byteOffset"]
    return document, np.frombuffer(data, np.float32, accessor["count"], start)


def go_to(scene: bpy.types.Scene, time: float) -> None:
    subframe, frame = math.modf(float(time) * scene.render.fps)
    scene.frame_set(int(frame), subframe=subframe)


def shape_keys(head: bpy.types.Object) -> int:
    return len(head.data.shape_keys.key_blocks) - 1 if head.data.shape_keys else 0


def difference_mm(head: bpy.types.Object, scene: bpy.types.Scene, time: float, expected: np.ndarray) -> float:
    """Largest distance of a vertex in Blender from the nearest expected one; Blender doubles and reorders vertices."""
    from mathutils.kdtree import KDTree

    go_to(scene, time)
    posed = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
    tree = KDTree(len(expected))
    for number, (x, y, z) in enumerate(expected.tolist()):
        tree.insert((x, -z, y), number)  # Blender's z points up
    tree.balance()
    return 1000 * max(tree.find(posed.matrix_world @ vertex.co)[2] for vertex in posed.to_mesh().vertices)


def render(scene: bpy.types.Scene, size: list[int], time: float, path: Path) -> None:
    go_to(scene, time)
    scene.camera = next(o for o in bpy.data.objects if o.type == "CAMERA")
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.rotation_euler = 3, (0.9, 0.3, 0.3)
    scene.collection.objects.link(sun)
    scene.world = bpy.data.worlds.new("grey")
    scene.world.color = (0.5, 0.5, 0.55)
    scene.render.engine = "CYCLES"  # the one engine that needs no display
    scene.cycles.samples = 32
    scene.cycles.use_denoising = False
    scene.render.resolution_y, scene.render.resolution_x = size
    scene.render.filepath = str(path.resolve())
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    code = main()
    if code:
        sys.exit(code)
