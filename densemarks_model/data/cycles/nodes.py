"""Materials, as functions that build node trees of Blender.

Every material that counts as the head writes 1 into the value output ``Head`` (its coverage, anti-aliased by the samples);
the skin, eyes and mouth also write ``Canonical``, where they lie in the cube.
"""

from __future__ import annotations

from typing import Any

import numpy as np

HEAD_OUTPUT, CANONICAL_OUTPUT = "Head", "Canonical"

SUBSURFACE_WEIGHT, SUBSURFACE_SCALE, SUBSURFACE_RADIUS = 0.22, 0.5, (0.010, 0.004, 0.002)
"""Scattering under the skin: share, and how far red, green and blue travel, metres."""


class Tree:
    """A material's node tree, with short names for what is done to it."""

    def __init__(self, bpy: Any, name: str) -> None:
        self.material = bpy.data.materials.new(name)
        self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.tree.nodes.clear()

    def node(self, kind: str, **settings: Any) -> Any:
        """A new node; ``settings`` are its properties."""
        node = self.tree.nodes.new(kind)
        for key, value in settings.items():
            setattr(node, key, value)
        return node

    def put(self, socket: Any, value: Any) -> None:
        """Connect a socket, or set a constant."""
        if hasattr(value, "is_linked"):
            self.tree.links.new(value, socket)
        else:
            socket.default_value = value

    def attribute(self, name: str, output: str = "Color") -> Any:
        """Output socket of a geometry's attribute."""
        return self.node("ShaderNodeAttribute", attribute_name=name).outputs[output]

    def math(self, operation: str, a: Any, b: Any = 0.0, clamp: bool = False) -> Any:
        """One number from two."""
        node = self.node("ShaderNodeMath", operation=operation, use_clamp=clamp)
        self.put(node.inputs[0], a)
        self.put(node.inputs[1], b)
        return node.outputs[0]

    def mix(self, share: Any, a: Any, b: Any, blend: str = "MIX") -> Any:
        """A colour from two."""
        node = self.node("ShaderNodeMix", data_type="RGBA", blend_type=blend)
        for socket, value in zip((node.inputs[0], node.inputs[6], node.inputs[7]), (share, a, b), strict=True):
            self.put(socket, value)
        return node.outputs[2]

    def noise(self, where: Any, scale: float, detail: float = 2.0) -> Any:
        """Noise about 0.5 with features 1 / ``scale`` metres wide."""
        node = self.node("ShaderNodeTexNoise")
        self.put(node.inputs["Vector"], where)
        node.inputs["Scale"].default_value, node.inputs["Detail"].default_value = scale, detail
        return node.outputs["Fac"]

    def spread(self, value: Any, low: float, high: float, to_low: float = 0.0, to_high: float = 1.0) -> Any:
        """``value`` from one range to another, clamped."""
        node = self.node("ShaderNodeMapRange", clamp=True)
        for socket, number in zip(node.inputs, (value, low, high, to_low, to_high), strict=False):
            self.put(socket, number)
        return node.outputs[0]

    def bump(self, height: Any, distance: float, strength: float = 1.0) -> Any:
        """A normal tilted by a height in [0, 1] of ``distance`` metres."""
        node = self.node("ShaderNodeBump")
        self.put(node.inputs["Height"], height)
        node.inputs["Distance"].default_value, node.inputs["Strength"].default_value = distance, strength
        return node.outputs["Normal"]

    def principled(self, **inputs: Any) -> Any:
        """A Principled BSDF; names of inputs with underscores for spaces."""
        node = self.node("ShaderNodeBsdfPrincipled")
        for key, value in inputs.items():
            self.put(node.inputs[key.replace("_", " ")], value)
        return node.outputs[0]

    def finish(self, surface: Any, head: bool, canonical: bool = False) -> Any:
        """Connect the surface and the outputs; the material."""
        self.put(self.node("ShaderNodeOutputMaterial").inputs["Surface"], surface)
        if head:
            self.put(self.node("ShaderNodeOutputAOV", aov_name=HEAD_OUTPUT).inputs["Value"], 1.0)
        if canonical:
            self.put(self.node("ShaderNodeOutputAOV", aov_name=CANONICAL_OUTPUT).inputs["Color"], self.attribute("canonical", "Vector"))
        return self.material


def _rgba(colour: np.ndarray) -> tuple[float, float, float, float]:
    red, green, blue = (float(c) for c in colour)
    return red, green, blue, 1.0


def skin(bpy: Any, look: np.ndarray, head: bool = True) -> Any:
    """Skin over the attribute ``albedo``: blotches, freckles, pores and oil as ``look`` (8,) of ``shading.shade`` has them."""
    tree = Tree(bpy, "skin")
    rest, albedo = tree.attribute("rest", "Vector"), tree.attribute("albedo")
    gloss = tree.attribute("gloss", "Fac")
    blotches, freckles, pores, wrinkles = (float(v) for v in look[:4])
    broad, fine = tree.noise(rest, 45.0, 3.0), tree.noise(rest, 520.0, 2.0)
    patch = tree.spread(broad, 0.3, 0.7, 1 - 1.4 * blotches, 1 + 0.7 * blotches)
    colour = tree.mix(1.0, albedo, tree.mix(tree.spread(broad, 0.35, 0.65), (1.0, 0.95, 0.93, 1), (0.98, 1.0, 1.0, 1)), "MULTIPLY")
    scaled = tree.node("ShaderNodeVectorMath", operation="SCALE")
    tree.put(scaled.inputs[0], colour)
    tree.put(scaled.inputs["Scale"], patch)
    colour = scaled.outputs[0]
    if freckles > 0.1:
        spots = tree.spread(tree.noise(rest, 330.0, 1.0), 0.60, 0.68, 0.0, 0.55 * freckles)
        # a share of the skin's own light, as in shading.shade: a fixed brown would glow on dark skin
        colour = tree.mix(spots, colour, tree.mix(1.0, colour, (0.65, 0.45, 0.35, 1), "MULTIPLY"))
    height = tree.math("ADD", tree.math("MULTIPLY", fine, 0.7), tree.math("MULTIPLY", tree.noise(rest, 160.0, 3.0), 0.8 + 4 * wrinkles))
    normal = tree.bump(height, 0.0006, 0.35 + 2.2 * pores)
    roughness = tree.math("ADD", tree.spread(gloss, 0, 1, 0.58, 0.33), tree.math("MULTIPLY", tree.math("SUBTRACT", tree.noise(rest, 90.0), 0.5), 0.25))
    surface = tree.principled(
        Base_Color=colour, Roughness=roughness, Specular_IOR_Level=tree.spread(gloss, 0, 1, 0.28, 0.5), Normal=normal,
        Subsurface_Weight=SUBSURFACE_WEIGHT, Subsurface_Radius=SUBSURFACE_RADIUS, Subsurface_Scale=SUBSURFACE_SCALE,
    )  # fmt: skip
    return tree.finish(surface, head, canonical=head)


def eye(bpy: Any, iris: np.ndarray, white: np.ndarray, radius: float) -> Any:
    """A wet eye: white with veins, iris with fibres and a dark rim, pupil. The attribute ``eye`` is metres from the iris' centre.

    Args:
        iris, white: ``(3,)`` linear RGB. radius: of the iris, metres.
    """
    tree = Tree(bpy, "eye")
    place = tree.attribute("eye", "Vector")
    length = tree.node("ShaderNodeVectorMath", operation="LENGTH")
    tree.put(length.inputs[0], place)
    reach = tree.math("DIVIDE", length.outputs["Value"], radius)
    direction = tree.node("ShaderNodeVectorMath", operation="NORMALIZE")
    tree.put(direction.inputs[0], place)
    fibres = tree.noise(direction.outputs[0], 9.0, 3.0)
    inner = tree.mix(tree.spread(reach, 0.42, 0.9), _rgba(np.clip(iris * [1.5, 1.3, 1.0] + 0.01, 0, 1)), _rgba(iris))
    inner = tree.mix(1.0, inner, tree.mix(fibres, (0.35, 0.35, 0.35, 1), (1.6, 1.6, 1.6, 1)), "MULTIPLY")
    inner = tree.mix(tree.spread(reach, 0.84, 0.99), inner, _rgba(iris * 0.25))
    inner = tree.mix(tree.spread(reach, 0.40, 0.35), inner, (0.002, 0.002, 0.002, 1))
    veins = tree.spread(tree.noise(place, 700.0, 4.0), 0.58, 0.72, 0.0, 0.25)
    far = tree.spread(reach, 1.1, 2.0)
    outer = tree.mix(tree.math("MULTIPLY", far, veins), _rgba(white), (0.62, 0.16, 0.12, 1))
    outer = tree.mix(tree.math("MULTIPLY", far, 0.35), outer, (0.62, 0.38, 0.32, 1))
    colour = tree.mix(tree.spread(reach, 0.95, 1.06), inner, outer)
    surface = tree.principled(
        Base_Color=colour, Roughness=0.35, Specular_IOR_Level=0.3, Coat_Weight=1.0, Coat_Roughness=0.02, Coat_IOR=1.38,
        Subsurface_Weight=tree.spread(reach, 0.95, 1.06, 0.0, 0.3), Subsurface_Radius=(0.002, 0.001, 0.001), Subsurface_Scale=0.5,
    )  # fmt: skip
    return tree.finish(surface, head=True, canonical=True)


def mouth(bpy: Any) -> Any:
    """Teeth, tongue and gums: wet, over the attribute ``albedo``."""
    tree = Tree(bpy, "mouth")
    rough = tree.bump(tree.noise(tree.attribute("rest", "Vector"), 400.0), 0.0004, 0.4)
    surface = tree.principled(
        Base_Color=tree.attribute("albedo"), Roughness=0.28, Specular_IOR_Level=0.5, Coat_Weight=0.5, Coat_Roughness=0.1, Normal=rough,
        Subsurface_Weight=0.15, Subsurface_Radius=(0.003, 0.001, 0.001), Subsurface_Scale=0.5,
    )  # fmt: skip
    return tree.finish(surface, head=True, canonical=True)


def hair(bpy: Any, colour: np.ndarray, gloss: float) -> Any:
    """Strands; the attribute ``tone`` makes them differ. ``colour`` (3,) linear RGB; ``gloss`` 0 to 1."""
    tree = Tree(bpy, "hair")
    tone = tree.attribute("tone", "Fac")
    scaled = tree.node("ShaderNodeVectorMath", operation="SCALE")
    tree.put(scaled.inputs[0], tuple(float(v) for v in colour[:3]))
    tree.put(scaled.inputs["Scale"], tone)
    strand = tree.node("ShaderNodeBsdfHairPrincipled", parametrization="COLOR")
    tree.put(strand.inputs["Color"], scaled.outputs[0])
    strand.inputs["Roughness"].default_value = 0.45 - 0.2 * gloss
    strand.inputs["Radial Roughness"].default_value = 0.5 - 0.15 * gloss
    strand.inputs["Random Roughness"].default_value = 0.3
    return tree.finish(strand.outputs[0], head=True)


def cloth(bpy: Any, scale: float, coarse: float) -> Any:
    """Cloth over the attribute ``albedo``: woven bumps, a soft sheen, wrinkles. ``scale``: threads per metre."""
    tree = Tree(bpy, "cloth")
    rest = tree.attribute("rest", "Vector")
    weave = tree.node("ShaderNodeTexWave", bands_direction="DIAGONAL")
    tree.put(weave.inputs["Vector"], rest)
    weave.inputs["Scale"].default_value, weave.inputs["Distortion"].default_value = scale, 2.0
    height = tree.math("ADD", tree.math("MULTIPLY", weave.outputs["Fac"], 0.25), tree.math("MULTIPLY", tree.noise(rest, 28.0, 3.0), 6.0 * coarse))
    dirt = tree.spread(tree.noise(rest, 60.0, 4.0), 0.3, 0.7, 0.82, 1.1)
    colour = tree.node("ShaderNodeVectorMath", operation="SCALE")
    tree.put(colour.inputs[0], tree.attribute("albedo"))
    tree.put(colour.inputs["Scale"], dirt)
    surface = tree.principled(
        Base_Color=colour.outputs[0], Roughness=0.85, Specular_IOR_Level=0.2, Sheen_Weight=0.35, Sheen_Roughness=0.4,
        Normal=tree.bump(height, 0.002, 0.7),
    )  # fmt: skip
    return tree.finish(surface, head=False)


def plastic(bpy: Any, roughness: float, metal: float = 0.0) -> Any:
    """Frames, headphones and the like, over the attribute ``albedo``."""
    tree = Tree(bpy, "plastic")
    return tree.finish(tree.principled(Base_Color=tree.attribute("albedo"), Roughness=roughness, Metallic=metal), head=False)


def lens(bpy: Any, tint: np.ndarray, reflect: float) -> Any:
    """A thin lens: mirrors by Fresnel's law, lets the rest through coloured by ``tint`` (3,)."""
    tree = Tree(bpy, "lens")
    through, mirror = tree.node("ShaderNodeBsdfTransparent"), tree.node("ShaderNodeBsdfGlossy")
    through.inputs["Color"].default_value = _rgba(tint)
    mirror.inputs["Roughness"].default_value = 0.01
    fresnel, mixed = tree.node("ShaderNodeFresnel"), tree.node("ShaderNodeMixShader")
    fresnel.inputs["IOR"].default_value = 1.45
    tree.put(mixed.inputs[0], tree.math("MULTIPLY", fresnel.outputs[0], reflect, clamp=True))
    tree.put(mixed.inputs[1], through.outputs[0])
    tree.put(mixed.inputs[2], mirror.outputs[0])
    return tree.finish(mixed.outputs[0], head=False)
