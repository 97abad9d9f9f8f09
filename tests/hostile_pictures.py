"""Photos and folders of pictures that are damaged, strange or none at all."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile_cases import Case
from tests.hostile_videos import flipped, from_bytes
from tests.make_clips import picture

MODES = {
    "1": "png", "L": "png", "LA": "png", "P": "png", "RGBA": "png", "I;16": "png", "CMYK": "jpg", "L-jpg": "jpg", "CMYK-tif": "tif", "F": "tif", "LAB": "tif",
    "RGBA-webp": "webp", "P-gif": "gif", "RGBX-tif": "tif", "I": "tif", "YCbCr": "jpg", "1-tif": "tif", "RGB-bmp": "bmp", "L-ppm": "pgm",
}  # fmt: skip


@lru_cache(maxsize=64)
def encoded(suffix: str, mode: str = "RGB", width: int = 64, height: int = 48, **options) -> bytes:
    raw = io.BytesIO()
    image = Image.fromarray(picture(3, width, height))
    if mode.startswith("I;16"):
        image = Image.fromarray(np.full((height, width), 0x8000, np.uint16))
    elif mode == "RGBX":
        image = image.convert("RGBX")
    elif mode != "RGB":
        image = image.convert("RGB").convert(mode) if mode != "LAB" else Image.fromarray(picture(3, width, height), "LAB")
    kind = {"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM"}.get(suffix, suffix.upper())
    image.save(raw, kind, **dict(options))
    return raw.getvalue()


def png(width: int, height: int, more: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says what it likes, with hardly any data behind it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    data = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    return struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))


def with_exif(content: bytes, suffix: str = "jpg") -> Callable[[], bytes]:
    return lambda: encoded(suffix, exif=content)


def exif(**tags: object) -> bytes:
    made = Image.Exif()
    for tag, value in tags.items():
        made[int(tag[1:], 16)] = value
    return made.tobytes()


def stills() -> list[Case]:
    cases = [Case(f"mode-{m}", from_bytes(f"a.{s}", lambda m=m, s=s: encoded(s, m.partition("-")[0])), "no face") for m, s in MODES.items()]
    for suffix in ("jpg", "png", "webp", "tif", "bmp", "gif"):
        for percent in (5, 60):
            cases.append(Case(f"{suffix}-cut-at-{percent}", from_bytes(f"a.{suffix}", lambda s=suffix, p=percent: encoded(s)[: len(encoded(s)) * p // 100])))
        for seed in range(6):
            slow = "like its neighbours" if seed > 1 else ""
            cases.append(Case(f"{suffix}-bits-{seed}", from_bytes(f"a.{suffix}", lambda s=suffix, k=seed: flipped(encoded(s), k, 8)), reason=slow))
    large = "too large"
    cases += [
        Case("png-50000", from_bytes("a.png", lambda: png(50_000, 50_000)), large),
        Case("png-65000-by-1", from_bytes("a.png", lambda: png(65_000, 1)), large),
        Case("png-largest", from_bytes("a.png", lambda: png(2**31 - 1, 2**31 - 1)), works=False),
        Case("png-no-size", from_bytes("a.png", lambda: png(0, 0)), works=False),
        Case("png-little-data", from_bytes("a.png", lambda: png(4000, 4000))),
        Case("png-text-bomb", from_bytes("a.png", lambda: png(8, 8, text_bomb()))),
        Case("png-odd-depth", from_bytes("a.png", lambda: png(8, 8, depth=7)), works=False),
        Case("ppm-absurd", from_bytes("a.ppm", lambda: b"P6 99999999 99999999 255\n" + bytes(99)), large),
        Case("ppm-negative", from_bytes("a.ppm", lambda: b"P6 -4 -4 255\n" + bytes(99)), works=False),
        Case("pgm-65535", from_bytes("a.pgm", lambda: b"P5 8 8 65535\n" + bytes(128)), "no face"),
        Case("bmp-huge", from_bytes("a.bmp", lambda: encoded("bmp")[:18] + struct.pack("<ii", 2**30, -(2**30)) + encoded("bmp")[26:]), works=False),
        Case("jpg-1-by-65000", from_bytes("a.jpg", lambda: encoded("jpg", width=4, height=65_000)), large),
        Case("tif-tags-in-a-circle", from_bytes("a.tif", lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0")),
        Case("tif-many-tags", from_bytes("a.tif", lambda: b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 2000)),
        Case("pages", from_bytes("a.tif", lambda: encoded("tif", save_all=True)), "no face"),
        Case("1-pixel-png", from_bytes("a.png", lambda: encoded("png", width=1, height=1)), "no face"),
        Case("icc-junk", from_bytes("a.jpg", lambda: encoded("jpg", icc_profile=b"junk" * 20_000)), "no face"),
        Case("progressive", from_bytes("a.jpg", lambda: encoded("jpg", progressive=True)), "no face"),
    ]
    for name, content in {
        "orientation-0": exif(x112=0), "orientation-9": exif(x112=9), "orientation-huge": exif(x112=65535), 
        "no-exif": b"Exif\0\0", "junk": b"Exif\0\0" + b"\xff" * 300, "circle": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        "huge-offset": b"Exif\0\0II*\0\xff\xff\xff\x7f", "maker": exif(x927C=b"\0" * 30_000),
    }.items():  # fmt: skip
        cases.append(Case(f"exif-{name}", from_bytes("a.jpg", with_exif(content)), "no face"))
    return cases


def moving() -> list[Case]:
    """Animations."""

    def animated(kind: str, frames: int, **options) -> bytes:
        raw = io.BytesIO()
        pictures = [Image.fromarray(picture(i)) for i in range(frames)]
        pictures[0].save(raw, kind, save_all=True, append_images=pictures[1:], **options)
        return raw.getvalue()

    cases = []
    for suffix, kind in (("webp", "WEBP"), ("gif", "GIF"), ("png", "PNG")):
        for name, options in {"": {"duration": 100}, "-no-time": {"duration": 0}, "-uneven": {"duration": [10, 5000, 20, 1]}}.items():
            cases.append(Case(f"moving-{suffix}{name}", from_bytes(f"a.{suffix}", lambda k=kind, o=options: animated(k, 4, **o)), "no face"))
        for percent in (20, 70):
            cases.append(Case(f"moving-{suffix}-cut-{percent}", from_bytes(f"a.{suffix}", lambda k=kind, p=percent: _cut(animated(k, 12, duration=50), p))))
        cases.append(Case(f"moving-{suffix}-bits", from_bytes(f"a.{suffix}", lambda k=kind: flipped(animated(k, 12, duration=50), 1, 5, 0.1))))
    cases.append(Case("moving-webp-called-mp4", from_bytes("a.mp4", lambda: animated("WEBP", 4, duration=40)), "no face"))
    return cases


def _cut(data: bytes, percent: int) -> bytes:
    return data[: len(data) * percent // 100]


def folders() -> list[Case]:
    def folder(files: dict[str, bytes | None]) -> Callable[[Path], list[str]]:
        def write(place: Path) -> list[str]:
            (place / "frames").mkdir()
            for name, content in files.items():
                (place / "frames" / name).mkdir() if content is None else (place / "frames" / name).write_bytes(content)
            return ["--video", str(place / "frames")]

        return write

    def with_odd_entries(place: Path) -> list[str]:
        frames = place / "frames"
        frames.mkdir()
        (frames / "0.png").write_bytes(encoded("png"))
        (frames / "1.png").symlink_to(frames / "1.png")
        (frames / "2.png").symlink_to(frames / "none.png")
        if hasattr(os, "mkfifo"):
            os.mkfifo(frames / "3.png")
        (frames / "4.png").mkdir()
        (frames / "5.png").symlink_to("/dev/zero")
        return ["--video", str(frames)]

    one, small = encoded("png"), encoded("png", width=32, height=32)
    none = "no images"
    return [
        Case("folder-empty", folder({}), none),
        Case("folder-texts", folder({"a.txt": b"x", "b.mp4": b"y", "c": b"z"}), none),
        Case("folder-folders", folder({"a.png": None, "b.png": None}), none),
        Case("folder-hidden-alone", folder({".a.png": one, "._b.png": b"junk"}), none),
        Case("folder-mixed-sizes", folder({"0.png": one, "1.png": small}), "64x48"),
        Case("folder-one-broken", folder({"0.png": one, "1.png": one[:40], "2.png": one}), "1.png"),
        Case("folder-first-broken", folder({"0.png": b"", "1.png": one}), "0.png"),
        Case("folder-text-called-png", folder({"0.png": one, "1.png": b"hello"}), "1.png"),
        Case("folder-others-among-them", folder({"0.png": one, "1.txt": b"x", "Thumbs.db": b"y", "2.png": one}), "2 frames"),
        Case("folder-odd-entries", with_odd_entries, "1 frames"),
        Case("folder-unicode", folder({"ä 漢.png": one, "🙂.png": one, "\udcff.png": one, "٣.png": one, "²①.png": one}), "5 frames"),
        Case("folder-large-numbers", folder({"9" * 240 + ".png": one, "0" * 240 + ".png": one, "-1.png": one}), "3 frames"),
        Case("folder-kinds", folder({"0.png": one, "1.jpg": encoded("jpg", "CMYK"), "2.tif": encoded("tif", "I"), "3.png": encoded("png", "P")}), "4 frames"),
        Case("folder-turned-one", folder({"0.jpg": encoded("jpg"), "1.jpg": encoded("jpg", exif=exif(x112=6))}), "48x64"),
        Case("folder-one-moves", folder({"0.png": one, "1.webp": encoded("webp", save_all=True)}), "2 frames"),
        Case("folder-thousands", folder({f"{i}.png": one for i in range(2000)}), "2000 frames", reason="takes ten seconds"),
        Case("folder-large-one", folder({"0.png": one, "1.png": png(50_000, 50_000)}), "too large"),
    ]  # fmt: skip


def pictures() -> list[Case]:
    return [*stills(), *moving(), *folders()]
