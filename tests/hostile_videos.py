"""Videos that are damaged, strange or none at all."""

from __future__ import annotations

import os
import socket
import struct
import zipfile
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from PIL import Image

from tests.hostile_cases import Case
from tests.make_clips import picture, write_clip

CODECS = {
    "mp4": ("libx264", "yuv420p"), "mkv": ("libx264", "yuv420p"), "webm": ("libvpx-vp9", "yuv420p"), "avi": ("mjpeg", "yuvj420p"),
    "ts": ("libx264", "yuv420p"), "gif": ("gif", "rgb8"), "flv": ("flv1", "yuv420p"), "mov": ("prores_ks", "yuv422p10le"),
}  # fmt: skip
UNUSUAL = {
    "ffv1-grey.mkv": ("ffv1", "gray"), "ffv1-16bit.mkv": ("ffv1", "gray16le"), "alpha.mov": ("qtrle", "argb"), "alpha.webm": ("libvpx-vp9", "yuva420p"),
    "bgr.avi": ("huffyuv", "rgb24"), "10bit.mkv": ("libx264", "yuv420p10le"), "444.mp4": ("libx264", "yuv444p"), "raw.avi": ("rawvideo", "yuv420p"),
    "dnx.mov": ("prores_ks", "yuva444p10le"), "png.mov": ("png", "rgb24"), "mpeg4.3gp": ("mpeg4", "yuv420p"),
    "msmpeg4.asf": ("msmpeg4", "yuv420p"), "wmv.wmv": ("wmv2", "yuv420p"), "rgb.mp4": ("libx264rgb", "rgb24"), "vp8.webm": ("libvpx", "yuv420p"),
}  # fmt: skip


@lru_cache(maxsize=64)
def whole(suffix: str, frames: int = 12) -> bytes:
    """A small clip without a face, its index first where it has one."""
    rng = np.random.default_rng(0)
    images = [picture(i, 96, 64) // 2 + rng.integers(0, 120, (64, 96, 3), np.uint8) for i in range(frames)]
    codec, pixels = CODECS[suffix]
    with TemporaryDirectory() as folder:
        options = {"movflags": "faststart"} if suffix in ("mp4", "mov") else {}
        return write_clip(Path(folder) / f"a.{suffix}", images, codec=codec, pixel_format=pixels, options=options).read_bytes()


def from_bytes(name: str, make: Callable[[], bytes]) -> Callable[[Path], list[str]]:
    """A file of this content as the video."""

    def write(folder: Path) -> list[str]:
        (folder / name).write_bytes(make())
        return ["--video", str(folder / name)]

    return write


def flipped(data: bytes, seed: int, count: int = 25, from_share: float = 0.0) -> bytes:
    rng = np.random.default_rng(seed)
    out = bytearray(data)
    for at in rng.integers(int(len(data) * from_share), len(data), count):
        out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def overwritten(data: bytes, start: float, share: float, content: int | None) -> bytes:
    out, at = bytearray(data), int(len(data) * start)
    length = int(len(data) * share)
    rng = np.random.default_rng(1)
    out[at : at + length] = bytes([content]) * length if content is not None else rng.integers(0, 256, length, np.uint8).tobytes()
    return bytes(out)


def box_changed(box: bytes, offset: int, form: str, value: int) -> bytes:
    """An MP4 in which a number of a box is another one."""
    out = bytearray(whole("mp4"))
    struct.pack_into(form, out, out.index(box) + 4 + offset, value)
    return bytes(out)


def damaged() -> list[Case]:
    cases = []
    for suffix in CODECS:
        for percent in (1, 30, 70, 97):
            cases.append(Case(f"{suffix}-cut-at-{percent}", from_bytes(f"a.{suffix}", lambda s=suffix, p=percent: whole(s)[: len(whole(s)) * p // 100])))
        for seed in range(3):
            slow = "like its neighbours" if seed == 2 else ""
            cases.append(Case(f"{suffix}-bits-{seed}", from_bytes(f"a.{suffix}", lambda s=suffix, k=seed: flipped(whole(s), k)), reason=slow))
        slow = "like mp4" if suffix not in ("mp4", "mkv") else ""
        cases.append(Case(f"{suffix}-zeros-inside", from_bytes(f"a.{suffix}", lambda s=suffix: overwritten(whole(s), 0.4, 0.3, 0)), reason=slow))
        cases.append(Case(f"{suffix}-noise-inside", from_bytes(f"a.{suffix}", lambda s=suffix: overwritten(whole(s), 0.4, 0.3, None)), reason=slow))
        cases.append(Case(f"{suffix}-noise-first", from_bytes(f"a.{suffix}", lambda s=suffix: overwritten(whole(s), 0, 0.05, None)), reason=slow))
        cases.append(Case(f"{suffix}-twice", from_bytes(f"a.{suffix}", lambda s=suffix: whole(s) * 2), reason=slow))
        cases.append(Case(f"{suffix}-junk-before", from_bytes(f"a.{suffix}", lambda s=suffix: b"junk" * 300 + whole(s)), reason=slow))
    many = "the short list has ten of a kind"
    for seed in range(3, 30):
        cases.append(Case(f"mp4-bits-{seed}", from_bytes("a.mp4", lambda k=seed: flipped(whole("mp4"), k, 1 + k)), reason=many))
        cases.append(Case(f"mkv-bits-{seed}", from_bytes("a.mkv", lambda k=seed: flipped(whole("mkv"), k, 1 + k)), reason=many))
    return cases


BOXES = {
    "stts-no-time": (b"stts", 12, ">I", 0),
    "stts-huge-time": (b"stts", 12, ">I", 0x7FFFFFFF),
    "stts-largest-time": (b"stts", 12, ">I", 0xFFFFFFFF),
    "stts-no-frames": (b"stts", 8, ">I", 0),
    "stts-too-many-frames": (b"stts", 8, ">I", 0x7FFFFFFF),
    "stts-no-entries": (b"stts", 4, ">I", 0),
    "stts-too-many-entries": (b"stts", 4, ">I", 0x0FFFFFFF),
    "timescale-0": (b"mdhd", 12, ">I", 0),
    "timescale-1": (b"mdhd", 12, ">I", 1),
    "timescale-huge": (b"mdhd", 12, ">I", 0xFFFFFFFF),
    "duration-0": (b"mdhd", 16, ">I", 0),
    "duration-huge": (b"mdhd", 16, ">I", 0xFFFFFFFF),
    "width-0": (b"avc1", 24, ">H", 0),
    "width-huge": (b"avc1", 24, ">H", 65535),
    "codec-unknown": (b"avc1", -4, ">I", 0x41424344),
    "sample-size-huge": (b"stsz", 4, ">I", 0x7FFFFFFF),
    "samples-too-many": (b"stsz", 8, ">I", 0x7FFFFFFF),
    "chunk-offset-huge": (b"stco", 8, ">I", 0x7FFFFFFF),
    "box-too-long": (b"trak", -8, ">I", 0x7FFFFFFF),
    "matrix-odd": (b"tkhd", 40, ">I", 0x12345678),
}


def strange_times() -> list[Case]:
    cases = [Case(f"mp4-{name}", from_bytes("a.mp4", lambda c=change: box_changed(*c))) for name, change in BOXES.items()]

    def timed(name: str, stamps: list[float], **options) -> Callable[[Path], list[str]]:
        return lambda folder: ["--video", str(write_clip(folder / name, [picture(i) for i in range(len(stamps))], stamps, codec="libx264", **options))]

    cases += [
        Case("mkv-from-1000-s", timed("a.mkv", [1000 + i / 25 for i in range(8)]), "no face"),
        Case("mp4-from-100000-s", timed("a.mp4", [1e5 + i / 25 for i in range(8)]), "no face"),
        Case("one-frame-an-hour", timed("a.mkv", [0, 3600, 7200]), "no face"),
        Case("ten-thousand-a-second", timed("a.mp4", [i / 10_000 for i in range(8)]), "no face"),
        Case("one-frame", timed("a.mp4", [0.0]), "no face"),
    ]
    return cases


def strange_sizes() -> list[Case]:
    def sized(name: str, width: int, height: int, codec: str = "ffv1", pixels: str = "gray", aspect: Fraction | None = None):
        return lambda folder: [
            "--video", str(write_clip(folder / name, [np.full((height, width, 3), 90, np.uint8)] * 2, codec=codec, pixel_format=pixels, sample_aspect=aspect))
        ]  # fmt: skip

    def spaced(width: int, height: int, across: int, down: int):
        def write(folder: Path) -> list[str]:
            sized("a.mp4", width, height, "libx264", "yuv420p", Fraction(2))(folder)
            data = bytearray((folder / "a.mp4").read_bytes())
            struct.pack_into(">II", data, data.index(b"pasp") + 4, across, down)
            (folder / "a.mp4").write_bytes(bytes(data))
            return ["--video", str(folder / "a.mp4")]

        return write

    large = "too large"
    return [
        Case("1-by-1", sized("a.mkv", 1, 1), "no face"),
        Case("1-by-400", sized("a.mov", 1, 400, "png", "rgb24"), "no face"),
        Case("400-by-1", sized("a.mkv", 400, 1), "no face"),
        Case("2-by-2-h264", sized("a.mp4", 2, 2, "libx264", "yuv420p"), "no face"),
        Case("16384-by-2", sized("a.mkv", 16_384, 2), "no face"),
        Case("16386-by-2", sized("a.mkv", 16_386, 2), large),
        Case("65000-by-2", sized("a.mkv", 65_000, 2), large),
        Case("2-by-40000", sized("a.mkv", 2, 40_000), large),
        Case("wide-pixels-200", spaced(320, 40, 200, 1), large),
        Case("tall-pixels-1000", spaced(40, 320, 1, 1000), large),
        Case("odd-pixels", sized("a.mkv", 63, 47, aspect=Fraction(17, 13)), "no face"),
        Case("wide-pixels-10", sized("a.mkv", 64, 48, aspect=Fraction(10)), "no face"),
    ]


def unusual_codecs() -> list[Case]:
    def coded(name: str, codec: str, pixels: str):
        return lambda folder: ["--video", str(write_clip(folder / name, [picture(i, 352, 288) for i in range(3)], codec=codec, pixel_format=pixels))]

    cases = []
    for name, (codec, pixels) in UNUSUAL.items():
        if codec in av.codecs_available:
            cases.append(Case(f"codec-{name}", coded(name, codec, pixels), "no face"))
    return cases


def no_videos() -> list[Case]:
    """Files that hold no moving pictures."""
    texts = {
        "words.mp4": b"hello\n" * 100, "page.mp4": b"<!doctype html><html><body>404</body></html>", "data.json": b'{"video": 1}',
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/passwd\n#EXT-X-ENDLIST\n", "list.ffconcat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "a.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n", "a.srt": b"1\n00:00:00,000 --> 00:00:01,000\nhi\n",
        "a.ass": b"[Script Info]\nScriptType: v4.00+\n[Events]\n", "a.svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>",
        "a.ps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "a.pdf": b"%PDF-1.4\n" + b"x" * 500, "a.exe": b"MZ" + bytes(500),
        "elf.mp4": b"\x7fELF" + bytes(500), "nothing.mp4": b"", "one-byte.mp4": b"\0", "zeros.mp4": bytes(10_000), "ftyp.mp4": b"\0\0\0\x18ftypisom" + bytes(12),
        "riff.avi": b"RIFF\xff\xff\xff\xffAVI LIST", "ebml.mkv": b"\x1aE\xdf\xa3" + b"\xff" * 50, "sync.ts": b"G" * 188 * 10, "nal.h264": b"\0\0\0\1" * 100,
        "mpd.xml": b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'/>", "utf16.txt": "hello".encode("utf-16") * 50,
    }  # fmt: skip
    cases = [Case(f"content-{name}", from_bytes(name, lambda c=content: c), works=False) for name, content in texts.items()]

    def archive(folder: Path) -> list[str]:
        with zipfile.ZipFile(folder / "a.mp4", "w") as file:
            file.writestr("a.mp4", whole("mp4"))
        return ["--video", str(folder / "a.mp4")]

    def sound(folder: Path) -> list[str]:
        return ["--video", str(write_clip(folder / "a.m4a", [], tone="aac", tone_seconds=0.5, container="mp4"))]

    def wave(folder: Path) -> list[str]:
        return ["--video", str(write_clip(folder / "a.wav", [], tone="pcm_s16le", tone_seconds=0.2))]

    def renamed(source: str, target: str, said: str = "no face"):
        return Case(f"{source}-called-{target}", from_bytes(f"a.{target}", lambda: whole(source)), said)

    return [
        *cases,
        Case("archive", archive, works=False),
        Case("sound-alone", sound, "only sound"),
        Case("wave", wave, "only sound"),
        renamed("mp4", "jpg"), renamed("mkv", "mp4"), renamed("gif", "mp4"), renamed("mp4", "txt"), renamed("webm", "png"), renamed("mp4", "webp"),
        Case("jpg-called-mp4", from_bytes("a.mp4", lambda: _still("JPEG")), "no face"),
        Case("png-called-mkv", from_bytes("a.mkv", lambda: _still("PNG")), "no face"),
    ]  # fmt: skip


def _still(kind: str) -> bytes:
    with TemporaryDirectory() as folder:
        Image.fromarray(picture(0)).save(Path(folder) / "a", kind)
        return (Path(folder) / "a").read_bytes()


def no_files() -> list[Case]:
    """Paths that are no ordinary files."""

    def named(name: str, make: Callable[[Path], object], said: str, **options) -> Case:
        def write(folder: Path) -> list[str]:
            make(folder / "a.mp4")
            return ["--video", str(folder / "a.mp4")]

        return Case(name, write, said, **options)

    def locked(path: Path) -> None:
        path.write_bytes(whole("mp4"))
        path.chmod(0)

    def locked_folder(path: Path, mode: int = 0) -> None:
        path.mkdir()
        Image.fromarray(picture(0)).save(path / "0.png")
        path.chmod(mode)

    def plain(name: str, path: str, said: str) -> Case:
        return Case(name, lambda folder: ["--video", path.replace("HERE", str(folder))], said)

    cases = [
        named("link-to-itself", lambda p: p.symlink_to(p), "link"),
        named("link-to-nothing", lambda p: p.symlink_to(p.with_name("none")), "no such file"),
        named("no-permission", locked, "permission", unprivileged=True),
        named("folder-without-permission", locked_folder, "permission", unprivileged=True),
        named("folder-that-lists-only", lambda p: locked_folder(p, 0o444), "", unprivileged=True, works=False),
        plain("missing", "HERE/none.mp4", "no such file"),
        plain("long-name", "HERE/" + "a" * 300 + ".mp4", "too long"),
        plain("long-path", "/".join(["HERE"] + ["b" * 200] * 30), "too long"),
        plain("below-a-file", "/etc/passwd/a.mp4", "no such file"),
        plain("web-address", "https://example.com/a.mp4", "no such file"),
        plain("ffmpeg-protocol", "concat:a.mp4|b.mp4", "no such file"),
        plain("empty-name", "", ""),
        plain("control-characters", "HERE/\x1b[31m\n\r\t.mp4", "no such file"),
        plain("no-utf-8", "HERE/\udcff\udcfe.mp4", "no such file"),
        plain("nul", "HERE/a\0b.mp4", "no such file"),
    ]
    if hasattr(os, "mkfifo"):
        cases += [named("pipe", os.mkfifo, "pipe"), plain("device-null", "/dev/null", "pipe"), plain("device-zero", "/dev/zero", "pipe")]
    if hasattr(socket, "AF_UNIX"):
        cases.append(Case("socket", _socket, "pipe"))
    for name in ("ünï 漢字 🙂.mp4", "a'b\"c$(d).mp4", "%d%s{0}.mp4", "\udcff\udcfe.mp4", "line\nbreak.mp4", ".hidden", "frame%03d.mp4", "-x.mp4"):
        cases.append(Case(f"name-{name.encode('ascii', 'backslashreplace').decode()!r}", from_bytes(name, lambda: whole("mp4")), "no face"))
    return cases


def _socket(folder: Path) -> list[str]:
    before = Path.cwd()
    os.chdir(folder)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("a.mp4")
    finally:
        os.chdir(before)
    return ["--video", str(folder / "a.mp4")]


def videos() -> list[Case]:
    return [*damaged(), *strange_times(), *strange_sizes(), *unusual_codecs(), *no_videos(), *no_files()]
