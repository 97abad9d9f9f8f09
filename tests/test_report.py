"""report.html: whole, small, asks nobody for anything, and its numbers are the track's."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.browser import open_page, why_not
from tests.gltf_evaluator import GltfPlayer
from tests.heads import tiny_head
from tests.tracks import filmed_track, talking_track
from tracker.export.arkit_values import eye_angles, head_angles
from tracker.export.gltf import write_glb
from tracker.export.rig import build_rig
from tracker.overlay import OverlaySettings
from tracker.report import ReportData, Strip, write_report
from tracker.report.curves import Chart, Curve, svg
from tracker.report.page import LARGEST_BYTES, report_page
from tracker.report.page_head import framing, page_head, with_fewer_targets
from tracker.report.strip import chosen_frames, worst_frames
from tracker.run_report import RunReport
from tracker.track_vertices import track_vertices

FRAMES = 15  # whose levels do not overflow
_VOID = {"meta", "img", "input", "br", "link", "hr", "circle", "line", "polyline", "rect"}


class Parsed(HTMLParser):
    """Elements of a page, each ended where it should be; texts of scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stored: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, f"</{tag}> ends {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "script" and self.open[-1][1].get("id"):
            self.stored[self.open[-1][1]["id"]] = self.stored.get(self.open[-1][1]["id"], "") + data


def run_report(track, error, **changes) -> RunReport:
    values = {
        "folder": Path("out/clip"), "files": ("flame_params.npz", "report.html"), "head": track.head_name, "preset": "fast",
        "where": {"fit": "cpu", "reason": "asked for"}, "frames": track.n_frames, "valid_frames": int(track.valid.sum()),
        "error_percent": error[track.valid], "focal_px": track.focal_px, "focal_log_sigma": 0.1, "seconds": {"frames": 1.0},
        "total_seconds": 2.0, "peak_memory_mb": 100.0, "notes": ("a <note> & more",), "video": {"name": "<script>alert(1)</script>.mp4"},
    }  # fmt: skip
    return RunReport(**(values | changes))


@pytest.fixture(scope="module")
def head():
    return tiny_head()


@pytest.fixture(scope="module")
def made(tmp_path_factory, head):
    """A page, and what it was made of."""
    folder = tmp_path_factory.mktemp("report")
    track, source = filmed_track(head, folder / "frames", FRAMES)
    error = np.where(track.valid, 1 + np.arange(FRAMES) % 7 / 3, np.inf)
    strip = Strip(track, error)
    strip.draw(source, head, OverlaySettings(), None, "cpu")
    write_glb(folder / "head.glb", track, head)
    data = ReportData(run_report(track, error), track, head, error, glb=(folder / "head.glb").read_bytes(), identity={"settings": {"a": 1}})
    write_report(folder / "report.html", data, strip)
    assert sorted(p.name for p in folder.iterdir()) == ["frames", "head.glb", "report.html"]  # nothing half written beside it
    return folder / "report.html", track, error, strip


@pytest.fixture(scope="module")
def parsed(made) -> Parsed:
    return Parsed(made[0].read_text(encoding="utf-8"))


def test_the_page_is_small_and_asks_no_host_for_anything(made, parsed):
    assert made[0].stat().st_size < LARGEST_BYTES == 3_000_000
    policy = next(a["content"] for t, a in parsed.elements if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    allowed = {"'unsafe-inline'", "'wasm-unsafe-eval'", "data:", "blob:"}
    assert all(set(rule.split()) <= allowed for rule in rules.values())
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            assert name not in attributes or attributes[name].startswith("data:"), f"{tag} {name}: {attributes[name][:80]}"
    outside = re.sub(r"<script type=\"text/plain\".*?</script>", "", made[0].read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "://" not in outside and "@import" not in outside


def test_names_and_notes_cannot_become_markup(made, parsed):
    assert "<script>alert" not in made[0].read_text(encoding="utf-8")
    assert {a.get("id") for t, a in parsed.elements if t == "script"} == {None, "numbers", "views", "viewer-code", "head-file"}


def test_numbers_are_those_of_the_track(made, parsed):
    _, track, error, _ = made
    numbers = json.loads(parsed.stored["numbers"])
    assert np.allclose(numbers["seconds"], track.timestamps - track.timestamps[0], atol=1e-4)
    found = {c["title"]: {k["name"]: np.array(k["values"], float) for k in c["curves"]} for c in numbers["charts"]}
    valid = track.valid
    assert (~valid).any()
    pose, gaze = np.degrees(head_angles(track)), np.degrees(eye_angles(track, 1))
    wanted = {
        ("Head pose", "yaw"): pose[:, 0], ("Head pose", "roll"): pose[:, 2], ("Gaze, within the head", "right pitch"): gaze[:, 1],
        ("Distance from the camera", "distance"): 100 * (1 - track.translation[:, 2]),
        ("Landmark error, of the inter-ocular distance", "error"): error,
        **{("Expressions that move most", n): track.expr[:, i] for i, n in enumerate(track.expression_names)},
    }  # fmt: skip
    for (title, name), values in wanted.items():
        assert np.isnan(found[title][name][~valid]).all()
        assert np.allclose(found[title][name][valid], values[valid], atol=6e-5), name
    assert np.allclose(found["Confidence"]["confidence"], track.confidence, atol=6e-5)
    assert len(parsed.stored["numbers"]) > 0 and sum(a.get("class") == "chart" for t, a in parsed.elements if t == "svg") == len(found)


def test_the_head_in_the_page_is_the_heads_mesh(made, parsed, head, tmp_path):
    _, track, _, _ = made
    (tmp_path / "page.glb").write_bytes(gzip.decompress(base64.b64decode(parsed.stored["head-file"])))
    player = GltfPlayer(tmp_path / "page.glb")
    for number, wanted in enumerate(track_vertices(track, head)):
        time = float(track.timestamps[number] - track.timestamps[0])
        assert np.abs(player.vertices(time)[: head.n_vertices] - wanted).max() < 2e-4



def test_the_viewer_is_the_one_that_its_notice_describes(parsed):
    packed = (files("tracker.report") / "files" / "model_viewer.min.js.gz").read_bytes()
    code = gzip.decompress(packed)
    notice = (files("tracker.report") / "files" / "model_viewer.NOTICE.md").read_text(encoding="utf-8")
    assert hashlib.sha256(code).hexdigest() in notice and f"{len(code):,} bytes" in notice
    assert base64.b64decode(parsed.stored["viewer-code"]) == packed


def test_pictures_are_of_the_frames_that_they_name(made, parsed):
    _, track, error, strip = made
    chosen = chosen_frames(track, error)
    assert [p.frame for p in strip.pictures] == list(chosen) and 0 in chosen and FRAMES - 1 in chosen
    assert all(track.valid[list(chosen)])
    for picture in strip.pictures:
        image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (picture.height, picture.width, 3)
        # the input is noise from 0 to 100 around a level that tells the frame
        assert abs(image[:, : picture.width // 2].mean() - (50 + 10 * picture.frame)) < 12
    shown = [a for t, a in parsed.elements if t == "figure" and "data-seconds" in a]
    assert [float(a["data-seconds"]) for a in shown] == pytest.approx([p.seconds for p in strip.pictures], abs=1e-3)


def test_worst_frames_lie_apart_and_have_a_head(head):
    track = talking_track(head, 40, timestamps=np.arange(40) / 25)
    error = np.full(40, 1.0)
    error[[3, 4, 5, 30]] = 6, 7, 5, 4
    error[~track.valid] = np.inf
    worst = worst_frames(track, error)
    assert worst[:2] == [4, 30] and len(worst) == 3 and track.valid[worst].all()
    error[20] = np.inf  # interpolated: a head that nothing was seen of
    assert worst_frames(replace(track, valid=track.valid | (np.arange(40) == 20)), error)[0] == 4
    assert "worst: 7.00 %" in chosen_frames(track, error)[4]


def test_shots_and_interpolated_frames_show_where_the_track_has_them(made, head):
    _, track, error, strip = made
    plain = ReportData(run_report(track, error), track, head, error)
    assert '<line class="cut"' not in report_page(plain, strip)
    second = (np.arange(FRAMES) >= 10).astype(int)
    marked = replace(track, shot=second, interpolated=np.arange(FRAMES) == 5, shapes=np.stack([track.shape, -track.shape]), person=second)
    page = report_page(replace(plain, track=marked), strip)
    assert "2 people: number 0 in 10 frames, number 1 in 5 frames" in page
    assert "2 shots" in page and "1 frames are interpolated" in page
    assert page.count('<line class="cut"') == page.count('<svg class="chart"')


def test_a_long_curve_keeps_its_peaks():
    values = np.zeros(20_000)
    values[12_345] = 9.0
    drawn = svg(Chart("x", "", (Curve("x", values),)), np.arange(20_000) / 25, np.zeros(20_000, bool))
    assert len(drawn) < 30_000
    heights = {float(p.split(",")[1]) for p in re.search(r'points="([^"]*)"', drawn)[1].split()}
    assert min(heights) == 8.0  # the top of the plot: the peak is the greatest value


def test_fewer_targets_displace_no_vertex_by_more_than_they_say(head):
    rig = build_rig(talking_track(head, 30), head)
    fewer, stated = with_fewer_targets(rig, 3)
    full = np.einsum("tm,mvc->tvc", rig.morph_weights, rig.morphs)
    kept = np.einsum("tm,mvc->tvc", fewer.morph_weights, fewer.morphs)
    assert fewer.morphs.shape[0] == 3 and stated > 1e-4
    assert np.linalg.norm(full - kept, axis=-1).max() == pytest.approx(stated, rel=1e-6)


def test_a_head_that_is_too_large_for_the_page_is_shortened_and_says_so(head, tmp_path):
    track = talking_track(head, 900)
    write_glb(tmp_path / "head.glb", track, head)
    full = page_head((tmp_path / "head.glb").read_bytes(), track, head, None, LARGEST_BYTES)
    assert full.packed and not full.note
    budget = len(full.packed) * 3 // 4
    short = page_head((tmp_path / "head.glb").read_bytes(), track, head, None, budget)
    assert 0 < len(short.packed) <= budget and "600 of 900 frames" in short.note
    (tmp_path / "page.glb").write_bytes(gzip.decompress(base64.b64decode(short.packed)))
    assert len(GltfPlayer(tmp_path / "page.glb").key_times) == 600
    none = page_head(b"", track, head, None, 1000)
    assert not none.packed and "open head.glb" in none.note


def test_a_head_that_goes_far_is_followed(head):
    near = talking_track(head, 20)
    assert framing(near, head).centres is None
    far = replace(near, translation=near.translation + np.linspace([-0.5, 0, 0], [0.5, 0, -0.5], 20))
    at = framing(far, head)
    middles = np.array([(v.min(0) + v.max(0)) / 2 for v in track_vertices(far, head)])
    assert at.distance < framing(near, head).distance
    assert np.linalg.norm(at.centres - middles, axis=1).max() < 0.05


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_the_head_turns_in_a_browser_without_a_single_request(made, tmp_path):
    path, track, _, _ = made
    with open_page() as page:
        page.open(path.resolve().as_uri(), 1100, 900)
        page.wait("document.getElementById('head') && document.getElementById('head').loaded")
        end = float(track.timestamps[-1] - track.timestamps[0])
        assert page.run("document.getElementById('head').duration") == pytest.approx(end, abs=1e-3)
        shots = []
        for time in (0, end / 2):
            page.run(f"(() => {{ const t = document.getElementById('time'); t.value = {time}; t.dispatchEvent(new Event('input')); }})()")
            page.wait(f"Math.abs(document.getElementById('head').currentTime - {time}) < 1e-3 && document.getElementById('head').paused")
            page.run("new Promise(r => setTimeout(r, 1500))")
            shots.append(page.picture(tmp_path / f"{time:.2f}.png"))
        assert shots[0] != shots[1]
        page.run("[...document.querySelectorAll('[data-seconds]')].pop().click()")  # the last frame is not the first one again
        assert page.run("document.getElementById('head').currentTime") == pytest.approx(end, abs=2e-3)
        wrong = [a for a in page.requests if not a.startswith(("file:", "blob:", "data:"))]
        assert not wrong and not page.errors
        assert [a for a in page.requests if a.startswith("file:")] == [path.resolve().as_uri()]
