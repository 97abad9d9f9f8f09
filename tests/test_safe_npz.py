"""Arrays of other origin: what a header promises is not believed."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flame_assets.asset import AssetError
from flame_assets.restricted_pickle import load_npy
from flame_assets.safe_npz import TooLargeError, names_in_npz, read_npz
from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.errors import UserError
from tracker.export.flame_params import load_track, write_flame_params
from tracker.importing.registry import import_track


def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": kind, "fortran_order": False, "shape": shape})
    return raw.getvalue()


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    "member",
    [header((10**6,)), header((-1, 3)), header((3,), "|O") + bytes(24), b"no array", b"", b"\x93NUMPY\x01\0v\0" + b"{" * 118, header((3,))[:-40],
     b"\x93NUMPY\x02\0\xff\xff\xff\x7f{}", b"\x93NUMPYY\0v\0{'de" + header((3,))[10:]],  # the last two: headers of two gigabytes
)  # fmt: skip
def test_what_is_no_array_is_one_line(tmp_path, member):
    tracemalloc.start()
    with pytest.raises(ValueError) as error:
        read_npz(archive(tmp_path / "a.npz", a=header((2,)) + bytes(8), b=member))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    assert not isinstance(error.value, TooLargeError) and "\n" not in str(error.value) and len(str(error.value)) < 200
    assert set(read_npz(tmp_path / "a.npz", {"a"})) == {"a"} and names_in_npz(tmp_path / "a.npz") == {"a", "b"}


def test_terabytes_in_a_track_are_refused_by_their_header(tmp_path):
    write_flame_params(tmp_path / "whole.npz", talking_track(tiny_head(), frames=4))
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole:
        members = {name.removesuffix(".npy"): whole.read(name) for name in whole.namelist()}
    assert load_track(archive(tmp_path / "same.npz", **members)).n_frames == 4
    path = archive(tmp_path / "bomb.npz", **(members | {"expr": header((10**6, 10**6))}))
    with pytest.raises(UserError, match="GB unpacked"):
        load_track(path)
    with pytest.raises(UserError, match="GB unpacked"):
        import_track(archive(tmp_path / "vhap.npz", **(members | {"expr": header((10**6, 10**6)), "focal_length": header((1,)) + bytes(4)})), tiny_head())


def test_a_landmark_file_that_promises_terabytes_is_refused():
    for content in (header((10**12,)), header((10**6,), "|V999999"), b"\x93NUMPY\x01\0v\0" + b"(" * 118):
        with pytest.raises(AssetError, match=r"marks\.npy: not a readable \.npy file"):
            load_npy(content, "marks.npy")


@pytest.mark.parametrize("change", [{"image_size": np.array([3])}, {"expr": np.zeros(())}, {"focal_length": np.zeros(0)}, {"shape": np.array("x")}])
def test_arrays_of_other_shapes_in_another_trackers_file(tmp_path, change):
    track = talking_track(tiny_head(), frames=4)
    names = ("rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation", "shape", "expr", "image_size")
    arrays = {n: getattr(track, n) for n in names} | {"focal_length": np.array([1.5])}
    np.savez(tmp_path / "a.npz", **(arrays | change))
    with pytest.raises(UserError) as error:
        import_track(tmp_path / "a.npz", tiny_head(), "vhap")
    assert "a.npz" in str(error.value) and "\n" not in str(error.value)
