"""Reading FLAME's official files: the layout, and that nothing written in a pickle is run."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from heads import tiny_head

from flame_assets.asset import AssetError, LandmarkEmbedding, save_npz
from flame_assets.flame_files import find_flame_files, read_flame
from flame_assets.load import load_head
from flame_assets.restricted_pickle import Opaque, UnsafePickleError, load_npy, load_pickle

IDENTITY, EXPRESSIONS = 300, 100


def official_model(expressions: int = EXPRESSIONS) -> dict[str, np.ndarray]:
    """FLAME's dictionary with random numbers of FLAME's shapes, on the small test head."""
    head, rng = tiny_head(), np.random.default_rng(7)
    count = head.n_vertices
    return {
        "f": head.faces.astype(np.uint32),
        "v_template": head.v_template.astype(np.float64),
        "shapedirs": rng.normal(scale=1e-4, size=(count, 3, IDENTITY + expressions)),
        "posedirs": head.posedirs.astype(np.float64),
        "J_regressor": head.joint_regressor.astype(np.float64),
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        "weights": head.weights.astype(np.float64),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_official(path: Path, model: dict, monkeypatch: pytest.MonkeyPatch, protocol: int = 2, layout: str = "csc") -> Path:
    """Pickle ``model`` as the publisher does: chumpy arrays, a sparse regressor under SciPy's old module path."""
    chumpy, ch = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x: np.ndarray) -> None:
            self.x, self._dirty_vars, self._itr = x, set(), None

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    ch.Ch, chumpy.ch = Ch, ch
    old = types.ModuleType(f"scipy.sparse.{layout}")
    matrix = type(f"{layout}_matrix", (), {"__module__": f"scipy.sparse.{layout}"})
    setattr(old, f"{layout}_matrix", matrix)
    regressor = matrix()
    source = getattr(scipy.sparse, f"{layout}_matrix")(model["J_regressor"])
    regressor.__dict__.update(_shape=(5, source.shape[1]), data=source.data, indices=source.indices, indptr=source.indptr, maxprint=50)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "chumpy", chumpy)
        patch.setitem(sys.modules, "chumpy.ch", ch)
        patch.setitem(sys.modules, f"scipy.sparse.{layout}", old)
        content = model | {"shapedirs": Ch(model["shapedirs"]), "v_template": Ch(model["v_template"]), "J_regressor": regressor}
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize(("protocol", "layout"), [(0, "csc"), (2, "csc"), (2, "csr"), (5, "csc")])
def test_official_pickle_reads_back_equal(tmp_path, monkeypatch, protocol, layout):
    model = official_model()
    asset = read_flame(find_flame_files(write_official(tmp_path / "generic_model.pkl", model, monkeypatch, protocol, layout)))
    assert asset.name == "flame2020"
    assert (asset.n_identity, asset.n_expression) == (IDENTITY, EXPRESSIONS)
    assert asset.expression_names[0] == "expr000" and asset.expression_names[-1] == "expr099"
    assert asset.expression_range == (-np.inf, np.inf)
    for key, mine in (("v_template", asset.v_template), ("shapedirs", asset.shapedirs), ("posedirs", asset.posedirs),
                      ("weights", asset.weights), ("J_regressor", asset.joint_regressor)):  # fmt: skip
        np.testing.assert_array_equal(mine, model[key].astype(np.float32), err_msg=key)
    np.testing.assert_array_equal(asset.faces, model["f"])
    assert asset.regions["left_eyeball"].sum() == asset.regions["right_eyeball"].sum() > 50
    assert asset.v_template[asset.regions["left_eyeball"], 0].mean() > 0.01  # the subject's left is +x


def test_edition_with_fewer_expressions_and_modern_module_names(tmp_path):
    """Saved again by today's NumPy and SciPy, without chumpy."""
    model = official_model(expressions=50)
    model["J_regressor"] = scipy.sparse.csc_array(model["J_regressor"])
    (tmp_path / "flame2023_Open.pkl").write_bytes(pickle.dumps(model))
    asset = read_flame(find_flame_files(tmp_path))
    assert asset.name == "flame2023_open" and asset.n_expression == 50
    np.testing.assert_allclose(asset.joint_regressor, model["J_regressor"].toarray(), atol=1e-7)


def test_folder_with_companions(tmp_path, monkeypatch):
    model = official_model()
    write_official(tmp_path / "generic_model.pkl", model, monkeypatch)
    write_official(tmp_path / "flame2023.pkl", model, monkeypatch)
    rng = np.random.default_rng(0)
    triangles, count = len(model["f"]), len(model["v_template"])
    weights = rng.dirichlet(np.ones(3), 105)
    faces, numbers = rng.integers(0, triangles, 105), rng.choice(468, 105, replace=False)
    np.savez(tmp_path / "mediapipe_landmark_embedding.npz", lmk_face_idx=faces, lmk_b_coords=weights, landmark_indices=numbers)
    full = {"full_lmk_faces_idx": faces[None, :68], "full_lmk_bary_coords": weights[None, :68], "static_lmk_faces_idx": faces[17:68]}
    np.save(tmp_path / "landmark_embedding.npy", np.array(full, object), allow_pickle=True)
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps({"face": np.arange(10), "scalp": np.array([count - 1])}, protocol=2))
    asset = read_flame(find_flame_files(tmp_path))
    assert asset.name == "flame2023"  # the newest edition of a folder with several
    np.testing.assert_array_equal(asset.landmarks["mediapipe"].indices, numbers)
    np.testing.assert_allclose(asset.landmarks["mediapipe"].barycentrics, weights, atol=1e-6)
    np.testing.assert_array_equal(asset.landmarks["ibug68"].faces, faces[:68])
    assert np.flatnonzero(asset.regions["face"]).tolist() == list(range(10)) and asset.regions["scalp"][-1]


class _Attack:
    """Pickles to a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", ["system", "eval", "getattr", "import", "nested", "numpy"])
def test_pickle_that_executes_something_is_refused_and_does_not(tmp_path, kind, protocol):
    witness = tmp_path / "executed"
    command = f"touch {witness}" if os.name == "posix" else f"echo > {witness}"
    attack, name = {
        "system": (_Attack(os.system, command), f"{os.name if os.name == 'nt' else 'posix'}.system"),
        "eval": (_Attack(eval, f"open({str(witness)!r}, 'w')"), "eval"),
        "getattr": (_Attack(getattr, os, "system"), "getattr"),
        "import": (_Attack(__import__, "os"), "__import__"),
        "nested": ({"v_template": [np.zeros(3), {"x": _Attack(os.system, command)}]}, "system"),
        "numpy": (_Attack(np.load, str(witness)), "load"),
    }[kind]
    if kind == "getattr":
        content = b"cbuiltins\ngetattr\n(cposix\nsystem\nS'x'\ntR."  # a module object itself cannot be pickled
    else:
        content = pickle.dumps(attack, protocol=protocol)
    file = tmp_path / "generic_model.pkl"
    file.write_bytes(content)
    with pytest.raises(UnsafePickleError, match=name) as caught:
        load_head(file, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    assert not witness.exists() and not (tmp_path / "cache").exists()


def test_landmark_npy_that_executes_something_is_refused(tmp_path, monkeypatch):
    write_official(tmp_path / "flame2023.pkl", official_model(), monkeypatch)
    witness = tmp_path / "executed"
    np.save(tmp_path / "landmark_embedding.npy", np.array(_Attack(eval, f"open({str(witness)!r}, 'w')"), object), allow_pickle=True)
    with pytest.raises(UnsafePickleError, match="eval"):
        load_head(tmp_path, cache=tmp_path / "cache")
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n}S'__reduce__'\nI1\nsb.",  # sets attributes of an allowed class
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntRI5\nb.",  # a state that is no array's
        b"]q\x00h\x00a.",  # a list that contains itself
        b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRS'aaaaaaaa'\ntR.",  # a made-up pointer
        b"Pname\n.",  # an object that lies elsewhere
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f",  # a frame longer than memory
        b"N.",
    ],
)
def test_malformed_pickles_give_one_line(tmp_path, content):
    file = tmp_path / "flame2023.pkl"
    file.write_bytes(content)
    with pytest.raises(AssetError) as caught:
        load_head(file, cache=tmp_path)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_arrays_of_impossible_content_are_refused():
    good = pickle.dumps(np.arange(4, dtype=np.int32), protocol=2)
    np.testing.assert_array_equal(load_pickle(good, "x"), [0, 1, 2, 3])
    with pytest.raises(AssetError):
        load_pickle(good.replace(b"K\x04\x85", b"K\x09\x85"), "x")  # claims nine elements
    sparse = scipy.sparse.csc_matrix(np.eye(3))
    sparse.indices[1] = 77
    with pytest.raises(AssetError, match="inconsistent"):
        load_pickle(pickle.dumps(sparse, protocol=2), "x")


def test_values_that_occur_in_such_files_survive():
    big_endian = np.arange(3, dtype=">f4")
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    value = {"a": [1, 2.5, "x", None, True], "d": OrderedDict(k=np.float64(3.5)), "s": {1, 2}, "b": b"\xff\x00",
             "n": big_endian, "f": fortran, "o": np.array([np.arange(2), None], object)}  # fmt: skip
    for protocol in range(6):
        read = load_pickle(pickle.dumps(value, protocol=protocol), "x")
        assert read["a"] == value["a"] and read["s"] == {1, 2} and bytes(read["b"]) == b"\xff\x00" and read["d"] == {"k": 3.5}
        np.testing.assert_array_equal(read["n"], big_endian)
        np.testing.assert_array_equal(read["f"], fortran)
        np.testing.assert_array_equal(read["o"][0], [0, 1])


def test_tensors_are_held_but_not_evaluated():
    content = b"ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\n(S'malicious'\ntRI0\ntR."
    assert isinstance(load_pickle(content, "x"), Opaque)


def test_plain_npy_needs_no_pickle(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    np.testing.assert_array_equal(load_npy((tmp_path / "a.npy").read_bytes(), "a"), np.arange(5))


def _smpl(path, model):
    count = 6890
    wide = {"v_template": np.zeros((count, 3)), "shapedirs": np.zeros((count, 3, 10)), "weights": np.zeros((count, 24))}
    path.write_bytes(pickle.dumps(model | wide, protocol=2))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p, m: p.write_text("hello, this is not a model"), "not a readable pickle"),
        (lambda p, m: p.write_bytes(b"PK\x03\x04" + bytes(40)), "zip archive"),
        (lambda p, m: p.write_bytes(b""), "empty"),
        (lambda p, m: p.write_bytes(pickle.dumps(m, protocol=2)[:-50000]), "download it again|not a readable pickle"),
        (lambda p, m: p.write_bytes(pickle.dumps([1, 2, 3])), "holds a list"),
        (lambda p, m: p.write_bytes(pickle.dumps({"a": 1})), "lacks f, v_template"),
        (_smpl, "SMPL model .6890 vertices"),
        (lambda p, m: p.write_bytes(pickle.dumps(m | {"posedirs": np.zeros((3, 3))}, protocol=2)), "posedirs has shape"),
        (lambda p, m: p.write_bytes(pickle.dumps(m | {"weights": "many"}, protocol=2)), "weights is a str"),
        (lambda p, m: p.write_bytes(pickle.dumps(m | {"v_template": m["v_template"] * np.nan}, protocol=2)), "not finite"),
        (lambda p, m: p.write_bytes(pickle.dumps(m | {"f": m["f"] + 9999}, protocol=2)), "faces must be"),
    ],
)
def test_wrong_files_give_one_line(tmp_path, write, message):
    file = tmp_path / "flame2023.pkl"
    write(file, official_model(expressions=1))
    with pytest.raises(AssetError, match=message) as caught:
        load_head(file, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_folders_without_a_clear_model(tmp_path):
    with pytest.raises(AssetError, match="no FLAME model here"):
        load_head(tmp_path)
    (tmp_path / "a.pkl").touch()
    (tmp_path / "b.pkl").touch()
    with pytest.raises(AssetError, match=r"several models \(a.pkl, b.pkl\)"):
        load_head(tmp_path)
    with pytest.raises(AssetError, match="no such head"):
        load_head(tmp_path / "absent.pkl")


def test_own_npz_and_its_errors(tmp_path):
    head = tiny_head()
    save_npz(head, tmp_path / "own.npz")
    assert load_head(tmp_path / "own.npz").sha256() == head.sha256()
    (tmp_path / "broken.npz").write_bytes((tmp_path / "own.npz").read_bytes()[:2000])
    with pytest.raises(AssetError, match="broken.npz"):
        load_head(tmp_path / "broken.npz")


def test_converted_head_is_cached_by_content(tmp_path, monkeypatch):
    conversions = []

    def landmarks(asset):
        conversions.append(asset.name)
        point = LandmarkEmbedding(np.zeros(1, np.int32), np.zeros(1, np.int32), np.eye(3, dtype=np.float32)[:1])
        return {"mediapipe": point, "ibug68": point}

    monkeypatch.setattr("flame_assets.landmark_registration.register_landmarks", landmarks)
    cache = tmp_path / "cache"
    file = write_official(tmp_path / "flame2023.pkl", official_model(), monkeypatch)
    first, second = load_head(file, cache), load_head(file, cache)
    assert len(conversions) == 1 and first.sha256() == second.sha256() and second.canonical.shape == first.v_template.shape
    assert second.expression_range == (-np.inf, np.inf) and second.name == "flame2023"
    (cached,) = cache.glob("*")
    cached.write_bytes(struct.pack("<I", 7))  # a damaged cache is made anew
    assert load_head(file, cache).sha256() == first.sha256() and len(conversions) == 2
    write_official(file, official_model(expressions=20), monkeypatch)
    assert load_head(file, cache).n_expression == 20 and len(list(cache.glob("*"))) == 2
    blocked = tmp_path / "file"
    blocked.touch()
    assert load_head(file, blocked / "cache").n_expression == 20  # no place to write: works without
