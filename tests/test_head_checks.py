"""Head files that are none: each is refused in one line, before it costs time or memory."""

from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import pytest

from flame_assets import safe_npz
from flame_assets.asset import AssetError, load_npz, save_npz
from flame_assets.load import DEFAULT_HEAD
from tests.heads import tiny_head


def test_real_heads_pass(tmp_path):
    assert load_npz(DEFAULT_HEAD).n_vertices > 5000
    save_npz(tiny_head(), tmp_path / "tiny.npz")
    assert load_npz(tmp_path / "tiny.npz").n_vertices == 984


def arrays_of(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file.items())


def few(arrays):
    for key in ("v_template", "shapedirs", "posedirs", "weights", "canonical"):
        arrays[key] = arrays[key][:10]
    arrays["joint_regressor"] = arrays["joint_regressor"][:, :10]
    arrays["faces"] = arrays["faces"] % 10
    for key in [k for k in arrays if k.startswith("region/")]:
        arrays[key] = arrays[key] % 10


def scaled(factor):
    def change(arrays):
        for key in ("v_template", "shapedirs"):
            arrays[key] = arrays[key] * np.float32(factor)

    return change


def with_(key, make):
    def change(arrays):
        arrays[key] = make(arrays[key])

    return change


def without(key):
    return lambda arrays: arrays.pop(key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (few, "no head"),
        (with_("faces", lambda a: a[:0]), "faces"),
        (with_("faces", lambda a: a + 900), "faces"),
        (with_("faces", lambda a: a.astype(np.float32)), "faces"),
        (with_("v_template", np.zeros_like), "m across"),
        (scaled(1e6), "millimetres"),
        (scaled(100), "centimetres"),
        (scaled(0.1), "m across"),
        (with_("weights", lambda a: a * 2), "sum to one"),
        (with_("weights", np.zeros_like), "sum to one"),
        (with_("shapedirs", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, np.nan, a)), "not finite"),
        (with_("v_template", lambda a: a.astype("U8")), "v_template"),
        (with_("uv_faces", lambda a: a + 10_000), "uv"),
        (with_("canonical", lambda a: a * 3), "canonical"),
        (with_("landmarks/mediapipe/faces", lambda a: a + 100_000), "landmarks"),
        (with_("region/face", lambda a: a + 100_000), "not a head file"),
        (with_("n_identity", lambda a: np.array(-3)), "shapedirs"),
        (without("expression_range"), "lacks expression_range"),
        (without("posedirs"), "lacks posedirs"),
        (lambda arrays: arrays.update(more=np.zeros(3)), "more"),
    ],
)
def test_what_is_no_head_is_refused(tmp_path, change, said):
    save_npz(tiny_head(), tmp_path / "head.npz")
    arrays = arrays_of(tmp_path / "head.npz")
    change(arrays)
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(AssetError) as error:
        load_npz(tmp_path / "other.npz")
    text = str(error.value)
    assert said in text and "other.npz" in text and "\n" not in text


def test_a_bomb_is_refused_by_its_headers(tmp_path, monkeypatch):
    """Four terabytes in two kilobytes, and zeros packed a thousandfold, against a limit made low to save the test's time."""
    monkeypatch.setattr(safe_npz, "LARGEST_BYTES", 20_000_000)
    save_npz(tiny_head(), tmp_path / "head.npz")
    arrays = arrays_of(tmp_path / "head.npz")
    for path, data in ((tmp_path / "claims.npz", b""), (tmp_path / "zeros.npz", bytes(1 << 20))):
        np.savez_compressed(path, **{k: v for k, v in arrays.items() if k != "shapedirs"})
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("shapedirs.npy", "w", force_zip64=True) as file:
            shape = (10**6, 10**6) if not data else (50, 1 << 18)
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for _ in range(50 if data else 0):
                file.write(data)
        tracemalloc.start()
        try:
            with pytest.raises(AssetError, match=r"GB unpacked"):
                load_npz(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert path.stat().st_size < 5_000_000 and peak < 5_000_000
