"""Parts of videos: the frames between two times, whole or sought, and clocks of sources that bring none."""

from __future__ import annotations

import numpy as np
import pytest
from make_clips import counted, picture, write_clip
from PIL import Image

from tracker.errors import UserError
from tracker.video import open_video
from tracker.video.container import ContainerFile
from tracker.video.reader import VideoPart, VideoSource

RNG = np.random.default_rng(3)
STAMPS = {
    "even": np.arange(120) / 25,
    # pauses, and a long middle without any frame
    "uneven": np.concatenate([[0.0], np.cumsum(RNG.uniform(0.004, 0.09, 119))]) + np.where(np.arange(120) > 70, 1.5, 0.0),
}


def read_all(path, **arguments):
    with open_video(path, **arguments) as video:
        return list(video), video


@pytest.fixture(scope="module", params=STAMPS)
def clip(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return {s: write_clip(folder / f"a.{s}", [picture(i) for i in range(120)], STAMPS[request.param], codec="libx264") for s in ("mp4", "ts")}


@pytest.mark.parametrize("suffix", ["mp4", "ts"])  # with an index to jump by, and without
@pytest.mark.parametrize("part", [(0.5, None), (None, 1.0), (1.6, 2.4), (2.0, None), (0.0, 99.0), (3.3, 3.7)])
def test_a_part_is_the_frames_of_the_whole_between_its_times(clip, suffix, part):
    whole, video = read_all(clip[suffix])
    start, end = part
    wanted = [f for f in whole if (start or 0) <= round(f.timestamp, 6) < (end or 99)]  # 1.6 comes out of the file as 1.5999…
    assert 0 < len(wanted)
    frames, reader = read_all(clip[suffix], start=start, end=end)
    assert [f.timestamp for f in frames] == [f.timestamp for f in wanted]
    assert [f.index for f in frames] == list(range(len(frames)))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, wanted, strict=True))
    assert reader.start_time == video.start_time and reader.problem is None


def test_parts_that_meet_share_no_frame_and_lose_none(clip):
    whole, _ = read_all(clip["mp4"])
    for index in (1, 30, 77, 119):
        cut = whole[index].timestamp
        before, after = (read_all(clip["mp4"], **part)[0] for part in ({"end": cut}, {"start": cut}))
        assert [len(before), len(after)] == [index, 120 - index]


def test_a_late_start_does_not_decode_what_comes_before(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(120)], codec="libx264")
    decoded = []
    plain = ContainerFile._decode
    monkeypatch.setattr(ContainerFile, "_decode", lambda self: (decoded.append(1) or frame for frame in plain(self)))
    frames, _ = read_all(path, start=4.0)
    assert len(frames) == 20 and counted(frames[0].image) == 100 % 20
    assert len(decoded) < 60


def test_an_index_that_leads_astray_costs_time_but_no_frame(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(120)], codec="libx264")
    plain = ContainerFile._jump
    monkeypatch.setattr(ContainerFile, "_jump", lambda self, start: plain(self, 4.5) and False)
    frames, video = read_all(path, start=2.0)
    assert [f.timestamp for f in frames] == pytest.approx(np.arange(50, 120) / 25) and video.problem is None


def test_how_many_frames_a_part_is_said_to_have(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(50)])
    for arguments in ({"start": 0.4}, {"end": 0.39}, {"start": 0.41, "end": 1.0}, {"start": 1.0, "end": 9.0}, {"start": 0.4, "max_frames": 3}):
        frames, video = read_all(path, **arguments)
        assert video.frame_count == len(frames)
        with VideoSource(path, VideoPart(**arguments)).open() as again:
            assert [f.timestamp for f in again] == [f.timestamp for f in frames]


def test_a_part_of_a_cut_file_still_says_that_it_is_cut(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 60, (240, 320, 3), np.uint8) + picture(i, 320, 240) // 2 for i in range(120)]
    whole = write_clip(tmp_path / "a.mp4", images, codec="libx264", options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    frames, video = read_all(cut, start=2.0)
    assert 10 < len(frames) < 60 and "ends at" in video.problem
    _, inside = read_all(cut, start=2.0, end=2.5)
    assert inside.problem is None


def test_folder_has_the_rate_that_it_is_given(tmp_path):
    for i in range(30):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    frames, video = read_all(tmp_path, frame_rate=10, start=1.0, end=2.0)
    assert [f.timestamp for f in frames] == [i / 10 for i in range(10, 20)]
    assert [counted(f.image) for f in frames] == list(range(10, 20))
    assert video.frame_rate == 10 and video.frame_count == 10
    assert read_all(tmp_path)[1].frame_rate == 25


def test_rate_counts_only_where_a_file_has_no_timestamps(tmp_path):
    images = [picture(i) for i in range(6)]
    for suffix, codec, pixels in (("h264", "libx264", "yuv420p"), ("mjpeg", "mjpeg", "yuvj420p")):
        raw = write_clip(tmp_path / f"a.{suffix}", images, codec=codec, pixel_format=pixels)
        frames, video = read_all(raw, frame_rate=50)
        assert [f.timestamp for f in frames] == pytest.approx(np.arange(6) / 50) and video.frame_rate == 50
    timed = write_clip(tmp_path / "a.mp4", images, np.arange(6) * 0.12, codec="libx264")
    frames, video = read_all(timed, frame_rate=50)
    assert [f.timestamp for f in frames] == pytest.approx(np.arange(6) * 0.12) and video.frame_rate < 10


@pytest.mark.parametrize(
    ("arguments", "what"),
    [({"start": -1.0}, "start is -1 s"), ({"start": float("nan")}, "start is nan"), ({"end": 0.0}, "end is 0 s"),
     ({"start": 2.0, "end": 1.5}, "more than the start, 2"), ({"frame_rate": 0.0}, "frame rate is 0"),
     ({"start": 50.0}, "no frame from the start, 50 s, on; the last one read is at 0.3"), ({"start": 0.121, "end": 0.159}, "before the end, 0.159 s")],
)  # fmt: skip
@pytest.mark.parametrize("folder", [True, False])
def test_a_part_that_is_none_is_one_clear_line(tmp_path, arguments, what, folder):
    if folder:
        path = tmp_path
        for i in range(9):
            Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    else:
        path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(9)])
    if folder and "50 s" in what:
        what = "no frame from the start, 50 s, on"
    with pytest.raises(UserError, match=what) as caught:
        read_all(path, **arguments)
    assert "\n" not in str(caught.value)
