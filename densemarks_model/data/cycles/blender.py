"""The few things that are asked of Blender: a scene with a camera, meshes, strands, images, one render.

The only module of the project that imports ``bpy``, and only when a scene is opened. Blender has one state per process, so
there is one :class:`BlenderScene` per process.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from densemarks_model.data.cycles.camera import SENSOR, Lens
from densemarks_model.data.cycles.nodes import CANONICAL_OUTPUT, HEAD_OUTPUT
from densemarks_model.errors import ModelError


def load_bpy() -> Any:
    """The module ``bpy``.

    Raises:
        ModelError: it is not installed.
    """
    try:
        with _quiet():
            import bpy
    except ImportError as error:
        raise ModelError(f"Cycles pictures need Blender as a module: pip install bpy ({error})") from None
    return bpy


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on the process's standard output and error: Blender writes there a line for every picture and device that it lacks."""
    saved = [os.dup(k) for k in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for k in (1, 2):
            os.dup2(nowhere, k)
        yield
    finally:
        for k, kept in zip((1, 2), saved, strict=True):
            os.dup2(kept, k)
            os.close(kept)
        os.close(nowhere)


class BlenderScene:
    """A square picture by Cycles on the CPU, denoised, whose world is camera space.

    Args:
        size: side, pixels. samples: paths a pixel. threads: 0 for all cores. canonical: also write the output ``Canonical``.
    """

    def __init__(self, size: int, samples: int, threads: int, canonical: bool = False) -> None:
        self.bpy = bpy = load_bpy()
        with _quiet():
            bpy.ops.wm.read_factory_settings(use_empty=True)
        self.size = size
        self._scene = scene = bpy.context.scene
        self._made: list[Any] = []
        self._background: Any = None
        scene.render.engine = "CYCLES"
        scene.render.resolution_x = scene.render.resolution_y = size
        scene.render.resolution_percentage = 100
        scene.render.use_persistent_data = True
        scene.render.threads_mode = "FIXED" if threads else "AUTO"
        if threads:
            scene.render.threads = threads
        cycles = scene.cycles
        cycles.device, cycles.samples, cycles.use_adaptive_sampling = "CPU", samples, False
        cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 4, 2, 3
        cycles.transmission_bounces, cycles.transparent_max_bounces = 4, 8
        cycles.caustics_reflective = cycles.caustics_refractive = False
        cycles.sample_clamp_indirect, cycles.sample_clamp_direct = 4.0, 30.0
        cycles.use_denoising, cycles.denoiser, cycles.denoising_input_passes = True, "OPENIMAGEDENOISE", "RGB_ALBEDO_NORMAL"
        if canonical:  # rays through the pixels' centres, as a rasteriser has them
            cycles.pixel_filter_type, cycles.filter_width, cycles.use_denoising = "GAUSSIAN", 0.01, False
        scene.cycles_curves.shape, scene.cycles_curves.subdivisions = "RIBBONS", 2
        # a background process cannot look at its own render: it goes through a file
        self._folder = tempfile.TemporaryDirectory(prefix="cycles-")
        scene.render.filepath = str(Path(self._folder.name) / "picture.exr")
        scene.render.use_file_extension = False
        settings = scene.render.image_settings
        settings.file_format, settings.color_mode, settings.color_depth, settings.exr_codec = "OPEN_EXR", "RGBA", "32", "NONE"
        data = bpy.data.cameras.new("camera")
        data.sensor_fit, data.sensor_width, data.sensor_height = "HORIZONTAL", SENSOR, SENSOR
        data.clip_start, data.clip_end = 0.01, 100.0
        self._camera = bpy.data.objects.new("camera", data)
        scene.collection.objects.link(self._camera)
        scene.camera = self._camera
        self._outputs(canonical)

    def _outputs(self, canonical: bool) -> None:
        """The compositor hands over light with the head's coverage as alpha (or the cube's places with it)."""
        scene = self._scene
        layer = scene.view_layers[0]
        for name, kind in ((HEAD_OUTPUT, "VALUE"), (CANONICAL_OUTPUT, "COLOR"))[: 2 if canonical else 1]:
            output = layer.aovs.add()
            output.name, output.type = name, kind
        scene.use_nodes = True
        tree = scene.node_tree
        tree.nodes.clear()
        source, alpha, result = (tree.nodes.new(f"CompositorNode{kind}") for kind in ("RLayers", "SetAlpha", "Composite"))
        alpha.mode = "REPLACE_ALPHA"
        tree.links.new(source.outputs[CANONICAL_OUTPUT if canonical else "Image"], alpha.inputs["Image"])
        tree.links.new(source.outputs[HEAD_OUTPUT], alpha.inputs["Alpha"])
        tree.links.new(alpha.outputs["Image"], result.inputs["Image"])

    def clear(self) -> None:
        """Remove everything but the camera, and its memory."""
        self.bpy.data.batch_remove([item for item in self._made if item is not None])
        self._made = []
        self._background = None
        with _quiet():
            self.bpy.ops.outliner.orphans_purge(do_recursive=True)

    def remove(self, thing: Any) -> None:
        """Remove one object and its data."""
        data = thing.data
        self._made = [item for item in self._made if item not in (thing, data)]
        self.bpy.data.batch_remove([thing, data])

    def keep(self, item: Any) -> Any:
        """Have :meth:`clear` remove ``item`` too."""
        self._made.append(item)
        return item

    def mesh(self, vertices: np.ndarray, faces: np.ndarray, attributes: dict[str, np.ndarray], materials: list[Any], index: np.ndarray | None = None) -> Any:
        """An object of smooth triangles.

        Args:
            vertices: ``(V, 3)``. faces: ``(F, 3)``. attributes: name to ``(V,)`` or ``(V, 3)``; ``albedo`` is a colour.
            materials: for every face the first, or the one that ``index`` ``(F,)`` names.
        """
        bpy = self.bpy
        mesh = self.keep(bpy.data.meshes.new("mesh"))
        mesh.vertices.add(len(vertices))
        mesh.vertices.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())
        mesh.loops.add(3 * len(faces))
        mesh.loops.foreach_set("vertex_index", np.ascontiguousarray(faces, np.int32).ravel())
        mesh.polygons.add(len(faces))
        mesh.polygons.foreach_set("loop_start", np.arange(0, 3 * len(faces), 3, dtype=np.int32))
        mesh.polygons.foreach_set("use_smooth", np.ones(len(faces), bool))
        for material in materials:
            mesh.materials.append(material)
        if index is not None:
            mesh.polygons.foreach_set("material_index", np.ascontiguousarray(index, np.int32))
        mesh.update(calc_edges=True)
        for name, values in attributes.items():
            kind, key = ("FLOAT", "value") if values.ndim == 1 else ("FLOAT_COLOR", "color") if name == "albedo" else ("FLOAT_VECTOR", "vector")
            if kind == "FLOAT_COLOR":
                values = np.concatenate([values, np.ones((len(values), 1))], 1)
            mesh.attributes.new(name, kind, "POINT").data.foreach_set(key, np.ascontiguousarray(values, np.float32).ravel())
        return self._object(mesh)

    def strands(self, points: np.ndarray, radius: np.ndarray, tone: np.ndarray, material: Any) -> Any:
        """An object of hairs ``points`` ``(n, m, 3)``, ``radius`` ``(m,)`` along each, ``tone`` ``(n,)``."""
        count, steps, _ = points.shape
        curves = self.keep(self.bpy.data.hair_curves.new("hair"))
        curves.add_curves([steps] * count)
        curves.materials.append(material)
        curves.attributes.new("radius", "FLOAT", "POINT").data.foreach_set("value", np.tile(radius, count).astype(np.float32))
        curves.attributes.new("tone", "FLOAT", "CURVE").data.foreach_set("value", np.ascontiguousarray(tone, np.float32))
        thing = self._object(curves)
        self.move_strands(thing, points)
        return thing

    def _object(self, data: Any) -> Any:
        thing = self.keep(self.bpy.data.objects.new(data.name, data))
        self._scene.collection.objects.link(thing)
        return thing

    def move_vertices(self, thing: Any, vertices: np.ndarray) -> None:
        """Give a mesh other vertices ``(V, 3)``."""
        thing.data.vertices.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())
        thing.data.update()

    def move_strands(self, thing: Any, points: np.ndarray) -> None:
        """Give hairs other points ``(n, m, 3)``."""
        thing.data.position_data.foreach_set("vector", np.ascontiguousarray(points, np.float32).ravel())
        thing.data.update_tag()

    def place(self, thing: Any, rotation: np.ndarray, translation: np.ndarray) -> None:
        """Put an object where ``x → rotation x + translation`` takes it."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, translation
        thing.matrix_world = [tuple(map(float, row)) for row in matrix.T]

    def aim(self, lens: Lens) -> None:
        """Set the camera."""
        data = self._camera.data
        data.lens, data.shift_x, data.shift_y = lens.focal, lens.shift_x, lens.shift_y
        self._camera.rotation_euler = (0.0, 0.0, lens.roll)

    def image(self, pixels: np.ndarray) -> Any:
        """A float image of ``(h, w, 3)``, row 0 on top."""
        height, width = pixels.shape[:2]
        image = self.keep(self.bpy.data.images.new("image", width, height, float_buffer=True, alpha=False, is_data=True))
        rgba = np.ones((height, width, 4), np.float32)
        rgba[..., :3] = pixels[::-1]
        image.pixels.foreach_set(rgba.ravel())
        image.update()
        return image

    def light(self, panorama: np.ndarray, axes: np.ndarray) -> None:
        """Light the scene by a panorama ``(h, w, 3)``; ``axes`` of :func:`camera.panorama_axes`. Takes a background of its own."""
        bpy = self.bpy
        world = self.keep(bpy.data.worlds.new("world"))
        self._scene.world = world
        world.use_nodes = True
        tree = world.node_tree
        tree.nodes.clear()
        names = "TexCoord", "Mapping", "TexEnvironment", "Background", "TexImage", "Background", "LightPath", "MixShader", "OutputWorld"
        where, turn, sky, lit, picture, seen, path, mix, out = (tree.nodes.new(f"ShaderNode{name}") for name in names)
        import mathutils

        turn.inputs["Rotation"].default_value = mathutils.Matrix([tuple(map(float, row)) for row in axes]).to_euler("XYZ")
        sky.image, sky.interpolation = self.image(panorama), "Linear"
        picture.interpolation, picture.extension = "Cubic", "EXTEND"
        link = tree.links.new
        link(where.outputs["Generated"], turn.inputs["Vector"])
        link(turn.outputs["Vector"], sky.inputs["Vector"])
        link(sky.outputs["Color"], lit.inputs["Color"])
        link(where.outputs["Window"], picture.inputs["Vector"])
        link(picture.outputs["Color"], seen.inputs["Color"])
        link(path.outputs["Is Camera Ray"], mix.inputs[0])
        link(lit.outputs[0], mix.inputs[1])
        link(seen.outputs[0], mix.inputs[2])
        link(mix.outputs[0], out.inputs["Surface"])
        world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", 512
        self._background = picture

    def set_background(self, pixels: np.ndarray) -> None:
        """What the camera sees where there is nothing: ``(h, w, 3)`` linear, row 0 on top."""
        old = self._background.image
        self._background.image = self.image(pixels)
        if old is not None:
            self._made = [item for item in self._made if item is not old]
            self.bpy.data.images.remove(old)

    def render(self) -> np.ndarray:
        """``(size, size, 4)`` float32, row 0 on top: linear light (or places in the cube), and the head's coverage."""
        with _quiet():
            self.bpy.ops.render.render(write_still=True)
            image = self.bpy.data.images.load(self._scene.render.filepath)
        image.colorspace_settings.name, image.alpha_mode = "Non-Color", "CHANNEL_PACKED"
        pixels = np.empty(self.size * self.size * 4, np.float32)
        image.pixels.foreach_get(pixels)
        self.bpy.data.images.remove(image)
        return np.ascontiguousarray(pixels.reshape(self.size, self.size, 4)[::-1])
