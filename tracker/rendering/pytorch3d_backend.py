"""A third backend through pytorch3d, where the user has it: slow, and useful as a reference to compare with.

pytorch3d decides coverage and depth; perspective correction is done here, because its own takes depth from one number
and clip space has two, z and w. Its conventions differ: x points left, row 0 is on top, the shorter side of the picture
spans [−1, 1], and points with negative depth are dropped. Triangles that cross the near or far plane are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tracker.errors import UserError
from tracker.rendering.renderer import Renderer

INSTALL_COMMAND = "pip install git+https://github.com/facebookresearch/pytorch3d.git --no-build-isolation"

_MIN_W = 1e-6
_DEPTH_SHIFT = 2.0  # brings z/w from [−1, 1] to numbers that pytorch3d takes for depths in front of the camera


class Pytorch3dRenderer(Renderer):
    """See :class:`tracker.rendering.Renderer`.

    Raises:
        UserError: there is no pytorch3d.
    """

    name = "pytorch3d"

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        try:
            from pytorch3d.renderer.mesh import rasterize_meshes
            from pytorch3d.structures import Meshes
        except ImportError as error:
            raise UserError(
                f"the pytorch3d renderer needs pytorch3d ({error}); install it with: {INSTALL_COMMAND}, or use the cpu "
                "renderer"
            ) from error
        self.device = device
        self._meshes, self._rasterize_meshes = Meshes, rasterize_meshes

    def _rasterize(self, pos: Tensor, tri: Tensor, height: int, width: int) -> Tensor:
        if not torch.isfinite(pos).all():
            raise ValueError("rasterize: positions are NaN or infinite")
        if tri.numel() and (int(tri.min()) < 0 or int(tri.max()) >= pos.shape[1]):
            raise ValueError(f"rasterize: tri names vertices beyond the {pos.shape[1]} that there are")
        pictures = [self._rasterize_one(p, tri.long(), height, width) for p in pos]
        return torch.stack(pictures) if pictures else pos.new_zeros(0, height, width, 4)

    def _rasterize_one(self, pos: Tensor, tri: Tensor, height: int, width: int) -> Tensor:
        usable = (pos[:, 3] > _MIN_W) & (pos[:, 2].abs() <= pos[:, 3])
        kept = usable[tri].all(dim=1).nonzero()[:, 0]
        if len(kept) == 0:
            return pos.new_zeros(height, width, 4)
        w = torch.where(usable, pos[:, 3], 1)
        ndc = pos[:, :3] / w[:, None]
        shorter = min(height, width)
        verts = torch.stack(
            [-ndc[:, 0] * (width / shorter), ndc[:, 1] * (height / shorter), ndc[:, 2].detach() + _DEPTH_SHIFT], dim=1
        )
        faces, depth, flat_weights, _ = self._rasterize_meshes(
            self._meshes(verts=[verts], faces=[tri[kept]]),
            image_size=(height, width),
            blur_radius=0.0,
            faces_per_pixel=1,
            bin_size=0,
            perspective_correct=False,
        )
        faces, depth, flat_weights = (t[0, :, :, 0].flip(0) for t in (faces, depth, flat_weights))
        shown = faces >= 0
        number = kept[faces.clamp_min(0)]
        over_w = torch.where(shown[..., None], flat_weights, 1) / w[tri[number]]
        weights = (over_w / over_w.sum(-1, keepdim=True)).clamp(0, 1)
        rest = torch.stack([depth.detach() - _DEPTH_SHIFT, (number + 1).to(depth)], dim=-1)
        return torch.where(shown[..., None], torch.cat([weights[..., :2], rest], dim=-1), 0)

    def _interpolate(self, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        if tri.shape[0] == 0:
            return rast.new_zeros(*rast.shape[:3], attr.shape[2])
        shown = rast[..., 3:] > 0
        corners = tri.long()[(rast[..., 3].detach().long() - 1).clamp_min(0)]
        picture = torch.arange(rast.shape[0], device=rast.device)[:, None, None, None]
        values = attr.expand(rast.shape[0], -1, -1)[picture, corners]
        u, v = rast[..., 0, None], rast[..., 1, None]
        mixed = u * values[..., 0, :] + v * values[..., 1, :] + (1 - u - v) * values[..., 2, :]
        return torch.where(shown, mixed, 0)
