"""Other trackers' files as tracks: onto the same pixels of the video that they saw, through the command, and on to every format."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from flame_assets.asset import save_npz
from tests.heads import flame_sized_head, tiny_head
from tests.tracks import filmed_track, talking_track
from tools.import_track import main
from tracker.errors import UserError
from tracker.evaluation.baselines.interface import Tracked
from tracker.export import check_formats, export
from tracker.export.flame_params import load_track
from tracker.importing import IMPORTERS, import_track, read_any
from tracker.importing.foreign import Crop
from tracker.importing.frame_files import load_frame

HEAD = flame_sized_head()
FRAMES = 5
PLACES = {"vhap": "tracked_flame_params_30.npz", "metrical-tracker": "metrical_tracker", "pixel3dmm": "pixel3dmm"}
"""What our own writers of the same names leave behind."""


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A track whose neck rests (metrical-tracker has none), its video, and the folder with all of it and the head."""
    folder = tmp_path_factory.mktemp("import")
    track, source = filmed_track(HEAD, folder / "frames", FRAMES, neck_pose=np.zeros((FRAMES, 3)))
    save_npz(HEAD, folder / "head.npz")
    export(track, HEAD, "vhap,metrical-tracker,pixel3dmm", folder)
    return track, source, folder


def pixels(track):
    known = Tracked(track, HEAD)
    return known.pixels(known.vertices)


@pytest.mark.parametrize("name", PLACES)
def test_our_own_writers_come_back_on_the_videos_pixels(name, filmed):
    track, source, folder = filmed
    crop = "square" if name == "pixel3dmm" else None
    back, notes = import_track(folder / PLACES[name], HEAD, source=source, crop=crop)
    assert np.abs(pixels(back) - pixels(track)).max() < 0.1
    np.testing.assert_allclose(back.timestamps, track.timestamps, atol=1e-6)
    assert tuple(back.image_size) == (360, 640) and not notes


def test_a_crop_lands_where_it_was_cut_out(filmed):
    """A tracker that saw the part from (100, 40) to (420, 220) twice as large."""
    track, source, folder = filmed
    seen = dataclasses.replace(
        track, focal_px=2 * track.focal_px, principal_point=2 * (track.principal_point - [100, 40]), image_size=np.array([360, 640])
    )
    export(seen, HEAD, "metrical-tracker", folder / "crop")
    back, _ = import_track(folder / "crop" / "metrical_tracker", HEAD, source=source, crop=Crop(100, 40, 320))
    assert np.abs(pixels(back) - pixels(track)).max() < 0.1


def test_pictures_of_another_shape_need_a_crop(filmed):
    _, source, folder = filmed
    with pytest.raises(UserError, match=r"256×256 and the video has 640×360.*--crop"):
        import_track(folder / "pixel3dmm", HEAD, source=source)


def test_the_frames_own_numbers_count(filmed):
    """Files of frames 1, 3 and 4 alone are those frames' parameters, at their times; and more frames than the video has are another's."""
    track, source, folder = filmed
    some = folder / "some"
    some.mkdir()
    for number in (1, 3, 4):
        (some / f"{number:05d}.frame").write_bytes((folder / "metrical_tracker" / "checkpoint" / f"{number:05d}.frame").read_bytes())
    back, _ = import_track(some, HEAD, source=source)
    assert np.abs(pixels(back) - pixels(track.select(np.array([1, 3, 4])))).max() < 0.1
    assert list(back.timestep_id) == ["00001", "00003", "00004"] and back.timestamps == pytest.approx([0.04, 0.12, 0.16])
    (some / "00005.frame").write_bytes((some / "00004.frame").read_bytes())
    with pytest.raises(UserError, match=r"frame 5, and the video .* only 5 frames"):
        import_track(some, HEAD, source=source)


def test_what_a_track_cannot_hold_is_said(filmed, tmp_path):
    _, _, folder = filmed
    with np.load(folder / PLACES["vhap"]) as file:
        data = dict(file)
    data["static_offset"] = data["static_offset"] + np.float32(0.003 / np.sqrt(3))
    np.savez(tmp_path / "tracked_flame_params_9.npz", **data)
    np.savez(tmp_path / "tracked_flame_params_10.npz", **(data | {"n_processed_frames": 2}))
    track, notes = import_track(tmp_path, dataclasses.replace(HEAD, name="flame2020"))  # the folder: its latest epoch
    assert track.timestamps == pytest.approx(np.arange(2, 7) / 25)
    assert "3.0 mm on average) are left out" in notes[0] and "vhap uses FLAME 2023" in notes[1]


def test_the_command_writes_a_track_for_every_format(filmed, tmp_path, capsys):
    track, _, folder = filmed
    options = ["--from", "pixel3dmm", "--head", str(folder / "head.npz"), "--video", str(folder / "frames"), "--crop", "square"]
    assert main([str(folder / "pixel3dmm"), *options, "--to", "glb,vhap", "-o", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == f"written to {tmp_path / 'new'}: flame_params.npz, head.glb, tracked_flame_params_30.npz\n"
    own = load_track(tmp_path / "new" / "flame_params.npz")
    assert np.abs(pixels(own) - pixels(track)).max() < 0.1
    assert [e.name for e in check_formats("vhap,livelink,gaussian-avatars", HEAD, camera=own.camera)] == ["livelink", "vhap", "gaussian-avatars"]
    assert np.abs(pixels(read_any(tmp_path / "new", HEAD, 25.0)) - pixels(own)).max() < 1e-3


def test_a_runs_result_is_not_written_over(filmed, tmp_path, capsys):
    _, _, folder = filmed
    (tmp_path / "summary.json").write_text("{}")
    assert main([str(folder / PLACES["vhap"]), "--head", str(folder / "head.npz"), "-o", str(tmp_path)]) == 2
    assert "holds the result of a run" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "metrical-tracker"], "not as metrical-tracker writes it (KeyError: 'opencv')"),
        (["--from", "vhap"], "holds no tracked_flame_params_*.npz of VHAP"),
        (["--crop", "square"], "--crop: give the --video"),
        (["--video", "FOLDER/frames", "--crop", "1,2"], "--crop 1,2: give LEFT,TOP,WIDTH"),
        (["--head", "FOLDER/tiny.npz"], "'tiny-0' is not the head of these trackers"),
        (["--to", "fbx"], "unknown format 'fbx'"),
        (["--fps", "0"], "--fps 0: give frames per second above 0"),
    ],
)
def test_mistakes_are_one_line(options, message, filmed, tmp_path, capsys):
    _, _, folder = filmed
    save_npz(tiny_head(), folder / "tiny.npz")
    given = ["--head", str(folder / "head.npz"), *(word.replace("FOLDER", str(folder)) for word in options)]
    assert main([str(folder / "pixel3dmm"), *given, "-o", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("import_track.py: error: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "new").exists()


ODD = (
    np.zeros(0), np.zeros((0, 3)), np.full((5, 3), np.nan), np.full((5, 3), np.inf), np.zeros((4, 3)), np.zeros((5, 2)), np.array(-3), np.array(10**12),
    np.array([0, 0]), np.array([1, 10**9]), np.full((5, 100), 1e300), np.array([-1.0]), np.array([np.nan]), np.ones(1000), np.array("x"),
)  # fmt: skip


@pytest.mark.parametrize("key", ["rotation", "expr", "shape", "focal_length", "image_size", "n_processed_frames", "static_offset"])
def test_odd_arrays_are_read_or_refused_in_one_line(key, filmed, tmp_path):
    track, source, folder = filmed
    with np.load(folder / PLACES["vhap"]) as file:
        data = {name: file[name] for name in file.files if name != "tex_extra"}
    refused = 0
    for odd in ODD:
        np.savez(tmp_path / "odd.npz", **(data | {key: odd}))
        try:
            back, _ = import_track(tmp_path / "odd.npz", HEAD, "vhap", source=source)
            assert np.isfinite(back.translation).all() and np.isfinite(back.focal_px) and back.n_frames == track.n_frames
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= {"static_offset": 1, "shape": 5}.get(key, 8)


@pytest.mark.parametrize(("part", "key"), [("flame", "exp"), ("flame", "eyes"), ("opencv", "K"), ("img_size", None)])
def test_odd_frames_are_read_or_refused_in_one_line(part, key, filmed, tmp_path):
    _, source, folder = filmed
    frame = torch.load(folder / "metrical_tracker" / "checkpoint" / "00002.frame", weights_only=False)  # written by this very test
    refused = 0
    for odd in (*ODD[:-1], None, "abc", {}, [], b"x"):
        torch.save(frame | {part: odd if key is None else frame[part] | {key: odd}}, tmp_path / "00002.frame")
        try:
            import_track(tmp_path, HEAD, source=source, crop="square")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 10


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_frames_of_either_numpy_can_be_read(module, filmed, tmp_path):
    """numpy 1 and 2 pickle arrays under different names; both are read without being looked up."""
    _, _, folder = filmed

    source = folder / "pixel3dmm" / "checkpoint" / "00000.frame"
    written = torch.load(source, weights_only=False)  # written by this very test
    torch.save(written, tmp_path / "a.frame", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.frame").read_bytes()
    # a protocol 2 pickle names globals in lines of text
    content = content.replace(b"cnumpy._core.multiarray\n", b"cHERE\n").replace(b"cnumpy.core.multiarray\n", b"cHERE\n")
    assert b"cHERE\n" in content
    (tmp_path / "b.frame").write_bytes(content.replace(b"cHERE\n", b"c" + module.encode() + b"\n"))
    np.testing.assert_array_equal(load_frame(tmp_path / "b.frame")["flame"]["exp"], written["flame"]["exp"])


def test_every_tracker_has_a_writer_or_a_test():
    assert set(IMPORTERS) - set(PLACES) == {"smirk"}


def test_smirk_on_the_videos_pixels(tmp_path):
    """Its crop of 224 pixels is the part from (100, 50) of width 448: x = s (X + tx) across the crop."""
    rng = np.random.default_rng(0)
    _, source = filmed_track(HEAD, tmp_path / "frames", 3)
    np.savez(
        tmp_path / "smirk.npz", pose_params=rng.normal(0, 0.2, (3, 3)), cam=np.array([[7.0, 0.01, -0.02]] * 3), jaw_params=np.zeros((3, 3)),
        shape_params=np.zeros((3, 300)), expression_params=np.zeros((3, 50)), eyelid_params=np.full((3, 2), 0.4),
    )  # fmt: skip
    inside, notes = import_track(tmp_path / "smirk.npz", HEAD)
    outside, _ = import_track(tmp_path / "smirk.npz", HEAD, source=source, crop=Crop(100, 50, 448))
    np.testing.assert_allclose(pixels(outside), 2 * pixels(inside) + [100, 50], atol=1e-2)
    assert "orthographic" in notes[0] and "eyelid" in notes[1]


def test_tracks_of_other_heads_are_refused(tmp_path):
    export(talking_track(HEAD, 2), HEAD, "npz", tmp_path)
    with pytest.raises(UserError, match="made with head 'flame-sized-0', not with 'tiny-0'"):
        read_any(tmp_path, tiny_head(), 25.0)
