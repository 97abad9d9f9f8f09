"""Heads, networks, landmarkers and cameras that are damaged, absurd, or want to run something."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from densemarks_model.loading import SHIPPED
from flame_assets.asset import save_npz
from flame_assets.load import DEFAULT_HEAD
from tests.heads import tiny_head
from tests.hostile_cases import Case
from tests.hostile_videos import flipped
from tracker.video.packaged_clips import EXCERPT

LANDMARKER = DEFAULT_HEAD.with_name("face_landmarker_v2.task")


def option(name: str, file: str, make: Callable[[], bytes]) -> Callable[[Path], list[str]]:
    """A file of this content for an option."""

    def write(folder: Path) -> list[str]:
        (folder / file).write_bytes(make())
        return ["--video", str(EXCERPT), "--max-frames", "2", "--no-overlay", name, str(folder / file)]

    return write


@lru_cache(maxsize=1)
def head_bytes() -> bytes:
    with TemporaryDirectory() as folder:
        save_npz(tiny_head(), Path(folder) / "head.npz")
        return (Path(folder) / "head.npz").read_bytes()


def head_with(change: Callable[[dict[str, np.ndarray]], object], pickled: bool = False) -> Callable[[], bytes]:
    def make() -> bytes:
        with np.load(io.BytesIO(head_bytes()), allow_pickle=False) as file:
            arrays = dict(file.items())
        change(arrays)
        raw = io.BytesIO()
        np.savez(raw, **arrays)
        return raw.getvalue()

    return make


def put(key: str, make: Callable[[np.ndarray], object]) -> Callable[[dict], object]:
    return lambda arrays: arrays.update({key: np.asarray(make(arrays[key]))})


def bomb(shape: tuple[int, ...]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("v_template", "shapedirs"):
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                for _ in range(30):
                    file.write(bytes(1 << 20))
    return raw.getvalue()


def sparse_flame(folder: Path) -> list[str]:
    """A file that claims two gigabytes and takes none."""
    with (folder / "flame.pkl").open("wb") as file:
        file.truncate(2_000_000_000)
    return ["--video", str(EXCERPT), "--head", str(folder / "flame.pkl")]


class Runs:
    def __reduce__(self):
        return os.system, ("touch hacked",)


NUMBERS = ("v_template", "shapedirs", "posedirs", "joint_regressor", "weights")
KEYS = (*NUMBERS, "faces", "uv", "uv_faces", "canonical", "n_identity", "expression_names", "expression_range", "provenance", "cube", "name")


def heads() -> list[Case]:
    npz = "head.npz"
    changes: dict[str, Callable[[dict], object]] = {}
    for key in KEYS:
        changes[f"{key}-missing"] = lambda a, k=key: a.pop(k, None)
        changes[f"{key}-object"] = lambda a, k=key: a.update({k: np.array([Runs()], object)})
        changes[f"{key}-text"] = lambda a, k=key: a.update({k: np.array("x")})
        changes[f"{key}-empty"] = lambda a, k=key: a.update({k: np.zeros(0, np.float32)})
    for key in NUMBERS:
        changes[f"{key}-nan"] = put(key, lambda x: np.where(np.arange(x.size).reshape(x.shape) == 5, np.nan, x))
        changes[f"{key}-huge"] = put(key, lambda x: x * np.float32(1e30))
        changes[f"{key}-zero"] = put(key, np.zeros_like)
        changes[f"{key}-complex"] = put(key, lambda x: x.astype(np.complex64))
        changes[f"{key}-flat"] = put(key, np.ravel)
    changes |= {
        "faces-one-point": put("faces", np.zeros_like), "n-identity-huge": lambda a: a.update(n_identity=np.array(10**9)),
        "no-identity": lambda a: a.update(n_identity=np.array(0), shapedirs=a["shapedirs"][:, :, int(a["n_identity"]) :]),
        "cube-99": lambda a: a.update(cube=np.array(99)), "range-backwards": lambda a: a.update(expression_range=np.array([1.0, 0.0], np.float32)),
        "range-nan": lambda a: a.update(expression_range=np.array([np.nan, 1], np.float32)), "provenance-deep": lambda a: a.update(provenance=np.array("[" * 9999)),
        "name-odd": lambda a: a.update(name=np.array("../\x1b[31m\n")), "region-odd": lambda a: a.update({"region/a/b": np.zeros(3, np.int32)}),
        "region-float": lambda a: a.update({"region/face": np.array([0.5])}), "landmarks-odd": lambda a: a.update({"landmarks/x": np.zeros(3)}),
        "landmarks-none": lambda a: [a.pop(k) for k in list(a) if k.startswith("landmarks/mediapipe")],
        "mirrored": put("v_template", lambda x: x * np.array([-1, 1, 1], np.float32)),
    }  # fmt: skip
    slow = {"missing": "", "nan": "", "object": "like its neighbours", "text": "", "empty": "like its neighbours", "huge": "", "zero": "", "complex": "like its neighbours"}
    cases = [
        Case(f"head-{n}", option("--head", npz, head_with(c)), reason=slow.get(n.rsplit("-", 1)[-1], "") if not n.startswith("weights") else "")
        for n, c in changes.items()
    ]
    whole = head_bytes
    for percent in (2, 50, 99):
        cases.append(Case(f"head-cut-at-{percent}", option("--head", npz, lambda p=percent: whole()[: len(whole()) * p // 100]), works=False))
    for seed in range(12):
        cases.append(Case(f"head-bits-{seed}", option("--head", npz, lambda k=seed: flipped(whole(), k, 6)), reason="like its neighbours" if seed > 3 else ""))
    cases += [
        Case("head-claims-terabytes", option("--head", npz, lambda: bomb((10**6, 10**6))), "unpacked"),
        Case("head-claims-overflow", option("--head", npz, lambda: bomb((2**40, 2**40))), works=False),
        Case("head-negative-shape", option("--head", npz, lambda: bomb((-1, 3))), works=False),
        Case("head-empty", option("--head", npz, lambda: b""), works=False),
        Case("head-no-zip", option("--head", npz, lambda: b"hello" * 99), works=False),
        Case("head-npz-called-pkl", option("--head", "head.pkl", whole), "zip archive"),
        Case("head-folder-empty", lambda f: ["--video", str(EXCERPT), "--head", str(f)], "no FLAME model"),
        Case("head-flame-too-large", sparse_flame, "and no head needs more", works=False),
        Case("head-device", lambda f: ["--video", str(EXCERPT), "--head", "/dev/zero"], "a pipe or a device", works=False),
    ]
    return [*cases, *flames()]


def flames() -> list[Case]:
    """FLAME's pickles."""
    files = {
        "runs-0": pickle.dumps(Runs(), 0), "runs-2": pickle.dumps({"f": Runs()}, 2), "runs-5": pickle.dumps([Runs()] * 3, 5), "empty": b"", "words": b"hello",
        "dictionary": pickle.dumps({}), "list": pickle.dumps([1, 2]), "number": pickle.dumps(3), "protocol-99": b"\x80\x63.", "python-2-text": b"S'v_template'\np0\n.",
        "global-eval": b"cbuiltins\neval\n(S'1'\ntR.", "inst": b"(S'1'\nios\nsystem\n.", "persistent": b"Pabc\n.", "extension": b"\x82\x01.", "memo-huge": b"\x80\x02j\xff\xff\xff\x7f.",
        "long-huge": b"\x80\x02\x8b\xff\xff\xff\x7f.", "bytes-huge": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", "frame-huge": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
        "put-huge": b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b".", "deep": b"(" * 50_000 + b"t" * 50_000 + b".", "deep-lists": b"]" + b"]a" * 0 + b"(l" * 3000 + b".",
        "in-itself": b"]q\x00h\x00a.", "no-end": b"\x80\x04}", "get-missing": b"h\x07.", "doubling": b"]q\x00" + b"(h\x00h\x00lq\x00" * 40 + b".", "text-bad": b"\x80\x02X\x04\0\0\0\xff\xff\xff\xff.",
        "wrong-shapes": pickle.dumps({k: np.zeros(3) for k in ("f", "v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")}),
        "objects": pickle.dumps({k: np.array([Path("/")], object) for k in ("f", "v_template")}),
        "nan": pickle.dumps({k: np.full((5023, 3), np.nan) for k in ("f", "v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")}),
    }  # fmt: skip
    return [Case(f"flame-{n}", option("--head", "flame.pkl", lambda c=c: c), works=False) for n, c in files.items()]


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def shipped_with(metadata: dict[str, str] | None = None, keep: float = 1.0, scale: float | None = None) -> Callable[[], bytes]:
    """The shipped network's file, changed."""

    def make() -> bytes:
        data = SHIPPED.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        body = data[8 + length :]
        if metadata is not None:
            header["__metadata__"] = {**header["__metadata__"], **metadata}
        if scale is not None:
            body = (np.frombuffer(body, np.float16) * np.float16(scale)).tobytes()
        made = safetensors(header, body)
        return made[: int(len(made) * keep)]

    return make


def networks() -> list[Case]:
    one = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    lite = {"__metadata__": {"architecture": "densemarks-lite", "config": "{}", "cube": "2"}}

    def configured(config: str) -> bytes:
        return safetensors({"__metadata__": {"architecture": "densemarks-lite", "config": config, "cube": "2"}, **one}, bytes(8))

    files: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"", "words": lambda: b"hello" * 50, "header-absurd": lambda: safetensors({}, length=2**63), "header-long": lambda: safetensors({}, length=10**8),
        "header-none": lambda: safetensors(b"", length=0), "header-no-json": lambda: safetensors(b"{{{{{{"), "header-list": lambda: safetensors([1]),
        "header-deep": lambda: safetensors(b"[" * 50_000), "offsets-backwards": lambda: safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, bytes(8)),
        "offsets-beyond": lambda: safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**60]}}, bytes(8)),
        "shape-overflow": lambda: safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8)),
        "dtype-unknown": lambda: safetensors({"a": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "wrong-tensors": lambda: safetensors(one, bytes(8)),
        "lite-without-tensors": lambda: safetensors(lite), "metadata-numbers": lambda: safetensors({"__metadata__": {"architecture": 3}}),
        "config-list": lambda: configured("[]"), "config-no-json": lambda: configured("x"), "config-deep": lambda: configured("[" * 9999), "config-unknown": lambda: configured('{"x": 1}'),
        "config-huge": lambda: configured('{"hidden_size": 1000000000, "layers": 100000}'), "config-layers": lambda: configured('{"layers": 1000000}'),
        "config-image": lambda: configured('{"image_size": 1000000006}'), "config-zero": lambda: configured('{"patch_size": 0}'), "config-negative": lambda: configured('{"hidden_size": -4}'),
        "config-text": lambda: configured('{"layers": "x"}'), "config-taps": lambda: configured('{"taps": 3}'), "config-nan": lambda: configured('{"image_size": NaN}'),
        "cube-99": shipped_with({"cube": "99"}), "cube-text": shipped_with({"cube": "x"}), "architecture-other": shipped_with({"architecture": "resnet"}), "cut": shipped_with(keep=0.5),
        "ranges-junk": shipped_with({"int8_ranges": "x"}), "all-zero": shipped_with({"head": "default"}, scale=0.0), "all-infinite": shipped_with(scale=np.inf),
        "halved": shipped_with({"head": "default"}, scale=0.05),
    }  # fmt: skip
    heavy = {"cube-99", "cube-text", "architecture-other", "cut", "ranges-junk", "all-infinite", "halved"}
    cases = []
    for name, make in files.items():
        works = None if name in ("ranges-junk", "halved") else False
        said = "does not see the head" if name == "all-zero" else ""
        cases.append(
            Case(f"network-{name}", option("--network", "net.safetensors", make), said, works, preset="balanced", reason="49 MB each" if name in heavy else "")
        )
    points = {"words": b"hello", "empty": b"", "runs": pickle.dumps(Runs()), "zip": b"PK\x03\x04" + bytes(200)}
    cases += [Case(f"network-pt-{n}", option("--network", "net.pt", lambda c=c: c), works=False, preset="balanced") for n, c in points.items()]
    cases.append(Case("network-folder", lambda f: ["--video", str(EXCERPT), "--network", str(f)], works=False, preset="balanced"))
    cases.append(Case("network-device", lambda f: ["--video", str(EXCERPT), "--network", "/dev/zero"], works=False, preset="balanced"))
    return cases


def landmarkers() -> list[Case]:
    def task(members: dict[str, bytes]) -> bytes:
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return raw.getvalue()

    names = ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite")
    files: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"", "words": lambda: b"hello", "zip-empty": lambda: task({}), "others": lambda: task({"pose.tflite": b"x"}),
        "members-empty": lambda: task(dict.fromkeys(names, b"")), "members-junk": lambda: task(dict.fromkeys(names, b"TFL3" * 99)), "cut": lambda: LANDMARKER.read_bytes()[:200_000],
        "bits-early": lambda: flipped(LANDMARKER.read_bytes(), 1, 3),
    }  # fmt: skip
    cases = [Case(f"landmarker-{n}", option("--landmarker", "a.task", m), works=None if n.startswith("bits") else False) for n, m in files.items()]
    return [*cases, Case("landmarker-folder", lambda f: ["--video", str(EXCERPT), "--landmarker", str(f)], works=False)]


def cameras() -> list[Case]:
    def npy(array: np.ndarray, pickled: bool = False) -> bytes:
        raw = io.BytesIO()
        np.save(raw, array, allow_pickle=pickled)
        return raw.getvalue()

    def claims(shape: tuple[int, ...]) -> bytes:
        raw = io.BytesIO()
        np.lib.format.write_array_header_1_0(raw, {"descr": "<f8", "fortran_order": False, "shape": shape})
        return raw.getvalue()

    def k(fx: float = 800, fy: float = 800, cx: float = 320, cy: float = 180, skew: float = 0) -> bytes:
        return f"{fx} {skew} {cx}\n0 {fy} {cy}\n0 0 1\n".encode()

    texts = {
        "empty": b"", "words": b"a b c\n", "two-rows": b"1 0 0\n0 1 0\n", "ragged": b"1 0\n0 1 0\n0 0 1\n", "four": b"1 0 0 0\n" * 4, "binary": bytes(range(256)), "commas": b"1,0,0\n0,1,0\n0,0,1",
        "nan": k(cx=float("nan")), "inf": k(fx=float("inf")), "huge": k(1e300, 1e300), "zero": k(0, 0), "negative": k(-800, -800), "not-square": k(800, 1200), "centre-1e9": k(cx=1e9 - 1),
        "centre-negative": k(cx=-5000), "centre-of-4k": k(3000, 3000, 1920, 1080), "focal-tiny": k(1e-9, 1e-9), "focal-large": k(1e7, 1e7), "long": b"1 " * 200_000, "numbers-long": b"9" * 5000,
        "transposed": b"800 0 0\n0 800 0\n320 180 1\n", "utf-16": "800 0 320".encode("utf-16"),
    }  # fmt: skip
    arrays = {
        "objects": npy(np.array([Runs()], object), True), "text": npy(np.array([["a"] * 3] * 3)), "complex": npy(np.eye(3) * 1j), "flat": npy(np.ones(9)), "claims": claims((10**6, 10**6)),
        "negative": claims((-3, 3)), "nothing-behind": claims((3, 3)), "archive": head_bytes()[:90_000], "words": b"hello", "integers": npy(np.zeros((3, 3), int)),
        "header-runs": b"\x93NUMPY\x01\0\x40\0" + b"__import__('os').system('touch hacked')".ljust(64),
    }  # fmt: skip
    cases = [Case(f"camera-{n}", option("--intrinsics", "k.txt", lambda c=c: c), "--intrinsics" if not n.startswith("focal") else "focal", False) for n, c in texts.items()]
    cases += [Case(f"camera-npy-{n}", option("--intrinsics", "k.npy", lambda c=c: c), "--intrinsics", False) for n, c in arrays.items()]
    return [
        *cases,
        Case("camera-device", lambda f: ["--video", str(EXCERPT), "--intrinsics", "/dev/zero"], "--intrinsics"),
        Case("camera-good", option("--intrinsics", "k.txt", k), works=True),
    ]


def models() -> list[Case]:
    return [*heads(), *networks(), *landmarkers(), *cameras()]
