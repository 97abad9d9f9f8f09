"""The head of one frame as a small glb in the colours that were chosen."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from flame_assets.asset import HeadAsset
from tracker.export.glb_file import INDEX_DATA, VERTEX_DATA, GlbFile
from tracker.export.surface import TEXTURED, part_colour, split_at_seams, surface_parts, unit_normals
from tracker.export.texture_png import encode_png
from tracker.head_model import HeadModel
from tracker.head_track import HeadTrack
from tracker.overlay import vertex_colours
from tracker.track_vertices import check_head, posed_frames

PLAIN, TEXTURE, CANONICAL, REGIONS, CONFIDENCE = "plain", "texture", "canonical", "regions", "confidence"
_LEVELS = 6  # of red, green and blue in a moving head
_TEXTURE_SIDE = 512  # it is sent with every frame
_SURE, _UNSURE, _NO_HEAD = (70, 170, 90), (215, 60, 50), (150, 150, 150)


@dataclass(frozen=True)
class Patch:
    """Attributes:
    vertices: numbers of the head's vertices in it.
    triangles: of those.
    colour: sRGB, 0 to 255.
    """

    vertices: Int[np.ndarray, "n"]
    triangles: Int[np.ndarray, "m 3"]
    colour: Float[np.ndarray, "3"]


class ColouredMesh:
    """A track's head, posed frame by frame.

    Args:
        track, asset: what to show.
        texture: the clip's texture, RGB, row 0 at v = 1, or None.

    Raises:
        UserError: ``asset`` is not the track's head.
    """

    def __init__(self, track: HeadTrack, asset: HeadAsset, texture: UInt8[np.ndarray, "size size 3"] | None = None) -> None:
        check_head(track, asset)
        self.track, self.asset = track, asset
        self._model = HeadModel.from_asset(asset, "cpu")
        self._surface, self._parts = split_at_seams(asset), surface_parts(asset)
        self._png, self._texture = b"", texture
        self._patches: dict[str, list[Patch]] = {}
        if texture is not None and self._surface.uv is not None:
            side = min(_TEXTURE_SIDE, texture.shape[0])
            self._png = encode_png(cv2.resize(texture, (side, side), interpolation=cv2.INTER_AREA))
        self._colours = {PLAIN: self._plain(), REGIONS: region_colours(asset)}
        if asset.canonical is not None:
            self._colours[CANONICAL] = 255 * asset.canonical

    def _plain(self) -> Float[np.ndarray, "verts 3"]:
        """The colours of head.glb's materials, by vertex; of vertices between two parts the inner one's."""
        colours = np.zeros((self.asset.n_vertices, 3))
        for part in reversed(self._parts):
            colours[np.unique(self.asset.faces[self._parts[part]])] = 255 * np.array(part_colour(part))
        return colours

    @property
    def modes(self) -> tuple[str, ...]:
        """The colours that this head can have, the best first."""
        there = {TEXTURE: bool(self._png), CANONICAL: CANONICAL in self._colours}
        return tuple(mode for mode in (TEXTURE, PLAIN, CANONICAL, REGIONS, CONFIDENCE) if there.get(mode, True))

    def vertices(self, frame: int) -> Float[np.ndarray, "verts 3"]:
        """World, metres."""
        translation = torch.as_tensor(self.track.translation[frame : frame + 1], dtype=self._model.dtype)
        return posed_frames(self._model, self.track, slice(frame, frame + 1)).skin(translation)[0].numpy()

    def glbs(self, frame: int, mode: str, vertices: Float[np.ndarray, "verts 3"]) -> dict[str, bytes]:
        """The mesh of a frame (:meth:`vertices`) in the colours of one of :attr:`modes`: ``head``, and, where skin and lips are textured,
        the eyes and teeth apart as ``inside``. Each is one primitive: viser computes normals anew, and those of primitives that share
        vertices come out wrong."""
        normals = unit_normals(vertices, self.asset.faces)
        colours = self.colours(frame, mode)
        if mode != TEXTURE:
            return {"head": self._glb(vertices, normals, np.arange(len(self.asset.faces)), colours)}
        outside = np.concatenate([self._parts[name] for name in self._parts if name in TEXTURED])
        inside = np.setdiff1d(np.arange(len(self.asset.faces)), outside)
        made = {"head": self._glb(vertices, normals, outside, None)}
        return made | ({"inside": self._glb(vertices, normals, inside, colours)} if len(inside) else {})

    def patches(self, mode: str) -> list[Patch]:
        """The head in pieces of about one colour each, which can be moved while it plays; glbs blink whenever they change."""
        if mode not in self._patches:
            colours = self._sampled() if mode == TEXTURE else self.colours(0, PLAIN if mode == CONFIDENCE else mode)
            faces = self.asset.faces
            of_faces = colours[faces].mean(1)
            _, group = np.unique((of_faces / 255 * (_LEVELS - 1)).round().astype(int), axis=0, return_inverse=True)
            made = []
            for number in range(group.max() + 1):
                inside = group.ravel() == number
                vertices, triangles = np.unique(faces[inside], return_inverse=True)
                made.append(Patch(vertices, triangles.reshape(-1, 3).astype(np.uint32), of_faces[inside].mean(0)))
            self._patches[mode] = made
        return self._patches[mode]

    def patch_colour(self, frame: int, mode: str, patch: Patch) -> tuple[int, int, int]:
        """sRGB colour of one of :meth:`patches` in a frame."""
        colour = self.colours(frame, mode)[patch.vertices].mean(0) if mode == CONFIDENCE else patch.colour
        red, green, blue = (int(c) for c in colour.clip(0, 255))
        return red, green, blue

    def _sampled(self) -> Float[np.ndarray, "verts 3"]:
        """The texture's colours at the vertices; plain ones for what it leaves out."""
        side = self._texture.shape[0]
        x, y = ((self._surface.uv[: self.asset.n_vertices] * [1, -1] + [0, 1]) * side).astype(int).clip(0, side - 1).T
        colours = self._colours[PLAIN].copy()
        outside = np.unique(self.asset.faces[np.concatenate([self._parts[n] for n in self._parts if n in TEXTURED])])
        colours[outside] = self._texture[y, x][outside]
        return colours

    def _glb(self, vertices: np.ndarray, normals: np.ndarray, triangles: np.ndarray, colours: np.ndarray | None) -> bytes:
        """Some triangles in vertex colours (sRGB, 0 to 255), or with the texture when there are none."""
        file, source = GlbFile(generator="densemarks-tracker"), self._surface.source
        attributes = {
            "POSITION": file.add(vertices[source].astype(np.float32), VERTEX_DATA, bounds=True),
            "NORMAL": file.add(normals[source].astype(np.float32), VERTEX_DATA),
        }
        look: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 0.8}
        if colours is None:
            look["baseColorTexture"] = {"index": file.add_png(self._png)}
            attributes["TEXCOORD_0"] = file.add((self._surface.uv * [1, -1] + [0, 1]).astype(np.float32), VERTEX_DATA)
        else:
            attributes["COLOR_0"] = file.add(_linear(colours / 255)[source].astype(np.float32), VERTEX_DATA)
        indices = file.add(self._surface.faces[triangles].ravel().astype(np.uint32), INDEX_DATA)
        file.document |= {
            "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
            "materials": [{"pbrMetallicRoughness": look, "doubleSided": True}],
        }  # fmt: skip
        return b"".join(file.parts())

    def colours(self, frame: int, mode: str) -> Float[np.ndarray, "verts 3"]:
        """sRGB colours of the vertices, 0 to 255; the plain ones for what a texture leaves out."""
        if mode != CONFIDENCE:
            return self._colours[PLAIN if mode == TEXTURE else mode]
        share = float(self.track.confidence[frame])
        colour = np.array(_SURE) * share + np.array(_UNSURE) * (1 - share) if self.track.valid[frame] else np.array(_NO_HEAD)
        # eyes and lips a little darker, so that one sees where it looks
        shade = vertex_colours(self.asset).mean(1, keepdims=True)
        return colour * (0.5 + 0.5 * shade / shade.max())


def region_colours(asset: HeadAsset) -> Float[np.ndarray, "verts 3"]:
    """A colour for each region of the head, sRGB from 0 to 255; a vertex in several has that of the smallest."""
    colours = np.full((asset.n_vertices, 3), 190.0)
    names = sorted(asset.regions, key=lambda name: -int(asset.regions[name].sum()))
    for number, name in enumerate(names):
        colours[asset.regions[name]] = 255 * np.array(colorsys.hsv_to_rgb(number * 0.618 % 1, 0.55, 0.9))
    return colours


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
