"""The registry of formats: what it promises holds for every format, the documentation's table is the registry's."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from densemarks_model.errors import ModelError
from flame_assets.asset import HeadAsset
from tests.gltf_evaluator import GltfPlayer
from tests.heads import flame_sized_head, tiny_head
from tests.tracks import filmed_track, talking_track
from tracker.errors import UserError
from tracker.export import EXPORTERS, check_formats, export, formats_of_run, parse_formats

ROOT = Path(__file__).resolve().parents[1]
TEXTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


FORMATS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(e.missing), reason=f"format {name} NOT CHECKED: no {e.missing} installed"))
    for name, e in EXPORTERS.items()
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Masks are silhouettes here; where they come from is not what these tests are about."""

    def missing(name: str) -> None:
        raise ModelError("not here")

    monkeypatch.setattr("tracker.export.head_masks.fast_network", missing)


def head_for(*names: str) -> HeadAsset:
    """A head that the formats can hold."""
    return next(head for head in (tiny_head(), flame_sized_head()) if all(not reason_against(name, head) for name in names))


def reason_against(name: str, head: HeadAsset) -> bool:
    try:
        check_formats(name, head)
    except UserError:
        return True
    return False


def holders() -> list[list[str]]:
    """The formats, as few lists as hold what one head can be written in."""
    return [[name for name in EXPORTERS if not reason_against(name, head)] for head in (tiny_head(), flame_sized_head())]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_writes_what_it_says_and_nothing_else(name, tmp_path):
    head = head_for(name)
    track, source = filmed_track(head, tmp_path / "frames", 2)
    names = export(track, head, [name], tmp_path / "new" / "folder", texture=TEXTURE, source=source)
    written = contents(tmp_path / "new" / "folder")
    first, _, more = EXPORTERS[name].files.partition(" ")
    assert first in written and (len(written) > 1 if more else len(written) == 1) and all(written.values())
    assert len({Path(file).parts[0] for file in written}) == 1
    assert names == ([f"{first.split('/')[0]}/"] if "/" in first else [first])


@pytest.mark.parametrize("formats", holders())
def test_all_formats_at_once(formats, tmp_path):
    head = head_for(*formats)
    track, source = filmed_track(head, tmp_path / "frames", 3)
    names = export(track, head, formats, tmp_path, texture=TEXTURE, source=source)
    assert names[:4] == ["flame_params.npz", "head.glb", "texture.png", "meshes/"]
    endings = [e.files[len("meshes/00000") : -len(" …")] for e in EXPORTERS.values() if e.files.startswith("meshes/")]
    assert {p.name for p in (tmp_path / "meshes").iterdir()} == {f"{t:05d}{e}" for t in range(3) for e in endings}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_that_fills_up_leaves_what_was_there(name, existing, tmp_path):
    import resource

    head = head_for(name)
    track, source = filmed_track(head, tmp_path / "frames", 4)
    if existing:
        export(track.select(np.arange(3)), head, name, tmp_path, texture=TEXTURE, source=source)
    before = contents(tmp_path)
    reason = "" if EXPORTERS[name].library else r"File too large\)"  # libraries have words of their own
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # every format's first file is larger
    try:
        with pytest.raises(UserError, match=rf"cannot be written \({reason}"):
            export(track, head, name, tmp_path, texture=TEXTURE[::-1], source=source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.rglob(".*")] == []


def test_all_formats_hold_the_same_vertices(tmp_path):
    import trimesh

    head = tiny_head()
    track = talking_track(head, 8)
    export(track, head, "obj,ply,glb", tmp_path)
    player = GltfPlayer(tmp_path / "head.glb")
    for number, time in enumerate(player.key_times):
        lines = (tmp_path / "meshes" / f"{number:05d}.obj").read_text().splitlines()
        obj = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
        ply = trimesh.load(tmp_path / "meshes" / f"{number:05d}.ply", process=False).vertices
        np.testing.assert_allclose(ply, obj, atol=2e-6)
        np.testing.assert_allclose(player.vertices(time)[: head.n_vertices], obj, atol=1e-5)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ("obj,fbx", f"unknown format 'fbx'; known are {', '.join(EXPORTERS)}"),
        ("", "no format is named"),
        ([], "no format is named"),
        ("obj,texture", "format texture: there is no texture"),
        ("obj,nerf", "format nerf: it holds the video's pictures; give the video"),
    ],
)
def test_nothing_is_written_when_a_format_cannot_be(formats, message, tmp_path):
    head = tiny_head()
    with pytest.raises(UserError, match=message):
        export(talking_track(head, 2), head, formats, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(EXPORTERS, "usd", dataclasses.replace(EXPORTERS["usd"], library="no_such_module:usd-core"))
    head = tiny_head()
    with pytest.raises(UserError, match=r"^format usd: it needs usd-core, which is not installed: pip install usd-core$"):
        export(talking_track(head, 2), head, "npz,usd", tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_the_head_must_be_the_tracks(tmp_path):
    with pytest.raises(UserError, match="made with head 'tiny-0'"):
        export(talking_track(tiny_head(), 2), tiny_head(3), "npz", tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_format_can_refuse_a_head(tmp_path):
    bare = dataclasses.replace(tiny_head(), uv=None, uv_faces=None)
    with pytest.raises(UserError, match="format texture: it cannot hold the head 'tiny-0': it has no uv"):
        export(talking_track(bare, 2), bare, "npz,texture", tmp_path / "folder", texture=TEXTURE)
    assert list(tmp_path.iterdir()) == []
    assert [e.name for e in check_formats("texture")] == ["texture"]  # before the head is known


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    head = tiny_head()
    with pytest.raises(UserError, match="file: cannot be written"):
        export(talking_track(head, 2), head, "npz", tmp_path / "file")


def test_names_are_read_leniently_and_written_in_one_order():
    assert parse_formats(" OBJ, glb,obj,") == ("obj", "glb", "obj")
    assert [e.name for e in check_formats("obj,glb,obj")] == ["glb", "obj"]


def test_what_a_run_writes_unasked():
    assert formats_of_run(textured=False) == ("npz", "glb")
    assert formats_of_run(("ply", "npz"), textured=True) == ("npz", "glb", "texture", "ply")


def test_names_and_descriptions_cost_no_library():
    """``--help`` lists the formats and must come at once."""
    code = "import sys, tracker.export; print(*(m for m in ('numpy', 'torch', 'trimesh', 'cv2', 'pxr', 'alembic3d') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_documentation_lists_the_registry():
    text = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `") and line.count("|") == 5]
    table = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    listed = [(name.strip("`"), files.replace("`", ""), content) for name, files, content, _ in table]
    assert listed == [(e.name, e.files, e.content) for e in EXPORTERS.values()]
