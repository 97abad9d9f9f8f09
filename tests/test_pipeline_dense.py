"""The whole program with the embedding network: presets balanced and best on the real excerpt."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from densemarks_model.loading import SHIPPED
from flame_assets.asset import save_npz
from flame_assets.load import DEFAULT_HEAD, load_head
from tests.heads import tiny_head
from tracker import pipeline
from tracker.cli import main
from tracker.export.flame_params import load_track
from tracker.head_track import HeadTrack
from tracker.observe import first_pass
from tracker.observe.embedder import HeadEmbedder
from tracker.stages import calibration
from tracker.video.packaged_clips import EXCERPT
from tracker.video.reader import open_video

FRAMES = 24
LOST = range(9, 17)


def run(out: Path, *arguments: str) -> Path:
    assert main(["--video", str(EXCERPT), "--out", str(out), "--max-frames", str(FRAMES), "--quiet", *arguments]) == 0
    return out / EXCERPT.stem


def skull(track: HeadTrack) -> Rotation:
    return Rotation.from_rotvec(track.rotation) * Rotation.from_rotvec(track.neck_pose)


@pytest.fixture(scope="module")
def balanced(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("balanced"), "--no-overlay")


@pytest.fixture(scope="module")
def best(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("best"), "--preset", "best")


def test_balanced_tracks_every_frame_closely_and_says_how_long_the_network_took(balanced):
    summary = json.loads((balanced / "summary.json").read_text())
    assert summary["valid_frames"] == FRAMES
    assert summary["landmark_error_percent_of_inter_ocular"]["median"] < 2.0
    assert "network" in json.dumps(summary)
    track = load_track(balanced / "flame_params.npz")
    assert (track.confidence > 0.2).all()
    assert not (balanced / "texture.png").exists()


def test_best_writes_a_texture_and_puts_it_on_the_glb(best):
    texture = cv2.imread(str(best / "texture.png"))
    assert texture.shape == (1024, 1024, 3)
    asset = load_head(None)
    corners = asset.regions["face"][asset.faces].all(1)
    at = (asset.uv[asset.uv_faces[corners]].mean(1) * [1, -1] + [0, 1]) * 1024
    skin = texture[at[:, 1].astype(int).clip(0, 1023), at[:, 0].astype(int).clip(0, 1023), ::-1].astype(float)
    red, green, blue = np.median(skin, 0)
    assert red > green > blue > 20  # skin, and not the grey of nothing
    data = (best / "head.glb").read_bytes()
    gltf = json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])
    assert gltf["images"][0]["mimeType"] == "image/png"
    textured = [m for m in gltf["materials"] if "baseColorTexture" in m.get("pbrMetallicRoughness", {})]
    assert textured
    assert "texture.png" in json.loads((best / "summary.json").read_text())["files"]


def test_presets_agree_on_a_talking_head(balanced, best):
    a, b = (load_track(f / "flame_params.npz") for f in (balanced, best))
    change = [(skull(t)[0].inv() * skull(t)) for t in (a, b)]
    assert np.degrees((change[0].inv() * change[1]).magnitude()).max() < 3.0


def test_frames_the_detector_loses_are_tracked_by_the_network(balanced, tmp_path, monkeypatch):
    """The detector is made to find nothing for a third of a second in the middle; the head is still there."""

    class Forgetful(first_pass.FaceLandmarker):
        calls = 0

        def detect(self, image, timestamp):
            found = super().detect(image, timestamp)
            Forgetful.calls += 1
            return None if Forgetful.calls - 1 in LOST else found

    monkeypatch.setattr(first_pass, "FaceLandmarker", Forgetful)
    folder = run(tmp_path, "--no-overlay")
    track, whole = load_track(folder / "flame_params.npz"), load_track(balanced / "flame_params.npz")
    lost = np.isin(np.arange(FRAMES), list(LOST))
    assert track.valid.all()
    assert (track.confidence[lost] <= 0.5).all() and (track.confidence[lost] > 0).all()
    assert track.confidence[~lost].min() > track.confidence[lost].max()
    apart = np.degrees((skull(whole).inv() * skull(track)).magnitude())
    assert apart[lost].max() < 8.0
    assert any("dense cues alone" in note for note in json.loads((folder / "summary.json").read_text())["notes"])


def test_landmarks_that_the_network_contradicts_are_not_followed(balanced, tmp_path, monkeypatch):
    """The detector is made to see a half-size face beside the nose for a third of a second."""
    detect, calls = first_pass.FaceLandmarker.detect, {"n": 0}

    def beside(self, image, timestamp):
        found = detect(self, image, timestamp)
        calls["n"] += 1
        if calls["n"] - 1 not in LOST or found is None:
            return found
        centre, width = found.points.mean(0), np.ptp(found.points[:, 0])
        return dataclasses.replace(found, points=(centre + 0.5 * (found.points - centre) + [0.4 * width, 0]).astype(np.float32))

    monkeypatch.setattr(first_pass.FaceLandmarker, "detect", beside)
    folder = run(tmp_path, "--no-overlay", "--config", str(every_frame(tmp_path)))
    track, whole = load_track(folder / "flame_params.npz"), load_track(balanced / "flame_params.npz")
    wrong = np.isin(np.arange(FRAMES), list(LOST))
    assert track.valid.all() and (track.confidence[wrong] <= 0.5).all() and track.confidence[~wrong].min() > 0.5
    apart = np.degrees((skull(whole).inv() * skull(track)).magnitude())
    assert apart.max() < 8.0
    # each run estimates a focal length of its own, with which all distances grow
    found, expected = ((t.translation - [0, 0, 1]) / t.focal_px for t in (track, whole))
    drift = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert drift.max() < 0.05
    assert any("contradicts" in note for note in json.loads((folder / "summary.json").read_text())["notes"])


def every_frame(folder: Path) -> Path:
    """Settings with which the network looks at every frame, and so checks every detection."""
    path = folder / "every_frame.yaml"
    path.write_text("observe: {stride: 1}\n", encoding="utf-8")
    return path


def test_a_clip_whose_every_detection_is_wrong_is_tracked_by_the_network(balanced, tmp_path, monkeypatch):
    detect = first_pass.FaceLandmarker.detect

    def small(self, image, timestamp):
        found = detect(self, image, timestamp)
        centre = found.points.mean(0)
        return dataclasses.replace(found, points=(centre + 0.5 * (found.points - centre)).astype(np.float32))

    monkeypatch.setattr(first_pass.FaceLandmarker, "detect", small)
    track = load_track(run(tmp_path, "--no-overlay") / "flame_params.npz")
    whole = load_track(balanced / "flame_params.npz")
    assert track.valid.mean() > 0.9 and track.confidence.max() <= 0.5
    change = [skull(t)[0].inv() * skull(t) for t in (track, whole)]
    assert np.degrees((change[0].inv() * change[1]).magnitude())[track.valid].max() < 8.0


def test_an_empty_room_is_not_tracked(tmp_path):
    """Nothing but wall after the head has left: the network must not see one there."""
    room = tmp_path / "room"
    room.mkdir()
    with open_video(EXCERPT, FRAMES) as video:
        for number, frame in enumerate(video):
            image = frame.image if number < 10 else np.full_like(frame.image, 150)
            cv2.imwrite(str(room / f"{number:05d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert main(["--video", str(room), "--fps", "25", "--out", str(tmp_path / "out"), "--quiet", "--no-overlay"]) == 0
    track = load_track(tmp_path / "out" / "room" / "flame_params.npz")
    assert track.valid[:10].all() and not track.valid[10:].any()
    assert (track.confidence[10:] == 0).all()


def test_a_head_from_elsewhere_is_calibrated_in_each_run(tmp_path, monkeypatch):
    """The default head with its cube turned and shrunk stands for a head that the network was not made for."""
    original = load_head(None)
    strange = dataclasses.replace(original, name="elsewhere", canonical=0.6 * original.canonical[:, [1, 0, 2]] + 0.2)
    save_npz(strange, tmp_path / "elsewhere.npz")
    measured, measure = [], calibration.measure
    monkeypatch.setattr(calibration, "measure", lambda *a: measured.append(measure(*a)) or measured[-1])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    doubts, doubted = [], HeadEmbedder._contradicts
    monkeypatch.setattr(
        HeadEmbedder, "_contradicts", lambda self, *a: doubts.append(self._doubt) or doubted(self, *a)
    )
    arguments = ("--no-overlay", "--head", str(tmp_path / "elsewhere.npz"), "--max-frames", "12")
    first, again = (load_track(run(tmp_path / n, *arguments) / "flame_params.npz") for n in ("first", "again"))
    face = original.regions["face"]
    assert len(measured) == 2 and np.array_equal(*measured)
    assert np.median(np.linalg.norm(measured[0] - original.canonical, axis=1)[face]) < 0.04
    assert first.valid.all()
    # the second run knows no more than the first: the same detections are believed, and the numbers are the same
    for name in ("rotation", "translation", "expr", "shape", "confidence"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    once = doubts[: len(doubts) // 2]
    assert once == doubts[len(once) :]
    assert once[:12] == [np.inf] * 12 and set(once[12:]) == {0.06}  # calibrated, then looked at anew with an open eye
    assert not list((tmp_path / "cache").rglob("calibration"))


def test_the_shipped_pair_needs_no_calibration_under_other_names(tmp_path):
    shutil.copy(SHIPPED, tmp_path / "mine.safetensors")
    shutil.copy(DEFAULT_HEAD, tmp_path / "mine.npz")
    asset = load_head(tmp_path / "mine.npz")
    other = dataclasses.replace(asset, canonical=asset.canonical[:, ::-1].copy())
    for network in ("lite", str(tmp_path / "mine.safetensors")):
        assert pipeline.speaks_of(network, None, asset)
        assert pipeline.speaks_of(network, tmp_path / "mine.npz", asset)
        assert not pipeline.speaks_of(network, tmp_path / "mine.npz", other)
        assert not pipeline.speaks_of(network, tmp_path / "mine.npz", tiny_head())
    content = bytearray(SHIPPED.read_bytes())
    content[-1] ^= 1
    (tmp_path / "mine.safetensors").write_bytes(content)  # the same name, another training
    assert not pipeline.speaks_of(str(tmp_path / "mine.safetensors"), None, asset)
    assert not pipeline.speaks_of("official", None, asset)


def test_unknown_networks_are_refused(capsys, tmp_path):
    code = main(["--video", str(EXCERPT), "--out", str(tmp_path), "--network", str(tmp_path / "none.safetensors"), "--quiet"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and "none.safetensors" in lines[0]
