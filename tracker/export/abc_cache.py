"""``head.abc``: the moving mesh and the camera as an Alembic cache, for Maya, Houdini, Blender, Nuke and the like.

Vertices are the head's own, in its order, in world metres with y up; uv and the parts of the surface (face sets) are there too. Alembic
winds triangles clockwise, ours run the other way round and are turned. Samples stand at the frames' true times, counted from the first
frame's: in even steps where the times are even, else each with its own.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from flame_assets.asset import HeadAsset
from flame_assets.atomic_files import atomic_file
from tracker.camera import CAMERA_POSITION, Camera
from tracker.export.camera_matrices import FAR_M, NEAR_M
from tracker.export.film import Film
from tracker.export.registry import ExportJob
from tracker.export.surface import surface_parts
from tracker.head_track import HeadTrack
from tracker.track_vertices import track_vertices

_EVEN_S = 1e-5
"""Times that are nowhere further from even steps than this, seconds, are written as even steps, which more programs understand."""

_SAMPLE_BYTES, _ARCHIVE_BYTES = 400, 100_000
"""What a sample takes beside its vertices, and an archive beside its samples; generous."""


def export(job: ExportJob) -> list[str]:
    """Write ``head.abc``."""
    asset = job.head
    corners = asset.faces.size + (0 if asset.uv_faces is None else asset.uv_faces.size + asset.uv.size)
    with atomic_file(job.folder / "head.abc") as unfinished:
        # Alembic ends the whole program when a disk fills up: its files are finished in destructors, which may not raise
        make_sure_of_room(unfinished, job.track.n_frames * (12 * asset.n_vertices + _SAMPLE_BYTES) + 16 * corners + _ARCHIVE_BYTES)
        _write(unfinished, job)
    return ["head.abc"]


def make_sure_of_room(path: Path, size: int) -> None:
    """Refuse to begin a file of ``size`` bytes that ``path``'s disk, quota or limits have no room for. Leaves nothing there.

    Raises:
        OSError: no room.
    """
    if not hasattr(os, "posix_fallocate"):
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        finally:
            path.unlink()


def _write(path: Path, job: ExportJob) -> None:
    """The whole archive."""
    from alembic3d import Abc, AbcGeom

    track = job.track
    archive = Abc.CreateArchiveWithInfo(str(path), float(track.frame_rate), "densemarks-tracker", "head track")
    sampling = archive.addTimeSampling(time_sampling(track))
    _write_camera(AbcGeom.OXform(archive.getTop(), "camera"), track.camera)
    mesh = AbcGeom.OPolyMesh(AbcGeom.OXform(archive.getTop(), "head"), "headShape", sampling).getSchema()
    try:
        for number, vertices in enumerate(track_vertices(track, job.head), 1):
            if number == 1:
                mesh.set(_first_sample(vertices, job.head))
                _write_parts(mesh, job.head)
            else:
                mesh.set(AbcGeom.OPolyMeshSchemaSample(_vectors(vertices)))
            job.written(number)
    finally:  # Alembic finishes and closes its file when the last object of it lets go; a traceback would hold on to them
        del mesh, archive


def time_sampling(track: HeadTrack) -> Any:
    """The frames' times for Alembic."""
    from alembic3d import AbcCoreAbstract

    times = (track.timestamps - track.timestamps[0]).astype(np.float64)
    step = times[-1] / (len(times) - 1) if len(times) > 1 else 1 / track.frame_rate
    if np.abs(times - step * np.arange(len(times))).max() <= _EVEN_S:
        return AbcCoreAbstract.TimeSampling(float(step), 0.0)
    vector = AbcCoreAbstract.TimeVector()
    vector.extend(times.tolist())
    return AbcCoreAbstract.TimeSampling(AbcCoreAbstract.TimeSamplingType(AbcCoreAbstract.AcyclicFlag.kAcyclic), vector)


def _first_sample(vertices: Float[np.ndarray, "verts 3"], asset: HeadAsset) -> Any:
    """Vertices and all that never changes: triangles and uv."""
    from alembic3d import AbcGeom

    corners, counts = _integers(asset.faces[:, ::-1].ravel()), _integers(np.full(len(asset.faces), 3))
    if asset.uv is None or asset.uv_faces is None:
        return AbcGeom.OPolyMeshSchemaSample(_vectors(vertices), corners, counts)
    import imath

    indices = imath.UnsignedIntArray(asset.uv_faces.size)
    for corner, number in enumerate(asset.uv_faces[:, ::-1].ravel().tolist()):
        indices[corner] = number
    values = imath.V2fArrayFromBuffer(np.ascontiguousarray(asset.uv, np.float32))
    uv = AbcGeom.OV2fGeomParamSample(values, indices, AbcGeom.GeometryScope.kFacevaryingScope)
    return AbcGeom.OPolyMeshSchemaSample(_vectors(vertices), corners, counts, uv)


def _write_parts(mesh: Any, asset: HeadAsset) -> None:
    from alembic3d import AbcGeom

    for name, triangles in surface_parts(asset).items():
        mesh.createFaceSet(name).getSchema().set(AbcGeom.OFaceSetSchemaSample(_integers(triangles)))


def _write_camera(node: Any, camera: Camera) -> None:
    """Alembic measures lenses in millimetres and film in centimetres."""
    import imath
    from alembic3d import AbcGeom

    place = AbcGeom.XformSample()
    place.setTranslation(imath.V3d(*CAMERA_POSITION))
    node.getSchema().set(place)
    film, sample = Film.of(camera), AbcGeom.CameraSample()
    sample.setFocalLength(film.focal_mm)
    sample.setHorizontalAperture(film.width_mm / 10)
    sample.setVerticalAperture(film.height_mm / 10)
    sample.setHorizontalFilmOffset(film.right_mm / 10)
    sample.setVerticalFilmOffset(film.up_mm / 10)
    sample.setNearClippingPlane(NEAR_M)
    sample.setFarClippingPlane(FAR_M)
    AbcGeom.OCamera(node, "cameraShape").getSchema().set(sample)


def _integers(values: np.ndarray) -> Any:
    import imath

    return imath.IntArrayFromBuffer(np.ascontiguousarray(values, np.int32))


def _vectors(values: Float[np.ndarray, "n 3"]) -> Any:
    import imath

    return imath.V3fArrayFromBuffer(np.ascontiguousarray(values, np.float32))
