"""Reading videos: frames are upright, square, RGB, complete and on time; what cannot be read says so in one line."""

from __future__ import annotations

import io
import os
import threading
import time
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from make_clips import DISPLAY_MATRICES, counted, picture, set_display_matrix, write_clip
from PIL import Image

from tests.hostile_videos import BOXES, box_changed
from tracker.errors import UserError
from tracker.video import at_times, open_video
from tracker.video.image_folder import natural_key
from tracker.video.pixels import orientation
from tracker.video.reader import READ_AHEAD, VideoSource


def read_all(path, **arguments):
    with open_video(path, **arguments) as video:
        return list(video), video


def test_frames_arrive_in_order_as_contiguous_rgb(tmp_path):
    frames, video = read_all(write_clip(tmp_path / "a.mp4", [picture(i) for i in range(12)]))
    assert [f.index for f in frames] == list(range(12))
    assert [counted(f.image) for f in frames] == list(range(12))
    assert (video.width, video.height, video.frame_count) == (64, 48, 12)
    assert video.frame_rate == pytest.approx(25)
    assert video.problem is None and not video.has_audio
    image = frames[0].image
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.abs(image[6, 6].astype(int) - (200, 30, 30)).max() < 12


def test_rows_are_packed_when_the_decoder_pads_them(tmp_path):
    # 3 * 94 bytes a row are no multiple of the decoder's alignment
    frames, _ = read_all(write_clip(tmp_path / "a.mp4", [picture(0, 94, 50)] * 2))
    assert frames[0].image.shape == (50, 94, 3)
    assert frames[0].image.strides == (94 * 3, 3, 1)


def test_variable_frame_rate_timestamps(tmp_path):
    stamps = [0.0, 0.04, 0.2, 0.21, 0.5, 1.7]
    frames, _ = read_all(write_clip(tmp_path / "a.mkv", [picture(i) for i in range(6)], stamps, codec="libx264"))
    assert [f.timestamp for f in frames] == pytest.approx(stamps, abs=1.1e-3)  # matroska's clock ticks in ms


def test_timestamps_begin_at_zero_and_rise(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(4)], [5.0, 5.1, 5.2, 5.4], codec="libx264")
    frames, _ = read_all(path)
    assert [f.timestamp for f in frames] == pytest.approx([0, 0.1, 0.2, 0.4], abs=1e-4)


@pytest.mark.parametrize("name", DISPLAY_MATRICES)
def test_display_matrix_is_applied(tmp_path, name):
    path = write_clip(tmp_path / "a.mp4", [picture(3)])
    set_display_matrix(path, DISPLAY_MATRICES[name])
    frames, video = read_all(path)
    stored = picture(3)
    upright = {
        "90 clockwise": np.rot90(stored, -1),
        "180": np.rot90(stored, 2),
        "90 counter-clockwise": np.rot90(stored),
        "mirrored": stored[:, ::-1],
    }[name]
    assert (video.height, video.width) == upright.shape[:2]
    assert np.abs(frames[0].image.astype(int) - upright).mean() < 6


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96))])
def test_pixels_are_made_square_without_losing_detail(tmp_path, aspect, size):
    path = write_clip(tmp_path / "a.mp4", [picture(0)], codec="libx264", sample_aspect=aspect)
    frames, video = read_all(path)
    assert (video.width, video.height) == size
    assert frames[0].image.shape == (size[1], size[0], 3)
    assert np.abs(frames[0].image[6, 6].astype(int) - (200, 30, 30)).max() < 12


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix"),
    [("libx264", "yuv420p10le", "mp4"), ("ffv1", "gray", "mkv"), ("ffv1", "gray10le", "mkv"), ("gif", "rgb8", "gif"),
     ("libvpx-vp9", "yuv444p", "webm")],
)  # fmt: skip
def test_other_pixel_formats_become_8_bit_rgb(tmp_path, codec, pixel_format, suffix):
    path = write_clip(tmp_path / f"a.{suffix}", [picture(i) for i in range(3)], codec=codec, pixel_format=pixel_format)
    frames, _ = read_all(path)
    assert len(frames) == 3
    expected = picture(0)
    if "gray" in pixel_format:
        expected = np.repeat(np.dot(expected, (0.299, 0.587, 0.114))[..., None], 3, 2)
    for rows, columns in ((slice(4, 20), slice(4, 28)), (slice(4, 20), slice(36, 60)), (slice(28, 44), slice(4, 28))):
        # colour of each quarter; a GIF's few colours are dithered
        means = [image[rows, columns].reshape(-1, 3).mean(0) for image in (frames[0].image, expected)]
        assert np.abs(means[0] - means[1]).max() < 14


def test_alpha_is_laid_over_black(tmp_path):
    rgba = np.dstack([np.full((16, 16, 3), 200, np.uint8), np.full((16, 16), 128, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    in_file, _ = read_all(tmp_path / "a.png")
    in_folder, _ = read_all(tmp_path)
    assert np.all(in_file[0].image == 100) and np.all(in_folder[0].image == 100)


def test_unnamed_matrix_of_hd_video_is_bt709(tmp_path):
    # BT.709's green, read as BT.601, would come out a good deal yellower
    green = np.tile(np.array((30, 200, 30), np.uint8), (720, 64, 1))
    from av.video.reformatter import Colorspace

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 720, "yuv420p"
        frame = av.VideoFrame.from_ndarray(green, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.colorspace = 2
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    frames, _ = read_all(path)
    assert np.abs(frames[0].image[300, 30].astype(int) - (30, 200, 30)).max() < 8


def test_max_frames(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(10)])
    frames, video = read_all(path, max_frames=4)
    assert len(frames) == 4 and video.frame_count == 4 and video.problem is None
    with pytest.raises(UserError, match="at least 1"):
        open_video(path, max_frames=0)


def test_second_pass_gives_the_same_frames(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(5)])
    source = VideoSource(path)
    with source.open() as video:
        first = [f.image for f in video]
        with source.open() as again:
            assert all(np.array_equal(a, b.image) for a, b in zip(first, again, strict=True))


def test_leaving_early_stops_the_decoder(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(60)])
    with open_video(path) as video:
        next(iter(video))
    assert not any(t.name == "video-decode" for t in threading.enumerate())
    assert list(video) == []


def test_decoding_runs_ahead_but_not_far(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(40):
        Image.fromarray(picture(i)).save(folder / f"{i}.png")
    with open_video(folder) as video:
        next(video)
        time.sleep(0.3)
        assert video._ahead._queue.qsize() == READ_AHEAD


def test_truncated_file_gives_what_decodes_and_says_so(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 60, (240, 320, 3), np.uint8) + picture(i, 320, 240) // 2 for i in range(40)]
    whole = write_clip(tmp_path / "a.mp4", images, codec="libx264", options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames, video = read_all(cut)
    assert 5 < len(frames) < 35
    assert "40 frames" in video.problem
    _, complete = read_all(whole)
    assert complete.problem is None


@pytest.mark.parametrize(
    ("name", "frames", "said"),
    [
        ("stts-no-time", 12, "11 of 12 frames repeat"), ("stts-no-frames", 12, "11 of 12 frames repeat"), ("stts-largest-time", 12, "12 frames in 0.00012 s"),
        ("stts-huge-time", 1, "5 of its 12 frames"), ("stts-too-many-frames", 12, "holds 12 of its"),
    ],
)  # fmt: skip
def test_times_that_no_camera_has_are_told(tmp_path, name, frames, said):
    """A damaged table of times: frames are lost to it, or follow one another at once."""
    (tmp_path / "a.mp4").write_bytes(box_changed(*BOXES[name]))
    read, video = read_all(tmp_path / "a.mp4")
    assert len(read) == frames and said in video.problem


def test_some_repeated_times_are_no_damage(tmp_path):
    stamps = [0, 0.04, 0.0401, 0.08, 0.12, 0.1201, 0.16, 0.2]  # Matroska counts milliseconds
    frames, video = read_all(write_clip(tmp_path / "a.mkv", [picture(i) for i in range(8)], stamps, codec="mjpeg", pixel_format="yuvj420p"))
    assert len(frames) == 8 and len({round(f.timestamp, 2) for f in frames}) == 6 and video.problem is None


def test_damage_in_the_middle_is_passed_over(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(40)]
    path = write_clip(tmp_path / "a.mp4", images, codec="libx264", options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = rng.integers(0, 255, 20_000, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    frames, _ = read_all(path)
    assert len(frames) > 20
    assert all(b.timestamp > a.timestamp for a, b in zip(frames, frames[1:], strict=False))


def damaged_clip(folder, flipped: int = 20):
    """60 moving frames in H.264, a few bits of which are flipped."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (240, 320, 3), np.uint8) // 2
    images = [np.roll(texture, (2 * i, 3 * i), (0, 1)) + rng.integers(0, 40, texture.shape, np.uint8) for i in range(60)]
    path = write_clip(folder / "a.mp4", images, codec="libx264", options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    for at in rng.integers(len(data) // 10, len(data), flipped):
        data[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(data))
    return path


def test_every_pass_over_a_damaged_file_gives_the_same_frames_and_a_note(tmp_path):
    path = damaged_clip(tmp_path)
    passes = [read_all(path) for _ in range(8)]
    times = [[f.timestamp for f in frames] for frames, _ in passes]
    assert 30 < len(times[0]) < 60 and all(t == times[0] for t in times)
    pictures = [np.stack([f.image for f in frames]) for frames, _ in passes]
    assert all(np.array_equal(p, pictures[0]) for p in pictures)
    lost = 60 - len(times[0])
    assert {video.problem for _, video in passes} == {f"the file is damaged: {lost} of its frames do not decode"}
    frames, stopped = read_all(path, max_frames=len(times[0]) - 5)
    assert [f.timestamp for f in frames] == times[0][:-5] and "damaged" in stopped.problem


def test_frames_are_found_again_by_their_times(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [picture(i) for i in range(10)])
    times = np.array([f.timestamp for f in read_all(path)[0]])
    for wanted in (np.arange(10), np.array([1, 2, 5, 9]), np.array([0])):
        with open_video(path) as video:
            assert [f.index for f in at_times(video, times[wanted])] == wanted.tolist()
    for missing in ([0.0, 0.02], [0.0, 99.0]):
        with open_video(path) as video, pytest.raises(UserError, match="changed during the run"):
            list(at_times(video, np.array(missing)))


def test_folder_in_natural_order(tmp_path):
    for i in (0, 1, 2, 10, 11):
        Image.fromarray(picture(i)).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    frames, video = read_all(tmp_path, frame_rate=10)
    assert [counted(f.image) for f in frames] == [0, 1, 2, 10, 11]
    assert [f.timestamp for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert video.frame_count == 5 and not video.has_audio
    assert sorted(["f10", "f9", "F1"], key=natural_key) == ["F1", "f9", "f10"]


def test_exif_orientation_and_16_bit_grey_in_a_folder(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side, to be turned clockwise
    Image.fromarray(picture(0)).save(tmp_path / "a.png", exif=exif)
    frames, _ = read_all(tmp_path)
    assert np.array_equal(frames[0].image, np.rot90(picture(0), -1))
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(deep / "a.png")
    assert np.all(read_all(deep)[0][0].image == 128)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 5])
def test_a_photo_from_a_phone_is_one_upright_frame(tmp_path, suffix, orientation):
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A phone"
    upright = Image.fromarray(picture(3, 96, 64))
    stored = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 5: Image.Transpose.TRANSPOSE}[orientation]
    (upright if stored is None else upright.transpose(stored)).save(path, exif=exif, **({"quality": 95} if suffix != "tiff" else {}))
    frames, video = read_all(path)
    assert (len(frames), video.frame_count, video.width, video.height, video.problem) == (1, 1, 96, 64, None)
    assert np.abs(frames[0].image[8:24, 8:40].astype(int) - (200, 30, 30)).max() < 12
    assert np.abs(frames[0].image[40:56, 8:40].astype(int) - (30, 30, 200)).max() < 12


def test_moving_pictures_stay_videos(tmp_path):
    pictures = [Image.fromarray(picture(i)) for i in range(3)]
    for name in ("a.gif", "a.png"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=100)
        assert len(read_all(tmp_path / name)[0]) == 3


def test_notes_that_pyav_has_no_name_for_do_no_harm(tmp_path):
    """As in MJPEG films whose frames carry EXIF."""

    class Named:
        def __init__(self, rotation):
            self.rotation = rotation

        @property
        def side_data(self):
            raise ValueError("31 is not a valid Type")

    for turn in ("90 clockwise", "180", "90 counter-clockwise"):
        path = write_clip(tmp_path / "turned.mp4", [picture(0)])
        set_display_matrix(path, DISPLAY_MATRICES[turn])
        with av.open(str(path)) as film:
            frame = next(film.decode(video=0))
            assert orientation(Named(frame.rotation)) == orientation(frame), turn
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    raw = io.BytesIO()
    Image.fromarray(picture(3)).save(raw, "jpeg", exif=exif, quality=95)
    film = tmp_path / "a.mjpeg"
    film.write_bytes(raw.getvalue() * 4)
    frames, _ = read_all(film)
    assert len(frames) >= 3 and np.abs(frames[0].image[8, 8].astype(int) - (200, 30, 30)).max() < 12


def _no_file(folder):
    return folder / "none.mp4", "no such file"


def _text(folder):
    (folder / "a.mp4").write_text("hello\n" * 100)
    return folder / "a.mp4", "not a video"


def _text_file(folder):
    (folder / "a.txt").write_text("hello\n" * 100)
    return folder / "a.txt", "not a video"


def _playlist(folder):
    (folder / "a.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.ts\n#EXT-X-ENDLIST\n")
    return folder / "a.m3u8", "not a video"


def _empty(folder):
    (folder / "a.mp4").touch()
    return folder / "a.mp4", "0 bytes"


def _sound_only(folder):
    return write_clip(folder / "a.m4a", [], tone="aac", tone_seconds=0.5, container="mp4"), "only sound"


def _no_index(folder):
    path = write_clip(folder / "a.mp4", [picture(i) for i in range(5)])
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 8])
    return path, "cut off"


def _no_images(folder):
    (folder / "x").mkdir()
    return folder / "x", "no images"


def _mixed_sizes(folder):
    Image.fromarray(picture(0)).save(folder / "0.png")
    Image.fromarray(picture(0, 32, 32)).save(folder / "1.png")
    return folder, "32x32"


def _broken_image(folder):
    Image.fromarray(picture(0)).save(folder / "0.png")
    (folder / "1.png").write_bytes(b"\x89PNG no")
    return folder, "1.png"


@pytest.mark.parametrize(
    "make",
    [_no_file, _text, _text_file, _playlist, _empty, _sound_only, _no_index, _no_images, _mixed_sizes, _broken_image],
)
def test_bad_input_is_one_clear_line(tmp_path, make):
    path, what = make(tmp_path)
    with pytest.raises(UserError, match=what) as caught:
        read_all(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert not any(t.name == "video-decode" for t in threading.enumerate())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file")
def test_unreadable_file(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [picture(0)])
    path.chmod(0)
    with pytest.raises(UserError, match="permission"):
        open_video(path)


def test_memory_does_not_grow_with_length(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [picture(i, 320, 240) for i in range(300)])
    frame_bytes = 320 * 240 * 3
    tracemalloc.start()
    try:
        with open_video(path) as video:
            count = sum(1 for _ in video)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 300
    assert peak < (READ_AHEAD + 6) * frame_bytes, f"{peak / frame_bytes:.1f} frames were held"
