"""The whole program, called as a user calls it, on the real excerpt and on things that are no head video."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.make_clips import write_clip
from tracker.cli import main
from tracker.export.flame_params import load_track
from tracker.stages.gaps import nearest_index
from tracker.video.packaged_clips import EXCERPT

FRAMES = 30


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    code = main(["--video", str(EXCERPT), "--out", str(out), "--max-frames", str(FRAMES), "--mesh", "ply", "--quiet"])
    assert code == 0
    return out / EXCERPT.stem


def test_everything_is_written_and_nothing_else(result):
    names = sorted(p.name for p in result.iterdir())
    assert names == ["flame_params.npz", "head.glb", "meshes", "overlay.mp4", "report.html", "summary.json"]
    assert [p.name for p in result.parent.iterdir()] == [EXCERPT.stem]
    assert len(list((result / "meshes").glob("*.ply"))) == FRAMES


def test_real_face_is_tracked_closely(result):
    summary = json.loads((result / "summary.json").read_text())
    assert summary["frames"] == summary["valid_frames"] == FRAMES
    assert summary["landmark_error_percent_of_inter_ocular"]["median"] < 2.0
    assert set(summary["files"]) == {"flame_params.npz", "head.glb", "overlay.mp4", "meshes/", "report.html", "summary.json"}
    track = load_track(result / "flame_params.npz")
    assert track.valid.all() and (track.confidence > 0.2).all()
    assert np.isfinite(track.expr).all() and (track.expr >= 0).all() and (track.expr <= 1).all()
    # a woman's head in front of the camera: upright, facing it, at a distance that makes sense
    assert np.abs(track.rotation).max() < 1.2
    assert (0.2 < 1 - track.translation[:, 2]).all() and (1 - track.translation[:, 2] < 2).all()


def test_overlay_keeps_timing_sound_and_shows_the_mesh(result):
    with av.open(str(EXCERPT)) as source, av.open(str(result / "overlay.mp4")) as overlay:
        wanted = [f.time for f, _ in zip(source.decode(video=0), range(FRAMES), strict=False)]
        frames = list(overlay.decode(video=0))
        assert np.allclose([f.time for f in frames], np.array(wanted) - wanted[0], atol=1e-3)
        assert len(overlay.streams.audio) == len(source.streams.audio)
        picture = frames[FRAMES // 2].to_ndarray(format="rgb24").astype(int)
    half = picture.shape[1] // 2
    difference = np.abs(picture[:, half:] - picture[:, :half]).sum(-1)
    covered = difference > 60
    assert 0.05 < covered.mean() < 0.7  # a head's worth of pixels is painted over
    columns = np.flatnonzero(covered.any(0))
    track = load_track(result / "flame_params.npz")
    depth = 1 - track.translation[FRAMES // 2, 2]
    centre = track.principal_point[0] + track.focal_px * track.translation[FRAMES // 2, 0] / depth
    assert columns.min() < centre < columns.max()


def test_glb_plays_as_long_as_the_video(result):
    data = (result / "head.glb").read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    gltf = json.loads(data[20 : 20 + length])
    end = max(gltf["accessors"][s["input"]]["max"][0] for a in gltf["animations"] for s in a["samplers"])
    track = load_track(result / "flame_params.npz")
    assert end == pytest.approx(track.timestamps[-1] - track.timestamps[0], abs=1e-4)


def test_two_runs_give_the_same_numbers(result, tmp_path):
    arguments = ["--video", str(EXCERPT), "--out", str(tmp_path), "--max-frames", str(FRAMES), "--no-overlay", "--quiet"]
    assert main(arguments) == 0
    first, second = (load_track(folder / "flame_params.npz") for folder in (result, tmp_path / EXCERPT.stem))
    assert np.array_equal(first.rotation, second.rotation) and np.array_equal(first.expr, second.expr)


def test_known_focal_length_is_kept(tmp_path):
    arguments = ["--video", str(EXCERPT), "--out", str(tmp_path), "--max-frames", "8", "--no-overlay", "--quiet"]
    assert main([*arguments, "--focal-px", "900"]) == 0
    assert load_track(tmp_path / EXCERPT.stem / "flame_params.npz").focal_px == pytest.approx(900, rel=1e-5)


def test_a_face_that_vanishes_is_marked_and_found_again(tmp_path):
    """The excerpt's frames with a grey second in the middle."""
    with av.open(str(EXCERPT)) as source:
        faces = [f.to_ndarray(format="rgb24") for f, _ in zip(source.decode(video=0), range(12), strict=False)]
    grey = [np.full_like(faces[0], 128)] * 10
    clip = tmp_path / "gone.mp4"
    write_clip(clip, [*faces, *grey, *faces])
    assert main(["--video", str(clip), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    track = load_track(tmp_path / "out" / "gone" / "flame_params.npz")
    assert track.valid.tolist() == [True] * 12 + [False] * 10 + [True] * 12
    assert (track.confidence[12:22] == 0).all()
    assert np.isfinite(track.rotation).all()
    # what is held is the nearest tracked frame's
    assert np.array_equal(track.rotation[14], track.rotation[11]) and np.array_equal(track.rotation[20], track.rotation[22])
    summary = json.loads((tmp_path / "out" / "gone" / "summary.json").read_text())
    assert summary["valid_frames"] == 24 and "10 frames" in summary["notes"][0]


def fails(capsys, tmp_path: Path, *arguments: str) -> str:
    """Run, expect a failure with one line on standard error and nothing in the out folder; return the line."""
    out = tmp_path / "out"
    code = main([*arguments, "--out", str(out), "--quiet"])
    assert code != 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("track.py: error: "), lines
    assert not out.exists() or not list(out.iterdir())
    return lines[0]


def test_bad_videos_are_named(capsys, tmp_path):
    assert "no such file" in fails(capsys, tmp_path, "--video", str(tmp_path / "none.mp4"))
    (tmp_path / "words.mp4").write_text("this is no video")
    assert "words.mp4" in fails(capsys, tmp_path, "--video", str(tmp_path / "words.mp4"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "empty" in fails(capsys, tmp_path, "--video", str(tmp_path / "empty.mp4"))
    (tmp_path / "folder").mkdir()
    assert "folder" in fails(capsys, tmp_path, "--video", str(tmp_path / "folder"))


def test_a_video_without_a_face_is_refused(capsys, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (6, 120, 160, 3), np.uint8)
    write_clip(tmp_path / "noise.mp4", list(noise))
    assert "no face" in fails(capsys, tmp_path, "--video", str(tmp_path / "noise.mp4"))


def test_wrong_heads_and_landmarkers_are_refused(capsys, tmp_path):
    (tmp_path / "head.pkl").write_bytes(b"not a pickle")
    assert "head.pkl" in fails(capsys, tmp_path, "--video", str(EXCERPT), "--head", str(tmp_path / "head.pkl"))
    np.savez(tmp_path / "head.npz", something=np.zeros(3))
    assert "head.npz" in fails(capsys, tmp_path, "--video", str(EXCERPT), "--head", str(tmp_path / "head.npz"))
    assert "none" in fails(capsys, tmp_path, "--video", str(EXCERPT), "--head", str(tmp_path / "none"))
    (tmp_path / "model.task").write_bytes(b"PK not a model")
    assert "model.task" in fails(capsys, tmp_path, "--video", str(EXCERPT), "--landmarker", str(tmp_path / "model.task"))


@pytest.mark.parametrize(
    "arguments", [("--focal-px", "nan"), ("--focal-px", "1e9"), ("--fov", "0.1"), ("--max-frames", "0"), ("--max-frames", "-3")]
)
def test_absurd_options_are_refused(capsys, tmp_path, arguments):
    assert arguments[0].strip("-")[:5] in fails(capsys, tmp_path, "--video", str(EXCERPT), *arguments)


def test_out_folder_that_is_a_file(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code = main(["--video", str(EXCERPT), "--out", str(tmp_path / "file"), "--quiet"])
    assert code == 2 and "--out" in capsys.readouterr().err


def test_truncated_file_is_tracked_as_far_as_it_decodes(tmp_path, capsys):
    content = EXCERPT.read_bytes()
    cut = tmp_path / "cut.mkv"
    with av.open(str(EXCERPT)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 3])
    assert content  # the excerpt itself stays as it is
    assert main(["--video", str(cut), "--out", str(tmp_path / "out"), "--no-overlay"]) == 0
    summary = json.loads((tmp_path / "out" / "cut" / "summary.json").read_text())
    assert 0 < summary["frames"] < 112
    assert any("frames that decode were tracked" in note for note in summary["notes"])
    assert "note:" in capsys.readouterr().out


def test_traceback_only_with_debug(capsys, tmp_path):
    assert main(["--video", str(tmp_path / "none.mp4"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--video", "--demo", "--out", "--config", "--device", "--max-frames", "--preset", "--head", "--mesh"):
        assert option in text


def test_nearest_valid_frame():
    valid = np.array([False, True, False, False, False, True, False])
    assert nearest_index(valid).tolist() == [1, 1, 1, 1, 5, 5, 5]
