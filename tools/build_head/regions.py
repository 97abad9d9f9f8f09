"""Names for parts of the surface: vertex masks, and the edge loops that landmarks follow."""

from __future__ import annotations

import numpy as np

from tools.build_head.loops import QuadMesh
from tools.build_head.morph import Morpher

LIP_LOOPS = {
    "lip_outer_rim": (466, 7222),
    "lip_middle": (509, 7257),
    "lip_inner_rim": (474, 473),
}
"""Two neighbours on closed loops around the mouth: border of the red of the lips, its middle, where the lips meet."""
MOUTH_ENTRANCE = (537, 538)
EYELID_LOOPS = 5
"""Loops around the eye, from the margin, that count as eyelid."""

BROW_LINE = ((0.008, 0.0150), (0.020, 0.0195), (0.036, 0.0210), (0.046, 0.0185), (0.056, 0.0120))
"""Middle of the brow: (distance from the midline, height above the eyes' centres) in metres."""
BROW_HALF_HEIGHT = 0.0042

HAIRLINE = ((-0.20, -0.055), (-0.10, -0.055), (-0.078, -0.025), (-0.070, 0.030), (-0.028, 0.030), (-0.018, 0.045),
            (0.000, 0.062), (0.020, 0.078), (0.035, 0.088), (0.10, 0.088))  # fmt: skip
"""The scalp begins above this line: (z, y) in metres in the head frame, from the nape forwards."""


def name_regions(morpher: Morpher, template: np.ndarray) -> dict[str, np.ndarray]:
    """Masks ``(V,)`` over the template's vertices. ``face`` is the skin in front of ears and scalp, above the neck."""
    # long for being a list: one region after another, the later ones made of the earlier
    source, slot = morpher.source, morpher.slot
    mesh = QuadMesh(source.quads[source.groups == "body"])
    out: dict[str, np.ndarray] = {}

    def mask(indices: np.ndarray) -> np.ndarray:
        flags = np.zeros(morpher.n_vertices, bool)
        flags[indices] = True
        return flags

    def moved_by(*targets: str, share: float) -> np.ndarray:
        """Skin that a source target moves by at least ``share`` of its largest displacement."""
        size = np.max([np.linalg.norm(source.target(t), axis=1) for t in targets], axis=0)[morpher.skin.origin]
        return mask(np.flatnonzero(size > share * size.max()))

    y, z = template[:, 1], template[:, 2]
    skin = mask(morpher.parts["skin"].indices)
    for side in ("left", "right"):
        rings = morpher.lid_rings[side]
        out[f"{side}_lid_margin"], out[f"{side}_lid_rim"] = mask(rings[0]), mask(rings[1])
        out[f"{side}_eyelids"] = mask(rings[:EYELID_LOOPS].ravel())
        eyeball = morpher.parts[f"{side}_eyeball"]
        out[f"{side}_eyeball"] = mask(eyeball.indices)
        out[f"{side}_iris_ring"] = mask(eyeball.start + morpher.sphere.iris_ring)
        out[f"{side}_pupil_ring"] = mask(eyeball.start + morpher.sphere.pupil_ring)
        out[f"{side}_iris"] = mask(eyeball.start + np.arange(morpher.sphere.iris_ring.max() + 1))
        out[f"{side}_eye_socket"] = mask(morpher.parts[f"{side}_socket"].indices)
    for kind in ("eyelids", "eyeball"):
        out["eyes" if kind == "eyeball" else kind] = out[f"left_{kind}"] | out[f"right_{kind}"]
    out["upper_teeth"], out["lower_teeth"] = (mask(morpher.parts[f"{j}_teeth"].indices) for j in ("upper", "lower"))
    out["teeth"] = out["upper_teeth"] | out["lower_teeth"]
    out["tongue"] = mask(morpher.parts["tongue"].indices)

    loops = {name: mesh.loop(*pair) for name, pair in LIP_LOOPS.items()}
    for name, loop in loops.items():
        out[name] = mask(slot[loop])
    border, inner = loops["lip_outer_rim"], loops["lip_inner_rim"]
    out["mouth_interior"] = mask(slot[_flood(mesh, mesh.loop(*MOUTH_ENTRANCE), inner)])
    inside = mask(slot[_flood(mesh, border, mesh.loop(455, 7214))])
    out["lips"] = inside & ~out["mouth_interior"]
    out["boundary"] = mask(morpher.skin.ring)

    ear = {s: moved_by(f"ears/{s}-ear-wing-incr", share=0.03) for s in "lr"}
    out["left_ear"], out["right_ear"] = ear["l"], ear["r"]
    out["ears"] = ear["l"] | ear["r"]
    x = template[:, 0]
    above_eyes = y - template[out["eyes"], 1].mean() - np.interp(np.abs(x), *np.array(BROW_LINE).T)
    band = (np.abs(above_eyes) < BROW_HALF_HEIGHT) & (np.abs(x) > BROW_LINE[0][0]) & (np.abs(x) < BROW_LINE[-1][0])
    band &= skin & (z > 0.01) & ~out["eyelids"]
    out["left_brow"], out["right_brow"] = band & (x > 0), band & (x < 0)
    out["brows"] = out["left_brow"] | out["right_brow"]
    inner_skin = out["mouth_interior"]
    hair = y > np.interp(z, *np.array(HAIRLINE).T)
    bones = source.bone_weights()
    below = sum(bones[b] for b in ("neck01", "neck02", "neck03")) + bones["spine01"]
    throat = np.zeros(morpher.n_vertices)
    throat[morpher.parts["skin"].indices] = morpher.skin.embedding @ below
    out["neck"] = skin & ~out["ears"] & ~inner_skin & (throat > 0.45) & ~hair
    out["scalp"] = skin & ~out["ears"] & ~inner_skin & hair
    out["face"] = skin & ~(out["ears"] | inner_skin | out["neck"] | out["scalp"]) & (z > -0.075)
    out["neck"] |= skin & ~(out["ears"] | inner_skin | out["scalp"] | out["face"])
    out["nose"] = moved_by("nose/nose-scale-vert-incr", "nose/nose-volume-incr", share=0.25) & out["face"]
    out["forehead"] = out["face"] & ~out["brows"] & (y > template[out["brows"], 1].mean()) & ~out["eyelids"]
    out["chin"] = moved_by("chin/chin-height-incr", share=0.6) & out["face"] & ~out["lips"]
    out["cheeks"] = moved_by("cheek/l-cheek-volume-incr", "cheek/r-cheek-volume-incr", share=0.3) & out["face"]
    return out


def _flood(mesh: QuadMesh, start: np.ndarray, wall: np.ndarray) -> np.ndarray:
    """``start`` and every vertex reached from it without touching ``wall``."""
    seen, stack, blocked = set(start.tolist()), start.tolist(), set(wall.tolist())
    while stack:
        for other in mesh.neighbours[stack.pop()]:
            if other not in seen and other not in blocked:
                seen.add(other)
                stack.append(other)
    return np.array(sorted(seen))


