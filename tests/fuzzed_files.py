"""Strategies for damaged files: whole ones of each kind that the program reads, changed at random, and ones made up of their format's parts."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st

from configs import preset_file
from densemarks_model.checkpoint_files import save_network
from densemarks_model.lite import LiteConfig, LiteNet
from flame_assets.asset import save_npz
from tests.heads import tiny_head
from tests.tracks import talking_track
from tracker.export.flame_params import write_flame_params

_ODD = [0, 1, 0x7F, 0x80, 0xFF]
_ODD_NUMBERS = [-1, 0, 1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, -(2**40), 1e308, -1e-308, 0.5]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, most: int = 6) -> bytes:
    """Bytes with some changed, taken out, put in, doubled, and sometimes an end cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["byte", "odd", "number", "out", "in", "double", "cut"]))
        if kind == "byte":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "odd":
            data[at : at + 1] = bytes([draw(st.sampled_from(_ODD))])
        elif kind == "number":
            data[at : at + 8] = struct.pack("<Q", draw(st.sampled_from([2**31 - 1, 2**32 - 1, 2**63, 2**40, 10**8])))[: draw(st.sampled_from([2, 4, 8]))]
        elif kind == "out":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "in":
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 60))]
        elif draw(st.booleans()):
            del data[at:]
    return bytes(data)


# --- pickles

FLAME_KEYS = ("f", "v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")


def flame_model() -> dict[str, Any]:
    """FLAME's dictionary for a head of 110 vertices: small, or a thousand files would take their time."""
    rng, count = np.random.default_rng(0), 110
    return {
        "f": rng.integers(0, count, (120, 3)).astype(np.uint32), "v_template": rng.uniform(-0.1, 0.1, (count, 3)),
        "shapedirs": rng.normal(0, 1e-4, (count, 3, 302)).astype(np.float32), "posedirs": np.zeros((count, 3, 36), np.float32),
        "J_regressor": np.full((5, count), 1 / count), "weights": np.full((count, 5), 0.2), "bs_style": "lbs",
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
    }  # fmt: skip


_GLOBALS = [
    ("numpy.core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar"), ("numpy.core.numeric", "_frombuffer"), ("numpy", "ndarray"),
    ("numpy", "dtype"), ("scipy.sparse.csc", "csc_matrix"), ("chumpy.ch", "Ch"), ("collections", "OrderedDict"), ("_codecs", "encode"),
    ("copy_reg", "_reconstructor"), ("__builtin__", "set"), ("__builtin__", "object"), ("__builtin__", "bytearray"), ("torch._utils", "_rebuild_tensor"),
    ("os", "system"), ("builtins", "eval"),
]  # fmt: skip


@st.composite
def opcode(draw: st.DrawFn) -> bytes:
    """One opcode of any protocol, with an argument of its kind."""
    chosen = draw(st.sampled_from(pickletools.opcodes))
    code = chosen.code.encode("latin1")
    if chosen.name in ("GLOBAL", "INST"):
        return code + "{}\n{}\n".format(*draw(st.sampled_from(_GLOBALS))).encode()
    if chosen.arg is None:
        return code
    size, text = chosen.arg.n, draw(st.sampled_from([b"1", b"-7", b"0x10", b"'a'", b"1e400", b"9" * 5000, b"v_template", b""]))
    if size >= 0:
        return code + draw(st.one_of(st.just(bytes(size)), st.just(bytes([1]) + bytes(max(size - 1, 0)))))[:size] if size else code
    if size == pickletools.UP_TO_NEWLINE:
        return code + text + b"\n"
    width = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4, pickletools.TAKEN_FROM_ARGUMENT4U: 4}.get(size, 8)
    content = draw(st.sampled_from([b"", b"i8", b"latin1", b"v_template", b"C", bytes(16)]))
    said = draw(st.one_of(st.just(len(content)), st.sampled_from([0, 1, 255, 2**31 - 1, 2**32 - 1, 2**40, 2**62])))
    return code + (said % 256**width).to_bytes(width, "little") + content


@st.composite
def strange_model(draw: st.DrawFn) -> bytes:
    """FLAME's dictionary, with values that do not belong there."""
    model = flame_model()
    for key in draw(st.lists(st.sampled_from(FLAME_KEYS), min_size=1, max_size=3)):
        model[key] = draw(st.one_of(strange_arrays(), st.sampled_from([None, 3, "x", [1], {}, (), b"bytes", 1e400, 10**100])))
    return pickle.dumps(model, draw(st.integers(0, 5)))


def pickles() -> st.SearchStrategy[bytes]:
    """FLAME's pickles, damaged; others with values of other kinds; and programs of any opcodes."""
    whole = [pickle.dumps(flame_model(), protocol) for protocol in (0, 2, 5)]
    small = [pickle.dumps({"v_template": np.zeros((4, 3)), "f": np.arange(6).reshape(2, 3), "n": [1.5, None, (2, "x")]}, p) for p in (0, 1, 2, 4, 5)]
    programs = st.lists(opcode(), max_size=40).map(lambda codes: b"".join(codes) + b".")
    return st.one_of(st.sampled_from(whole + small).flatmap(damaged), st.sampled_from(small).flatmap(damaged), strange_model(), programs)


# --- archives of arrays


@st.composite
def strange_arrays(draw: st.DrawFn) -> np.ndarray:
    """Small arrays of any kind and shape."""
    kind = draw(st.sampled_from(["f4", "f8", "f2", "i4", "i8", "u1", "u8", "?", "c8", "U3", "S2", "M8[s]", "V3", ">f4"]))
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 110]), max_size=3)))
    array = np.zeros(shape, kind)
    if array.size and array.dtype.kind in "fiu":
        with np.errstate(all="ignore"):
            array[...] = np.array(draw(st.sampled_from([0, 1, -1, np.nan, np.inf, 1e30, 2**31])), np.float64).astype(array.dtype)
    return array


def unzipped(whole: bytes) -> dict[str, bytes]:
    """Members of an archive."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive whose checksums are right, so that readers get as far as the arrays."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return raw.getvalue()


def npy(array: np.ndarray) -> bytes:
    raw = io.BytesIO()
    np.save(raw, array, allow_pickle=True)
    return raw.getvalue()


@st.composite
def npy_claiming(draw: st.DrawFn) -> bytes:
    """A header that promises more than follows."""
    shape = draw(st.sampled_from([(10**6, 10**6), (2**40,), (2**63, 2), (-1, 3), (3, -3), (0,), (10**9,), (10**4, 10**4)]))
    kind = draw(st.sampled_from(["<f4", "<f8", "|O", "<U9999999", "|V99999999", "<M8[s]", "nonsense"]))
    text = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + bytes(draw(st.sampled_from([0, 24, 4096])))


@st.composite
def archives(draw: st.DrawFn, whole: bytes) -> bytes:
    """An ``.npz``, damaged as a file, or with members that are damaged, of other kinds, gone, or under other names."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged(whole))
    members = unzipped(whole)
    for name in draw(st.lists(st.sampled_from(sorted(members)), min_size=1, max_size=4, unique=True)):
        kind = draw(st.sampled_from(["damaged", "array", "claims", "gone", "text", "renamed"]))
        if kind == "damaged":
            members[name] = draw(damaged(members[name], 3))
        elif kind == "array":
            members[name] = npy(draw(strange_arrays()))
        elif kind == "claims":
            members[name] = draw(npy_claiming())
        elif kind == "text":
            members[name] = draw(st.one_of(st.binary(max_size=40), st.just(npy(np.array(draw(st.text(max_size=30)).replace("\0", ""))))))
        else:
            content = members.pop(name)
            if kind == "renamed":
                members[draw(st.sampled_from(["x.npy", "region/a.npy", "landmarks/a/b.npy", "landmarks/mediapipe/x.npy", "region.npy", "landmarks/a.npy", "/"]))] = content
    return zipped(members, draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))


@cache
def head_file() -> bytes:
    with TemporaryDirectory() as folder:
        save_npz(tiny_head(), Path(folder) / "head.npz")
        return (Path(folder) / "head.npz").read_bytes()


@cache
def track_file() -> bytes:
    with TemporaryDirectory() as folder:
        write_flame_params(Path(folder) / "track.npz", talking_track(tiny_head(), frames=5))
        return (Path(folder) / "track.npz").read_bytes()


@cache
def vhap_file() -> bytes:
    t = talking_track(tiny_head(), frames=5)
    poses = {k: getattr(t, k) for k in ("rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")}
    raw = io.BytesIO()
    np.savez(raw, **poses, shape=t.shape, expr=t.expr, image_size=t.image_size, focal_length=np.array([1.5]), n_processed_frames=np.array(0))
    return raw.getvalue()


# --- networks


TINY = LiteConfig(image_size=28, hidden_size=24, layers=2, heads=2, position_grid=4, taps=(1, 2), widths=(8, 8, 8), stem_width=4)


@cache
def network_file() -> bytes:
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        save_network(Path(folder) / "net.safetensors", LiteNet(TINY))
        return (Path(folder) / "net.safetensors").read_bytes()


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.none(), st.booleans(), st.sampled_from(_ODD_NUMBERS), st.text(max_size=8), st.sampled_from(["F32", "F16", "densemarks-lite"]))
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8)


@st.composite
def networks(draw: st.DrawFn) -> bytes:
    """A lite network's file, damaged, or with another header, or other settings in it."""
    whole = network_file()
    kind = draw(st.sampled_from(["file", "begin", "header", "settings", "setting"]))
    if kind == "file":
        return draw(damaged(whole))
    (length,) = struct.unpack("<Q", whole[:8])
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    if kind == "begin":
        return draw(damaged(whole[: 8 + length])) + body
    if kind == "header":
        for key in draw(st.lists(st.sampled_from(sorted(header)), min_size=1, max_size=3)):
            if isinstance(header[key], dict) and draw(st.booleans()):
                header[key] = {**header[key], draw(st.sampled_from(["dtype", "shape", "data_offsets", "config", "cube", "architecture"])): draw(json_values())}
            else:
                header[key] = draw(json_values())
    elif kind == "settings":
        header["__metadata__"]["config"] = draw(st.one_of(json_values().map(json.dumps), st.text(max_size=20), st.just("[" * 100_000)))
    else:
        settings = json.loads(header["__metadata__"]["config"])
        for key in draw(st.lists(st.sampled_from(sorted(settings)), min_size=1, max_size=2)):
            settings[key] = draw(json_values())
        header["__metadata__"]["config"] = json.dumps(settings)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


# --- settings


@st.composite
def settings_files(draw: st.DrawFn) -> bytes:
    """A preset's file, damaged, or with other values at some of its keys, or any YAML."""
    whole = preset_file(draw(st.sampled_from(["fast", "balanced", "best"]))).read_bytes()
    kind = draw(st.sampled_from(["file", "values", "lines", "any"]))
    if kind == "file":
        return draw(damaged(whole))
    if kind == "lines":
        lines = whole.splitlines(keepends=True)
        return b"".join(draw(st.lists(st.sampled_from(lines), max_size=30)))
    if kind == "any":
        return draw(st.one_of(st.binary(max_size=60), st.text(st.sampled_from("{}[]&*!|>-?:,'\"%@` \n\tab019.~<"), max_size=80).map(str.encode)))
    content = yaml.safe_load(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = content
        while True:
            key = draw(st.sampled_from(sorted(place, key=str)))
            if not (isinstance(place[key], dict) and place[key] and draw(st.integers(0, 4))):
                break
            place = place[key]
        place[key] = draw(st.one_of(json_values(), st.sampled_from([*_ODD_NUMBERS, float("nan"), float("inf")])))
    return yaml.safe_dump(content, allow_unicode=True).encode()


def camera_texts() -> st.SearchStrategy[bytes]:
    """A camera's matrix as text."""
    return damaged(b"800 0 320\n0 800 180\n0 0 1\n")


def camera_arrays() -> st.SearchStrategy[bytes]:
    """A camera's matrix as ``.npy``."""
    return st.one_of(damaged(npy(np.diag([800.0, 800, 1]))), npy_claiming(), strange_arrays().map(npy))
