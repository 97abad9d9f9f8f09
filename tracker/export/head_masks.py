"""The head's mask in every frame, hair included, for formats that hold pictures.

The embedding network that comes with the project says which pixels of a crop show the head. It is sure of most of them and vague
along the outline; there GrabCut (Rother et al., *"GrabCut": interactive foreground extraction*, SIGGRAPH 2004; OpenCV's) decides by
the colours. Where the network cannot run or sees no head, the mask is the head model's silhouette, grown a little.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from densemarks_model.crops import HeadCrop, crop_around_landmarks
from densemarks_model.errors import ModelError
from densemarks_model.inference import FastNetwork, fast_network
from flame_assets.asset import HeadAsset
from tracker.camera import Camera, project
from tracker.rendering.canvas import MeshCanvas
from tracker.rendering.clip_space import perspective, world_to_clip

_BAND = 0.02
"""How far around the outline the colours decide, crop sides."""

_CROP_SIDE = 384
"""Pixels of the crop that GrabCut looks at, at most; its time grows with their number."""

_ITERATIONS = 2
_MIN_HEAD_SHARE = 0.06
"""Of a crop's pixels must show the head; a face that fits the crop has 0.3."""

_GROWN = 0.04
"""How much of its own width a silhouette is grown by: most heads have hair."""

_LANDMARKS = 468


class HeadMasks:
    """Masks of one head, frame by frame.

    Args:
        head: the model, whose silhouette and landmarks say where to look.
        camera: of the pictures.
        network: for :func:`densemarks_model.inference.fast_network`.

    Attributes:
        by_silhouette: how many masks so far are silhouettes.
        made: how many masks so far.
    """

    def __init__(self, head: HeadAsset, camera: Camera, network: str = "lite") -> None:
        self._head, self._camera = head, camera
        self._projection = perspective(camera.focal_px, camera.cx, camera.cy, camera.width, camera.height, near=0.01, far=100.0)
        self._canvas = MeshCanvas(camera.height, camera.width)
        self._faces = np.ascontiguousarray(head.faces, np.int32)
        self.by_silhouette = self.made = 0
        embedding = head.landmarks.get("mediapipe")
        whole = embedding is not None and set(range(_LANDMARKS)) <= set(embedding.indices.tolist())
        self._network: FastNetwork | None = None
        if whole:
            try:
                self._network = fast_network(network)
            except ModelError:
                pass  # silhouettes, which `words` tells of

    @property
    def words(self) -> str:
        """Where the masks come from, for the reader of the export."""
        if self.made == self.by_silhouette:
            return "silhouette of the head model, grown by 4 % of its width: hair that stands off is missing"
        exceptions = f"; {self.by_silhouette} of {self.made} frames: silhouette of the head model" if self.by_silhouette else ""
        return f"embedding network, refined by GrabCut{exceptions}"

    def mask(self, image: UInt8[np.ndarray, "h w 3"], vertices: Float[np.ndarray, "verts 3"]) -> UInt8[np.ndarray, "h w"]:
        """255 where the frame shows the head, 0 elsewhere, between along the outline.

        Args:
            image: RGB.
            vertices: of the head in this frame; world, metres.
        """
        self.made += 1
        found = None if self._network is None else self._seen(image, vertices, self._network)
        if found is None:
            self.by_silhouette += 1
            return self._silhouette(vertices)
        return found

    def _silhouette(self, vertices: Float[np.ndarray, "verts 3"]) -> UInt8[np.ndarray, "h w"]:
        clip = world_to_clip(torch.as_tensor(vertices), self._projection).numpy()
        drawn = self._canvas.rasterize(clip, self._faces)[::-1, :, 3] > 0
        columns = np.flatnonzero(drawn.any(0))
        width = columns[-1] - columns[0] + 1 if len(columns) else 0
        size = 2 * round(_GROWN * width) + 1
        grown = cv2.dilate(drawn.astype(np.uint8) * 255, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
        return cv2.GaussianBlur(grown, (3, 3), 0)

    def _seen(self, image: np.ndarray, vertices: np.ndarray, network: FastNetwork) -> UInt8[np.ndarray, "h w"] | None:
        """The network's mask, refined; None when it sees no head."""
        crop = self._crop(vertices)
        confidence = network(crop.extract(image, network.image_size)[None]).confidence[0]
        if confidence.mean() < _MIN_HEAD_SHARE:
            return None
        side = int(np.clip(crop.side, 64, _CROP_SIDE))
        head = refined(crop.extract(image, side), cv2.resize(confidence, (side, side), interpolation=cv2.INTER_LINEAR))
        to_frame = crop.matrix(side)
        to_frame[:, 2] += to_frame[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV's pixel centres are at whole numbers, ours at halves
        size = (image.shape[1], image.shape[0])
        return cv2.warpAffine(cv2.GaussianBlur(head.astype(np.uint8) * 255, (3, 3), 0), to_frame, size, flags=cv2.INTER_LINEAR)

    def _crop(self, vertices: Float[np.ndarray, "verts 3"]) -> HeadCrop:
        embedding = self._head.landmarks["mediapipe"]
        points = np.zeros((int(embedding.indices.max()) + 1, 3))
        points[embedding.indices] = embedding.positions(vertices.astype(np.float64), self._head.faces)
        camera = self._camera
        return crop_around_landmarks(project(torch.as_tensor(points), camera.focal_px, (camera.cx, camera.cy))[0].numpy())


def refined(picture: UInt8[np.ndarray, "side side 3"], confidence: Float[np.ndarray, "side side"]) -> Bool[np.ndarray, "side side"]:
    """The head in a crop: as the network says inside and outside, by the colours along the outline; its largest piece."""
    side = len(picture)
    size = 2 * max(round(_BAND * side), 1) + 1
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    likely = (confidence > 0.5).astype(np.uint8)
    # only a band is open: through a vague patch colours that head and background share would leak far
    inside, outside = cv2.erode(likely, brush).astype(bool), ~cv2.dilate(likely, brush).astype(bool)
    labels = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[inside], labels[outside] = cv2.GC_FGD, cv2.GC_BGD
    if inside.any() and outside.any() and not (inside | outside).all():
        cv2.setRNGSeed(0)  # its clusters start at random: the same frame should have the same mask
        models = np.zeros((2, 1, 65))
        cv2.grabCut(np.ascontiguousarray(picture[..., ::-1]), labels, None, models[0], models[1], _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    head = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(head.astype(np.uint8))
    return head if count <= 2 else pieces == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
