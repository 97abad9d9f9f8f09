"""``head.usdz`` and ``usdc/head.usdc``: the tracked head as Universal Scene Description, a skinned mesh with blend shapes.

UsdSkel deforms as the head model does, blend shapes first and joints after, so that the file gives the model's vertices
(:mod:`tracker.export.rig` says how). Mesh and uv are the head's own, in its order. USD's axes and units can be this project's: metres,
y up, cameras look down −z; its cameras hold a principal point off the middle.

Time samples stand at the frames' true times: time code = (time − the first frame's) × the nominal rate, so that frame k of an even clip
has time code k.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from flame_assets.asset import JOINT_NAMES, JOINT_PARENTS, HeadAsset
from flame_assets.atomic_files import atomic_file, atomic_folder
from tracker.camera import CAMERA_POSITION, Camera
from tracker.export.camera_matrices import FAR_M, NEAR_M
from tracker.export.film import Film
from tracker.export.registry import ExportJob
from tracker.export.rig import Rig, build_rig
from tracker.export.surface import material, surface_parts, unit_normals
from tracker.export.texture_png import TEXTURE_NAME, write_picture
from tracker.head_track import HeadTrack
from tracker.track_vertices import check_head, track_vertices

if TYPE_CHECKING:
    from pxr import Usd

_LAYER_NAME = "head.usdc"
_STILL_OFFSET_M, _STILL_NORMAL = 2e-7, 2e-3  # smaller offsets of blend shapes are left out
_STILL = 1e-7  # joints that move less than this, metres or parts of a quaternion, get one value

_TRACK = "/track"
_HEAD, _CAMERA, _MATERIALS = f"{_TRACK}/head", f"{_TRACK}/camera", f"{_TRACK}/materials"
_MESH, _SKELETON, _ANIMATION = f"{_HEAD}/mesh", f"{_HEAD}/skeleton", f"{_HEAD}/animation"


def export_usdz(job: ExportJob) -> list[str]:
    """Write ``head.usdz``: one file, texture included."""
    from pxr import Sdf, Tf, UsdUtils

    # USD wants the layer on disk first; both stay out of the user's folder until the package is whole
    with tempfile.TemporaryDirectory() as scratch, atomic_file(job.folder / "head.usdz") as unfinished:
        _write_layer(Path(scratch), job)
        try:
            whole = UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(Path(scratch) / _LAYER_NAME)), str(unfinished))
        except Tf.ErrorException as error:
            raise OSError(_first_line(error)) from error
        if not whole:
            raise OSError("the USD package could not be made")
    return ["head.usdz"]


def export_usdc(job: ExportJob) -> list[str]:
    """Write ``usdc/head.usdc``, and ``usdc/texture.png`` when there is a texture."""
    with atomic_folder(job.folder / "usdc") as folder, tempfile.TemporaryDirectory() as scratch:
        _write_layer(Path(scratch), job)
        for file in Path(scratch).iterdir():
            shutil.copyfile(file, folder / file.name)
    return ["usdc/"]


def _write_layer(folder: Path, job: ExportJob) -> None:
    """The layer, and the texture that it names.

    Raises:
        OSError: no room.
    """
    from pxr import Sdf, Tf, Usd

    check_head(job.track, job.head)
    if job.texture is not None:
        write_picture(folder / TEXTURE_NAME, job.texture)
    stage = Usd.Stage.CreateInMemory()
    _describe(stage, job)
    try:
        written = Sdf.Layer.CreateNew(str(folder / _LAYER_NAME))
        written.TransferContent(stage.GetRootLayer())
        saved = written.Save()
    except Tf.ErrorException as error:
        raise OSError(_first_line(error)) from error
    if not saved:
        raise OSError("the USD layer could not be saved")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "USD refused")


def _describe(stage: Usd.Stage, job: ExportJob) -> None:
    """Everything that the layer says."""
    from pxr import UsdGeom

    track, asset = job.track, job.head
    rig = build_rig(track, asset)
    codes = time_codes(track)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(track.frame_rate)
    stage.SetFramesPerSecond(track.frame_rate)
    stage.SetStartTimeCode(codes[0])
    stage.SetEndTimeCode(codes[-1])
    stage.GetRootLayer().customLayerData = {
        "frame_rate": float(track.frame_rate),
        "invalid_frames": ",".join(map(str, np.flatnonzero(~track.valid))),
    }
    root = UsdGeom.Xform.Define(stage, _TRACK).GetPrim()
    stage.SetDefaultPrim(root)
    root.SetMetadata("kind", "component")
    _describe_camera(stage, track.camera)
    _describe_skeleton(stage, rig)
    _describe_mesh(stage, rig, asset)
    _describe_materials(stage, asset, job.texture is not None)
    _describe_motion(stage, rig, codes)
    _describe_extent(stage, job, codes)


def time_codes(track: HeadTrack) -> list[float]:
    """Of every frame; rounding takes away what adding up 1 / 25 leaves behind."""
    return np.round((track.timestamps - track.timestamps[0]) * track.frame_rate, 6).tolist()


def _describe_camera(stage: Usd.Stage, camera: Camera) -> None:
    from pxr import Gf, UsdGeom

    film = Film.of(camera)
    tenths = 10 / 1000  # USD measures lenses in tenths of the scene's unit, a metre; the film is in millimetres
    prim = UsdGeom.Camera.Define(stage, _CAMERA)
    prim.CreateProjectionAttr(UsdGeom.Tokens.perspective)
    prim.CreateFocalLengthAttr(film.focal_mm * tenths)
    prim.CreateHorizontalApertureAttr(film.width_mm * tenths)
    prim.CreateVerticalApertureAttr(film.height_mm * tenths)
    prim.CreateHorizontalApertureOffsetAttr(film.right_mm * tenths)
    prim.CreateVerticalApertureOffsetAttr(film.up_mm * tenths)
    prim.CreateClippingRangeAttr(Gf.Vec2f(NEAR_M, FAR_M))
    UsdGeom.XformCommonAPI(prim).SetTranslate(CAMERA_POSITION)


def _describe_skeleton(stage: Usd.Stage, rig: Rig) -> None:
    from pxr import Gf, UsdSkel, Vt

    def moved(place: np.ndarray) -> Gf.Matrix4d:
        return Gf.Matrix4d().SetTranslate(Gf.Vec3d(*place.tolist()))

    UsdSkel.Root.Define(stage, _HEAD)
    skeleton = UsdSkel.Skeleton.Define(stage, _SKELETON)
    skeleton.CreateJointsAttr(joint_paths())
    skeleton.CreateBindTransformsAttr(Vt.Matrix4dArray([moved(joint) for joint in rig.joints]))
    offsets = [joint - (rig.joints[parent] if parent >= 0 else 0) for joint, parent in zip(rig.joints, JOINT_PARENTS, strict=True)]
    skeleton.CreateRestTransformsAttr(Vt.Matrix4dArray([moved(offset) for offset in offsets]))
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([_ANIMATION])


def joint_paths() -> list[str]:
    """Joints as UsdSkel names them: with their parents, ``root/neck/jaw``."""
    paths: list[str] = []
    for name, parent in zip(JOINT_NAMES, JOINT_PARENTS, strict=True):
        paths.append(name if parent < 0 else f"{paths[parent]}/{name}")
    return paths


def _describe_mesh(stage: Usd.Stage, rig: Rig, asset: HeadAsset) -> None:
    from pxr import Sdf, UsdGeom, UsdSkel, Vt

    mesh = UsdGeom.Mesh.Define(stage, _MESH)
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateDoubleSidedAttr(True)  # heads are open at the neck, and the mouth is seen from inside
    mesh.CreatePointsAttr(_vectors(rig.vertices))
    mesh.CreateExtentAttr(_extent(rig.vertices))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(asset.faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(asset.faces.astype(np.int32).ravel()))
    mesh.CreateNormalsAttr(_vectors(unit_normals(rig.vertices, asset.faces)))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    if asset.uv is not None and asset.uv_faces is not None:
        uv = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying)
        uv.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(asset.uv, np.float32)))
        uv.SetIndices(Vt.IntArray.FromNumpy(asset.uv_faces.astype(np.int32).ravel()))
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([_SKELETON])
    joints, weights = _influences(asset.weights)
    binding.CreateJointIndicesPrimvar(False, joints.shape[1]).Set(Vt.IntArray.FromNumpy(joints.ravel()))
    binding.CreateJointWeightsPrimvar(False, joints.shape[1]).Set(Vt.FloatArray.FromNumpy(weights.ravel()))
    _describe_blend_shapes(stage, rig, asset)


def _influences(weights: Float[np.ndarray, "verts 5"]) -> tuple[np.ndarray, np.ndarray]:
    """Joint numbers and weights of each vertex, strongest first, as many as the vertex with most needs."""
    order = np.argsort(-weights, axis=1, kind="stable")
    strength = np.take_along_axis(weights, order, axis=1).astype(np.float64).clip(0)
    count = int((strength > 0).sum(axis=1).max())
    order, strength = np.where(strength > 0, order, 0)[:, :count], strength[:, :count]
    return order.astype(np.int32), (strength / strength.sum(axis=1, keepdims=True)).astype(np.float32)


def _describe_blend_shapes(stage: Usd.Stage, rig: Rig, asset: HeadAsset) -> None:
    """Offsets of positions and, to first order, of normals, where a shape moves anything."""
    from pxr import UsdSkel, Vt

    at_rest, names = unit_normals(rig.vertices, asset.faces), shape_names(rig)
    for name, offsets in zip(names, rig.morphs, strict=True):
        turned = unit_normals(rig.vertices + offsets, asset.faces) - at_rest
        moving = (np.abs(offsets).max(axis=1) > _STILL_OFFSET_M) | (np.abs(turned).max(axis=1) > _STILL_NORMAL)
        moving[0] |= not moving.any()  # a shape must move something
        shape = UsdSkel.BlendShape.Define(stage, f"{_MESH}/{name}")
        shape.CreateOffsetsAttr(_vectors(offsets[moving]))
        shape.CreateNormalOffsetsAttr(_vectors(turned[moving]))
        shape.CreatePointIndicesAttr(Vt.IntArray.FromNumpy(np.flatnonzero(moving).astype(np.int32)))
    if names:
        binding = UsdSkel.BindingAPI(stage.GetPrimAtPath(_MESH))
        binding.CreateBlendShapesAttr(names)
        binding.CreateBlendShapeTargetsRel().SetTargets([f"{_MESH}/{name}" for name in names])


def shape_names(rig: Rig) -> list[str]:
    """The morph targets' names, as far as USD allows: letters, digits and underscores."""
    from pxr import Tf

    return [Tf.MakeValidIdentifier(name) for name in rig.morph_names]


def _describe_materials(stage: Usd.Stage, asset: HeadAsset, textured: bool) -> None:
    """One material and one subset of the mesh's triangles for each part of the surface."""
    from pxr import Gf, Sdf, UsdGeom, UsdShade, Vt

    mesh = UsdGeom.Mesh(stage.GetPrimAtPath(_MESH))
    UsdGeom.Scope.Define(stage, _MATERIALS)
    for part, triangles in surface_parts(asset).items():
        look = material(part, 0 if textured else None)["pbrMetallicRoughness"]
        path = f"{_MATERIALS}/{part}"
        made = UsdShade.Material.Define(stage, path)
        shader = UsdShade.Shader.Define(stage, f"{path}/surface")
        shader.CreateIdAttr("UsdPreviewSurface")
        shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(look.get("roughnessFactor", 0.65))
        shader.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
        colour = shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
        if "baseColorTexture" in look:
            colour.ConnectToSource(_texture(stage, path).CreateOutput("rgb", Sdf.ValueTypeNames.Float3))
        else:
            colour.Set(Gf.Vec3f(*look["baseColorFactor"][:3]))
        made.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", Sdf.ValueTypeNames.Token))
        numbers = Vt.IntArray.FromNumpy(triangles.astype(np.int32))
        subset = UsdGeom.Subset.CreateGeomSubset(mesh, f"part_{part}", UsdGeom.Tokens.face, numbers, UsdShade.Tokens.materialBind)
        UsdShade.MaterialBindingAPI.Apply(subset.GetPrim()).Bind(made)
    UsdGeom.Subset.SetFamilyType(mesh, UsdShade.Tokens.materialBind, UsdGeom.Tokens.partition)


def _texture(stage: Usd.Stage, path: str):
    from pxr import Sdf, UsdShade

    where = UsdShade.Shader.Define(stage, f"{path}/uv")
    where.CreateIdAttr("UsdPrimvarReader_float2")
    where.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture = UsdShade.Shader.Define(stage, f"{path}/texture")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{TEXTURE_NAME}")
    texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    for wrap in ("wrapS", "wrapT"):
        texture.CreateInput(wrap, Sdf.ValueTypeNames.Token).Set("clamp")
    texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(where.CreateOutput("result", Sdf.ValueTypeNames.Float2))
    return texture


def _describe_motion(stage: Usd.Stage, rig: Rig, codes: list[float]) -> None:
    """Joints and weights at every frame's time; what stands still has one value."""
    from pxr import UsdSkel, Vt

    motion = UsdSkel.Animation.Define(stage, _ANIMATION)
    motion.CreateJointsAttr(joint_paths())
    motion.CreateScalesAttr(Vt.Vec3hArray.FromNumpy(np.ones((len(JOINT_NAMES), 3), np.float16)))

    def sample(attribute, values: np.ndarray, array_of) -> None:
        if np.ptp(values, axis=0).max() <= _STILL:
            attribute.Set(array_of(values[0]))
            return
        for code, value in zip(codes, values, strict=True):
            attribute.Set(array_of(value), code)

    sample(motion.CreateTranslationsAttr(), rig.translations, _vectors)
    sample(motion.CreateRotationsAttr(), rig.rotations, lambda value: Vt.QuatfArray.FromNumpy(value.astype(np.float32)))
    if rig.morph_names:
        motion.CreateBlendShapesAttr(shape_names(rig))
        sample(motion.CreateBlendShapeWeightsAttr(), rig.morph_weights, lambda value: Vt.FloatArray.FromNumpy(value.astype(np.float32)))


def _describe_extent(stage: Usd.Stage, job: ExportJob, codes: list[float]) -> None:
    """The room that the moving head takes, which programs use to frame it and to leave it out of a picture."""
    from pxr import UsdSkel

    extent = UsdSkel.Root(stage.GetPrimAtPath(_HEAD)).CreateExtentAttr()
    for number, (code, vertices) in enumerate(zip(codes, track_vertices(job.track, job.head), strict=True), 1):
        extent.Set(_extent(vertices), code)
        job.written(number)


def _extent(vertices: Float[np.ndarray, "verts 3"]):
    return _vectors(np.stack([vertices.min(axis=0), vertices.max(axis=0)]))


def _vectors(array: Float[np.ndarray, "n 3"]):
    from pxr import Vt

    return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(array, np.float32))
