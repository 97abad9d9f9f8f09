"""A small glTF player for tests: the mesh of a ``.glb`` at a moment, computed from the file alone.

It follows the glTF 2.0 specification (accessors and sparse accessors, node hierarchy, morph targets, skins, linear
animation) and shares no code with the writer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pygltflib import GLTF2
from scipy.spatial.transform import Rotation, Slerp

_COMPONENTS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class GltfPlayer:
    """One file, opened."""

    def __init__(self, path: Path) -> None:
        self.gltf = GLTF2().load(str(path))
        self._blob = self.gltf.binary_blob()

    def accessor(self, number: int) -> np.ndarray:
        """Elements of an accessor, one per row."""
        accessor = self.gltf.accessors[number]
        shape = (accessor.count, _WIDTHS[accessor.type])
        kind = _COMPONENTS[accessor.componentType]
        data = np.zeros(shape, kind)
        if accessor.bufferView is not None:
            data = self._view(accessor.bufferView, kind, shape)
        if accessor.sparse is not None:
            sparse = accessor.sparse
            rows = self._view(sparse.indices.bufferView, _COMPONENTS[sparse.indices.componentType], (sparse.count,))
            data = data.copy()
            data[rows] = self._view(sparse.values.bufferView, kind, (sparse.count, shape[1]))
        return data

    def _view(self, number: int, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        view = self.gltf.bufferViews[number]
        return np.frombuffer(self._blob, kind, int(np.prod(shape)), view.byteOffset or 0).reshape(shape)

    def channel(self, node: str, path: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Key times and values of one animation channel; None when the property stands still."""
        animation = self.gltf.animations[0]
        for channel in animation.channels:
            if self.gltf.nodes[channel.target.node].name == node and channel.target.path == path:
                sampler = animation.samplers[channel.sampler]
                assert sampler.interpolation == "LINEAR"
                times = self.accessor(sampler.input)[:, 0]
                return times, self.accessor(sampler.output).reshape(len(times), -1)
        return None

    @property
    def key_times(self) -> np.ndarray:
        return self.channel("root", "rotation")[0]

    def vertices(self, time: float) -> np.ndarray:
        """World positions of the mesh's vertices at ``time`` seconds."""
        (node,) = (n for n in self.gltf.nodes if n.mesh is not None)
        mesh = self.gltf.meshes[node.mesh]
        primitive = mesh.primitives[0]
        positions = self.accessor(primitive.attributes.POSITION).astype(np.float64)
        if primitive.targets:
            keyed = self.channel(node.name, "weights")
            for weight, target in zip(_interpolate(keyed, time), primitive.targets, strict=True):
                positions += float(weight) * self.accessor(target["POSITION"])
        skin = self.gltf.skins[node.skin]
        inverse_bind = self.accessor(skin.inverseBindMatrices).reshape(-1, 4, 4).swapaxes(1, 2)
        matrices = np.stack(
            [self._world_matrix(joint, time) @ bind for joint, bind in zip(skin.joints, inverse_bind, strict=True)]
        )
        homogeneous = np.concatenate([positions, np.ones((len(positions), 1))], axis=1)
        moved = np.zeros((len(positions), 4))
        for number in range(2):
            joints = getattr(primitive.attributes, f"JOINTS_{number}", None)
            if joints is not None:
                indices = self.accessor(joints)
                weights = self.accessor(getattr(primitive.attributes, f"WEIGHTS_{number}"))
                moved += np.einsum("vk,vkab,vb->va", weights, matrices[indices], homogeneous)
        return moved[:, :3]

    def _world_matrix(self, number: int, time: float) -> np.ndarray:
        node = self.gltf.nodes[number]
        turned = self.channel(node.name, "rotation")
        moved = self.channel(node.name, "translation")
        local = np.eye(4)
        rotation = node.rotation or [0, 0, 0, 1]
        local[:3, :3] = (Rotation.from_quat(rotation) if turned is None else _slerp(turned, time)).as_matrix()
        local[:3, 3] = (node.translation or [0, 0, 0]) if moved is None else _interpolate(moved, time)
        parents = [i for i, n in enumerate(self.gltf.nodes) if number in (n.children or [])]
        return self._world_matrix(parents[0], time) @ local if parents else local


def _interpolate(keyed: tuple[np.ndarray, np.ndarray], time: float) -> np.ndarray:
    times, values = keyed
    return np.array([np.interp(time, times, column) for column in values.T])


def _slerp(keyed: tuple[np.ndarray, np.ndarray], time: float) -> Rotation:
    times, quaternions = keyed
    if len(times) == 1:
        return Rotation.from_quat(quaternions[0])
    return Slerp(times, Rotation.from_quat(quaternions))(np.clip(time, times[0], times[-1]))
